import type { Device, Tensor } from '../torch/index.js'
import { TimeMark } from './time-mark.js'

/**
 * How many steps may be asked of a device before the outcome of the first of them is looked at. A GPU computes while JavaScript goes on: three
 * are more than it takes to hide the host's work behind the device's. The CPU has computed when a call returns, so there is nothing to hide.
 */
export const stepsAhead = (device: Device): number => (device.startsWith('cuda') ? 3 : 0)

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
  /** When the device began with it, and when it had done it. */
  readonly start: TimeMark
  readonly end: TimeMark
}

interface LaunchedStep extends StepPlan {
  readonly start: TimeMark
  readonly end: TimeMark
  readonly outcome: Promise<ArrayLike<number>>
}

/**
 * Steps that were asked of a device and whose outcome is not known yet. They are settled one after the other in their order, each when the
 * device has done it: nothing but the order of the host's work differs from waiting for each step at once.
 */
export class StepQueue {
  readonly #launched: LaunchedStep[] = []

  /**
   * @param depth - How many steps may be unsettled when {@link add} is done.
   * @param settle - Takes each step's outcome. If it fails, later steps are forgotten.
   */
  constructor(readonly device: Device, readonly depth: number, readonly settle: (step: SettledStep) => Promise<void>) {}

  /** Asks for a step, and settles the oldest until no more than `depth` are left. @param train - Gives loss, and 1 if it and the gradients are finite. */
  async add(plan: StepPlan, train: () => Tensor): Promise<void> {
    const start = new TimeMark()
    const values = train()
    const outcome = values.toTypedArrayAsync() as Promise<ArrayLike<number>>
    outcome.catch(() => undefined) // awaited when its turn comes
    values.dispose()
    this.#launched.push({ ...plan, start, end: new TimeMark(), outcome })
    while (this.#launched.length > this.depth) await this.#settleOldest()
  }

  /** Settles all steps: what the host knows then is what the device has done. */
  async drain(): Promise<void> {
    while (this.#launched.length > 0) await this.#settleOldest()
  }

  async #settleOldest(): Promise<void> {
    const { outcome, ...step } = this.#launched.shift()!
    try {
      const [loss, finite] = Array.from(await outcome)
      await this.settle({ ...step, loss: loss!, finite: finite === 1 })
    } catch (error) {
      this.#launched.length = 0
      throw error
    }
  }
}
