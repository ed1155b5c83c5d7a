import { cuda, isCudaDevice, type Device, type Tensor } from '../torch/index.js'

/** A tensor that may still be in the making. */
export interface Staged {
  readonly tensor: Tensor
  /** Passed when it is made; null where it is. */
  readonly made: cuda.Event | null
}

/**
 * Where batches are made. For a GPU that is a stream of its own: a batch is fetched and changed there while the stream that trains is busy
 * with earlier ones, and the host waits for neither. On the CPU a batch is made when it is asked for.
 */
export class Staging {
  readonly #stream: cuda.Stream | null

  constructor(device: Device) {
    this.#stream = isCudaDevice(device) ? cuda.stream({ device }) : null
  }

  /** Computes where batches are made. */
  run(make: () => Tensor): Tensor {
    return this.#stream ? cuda.withStream(this.#stream, make) : make()
  }

  /** Makes a tensor of the current stream usable in {@link run}. */
  lend(tensor: Tensor): Tensor {
    this.#stream?.waitStream(cuda.currentStream(this.#stream.device))
    if (this.#stream) tensor.recordStream(this.#stream)
    return tensor
  }

  /** A tensor that {@link run} has given. */
  stage(tensor: Tensor): Staged {
    return { tensor, made: this.#stream?.recordEvent() ?? null }
  }

  /**
   * Makes a staged tensor usable on the current stream: what is put on it from here on waits until the tensor is made.
   *
   * @returns Whether it is still in the making.
   */
  take({ tensor, made }: Staged): boolean {
    if (!made || !this.#stream) return false
    const current = cuda.currentStream(this.#stream.device)
    const late = !made.query()
    made.wait(current)
    // Its memory goes back to this stream's, and not before the other has done with it.
    tensor.recordStream(current)
    made.dispose()
    return late
  }
}
