import { expected, InputError, SettingsError } from '../errors.js'
import type { Module } from '../nn/index.js'
import { cuda, TorchError, type CudaDevice, type Device, type Tensor } from '../torch/index.js'
import { requireCudaDevice } from '../torch/types.js'
import { encoderFrom, type EncoderDescription } from './checkpoint.js'
import { choosePrecision, precisions, type Precision } from './precision.js'
import { RunFolder } from './run-folder.js'

/** What config.json of a run holds. */
export type Saved = Readonly<Record<string, unknown>>

/**
 * Every setting of a training: those given and defaults, or, if they ask to go on with a run that is there, also those of the run.
 *
 * @returns Also what config.json of that run holds; null for a new one.
 * @throws SettingsError for settings that are not legal.
 */
export async function settleSettings<Input extends { readonly resume?: boolean | undefined; readonly out: string }, Config>(
  input: Input, parse: (input: Input) => Config, resume: (saved: Saved, input: Input) => Config
): Promise<{ readonly config: Config; readonly saved: Saved | null }> {
  const resumed = Boolean(input?.resume) && typeof input.out === 'string' && new RunFolder(input.out).exists
  if (!resumed) return { config: parse(input), saved: null }
  const saved = await new RunFolder(input.out).readConfig()
  return { config: resume(saved, input), saved }
}

/** @throws InputError if a run is there that is not to be gone on with. */
export function requireNew(folder: RunFolder, resume: boolean): void {
  if (!folder.exists || resume) return
  throw new InputError(`'${folder.path}' already holds a run. Go on with it (resume), or choose another folder`)
}

/** The device to compute on. @throws InputError for a GPU that libtorch does not see. */
export function settleDevice(device: Device | 'auto'): Device {
  if (device === 'auto') return cuda.isAvailable() ? 'cuda' : 'cpu'
  if (!device.startsWith('cuda')) return device
  const count = cuda.deviceCount()
  if (count === 0) throw expected(`'cpu', as libtorch sees no CUDA device here (gmml inspect says more),`, 'device', device)
  if (Number(device.split(':')[1] ?? 0) >= count) throw expected(`one of the ${count} CUDA devices that libtorch sees`, 'device', device)
  return device
}

/**
 * What the settings say; `auto` is measured once, and a run that goes on keeps what was found.
 *
 * @param prepare - As for {@link choosePrecision}.
 */
export function settlePrecision(
  amp: 'auto' | 'off' | 'bf16' | 'fp16', saved: Saved | null, model: Module, device: Device, prepare: () => () => Tensor
): Precision {
  if (amp !== 'auto') return ({ off: 'float32', bf16: 'bfloat16', fp16: 'float16' } as const)[amp]
  return precisions.find((precision) => precision === saved?.['precision']) ?? choosePrecision(model, device, prepare).precision
}

/**
 * Whether the steps of a training are to be captured as a CUDA graph.
 *
 * @param onNotice - Is told why they are not, where that is not plain.
 * @param makeGraph - Makes a graph, or throws a TorchError.
 * @throws InputError where they cannot be and must.
 */
export function settleGraph(
  { graph, gradCheckpointing }: { readonly graph: 'auto' | 'on' | 'off'; readonly gradCheckpointing: boolean }, device: Device,
  onNotice?: (message: string) => void, makeGraph: MakeGraph = (on) => new cuda.Graph(on)
): boolean {
  if (graph === 'off') return false
  if (!device.startsWith('cuda')) {
    if (graph === 'on') throw expected(`'auto' or 'off' on the device ${device}`, 'graph', graph)
    return false
  }
  // It saves and restores the generator's state on the host.
  if (gradCheckpointing && graph === 'on') throw expected(`'auto' or 'off' beside gradCheckpointing`, 'graph', graph)
  if (gradCheckpointing) onNotice?.('Steps are not replayed as a CUDA graph: gradCheckpointing computes parts again by a saved random state')
  return !gradCheckpointing && (graph === 'on' || canMake(makeGraph, requireCudaDevice(device), onNotice))
}

type MakeGraph = (device: CudaDevice) => { dispose(): void }

/** Whether graphs can be made: an addon that was built without CUDA's headers has none. */
function canMake(makeGraph: MakeGraph, device: CudaDevice, onNotice?: (message: string) => void): boolean {
  try {
    makeGraph(device).dispose()
    return true
  } catch (error) {
    if (!(error instanceof TorchError)) throw error
    onNotice?.(`Steps are not replayed as a CUDA graph, which is slower: ${error.message}`)
    return false
  }
}

/** The encoder that config.json of a run describes. @throws InputError if it does not. */
export function describedIn(saved: Saved): EncoderDescription {
  const encoder = encoderFrom(saved['encoder'])
  if (encoder) return encoder
  throw new InputError('The run\'s config.json does not describe its encoder')
}

/** What config.json keeps of the images that a run learns from. */
export interface FoundImages {
  readonly imageCount: number
  /** {@link fingerprintOf} them. */
  readonly imagesSha256: string
}

/**
 * A run can go on with the images that it began with: each step's place in an epoch stands and falls with them.
 *
 * @param name - Of the images, for messages.
 * @throws InputError for another number of images, and another encoder, which images of another size or with other statistics make;
 *   SettingsError for other images of the same number, unless `override` allows them.
 */
export function requireSame(
  saved: Saved, now: FoundImages & { readonly encoder: EncoderDescription }, name: string, override: boolean
): void {
  const { imageCount, imagesSha256, encoder } = saved
  if (imageCount !== undefined && imageCount !== now.imageCount) {
    throw expected(`the ${JSON.stringify(imageCount)} images that the run began with`, name, now.imageCount)
  }
  const text = (described: unknown) => JSON.stringify(encoderFrom(described))
  if (encoder !== undefined && text(encoder) !== text(now.encoder)) {
    throw expected('the images that the run began with', name, 'images of another size or with other statistics')
  }
  // Runs of earlier versions have none.
  if (imagesSha256 === undefined || imagesSha256 === now.imagesSha256 || override) return
  throw new SettingsError(
    `The run cannot go on with other images: ${name} has files of other names, in another order or of other classes than those that it began ` +
      'with (of IDX and CIFAR files: other content). They would change the result: give it the same ones, start a new run, or say so with override'
  )
}
