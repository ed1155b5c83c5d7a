import { expected } from '../errors.js'
import * as native from '../native/numerics.js'

// Sets those of some switches that are given, and gives the state of all.
function switches<Key extends string>(
  names: Readonly<Record<Key, native.NumericSwitch>>, options: Readonly<Partial<Record<Key, boolean>>>, what: string
): Record<Key, boolean> {
  if (typeof options !== 'object' || options === null) throw expected('an object', `the options of ${what}()`, options)
  const keys = Object.keys(names) as Key[]
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(names, name)) throw expected(keys.join(', '), `the options of ${what}()`, name)
    if (value !== undefined && typeof value !== 'boolean') throw expected('a boolean', name, value)
  }
  for (const key of keys) {
    const value = options[key]
    if (value !== undefined) native.setNumeric(names[key], value)
  }
  const state = native.numerics()
  return Object.fromEntries(keys.map((key) => [key, state[names[key]]])) as Record<Key, boolean>
}

/** Where TensorFloat32 (10 bits of mantissa) may be used for float32. */
export interface TF32Switches {
  /** Matrix products; as `setFloat32MatmulPrecision('high')`. PyTorch: `torch.backends.cuda.matmul.allow_tf32`. */
  readonly matmul: boolean
  /** Convolutions. PyTorch: `torch.backends.cudnn.allow_tf32`. */
  readonly cudnn: boolean
}

/** Sets those switches that are given, for the whole process; returns all. Without a GPU they change nothing. */
export const allowTF32 = (options: Partial<TF32Switches> = {}): TF32Switches =>
  switches({ matmul: 'matmulTF32', cudnn: 'cudnnTF32' }, options, 'allowTF32')

/** Which kernels `scaledDotProductAttention` may choose from on a GPU. */
export interface SdpBackends {
  readonly flash: boolean
  readonly efficient: boolean
  readonly math: boolean
  readonly cudnn: boolean
}

/**
 * Sets those switches that are given, for the whole process; returns all. Without a GPU they change nothing. PyTorch:
 * `torch.backends.cuda.enable_flash_sdp` and the like.
 */
export const sdpBackends = (options: Partial<SdpBackends> = {}): SdpBackends =>
  switches({ flash: 'flash', efficient: 'efficient', math: 'math', cudnn: 'cudnn' }, options, 'sdpBackends')

/** Whether cuDNN tries its kernels for each new shape of a convolution and keeps the fastest. PyTorch: `torch.backends.cudnn.benchmark`. */
export function setCudnnBenchmark(enabled: boolean): void {
  if (typeof enabled !== 'boolean') throw expected('a boolean', 'enabled', enabled)
  native.setNumeric('cudnnBenchmark', enabled)
}

/** What {@link setCudnnBenchmark} set. */
export const cudnnBenchmark = (): boolean => native.numerics().cudnnBenchmark
