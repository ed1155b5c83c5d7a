import { empty, isCudaDevice, keep, noGrad, scope, type Device, type Tensor } from '../torch/index.js'
import { TimeMark } from './time-mark.js'

/**
 * How many steps may be asked of a device before the outcome of the first of them is looked at. A GPU computes while JavaScript goes on: three
 * are more than it takes to hide the host's work behind the device's. The CPU has computed when a call returns, so there is nothing to hide.
 */
export const stepsAhead = (device: Device): number => (isCudaDevice(device) ? 3 : 0)

/** What is known of a step before the device has done it. */
export interface StepPlan {
  /** Steps done with this one. */
  readonly step: number
  /** Of the images. */
  readonly indices: readonly number[]
  /** Milliseconds for which the host waited for its images. */
  readonly waited: number
}

/** A step that the device has done. */
export interface SettledStep extends StepPlan {
  readonly loss: number
  /** Whether loss and gradients were finite; else nothing has changed. */
  readonly finite: boolean
  /** When the device began with it, and when it had done it. Good until the next step is settled. */
  readonly start: TimeMark
  readonly end: TimeMark
}

interface LaunchedStep extends StepPlan {
  readonly start: TimeMark
  readonly end: TimeMark
  /** Where its outcome is. */
  readonly row: number
}

/**
 * Steps that were asked of a device and whose outcome is not known yet. They are settled one after the other in their order, each when the
 * device has done it: nothing but the order of the host's work differs from waiting for each step at once.
 */
export class StepQueue {
  readonly #launched: LaunchedStep[] = []
  /** [depth + 1, 2]: loss and finiteness of the steps under way, which the device writes here by itself. */
  readonly #outcomes: Tensor
  #row = 0
  #settled: LaunchedStep | null = null

  /**
   * @param depth - How many steps may be unsettled when {@link add} is done.
   * @param settle - Takes each step's outcome. If it fails, later steps are forgotten.
   */
  constructor(readonly device: Device, readonly depth: number, readonly settle: (step: SettledStep) => Promise<void>) {
    this.#outcomes = keep(empty([depth + 1, 2], { dtype: 'float32', ...(isCudaDevice(device) && { pinMemory: true }) }))
  }

  /**
   * Asks for a step, and settles the oldest until no more than `depth` are left.
   *
   * @param train - Gives two numbers on the device, which are freed: the loss, and 1 if it and the gradients are finite, else 0.
   */
  async add(plan: StepPlan, train: () => Tensor): Promise<void> {
    const row = this.#row
    const start = new TimeMark(this.device)
    const outcome = train()
    noGrad(() => scope(() => void this.#outcomes.select(0, row).copy_(outcome, { nonBlocking: true })))
    outcome.dispose()
    this.#launched.push({ ...plan, start, end: new TimeMark(this.device), row })
    this.#row = (row + 1) % (this.depth + 1)
    while (this.#launched.length > this.depth) await this.#settleOldest()
  }

  /** Settles all steps: what the host knows then is what the device has done. */
  async drain(): Promise<void> {
    while (this.#launched.length > 0) await this.#settleOldest()
  }

  async #settleOldest(): Promise<void> {
    const step = this.#launched.shift()!
    const { row, ...known } = step
    try {
      await known.end.reached()
      const [loss, finite] = this.#outcomes.toTypedArray().slice(2 * row) as Float32Array
      await this.settle({ ...known, loss: loss!, finite: finite === 1 })
    } catch (error) {
      for (const { start, end } of this.#launched.splice(0)) [start, end].forEach((mark) => mark.dispose())
      throw error
    } finally {
      // The end of the one before was needed until now.
      known.start.dispose()
      this.#settled?.end.dispose()
      this.#settled = step
    }
  }

  [Symbol.dispose](): void {
    this.#settled?.end.dispose()
    this.#outcomes.dispose()
  }
}
