import { expected } from '../errors.js'
import { cuda, isCudaDevice, type Device } from '../torch/index.js'

/** A moment in what a device does: it has done what it was asked for before, and nothing of what it is asked for after. */
export class TimeMark {
  /** Of a GPU, which is behind the host. The CPU has done everything when a call returns: there it is now. */
  readonly #at: cuda.Event | number

  constructor(device: Device) {
    this.#at = isCudaDevice(device) ? cuda.event({ timing: true }).record(cuda.currentStream(device)) : performance.now()
  }

  /** Waits until the device is there, without blocking the event loop. */
  async reached(): Promise<void> {
    if (typeof this.#at !== 'number' && !this.#at.query()) await this.#at.synchronizeAsync()
  }

  /** Milliseconds from an earlier mark of the device to this one, once it was reached. */
  since(earlier: TimeMark): number {
    const [from, to] = [earlier.#at, this.#at]
    if (typeof from !== 'number' && typeof to !== 'number') return from.elapsed(to)
    if (typeof from === 'number' && typeof to === 'number') return to - from
    throw expected('marks of one device', 'earlier', earlier)
  }

  /** Frees it: no mark is measured from here on by it. */
  dispose(): void {
    if (typeof this.#at !== 'number') this.#at.dispose()
  }
}
