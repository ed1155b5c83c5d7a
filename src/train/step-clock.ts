import type { Device } from '../torch/index.js'
import type { SettledStep } from './step-queue.js'
import { TimeMark } from './time-mark.js'

/**
 * Measures images per second, and the part of the time in which the device had nothing to do because images were waited for.
 *
 * Time is the device's own: from the end of one step to the end of the next. On a GPU steps are asked for before those in front of them are
 * done, so the host may wait for images while the device has enough to do. What counts is the gap between two steps, as far as the host
 * waited for images: the rest of a gap is other work of the host. On the CPU, where a step is done when the call returns, that is the whole
 * wait.
 */
export class StepClock {
  #last: TimeMark
  #wanted = performance.now()
  #elapsed = 0
  #waited = 0
  #images = 0

  /** Time begins now. */
  constructor(device: Device) {
    this.#last = new TimeMark(device)
  }

  /** The host waits for images from now on. */
  wantBatch(): void {
    this.#wanted = performance.now()
  }

  /** @returns Milliseconds for which they were waited for. */
  gotBatch(): number {
    return performance.now() - this.#wanted
  }

  /** Counts a step; they come in order. */
  count({ start, end, waited, indices }: SettledStep): void {
    this.#elapsed += end.since(this.#last)
    this.#waited += Math.min(waited, start.since(this.#last))
    this.#images += indices.length
    this.#last = end
  }

  /** Of the steps since the last call. */
  lap(): { imagesPerSecond: number; dataShare: number } {
    const result = { imagesPerSecond: (1000 * this.#images) / this.#elapsed, dataShare: this.#waited / this.#elapsed }
    this.#elapsed = this.#waited = this.#images = 0
    return result
  }
}
