import { join } from 'node:path'

import { profiler, type Profiler } from '../torch/index.js'
import type { LoopHooks } from './reports.js'
import { writing, type RunFolder } from './run-folder.js'

/** Steps before those that are recorded: the first ones of a process find kernels, fill caches and start workers. */
export const WARM_UP = 5

/** Records some steps of a training, after the first ones of this process, and writes the trace into the run. */
export class StepProfiler {
  #profiler: Profiler | null = null
  #seen = 0
  #first = 0
  #last = 0

  /** @param steps - How many to record; 0: none. */
  constructor(readonly folder: RunFolder, readonly steps: number, readonly hooks: Pick<LoopHooks, 'onNotice'> = {}) {}

  /** Called when a step begins. @param done - Steps that the training has done. */
  async step(done: number): Promise<void> {
    if (this.steps === 0) return
    const seen = this.#seen++
    if (seen === WARM_UP) {
      this.#profiler = profiler().start()
      this.#first = done + 1
    }
    if (seen === WARM_UP + this.steps) await this.finish()
    this.#last = done + 1
    this.#profiler?.step(this.#last)
  }

  /** Called when the training has ended, however it did: writes what was recorded and is not yet written. */
  async finish(): Promise<void> {
    const made = this.#profiler
    if (!made) return
    this.#profiler = null
    const [first, last] = [this.#first, this.#last]
    const path = join(this.folder.path, 'profile', `trace-${first}-${last}.json`)
    await writing(`'${path}'`, () => made.stop(path))
    this.hooks.onNotice?.(`The trace of steps ${first} to ${last} is in '${path}': open it in ui.perfetto.dev`)
  }
}
