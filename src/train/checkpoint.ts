import { existsSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

import { InputError } from '../errors.js'
import { GroupMaskedModel } from '../gmml/index.js'
import { inspectSafetensors, loadSafetensors, saveSafetensors } from '../io/index.js'
import type { Module, StateDict } from '../nn/index.js'
import type { AdamW, ExponentialMovingAverage, GradScaler, AdamWStateDict } from '../optim/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'
import { VisionTransformer, visionTransformers, type VisionTransformerName } from '../vision/index.js'
import { checksumOf } from './checksum.js'
import { superfluous, type Kept, type RetentionRule } from './retention.js'
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
  /** Names of the classes that the encoder's classifier tells apart. Left out where it has none. */
  classes: z.array(z.string()).min(1).optional(),
  /** What the classifier sees. */
  pool: z.enum(['avg', 'token']).optional(),
  /** What the encoder's images are normalised with. */
  mean: perChannel,
  std: perChannel
})

/** What is needed besides the weights to use an encoder. Written into every file of weights. */
export type EncoderDescription = z.infer<typeof encoderSchema>

const progressSchema = z.object({
  /** Steps done. */
  step: z.int().min(0),
  /** Epochs done. */
  epoch: z.int().min(0),
  /** Losses of the steps done in the epoch, of the last one at its end. */
  losses: z.object({ sum: z.number(), count: z.int() }),
  /** Steps that changed nothing, because the loss or a gradient was not finite: all of them, and those in a row up to here. */
  skipped: z.object({ total: z.int(), inRow: z.int() }),
  /** Whether the last step is an epoch's last. */
  epochEnd: z.boolean(),
  /** On held-out images, where it was measured after that step: by kNN in pretraining. */
  accuracy: z.number().nullable()
})

/** Where a run stands. */
export type Progress = Readonly<z.infer<typeof progressSchema>>

/** A checkpoint that cannot be read, or is not what was written. */
export class DamagedCheckpointError extends InputError {}

// One file per checkpoint: tensors by prefix, everything else as JSON in the header.
export const MODEL = 'model.'
const OPTIMIZER = 'optimizer.'
export const EMA = 'ema.'

/** Where a header says which blocks the reconstruction sees; files of before it did have the usual ones. */
export const RECONSTRUCTION_BLOCKS = 'reconstructionBlocks'

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
  readonly ema: ExponentialMovingAverage | null
}

/** The running means under their parameters' names. */
function meansOf({ model, ema }: TrainingState): StateDict {
  const names = Array.from(model.namedParameters(), ([name]) => name)
  return Object.fromEntries((ema?.means ?? []).map((mean, i) => [names[i]!, mean]))
}

/**
 * Writes a checkpoint under the name of its step.
 *
 * @param described - What else the header is to say of the model, as JSON by name.
 * @returns Its path.
 * @throws InputError if the disk does not take it.
 */
export async function saveCheckpoint(
  run: RunFolder, state: TrainingState, progress: Progress, encoder: EncoderDescription, described: Readonly<Record<string, string>> = {}
): Promise<string> {
  const { state: perParameter, param_groups } = state.optimizer.stateDict()
  const moments = [...perParameter].flatMap(([number, tensors]) =>
    Object.entries(tensors).map(([name, tensor]) => [`${number}.${name}`, tensor as Tensor] as const)
  )
  const path = run.checkpoint(progress.step)
  const tensors = {
    ...withPrefix(MODEL, state.model.stateDict()), ...withPrefix(OPTIMIZER, Object.fromEntries(moments)), ...withPrefix(EMA, meansOf(state))
  }
  const metadata = {
    format: 'pt',
    ...described,
    progress: JSON.stringify(progress),
    encoder: JSON.stringify(encoder),
    param_groups: JSON.stringify(param_groups),
    scaler: JSON.stringify(state.scaler?.stateDict() ?? null)
  }
  const sha256 = await checksumOf(tensors, metadata)
  await writing(`the checkpoint '${path}'`, () => saveSafetensors(path, tensors, { ...metadata, sha256 }))
  return path
}

/** The checkpoints of a run in the order of their steps. One whose header cannot be read counts as none. */
export async function keptCheckpoints(run: RunFolder): Promise<(Kept & { readonly path: string })[]> {
  const known: (Kept & { readonly path: string })[] = []
  for (const path of await run.listCheckpoints()) {
    const header = await inspectSafetensors(path).catch(() => null)
    const parsed = progressSchema.safeParse(parseJson(header?.metadata['progress']))
    if (!parsed.success) continue
    const { step, epoch, losses, epochEnd, accuracy } = parsed.data
    known.push({ path, step, accuracy, epochEnd: epochEnd ? epoch : null, loss: losses.count ? losses.sum / losses.count : null })
  }
  return known
}

/** Removes the checkpoints that the rule does not keep. */
export async function removeSuperfluous(run: RunFolder, rule: RetentionRule): Promise<void> {
  for (const { path } of superfluous(await keptCheckpoints(run), rule)) await rm(path, { force: true })
}

// Undefined for what is missing or no JSON: the file may be anyone's.
function parseJson(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}

/** An encoder's description as it was written; null if it is none. */
export const encoderFrom = (described: unknown): EncoderDescription | null => encoderSchema.safeParse(described).data ?? null

/** What a header says of an encoder; null if it is not one of ours. */
export const encoderIn = (metadata: Readonly<Record<string, string>>): EncoderDescription | null =>
  encoderFrom(parseJson(metadata['encoder']))

function describedEncoder(path: string, metadata: Readonly<Record<string, string>>): EncoderDescription {
  const encoder = encoderIn(metadata)
  if (encoder) return encoder
  throw new InputError(`'${path}' was not written by gmml: its header does not describe an encoder`)
}

/**
 * Compares the content of a file of ours with the checksum that was written with it; others have none.
 *
 * @throws DamagedCheckpointError if they do not fit.
 */
export async function requireWhole(path: string, tensors: StateDict, { sha256, ...described }: Readonly<Record<string, string>>): Promise<void> {
  if (sha256 === undefined || !encoderIn(described) || sha256 === (await checksumOf(tensors, described))) return
  throw new DamagedCheckpointError(`'${path}' is damaged: its content does not fit its checksum`)
}

// What a checkpoint holds, if it is whole.
async function readCheckpoint(path: string) {
  const damaged = (reason: string, cause?: unknown) => new DamagedCheckpointError(`'${path}' is damaged: ${reason}`, { cause })
  const { tensors, metadata } = await loadSafetensors(path).catch((error: unknown) => {
    throw damaged((error as Error).message, error)
  })
  try {
    const { sha256, ...described } = metadata
    if (sha256 === undefined) throw new InputError(`'${path}' is no checkpoint of a run: it has no checksum`)
    if (sha256 !== (await checksumOf(tensors, described))) throw damaged('its content does not fit its checksum')
    const progress = progressSchema.safeParse(parseJson(metadata['progress']))
    const groups = parseJson(metadata['param_groups'])
    if (!progress.success || !groups) throw new InputError(`'${path}' is no checkpoint of a run: it does not say where the run stands`)
    const scaler = parseJson(metadata['scaler']) as Parameters<GradScaler['loadStateDict']>[0] | null | undefined
    return { tensors, progress: progress.data, param_groups: groups as AdamWStateDict['param_groups'], scaler }
  } catch (error) {
    for (const tensor of Object.values(tensors)) tensor.dispose()
    throw error
  }
}

/**
 * Takes up where a checkpoint stands.
 *
 * @throws DamagedCheckpointError if it cannot be read or does not fit its checksum.
 * @throws InputError if it does not fit the model.
 */
export async function loadCheckpoint(path: string, state: TrainingState): Promise<Progress> {
  const { tensors, progress, param_groups, scaler } = await readCheckpoint(path)
  try {
    state.model.loadStateDict(withoutPrefix(MODEL, tensors))
    const perParameter = new Map<number, Record<string, Tensor>>()
    for (const [name, tensor] of Object.entries(withoutPrefix(OPTIMIZER, tensors))) {
      const [number, field] = name.split('.') as [string, string]
      perParameter.set(Number(number), { ...perParameter.get(Number(number)), [field]: tensor })
    }
    state.optimizer.loadStateDict({ state: perParameter as unknown as AdamWStateDict['state'], param_groups })
    if (scaler) state.scaler?.loadStateDict(scaler)
    // Where the run had no means before, they begin at its weights.
    const [means, weights] = [withoutPrefix(EMA, tensors), withoutPrefix(MODEL, tensors)]
    noGrad(() => {
      for (const [name, mean] of Object.entries(meansOf(state))) mean.copy_(means[name] ?? weights[name]!)
    })
    return progress
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

/**
 * Takes up where the newest checkpoint stands that is whole. Damaged ones newer than that are renamed to `*.damaged`.
 *
 * @param onDamaged - Told of each damaged one.
 * @returns Null if there is no checkpoint.
 * @throws InputError if all are damaged, or if the one that is not does not fit the model.
 */
export async function loadNewestCheckpoint(
  run: RunFolder, state: TrainingState, onDamaged: (error: DamagedCheckpointError) => void = () => {}
): Promise<Progress | null> {
  const damaged: { path: string; error: DamagedCheckpointError }[] = []
  for (const path of (await run.listCheckpoints()).reverse()) {
    try {
      const progress = await loadCheckpoint(path, state)
      // Only now: with every one damaged, nothing is touched.
      for (const { path, error } of damaged) {
        await rename(path, `${path}.damaged`)
        onDamaged(error)
      }
      return progress
    } catch (error) {
      if (!(error instanceof DamagedCheckpointError)) throw error
      damaged.push({ path, error })
    }
  }
  if (damaged.length === 0) return null
  const list = damaged.map(({ error }) => `  ${error.message}`).join('\n')
  throw new InputError(`No checkpoint of '${run.path}' can be used. Remove them to begin anew:\n${list}`)
}

/** Where a run's exported weights are, once it is done. */
export const exportedFile = (run: RunFolder, name: 'backbone' | 'classifier') => join(run.exported, `${name}.safetensors`)

/** Writes the encoder alone, under timm's names. @returns The file's path. @throws InputError if the disk does not take it. */
export const exportEncoder = (run: RunFolder, backbone: VisionTransformer, encoder: EncoderDescription): Promise<string> =>
  exportWeights(exportedFile(run, 'backbone'), backbone, encoder)

/** The same for an encoder with its classifier. */
export const exportClassifier = (run: RunFolder, model: VisionTransformer, encoder: EncoderDescription): Promise<string> =>
  exportWeights(exportedFile(run, 'classifier'), model, encoder)

async function exportWeights(path: string, backbone: VisionTransformer, encoder: EncoderDescription): Promise<string> {
  const metadata = { format: 'pt', encoder: JSON.stringify(encoder) }
  await writing(`the encoder '${path}'`, () => saveSafetensors(path, backbone.stateDict(), metadata))
  return path
}

/** Builds the encoder that a description names, with a classifier if it names classes, at random initialisation. */
export function buildEncoder(description: EncoderDescription, options: { readonly dropPath?: number } = {}): VisionTransformer {
  const { model, imageSize, patchSize, channels, registerTokens = 0, classToken = true, classes, pool } = description
  // The reconstruction sees the tokens themselves, so the norm stays before pooling, where it is trained.
  const tokens = { registerTokens, classToken, fcNorm: false, ...(pool && { pool }), numClasses: classes?.length ?? 0 }
  return new VisionTransformer({ ...visionTransformers[model], imageSize, patchSize, channels, ...tokens, ...options })
}

async function withWeights<T>(
  path: string, use: (tensors: StateDict, encoder: EncoderDescription, metadata: Readonly<Record<string, string>>) => T
): Promise<T> {
  // Mapped: the optimizer's state is needed for the checksum alone.
  const { tensors, metadata } = await loadSafetensors(path, { map: true })
  try {
    await requireWhole(path, tensors, metadata)
    return use(tensors, describedEncoder(path, metadata), metadata)
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
  return withWeights(path, (tensors, encoder, metadata) => {
    const weights = withoutPrefix(MODEL, tensors)
    if (Object.keys(weights).length === 0) throw new InputError(`'${path}' is no checkpoint: it holds the encoder alone`)
    const blocks = parseJson(metadata[RECONSTRUCTION_BLOCKS]) as number[] | undefined
    return { encoder, model: filled(scope(() => new GroupMaskedModel(buildEncoder(encoder), { ...(blocks && { blocks }) })), weights) }
  })
}

/**
 * An encoder with its trained weights, and its classifier if it has one, from a checkpoint (their running mean, if the run has one) or an
 * exported file.
 *
 * @throws InputError for any other file.
 */
export async function loadEncoder(path: string): Promise<{ encoder: EncoderDescription; backbone: VisionTransformer }> {
  return withWeights(path, (tensors, encoder) => {
    // Of a finetuned model the encoder is the whole.
    const prefixes = [`${EMA}backbone.`, `${MODEL}backbone.`, EMA, MODEL]
    const candidates = prefixes.map((prefix) => withoutPrefix(prefix, tensors))
    const weights = candidates.find((state) => Object.keys(state).length > 0) ?? tensors
    return { encoder, backbone: filled(scope(() => buildEncoder(encoder)), weights) }
  })
}

/** The newest weights of a run: the exported encoder if it is done, else the last checkpoint. @throws InputError if there are none. */
export async function newestWeights(run: RunFolder): Promise<string> {
  const exported = (['classifier', 'backbone'] as const).map((name) => exportedFile(run, name)).find((path) => existsSync(path))
  if (exported) return exported
  const checkpoint = (await run.listCheckpoints()).at(-1)
  if (checkpoint) return checkpoint
  throw new InputError(`'${run.path}' has no weights: neither an exported file nor a checkpoint`)
}
