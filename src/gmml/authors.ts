import { InputError } from '../errors.js'
import { ForeignObject, loadTorch } from '../io/index.js'
import type { StateDict } from '../nn/index.js'
import { isTensor } from '../torch/index.js'

// The model's place in the file, and what DistributedDataParallel puts before each name.
const MODEL = 'SiT_model'
const PREFIX = 'module.'

/** A checkpoint of the method's authors. */
export interface AuthorsCheckpoint {
  /** Weights under the names of `GroupMaskedModel`: `backbone.*` as in timm, `head_recons.*`. */
  readonly weights: StateDict
  /** Epochs done, where the file says. */
  readonly epoch: number | null
  /** The options of their training script, by name. */
  readonly settings: Readonly<Record<string, unknown>>
}

/** Whether something read from a file is laid out as the authors' checkpoints are. */
export function isAuthorsCheckpoint(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.hasOwn(value, MODEL)
}

/**
 * The weights of the authors' checkpoint under our names. They are the same names, but for a prefix.
 *
 * @param checkpoint - What `loadTorch` gives of their file.
 * @throws InputError if it is none.
 */
export function authorsWeights(checkpoint: unknown): StateDict {
  const state = isAuthorsCheckpoint(checkpoint) ? checkpoint[MODEL] : undefined
  const entries = Object.entries((state ?? {}) as Record<string, unknown>)
  const stranger = entries.find(([, value]) => !isTensor(value))
  if (entries.length === 0 || stranger) {
    const reason = stranger ? `'${stranger[0]}' in it is no tensor` : 'there are no weights in it'
    throw new InputError(`Expected a checkpoint of the authors, with the weights in '${MODEL}'; ${reason}`)
  }
  const plain = (name: string) => (name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name)
  return Object.fromEntries(entries.map(([name, value]) => [plain(name), value])) as StateDict
}

/**
 * Reads a checkpoint of the method's authors (`.pth` of their pretraining). The weights go into a `GroupMaskedModel` of the same
 * architecture by `loadStateDict`, which names the first ten that do not fit.
 *
 * @throws InputError naming the file and what is wrong with it.
 */
export async function loadAuthorsCheckpoint(path: string): Promise<AuthorsCheckpoint> {
  const checkpoint = await loadTorch<Record<string, unknown>>(path)
  try {
    const weights = authorsWeights(checkpoint)
    const { epoch, args } = checkpoint
    const settings = args instanceof ForeignObject ? args.state : args
    return {
      weights,
      epoch: typeof epoch === 'number' ? epoch : null,
      settings: (typeof settings === 'object' && settings !== null ? settings : {}) as Record<string, unknown>
    }
  } catch (error) {
    throw error instanceof InputError ? new InputError(`'${path}': ${error.message}`) : error
  }
}
