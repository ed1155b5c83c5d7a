import { DivergedError } from '../errors.js'
import type { Batch } from '../data/index.js'
import { buildInfo, memory, type Tensor } from '../torch/index.js'
import { version } from '../version.js'
import {
  loadNewestCheckpoint, removeSuperfluous, saveCheckpoint, type EncoderDescription, type Progress
} from './checkpoint.js'
import { Journal } from './journal.js'
import type { LoopHooks } from './reports.js'
import type { RetentionRule } from './retention.js'
import type { RunFolder } from './run-folder.js'
import { RunLock } from './run-lock.js'
import { StepClock } from './step-clock.js'
import { StepProfiler } from './step-profiler.js'
import { StepQueue, stepsAhead, type SettledStep } from './step-queue.js'
import type { TrainingStep } from './step.js'

/** Settings that every training has. */
export interface LoopConfig extends RetentionRule {
  readonly epochs: number
  readonly logEvery: number
  readonly checkpointEvery: number
  readonly checkpointSteps: number
  readonly checkpointMinutes: number
  readonly maxSkipped: number
  readonly tensorboard: boolean
  readonly profile: number
  readonly resume: boolean
}

export interface EpochFigures {
  /** On held-out images; null where it was not measured. */
  readonly accuracy: number | null
  readonly figures: Readonly<Record<string, number>>
}

/** What is particular to a training. */
export interface TrainingTask {
  readonly step: TrainingStep
  readonly stepsPerEpoch: number
  /** What is written into every checkpoint beside weights and progress. */
  readonly encoder: EncoderDescription
  readonly extra?: Readonly<Record<string, string>>
  /** The batches of an epoch, without the first `firstStep`, until the signal is aborted. */
  batches(epoch: number, firstStep: number, signal?: AbortSignal): AsyncIterable<Batch>
  /** Trains on a batch. @param step - Steps done before. @returns As {@link TrainingStep.train}. */
  trainOn(batch: Batch, step: number, epoch: number): Tensor
  /**
   * Measures after an epoch, with the mean weights in place where there are some.
   *
   * @returns Figures for the metrics; `accuracy`, on held-out images, is what the best checkpoint is chosen by.
   */
  measure(epoch: number, journal: Journal): Promise<EpochFigures>
}

const nextTurn = () => new Promise<void>((resolve) => void setImmediate(resolve))

/** The loop over epochs and steps: metrics, checkpoints, steps that are not finite, interruption and resumption. */
export class TrainingLoop {
  #journal!: Journal
  /** Steps done, of which the outcome is known. */
  #step = 0
  /** Of the steps of the epoch. */
  #losses = { sum: 0, count: 0 }
  /** Steps whose loss or gradient was not finite: they changed nothing. */
  #skipped = { total: 0, inRow: 0 }
  readonly #profiler: StepProfiler
  #lastCheckpoint = { path: null as string | null, time: performance.now() }

  private constructor(
    readonly folder: RunFolder, readonly config: LoopConfig, readonly task: TrainingTask, readonly hooks: LoopHooks, readonly lock: RunLock
  ) {
    this.#profiler = new StepProfiler(folder, config.profile, hooks)
  }

  /**
   * Takes up where the run stands, and writes its settings: the first thing that touches the disk. Until it is disposed of, no other training
   * can write into the folder.
   *
   * @param settings - For config.json.
   */
  static async open(
    folder: RunFolder, config: LoopConfig, task: TrainingTask, hooks: LoopHooks, settings: Readonly<Record<string, unknown>>
  ): Promise<{ loop: TrainingLoop; resumedFrom: Progress | null }> {
    const lock = await RunLock.take(folder)
    try {
      const loop = new TrainingLoop(folder, config, task, hooks, lock)
      const resumedFrom = config.resume ? await loop.#resume() : null
      await folder.removeUnfinished()
      // Also for a run that goes on: what it goes on with, more epochs for instance, is what the next resumption finds.
      const kept = Object.entries(settings).filter(([name]) => name !== 'resume' && name !== 'override')
      await folder.create({ ...Object.fromEntries(kept), versions: { gmml: version, libtorch: buildInfo().torch } })
      loop.#journal = await Journal.open(folder, loop.#step, config)
      return { loop, resumedFrom }
    } catch (error) {
      lock.release()
      throw error
    }
  }

  async #resume(): Promise<Progress | null> {
    const { folder, task, hooks } = this
    const progress = await loadNewestCheckpoint(folder, task.step, (error) =>
      hooks.onNotice?.(`${error.message}. Going on from the one before`)
    )
    if (!progress) return null
    this.#step = progress.step
    this.#losses = { ...progress.losses }
    this.#skipped = { ...progress.skipped }
    this.#lastCheckpoint.path = folder.checkpoint(this.#step)
    return progress
  }

  /** Steps done. */
  get step(): number {
    return this.#step
  }

  /** Mean loss of the epoch; NaN for nothing. */
  get loss(): number {
    return this.#losses.sum / this.#losses.count
  }

  get #steps(): number {
    return this.task.stepsPerEpoch * this.config.epochs
  }

  /** Trains to the end, or until the signal is aborted: then a checkpoint is saved. */
  async run(): Promise<'done' | 'interrupted'> {
    try {
      return await this.#run()
    } finally {
      await this.#profiler.finish()
    }
  }

  async #run(): Promise<'done' | 'interrupted'> {
    const { stepsPerEpoch } = this.task
    while (this.#step < this.#steps) {
      const epoch = Math.floor(this.#step / stepsPerEpoch)
      const start = performance.now()
      if (!(await this.#trainEpoch(epoch))) {
        await this.#saveCheckpoint(null)
        return 'interrupted'
      }
      await this.#endEpoch(epoch, (performance.now() - start) / 1000)
    }
    return 'done'
  }

  /** With the mean weights, where there are some. */
  withBestWeights<T>(callback: () => Promise<T>): Promise<T> {
    return this.task.step.ema?.applied(callback) ?? callback()
  }

  /** Runs the steps of an epoch that are left, and settles all of them. False if the signal ended it early. */
  async #trainEpoch(epoch: number): Promise<boolean> {
    const { hooks, task } = this
    if (hooks.signal?.aborted) return false
    const { device } = task.step
    const clock = new StepClock(device)
    using queue = new StepQueue(device, stepsAhead(device), (step) => this.#settle(step, epoch, clock))
    const end = (epoch + 1) * task.stepsPerEpoch
    const firstStep = this.#step - epoch * task.stepsPerEpoch
    if (firstStep === 0) this.#losses = { sum: 0, count: 0 }
    /** Steps asked for. */
    let launched = this.#step
    try {
      for await (const batch of task.batches(epoch, firstStep, hooks.signal)) {
        // Images that the device is still making are waited for by the device.
        const waited = batch.late ? Infinity : clock.gotBatch()
        const done = launched++
        await this.#profiler.step(done)
        await queue.add({ step: launched, indices: batch.indices, waited }, () => this.#launch(batch, done, epoch))
        // Lets timers, signals and the progress bar have their turn.
        await nextTurn()
        if (hooks.signal?.aborted) break
        // At the end of an epoch its figures come first.
        if (launched < end && this.#isCheckpointTime(launched)) {
          await queue.drain()
          if (this.#canGoOn) await this.#saveCheckpoint(null)
        }
        clock.wantBatch()
      }
    } catch (error) {
      // Steps asked for before count, as if each had been waited for. After one that could not be settled none is left.
      await queue.drain()
      throw error
    }
    await queue.drain()
    return this.#step === end
  }

  /** Trains on a batch and frees it. @param step - Steps asked for before. */
  #launch(batch: Batch, step: number, epoch: number): Tensor {
    try {
      return this.task.trainOn(batch, step, epoch)
    } finally {
      batch.images.dispose()
    }
  }

  async #settle(settled: SettledStep, epoch: number, clock: StepClock): Promise<void> {
    this.#step = settled.step
    this.#count(settled)
    clock.count(settled)
    if (this.#step % this.config.logEvery > 0 && this.#step !== this.#steps) return
    await this.#report(epoch, settled.finite ? settled.loss : NaN, clock)
  }

  #count({ loss, finite, indices }: SettledStep): void {
    if (finite) {
      this.#losses.sum += loss
      this.#losses.count++
      this.#skipped.inRow = 0
      return
    }
    this.#skipped.total++
    this.#skipped.inRow++
    // A training whose steps all fail must not count as done because it has few of them.
    const none = this.#step === this.#steps && this.#skipped.total === this.#steps
    if (this.#skipped.inRow < this.config.maxSkipped && !none) return
    const what = Number.isFinite(loss) ? 'A gradient is not finite' : `The loss is ${loss}`
    const { path } = this.#lastCheckpoint
    // Steps asked for since may have changed weights in memory. The run ends here, and nothing of them is saved.
    throw new DivergedError(
      `${what}: ${this.#skipped.inRow} steps without success in a row (maxSkipped), the last is step ${this.#step} ` +
        `(lr ${this.task.step.lr(this.#step - 1)}, images ${indices.slice(0, 8).join(', ')}, ...). The last checkpoint is ` +
        `${path ? `'${path}'` : 'not written yet'}; a smaller --lr or --amp off may help`
    )
  }

  async #report(epoch: number, loss: number, clock: StepClock): Promise<void> {
    const { imagesPerSecond, dataShare } = clock.lap()
    const { step, stepsPerEpoch } = this.task
    const lr = step.lr(this.#step - 1)
    const skipped = this.#skipped.total
    const weightDecay = step.weightDecay(this.#step - 1)
    await this.#journal.write('step', {
      step: this.#step, epoch: this.#step / stepsPerEpoch, loss: Number.isFinite(loss) ? loss : null, lr, weightDecay,
      ...(skipped && { skipped }), imagesPerSecond, dataShare, tensors: memory().tensors
    })
    const { epochs } = this.config
    const at = { step: this.#step, steps: this.#steps, epoch: epoch + 1, epochs }
    this.hooks.onStep?.({ ...at, loss, lr, imagesPerSecond, dataShare, skipped })
  }

  async #endEpoch(epoch: number, seconds: number): Promise<void> {
    const { config, task } = this
    const loss = this.loss
    const done = epoch + 1
    const { accuracy, figures } = await this.withBestWeights(() => task.measure(done, this.#journal))
    const epochLoss = Number.isFinite(loss) ? loss : null
    await this.#journal.write('epoch', { step: this.#step, epoch: done, epochLoss, seconds, ...figures })
    // The best can only be kept if each that was measured is there to be compared.
    const due = done % config.checkpointEvery === 0 || this.#isCheckpointTime(this.#step) || (config.keepBest && accuracy !== null)
    if (done === config.epochs || (due && this.#canGoOn)) await this.#saveCheckpoint(accuracy)
    this.hooks.onEpoch?.({ epoch: done, loss, seconds, accuracy })
  }

  /** Whether there is to be a checkpoint, by the steps and by the time. */
  #isCheckpointTime(step: number): boolean {
    const { checkpointSteps, checkpointMinutes } = this.config
    if (checkpointSteps > 0 && step % checkpointSteps === 0) return true
    return checkpointMinutes > 0 && performance.now() - this.#lastCheckpoint.time >= 60_000 * checkpointMinutes
  }

  /** Whether the last step changed something: what cannot be trained with must not push out the checkpoints of what can. */
  get #canGoOn(): boolean {
    return this.#skipped.inRow === 0
  }

  async #saveCheckpoint(accuracy: number | null): Promise<void> {
    const { folder, task } = this
    const epochEnd = this.#step > 0 && this.#step % task.stepsPerEpoch === 0
    const progress = {
      step: this.#step, epoch: Math.floor(this.#step / task.stepsPerEpoch), losses: this.#losses, skipped: this.#skipped, epochEnd, accuracy
    }
    const path = await saveCheckpoint(folder, task.step, progress, task.encoder, task.extra)
    this.#lastCheckpoint = { path, time: performance.now() }
    await removeSuperfluous(folder, this.config)
  }

  /** Lets others write into the folder. */
  dispose(): void {
    this.lock.release()
  }
}
