import { existsSync, statSync } from 'node:fs'

import { expected, InputError } from '../errors.js'
import { authorsWeights, isAuthorsCheckpoint, type GroupMaskedModel } from '../gmml/index.js'
import { loadSafetensors, loadTorch } from '../io/index.js'
import type { StateDict } from '../nn/index.js'
import { isTensor, type Tensor } from '../torch/index.js'
import { loadTimm, type VisionTransformer } from '../vision/index.js'
import { EMA, encoderIn, MODEL, newestWeights, requireWhole, withoutPrefix, type EncoderDescription } from './checkpoint.js'
import { RunFolder } from './run-folder.js'

/** Weights that a run starts from. */
export interface InitialWeights {
  /** Of an encoder of this project, what the file says of it. */
  readonly encoder: EncoderDescription | null
  /** @throws InputError naming the file and the first ten names that do not fit. */
  copyInto(model: GroupMaskedModel): void
  /** The encoder's part alone, adapted to other sizes; a classifier stays as it is. @throws InputError as `copyInto`. */
  copyIntoEncoder(backbone: VisionTransformer): void
  dispose(): void
}

const BACKBONE = 'backbone.'
const HEAD = 'head_recons.'
// Where files of whole trainings keep the weights.
const PLACES = ['model', 'state_dict']

/** The file that `init` means: of a run the newest checkpoint, which has the head, before the exported encoder. */
async function fileOf(init: string, name: string): Promise<string> {
  if (!existsSync(init)) throw expected('a file of weights or the folder of a run', name, init)
  if (!statSync(init).isDirectory()) return init
  const run = new RunFolder(init)
  return (await run.listCheckpoints()).at(-1) ?? newestWeights(run)
}

/** Every tensor in something that was read from a file. */
function tensorsIn(value: unknown, seen = new Set<unknown>()): Tensor[] {
  if (isTensor(value)) return [value]
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || seen.has(value)) return []
  seen.add(value)
  const inside = value instanceof Map || value instanceof Set ? [...value.values()] : Object.values(value)
  return inside.flatMap((element) => tensorsIn(element, seen))
}

function weightsOf(path: string, content: unknown): StateDict {
  if (isAuthorsCheckpoint(content)) return authorsWeights(content)
  const place = PLACES.find((name) => {
    const inner = (content as Record<string, unknown> | null)?.[name]
    return typeof inner === 'object' && inner !== null && !isTensor(inner)
  })
  const state = place === undefined ? content : (content as Record<string, unknown>)[place]
  const entries = typeof state === 'object' && state !== null && !Array.isArray(state) ? Object.entries(state) : []
  const tensors = entries.filter((entry): entry is [string, Tensor] => isTensor(entry[1]))
  if (tensors.length) return Object.fromEntries(tensors)
  throw new InputError(`'${path}' holds no weights: expected tensors by name, or such in ${PLACES.join(', ')} or SiT_model`)
}

/**
 * Reads weights to start a run from: a checkpoint of the method's authors, a run, a checkpoint or an encoder of this project, timm's
 * weights of an encoder (at another image size, patch size or number of channels adapted by `loadTimm`); safetensors or a file of
 * `torch.save`.
 *
 * @param name - Of the setting, for messages.
 * @throws InputError if there is no such file or no weights in it.
 */
export async function readInitialWeights(init: string, name = 'init'): Promise<InitialWeights> {
  const path = await fileOf(init, name)
  const file = path.endsWith('.safetensors') ? await loadSafetensors(path) : null
  const content = file ? file.tensors : await loadTorch(path)
  const all = tensorsIn(content)
  const dispose = () => {
    for (const tensor of all) tensor.dispose()
  }
  try {
    if (file) await requireWhole(path, file.tensors, file.metadata)
    const found = weightsOf(path, content)
    const ours = withoutPrefix(MODEL, found)
    const means = withoutPrefix(EMA, found)
    const what = `${name} '${path}'`
    const weights = Object.keys(ours).length ? ours : found
    return {
      encoder: file ? encoderIn(file.metadata) : null,
      copyInto: (model) => fitting(what, () => copyInto(weights, model)),
      // The running mean, if there is one, as it is what is exported.
      copyIntoEncoder: (backbone) =>
        fitting(what, () => loadTimm(backbone, encoderPart({ ...weights, ...means }), { classifier: 'ignore' })),
      dispose
    }
  } catch (error) {
    dispose()
    throw error
  }
}

function fitting(what: string, copy: () => void): void {
  try {
    copy()
  } catch (error) {
    throw error instanceof InputError ? new InputError(`${what}: ${error.message}`, { cause: error }) : error
  }
}

function encoderPart(weights: StateDict): StateDict {
  const inside = withoutPrefix(BACKBONE, weights)
  return Object.keys(inside).length ? inside : weights
}

function copyInto(weights: StateDict, model: GroupMaskedModel): void {
  if (Object.keys(weights).some((name) => name.startsWith(HEAD))) return void model.loadStateDict(weights)
  // An encoder alone goes to other sizes; with its head, made for the very patches, it does not.
  loadTimm(model.backbone, encoderPart(weights), { classifier: 'ignore' })
}
