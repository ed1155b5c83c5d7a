import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

import { InputError } from '../errors.js'
import { GroupMaskedModel } from '../gmml/index.js'
import { loadSafetensors, saveSafetensors } from '../io/index.js'
import type { Module, StateDict } from '../nn/index.js'
import type { AdamW, GradScaler, OptimizerStateDict } from '../optim/index.js'
import { scope, type Tensor } from '../torch/index.js'
import { VisionTransformer, visionTransformers, type VisionTransformerName } from '../vision/index.js'
import { writing, type RunFolder } from './run-folder.js'

const perChannel = z.array(z.number())
const size = z.int().min(1)

const encoderSchema = z.strictObject({
  model: z.enum(Object.keys(visionTransformers) as [VisionTransformerName, ...VisionTransformerName[]]),
  imageSize: z.tuple([size, size]),
  patchSize: size,
  channels: size,
  /** Left out where there are none, as in files of before there were any. */
  registerTokens: size.optional(),
  /** Left out where there is one. */
  classToken: z.literal(false).optional(),
  /** What the encoder's images are normalised with. */
  mean: perChannel,
  std: perChannel
})

/** What is needed besides the weights to use an encoder. Written into every file of weights. */
export type EncoderDescription = z.infer<typeof encoderSchema>

/** Where a run stands. */
export interface Progress {
  /** Steps done. */
  readonly step: number
  /** Epochs done. */
  readonly epoch: number
  /** Losses of the steps done in the epoch, of the last one at its end. */
  readonly losses?: { readonly sum: number; readonly count: number }
}

// One file per checkpoint: tensors by prefix, everything else as JSON in the header.
export const MODEL = 'model.'
const OPTIMIZER = 'optimizer.'
const KEPT = 2

const withPrefix = (prefix: string, tensors: StateDict): StateDict =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]))

/** The tensors whose names begin with `prefix`, without it. */
export function withoutPrefix(prefix: string, tensors: StateDict): StateDict {
  const chosen = Object.entries(tensors).filter(([name]) => name.startsWith(prefix))
  return Object.fromEntries(chosen.map(([name, tensor]) => [name.slice(prefix.length), tensor]))
}

/** What a checkpoint holds besides the model. */
export interface TrainingState {
  readonly model: Module
  readonly optimizer: AdamW
  readonly scaler: GradScaler | null
}

/**
 * Writes a checkpoint and then removes all but the newest two. An error leaves the earlier ones as they were.
 *
 * @returns Its path.
 * @throws InputError if the disk does not take it.
 */
export async function saveCheckpoint(
  run: RunFolder, state: TrainingState, progress: Progress, encoder: EncoderDescription
): Promise<string> {
  const { state: perParameter, param_groups } = state.optimizer.stateDict()
  const moments = [...perParameter].flatMap(([number, tensors]) =>
    Object.entries(tensors).map(([name, tensor]) => [`${number}.${name}`, tensor as Tensor] as const)
  )
  const path = run.checkpoint(progress.step)
  const tensors = { ...withPrefix(MODEL, state.model.stateDict()), ...withPrefix(OPTIMIZER, Object.fromEntries(moments)) }
  const metadata = {
    format: 'pt',
    progress: JSON.stringify(progress),
    encoder: JSON.stringify(encoder),
    param_groups: JSON.stringify(param_groups),
    scaler: JSON.stringify(state.scaler?.stateDict() ?? null)
  }
  await writing(`the checkpoint '${path}'`, () => saveSafetensors(path, tensors, metadata))
  for (const old of (await run.listCheckpoints()).slice(0, -KEPT)) await rm(old, { force: true })
  return path
}

// Undefined for what is missing or no JSON: the file may be anyone's.
function parseJson(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}

function describedEncoder(path: string, metadata: Readonly<Record<string, string>>): EncoderDescription {
  const parsed = encoderSchema.safeParse(parseJson(metadata['encoder']))
  if (parsed.success) return parsed.data
  throw new InputError(`'${path}' was not written by gmml: its header does not describe an encoder`)
}

/** Takes up where a checkpoint stands. @throws InputError if it does not fit the model. */
export async function loadCheckpoint(path: string, state: TrainingState): Promise<Progress> {
  const { tensors, metadata } = await loadSafetensors(path)
  try {
    const [progress, groups] = [parseJson(metadata['progress']), parseJson(metadata['param_groups'])]
    if (!progress || !groups) throw new InputError(`'${path}' is no checkpoint of a run: it does not say where the run stands`)
    state.model.loadStateDict(withoutPrefix(MODEL, tensors))
    const perParameter = new Map<number, Record<string, Tensor>>()
    for (const [name, tensor] of Object.entries(withoutPrefix(OPTIMIZER, tensors))) {
      const [number, field] = name.split('.') as [string, string]
      perParameter.set(Number(number), { ...perParameter.get(Number(number)), [field]: tensor })
    }
    const param_groups = groups as OptimizerStateDict['param_groups']
    state.optimizer.loadStateDict({ state: perParameter as unknown as OptimizerStateDict['state'], param_groups })
    const scaler = parseJson(metadata['scaler']) as Parameters<GradScaler['loadStateDict']>[0] | null | undefined
    if (scaler) state.scaler?.loadStateDict(scaler)
    return progress as Progress
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

/** Writes the encoder alone, under timm's names. @returns The file's path. @throws InputError if the disk does not take it. */
export async function exportEncoder(run: RunFolder, backbone: VisionTransformer, encoder: EncoderDescription): Promise<string> {
  const path = join(run.exported, 'backbone.safetensors')
  const metadata = { format: 'pt', encoder: JSON.stringify(encoder) }
  await writing(`the encoder '${path}'`, () => saveSafetensors(path, backbone.stateDict(), metadata))
  return path
}

/** Builds the encoder that a description names, at random initialisation. */
export function buildEncoder(description: EncoderDescription, options: { readonly dropPath?: number } = {}): VisionTransformer {
  const { model, imageSize, patchSize, channels, registerTokens = 0, classToken = true } = description
  // The reconstruction sees the tokens themselves, so the norm stays before pooling, where it is trained.
  const tokens = { registerTokens, classToken, fcNorm: false }
  return new VisionTransformer({ ...visionTransformers[model], imageSize, patchSize, channels, ...tokens, ...options })
}

async function withWeights<T>(path: string, use: (tensors: StateDict, encoder: EncoderDescription) => T): Promise<T> {
  const { tensors, metadata } = await loadSafetensors(path)
  try {
    return use(tensors, describedEncoder(path, metadata))
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

// Loads weights into a new module, which is freed if they do not fit.
function filled<M extends Module>(module: M, weights: StateDict): M {
  try {
    module.loadStateDict(weights)
    return module
  } catch (error) {
    module.dispose()
    throw error
  }
}

/** The whole model of a checkpoint, with its reconstruction head. @throws InputError for any other file. */
export async function loadModel(path: string): Promise<{ encoder: EncoderDescription; model: GroupMaskedModel }> {
  return withWeights(path, (tensors, encoder) => {
    const weights = withoutPrefix(MODEL, tensors)
    if (Object.keys(weights).length === 0) throw new InputError(`'${path}' is no checkpoint: it holds the encoder alone`)
    return { encoder, model: filled(scope(() => new GroupMaskedModel(buildEncoder(encoder))), weights) }
  })
}

/** An encoder with its trained weights, from a checkpoint or an exported file. @throws InputError for any other file. */
export async function loadEncoder(path: string): Promise<{ encoder: EncoderDescription; backbone: VisionTransformer }> {
  return withWeights(path, (tensors, encoder) => {
    const fromCheckpoint = withoutPrefix(`${MODEL}backbone.`, tensors)
    const weights = Object.keys(fromCheckpoint).length ? fromCheckpoint : tensors
    return { encoder, backbone: filled(scope(() => buildEncoder(encoder)), weights) }
  })
}

/** The newest weights of a run: the exported encoder if it is done, else the last checkpoint. @throws InputError if there are none. */
export async function newestWeights(run: RunFolder): Promise<string> {
  const exported = join(run.exported, 'backbone.safetensors')
  if (existsSync(exported)) return exported
  const checkpoint = (await run.listCheckpoints()).at(-1)
  if (checkpoint) return checkpoint
  throw new InputError(`'${run.path}' has no weights: neither '${exported}' nor a checkpoint`)
}
