import { mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

import { expected } from '../errors.js'
import { deviceCount } from '../native/cuda.js'
import * as native from '../native/profiler.js'
import type { Synchronous } from '../native/tensor-handle.js'

/** What a profiler can record. */
export type Activity = 'cpu' | 'cuda'

const known: readonly unknown[] = ['cpu', 'cuda']

const areActivities = (value: unknown): value is readonly Activity[] =>
  Array.isArray(value) && value.length > 0 && value.every((one) => known.includes(one))

/** What the profiler records. */
export interface ProfilerOptions {
  /** What is recorded: operators of the CPU's side, kernels and copies of GPUs. Default: what there is. */
  readonly activities?: readonly Activity[]
  /** Whether the shapes of the operators' tensors are kept. Default false. */
  readonly shapes?: boolean
}

// The folder is made now: when the work is done it is too late for a mistake.
function requirePath(path: unknown): string {
  if (typeof path !== 'string' || path === '') throw expected('the path of a file', 'path', path)
  const file = resolve(path)
  if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) throw expected('the path of a file', 'path', `${path}, a folder`)
  mkdirSync(dirname(file), { recursive: true })
  return file
}

function requireName(name: unknown): string {
  if (typeof name !== 'string' || name === '') throw expected('a name', 'name', name)
  return name
}

/** Records what libtorch does, for this thread, its backward passes and GPUs. Made by {@link profiler}. */
export class Profiler {
  readonly activities: readonly Activity[]
  readonly #shapes: boolean
  #recording = false
  #steps = 0
  #inStep = false

  /** @internal */
  constructor(options: ProfilerOptions) {
    if (typeof options !== 'object' || options === null) throw expected('an object', 'the options of profiler()', options)
    const { activities = deviceCount() > 0 ? ['cpu', 'cuda'] : ['cpu'], shapes = false } = options
    if (!areActivities(activities)) throw expected(`an array of 'cpu', 'cuda' or both`, 'activities', activities)
    if (typeof shapes !== 'boolean') throw expected('a boolean', 'shapes', shapes)
    this.activities = [...activities]
    this.#shapes = shapes
  }

  /** Whether it has been started and not yet stopped. */
  get recording(): boolean {
    return this.#recording
  }

  /** @throws TorchError where another profiler is recording, in any thread, and for `cuda` without a GPU. */
  start(): this {
    native.startProfiler(this.activities.includes('cpu'), this.activities.includes('cuda'), this.#shapes)
    this.#recording = true
    return this
  }

  /**
   * Begins the next step of a loop, `ProfilerStep#N` in the trace, and ends the one before. Between the steps, not inside
   * {@link recordFunction}. Does nothing while it is not recording. PyTorch: `torch.profiler.profile.step`.
   *
   * @param number - Of the step that begins; by default they are counted from 0.
   */
  step(number: number = this.#steps): void {
    if (!this.#recording) return
    if (!Number.isSafeInteger(number)) throw expected('an integer', 'number', number)
    this.#endStep()
    native.enterRegion(`ProfilerStep#${number}`)
    this.#inStep = true
    this.#steps = number + 1
  }

  #endStep(): void {
    if (this.#inStep) native.leaveRegion()
    this.#inStep = false
  }

  /**
   * Ends the recording and writes it to `path` (JSON, in Chrome's trace format: for `chrome://tracing` or ui.perfetto.dev), in folders that
   * are made. The event loop goes on while it is written.
   *
   * @throws InputError for what can be no file, and if it is not recording.
   */
  async stop(path: string): Promise<void> {
    if (!this.#recording) throw expected('a profiler that was started', 'stop()', 'one that is not recording')
    const file = requirePath(path)
    this.#endStep()
    this.#recording = false
    await native.stopProfiler(file)
    // libtorch logs a file that it cannot write, and goes on.
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) throw expected('a file that can be written', 'path', path)
  }

  /** Ends the recording, if it is going on, and drops it. */
  async cancel(): Promise<void> {
    if (!this.#recording) return
    this.#endStep()
    this.#recording = false
    await native.stopProfiler(null)
  }
}

/**
 * A profiler to start and stop by hand, around code that may be asynchronous. PyTorch: `torch.profiler.profile`.
 *
 * @throws InputError for activities that there are not.
 */
export const profiler = (options: ProfilerOptions = {}): Profiler => new Profiler(options)

/**
 * Records what `callback` does, which may be asynchronous, and writes it to `path` as {@link Profiler.stop} does. PyTorch:
 * `torch.profiler.profile` with `export_chrome_trace`.
 *
 * @returns What the callback returns.
 */
export async function profile<T>(path: string, callback: () => T | Promise<T>, options: ProfilerOptions = {}): Promise<T> {
  if (typeof callback !== 'function') throw expected('a function', 'the callback of profile()', callback)
  const made = profiler(options)
  requirePath(path)
  made.start()
  try {
    const result = await callback()
    await made.stop(path)
    return result
  } finally {
    await made.cancel()
  }
}

/**
 * Gives what `callback` does a name in the traces of profilers. Almost free where none is recording. PyTorch:
 * `torch.profiler.record_function`.
 *
 * @throws InputError for what is no name, and if the callback is async.
 */
export const recordFunction = <T>(name: string, callback: (() => T) & (() => Synchronous<T>)): T =>
  native.inRegion<T>(requireName(name), callback)

/**
 * Gives what `callback` does a name in the tools of the GPU's vendor (Nsight Systems). Does nothing but call it where libtorch is built
 * without CUDA. PyTorch: `torch.cuda.nvtx.range`.
 *
 * @throws InputError for what is no name, and if the callback is async.
 */
export const nvtxRange = <T>(name: string, callback: (() => T) & (() => Synchronous<T>)): T =>
  native.inNvtxRange<T>(requireName(name), callback)

/** Marks this moment in those tools; nothing without CUDA. PyTorch: `torch.cuda.nvtx.mark`. */
export const nvtxMark = (name: string): void => native.nvtxMark(requireName(name))
