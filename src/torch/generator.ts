import { expected } from '../errors.js'
import { GeneratorHandle } from '../native/dispatch.js'
import * as native from '../native/generator.js'
import { requireSeed, requireState } from './random.js'
import { requireDevice, type Device } from './types.js'

// JavaScript's numbers are exact to 2^53; what lies beyond stays a bigint.
const short = (seed: bigint): number | bigint => (seed <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(seed) : seed)

/**
 * A source of random numbers with a state of its own, for the `generator` option of operators. Lives until it is disposed of or its object
 * is collected; scopes do not free it. Made by {@link generator}. PyTorch: `torch.Generator`.
 */
export class Generator extends GeneratorHandle {
  readonly device: Device

  /** @internal */
  constructor(device: Device) {
    super(native.makeGenerator(device))
    this.device = device
    native.freeWithOwner(this)
  }

  /** Starts the numbers of `seed`. Returns the generator. PyTorch: `Generator.manual_seed`. */
  manualSeed(seed: number | bigint): this {
    native.seed(this, requireSeed(seed))
    return this
  }

  /** Starts with a seed that nobody chose, and returns it: a bigint beyond 2^53. PyTorch: `Generator.seed`. */
  seed(): number | bigint {
    return short(native.reseed(this))
  }

  /** The seed that the numbers started from: a bigint beyond 2^53. PyTorch: `Generator.initial_seed`. */
  initialSeed(): number | bigint {
    return short(native.seedOf(this))
  }

  /** PyTorch: `Generator.get_state`. */
  getState(): Uint8Array {
    return native.stateOf(this)
  }

  /** Goes on from a state, also of another generator of the same device type. Returns the generator. PyTorch: `Generator.set_state`. */
  setState(state: Uint8Array): this {
    native.setState(this, requireState(state))
    return this
  }

  /** False once the generator was disposed of. */
  get isLive(): boolean {
    return native.isLive(this)
  }

  /** Frees it now. Doing it twice is harmless. */
  dispose(): void {
    native.disposeGenerator(this)
  }

  /** What `using` calls at the end of its block: {@link dispose}. */
  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Where a {@link Generator} draws, and from which seed. */
export interface GeneratorOptions {
  /** `'cpu'` (default) or a CUDA device: that of the tensors it draws for. */
  readonly device?: Device
  /** Default: the same for every new generator, as in PyTorch. */
  readonly seed?: number | bigint
}

/**
 * A new random number generator. PyTorch: `torch.Generator`.
 *
 * @throws InputError for a seed that is no integer from 0 to 2^64 - 1. TorchError for a GPU that is not there, and for a device without
 *   random numbers of its own.
 */
export function generator(options: GeneratorOptions = {}): Generator {
  if (typeof options !== 'object' || options === null) throw expected('an object', 'the options of generator()', options)
  const { device = 'cpu', seed } = options
  requireDevice(device)
  if (seed !== undefined) requireSeed(seed)
  const made = new Generator(device)
  return seed === undefined ? made : made.manualSeed(seed)
}
