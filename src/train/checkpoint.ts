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
import type { RunFolder } from './run-folder.js'

const triple = z.array(z.number())

const encoderSchema = z.strictObject({
  model: z.enum(Object.keys(visionTransformers) as [VisionTransformerName, ...VisionTransformerName[]]),
  imageSize: z.tuple([z.int(), z.int()]),
  patchSize: z.int(),
  channels: z.int(),
  /** What the encoder's images are normalised with. */
  mean: triple,
  std: triple
})

/** What is needed besides the weights to use an encoder. Written into every file of weights. */
export type EncoderDescription = z.infer<typeof encoderSchema>

/** Where a run stands. */
export interface Progress {
  /** Steps done. */
  readonly step: number
  /** Epochs done. */
  readonly epoch: number
}

// One file per checkpoint: tensors by prefix, everything else as JSON in the header.
const MODEL = 'model.'
const OPTIMIZER = 'optimizer.'
const KEPT = 2

const withPrefix = (prefix: string, tensors: StateDict): StateDict =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]))

const withoutPrefix = (prefix: string, tensors: StateDict): StateDict =>
  Object.fromEntries(Object.entries(tensors).flatMap(([name, tensor]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), tensor]] : [])))

/** What a checkpoint holds besides the model. */
export interface TrainingState {
  readonly model: Module
  readonly optimizer: AdamW
  readonly scaler: GradScaler | null
}

/** Writes a checkpoint and then removes all but the newest two. An error leaves the earlier ones as they were. */
export async function saveCheckpoint(run: RunFolder, state: TrainingState, progress: Progress, encoder: EncoderDescription): Promise<string> {
  const { state: perParameter, param_groups } = state.optimizer.stateDict()
  const moments = Object.entries(perParameter).flatMap(([number, tensors]) =>
    Object.entries(tensors).map(([name, tensor]) => [`${number}.${name}`, tensor as Tensor] as const)
  )
  const path = run.checkpoint(progress.step)
  const tensors = { ...withPrefix(MODEL, state.model.stateDict()), ...withPrefix(OPTIMIZER, Object.fromEntries(moments)) }
  await saveSafetensors(path, tensors, {
    format: 'pt',
    progress: JSON.stringify(progress),
    encoder: JSON.stringify(encoder),
    param_groups: JSON.stringify(param_groups),
    scaler: JSON.stringify(state.scaler?.stateDict() ?? null)
  })
  for (const old of (await run.listCheckpoints()).slice(0, -KEPT)) await rm(old)
  return path
}

function describedEncoder(path: string, metadata: Readonly<Record<string, string>>): EncoderDescription {
  const parsed = encoderSchema.safeParse(metadata['encoder'] && JSON.parse(metadata['encoder']))
  if (parsed.success) return parsed.data
  throw new InputError(`'${path}' was not written by gmml: its header does not describe an encoder`)
}

/** Takes up where a checkpoint stands. @throws InputError if it does not fit the model. */
export async function loadCheckpoint(path: string, state: TrainingState): Promise<Progress> {
  const { tensors, metadata } = await loadSafetensors(path)
  try {
    if (!metadata['progress']) throw new InputError(`'${path}' is no checkpoint of a run: it does not say where the run stands`)
    state.model.loadStateDict(withoutPrefix(MODEL, tensors))
    const perParameter: Record<number, Record<string, Tensor>> = {}
    for (const [name, tensor] of Object.entries(withoutPrefix(OPTIMIZER, tensors))) {
      const [number, field] = name.split('.') as [string, string]
      ;(perParameter[Number(number)] ??= {})[field] = tensor
    }
    const param_groups = JSON.parse(metadata['param_groups']!) as OptimizerStateDict['param_groups']
    state.optimizer.loadStateDict({ state: perParameter as unknown as OptimizerStateDict['state'], param_groups })
    const scaler = JSON.parse(metadata['scaler']!) as Parameters<GradScaler['loadStateDict']>[0] | null
    if (scaler) state.scaler?.loadStateDict(scaler)
    return JSON.parse(metadata['progress']) as Progress
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

/** Writes the encoder alone, under timm's names. */
export async function exportEncoder(run: RunFolder, backbone: VisionTransformer, encoder: EncoderDescription): Promise<string> {
  const path = join(run.exported, 'backbone.safetensors')
  await saveSafetensors(path, backbone.stateDict(), { format: 'pt', encoder: JSON.stringify(encoder) })
  return path
}

/** Builds the encoder that a description names, at random initialisation. */
export function buildEncoder(description: EncoderDescription, options: { readonly dropPath?: number } = {}): VisionTransformer {
  const { model, imageSize, patchSize, channels } = description
  return new VisionTransformer({ ...visionTransformers[model], imageSize, patchSize, channels, ...options })
}

async function withWeights<T>(path: string, use: (tensors: StateDict, encoder: EncoderDescription) => T): Promise<T> {
  const { tensors, metadata } = await loadSafetensors(path)
  try {
    return use(tensors, describedEncoder(path, metadata))
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

/** The whole model of a checkpoint, with its reconstruction head. */
export async function loadModel(path: string): Promise<{ encoder: EncoderDescription; model: GroupMaskedModel }> {
  return withWeights(path, (tensors, encoder) => {
    const model = scope(() => new GroupMaskedModel(buildEncoder(encoder)))
    model.loadStateDict(withoutPrefix(MODEL, tensors))
    return { encoder, model }
  })
}

/** An encoder with its trained weights, from a checkpoint or an exported file. */
export async function loadEncoder(path: string): Promise<{ encoder: EncoderDescription; backbone: VisionTransformer }> {
  return withWeights(path, (tensors, encoder) => {
    const backbone = scope(() => buildEncoder(encoder))
    const fromCheckpoint = withoutPrefix(`${MODEL}backbone.`, tensors)
    backbone.loadStateDict(Object.keys(fromCheckpoint).length ? fromCheckpoint : tensors)
    return { encoder, backbone }
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
