import { InputError } from '../errors.js'
import type { Batch } from '../data/index.js'
import { memory, type Tensor } from '../torch/index.js'
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
  /** Steps done. */
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
      await folder.create(Object.fromEntries(kept))
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

  /** Runs the steps of an epoch that are left. False if the signal ended it early. */
  async #trainEpoch(epoch: number): Promise<boolean> {
    const { config, hooks, task } = this
    if (hooks.signal?.aborted) return false
    const clock = new StepClock()
    const firstStep = this.#step - epoch * task.stepsPerEpoch
    if (firstStep === 0) this.#losses = { sum: 0, count: 0 }
    for await (const batch of task.batches(epoch, firstStep, hooks.signal)) {
      clock.gotBatch()
      await this.#profiler.step(this.#step)
      const { loss, finite } = await this.#trainOn(batch, epoch)
      this.#step++
      this.#count(loss, finite, batch.indices)
      clock.endStep(batch.indices.length)
      if (this.#step % config.logEvery === 0 || this.#step === this.#steps) await this.#report(epoch, finite ? loss : NaN, clock)
      // Lets timers, signals and the progress bar have their turn.
      await nextTurn()
      const atEnd = this.#step === (epoch + 1) * task.stepsPerEpoch // whose checkpoint follows its figures
      if (hooks.signal?.aborted) return atEnd
      if (!atEnd && this.#isCheckpointDue()) await this.#saveCheckpoint(null)
      clock.wantBatch()
    }
    return this.#step === (epoch + 1) * task.stepsPerEpoch // else the signal came while a batch was waited for
  }

  /** Trains on a batch and frees it. */
  async #trainOn(batch: Batch, epoch: number): Promise<{ loss: number; finite: boolean }> {
    let outcome: Tensor | null = null
    try {
      outcome = this.task.trainOn(batch, this.#step, epoch)
      const [loss, finite] = (await outcome.toTypedArrayAsync()) as Float32Array
      return { loss: loss!, finite: finite === 1 }
    } finally {
      outcome?.dispose()
      batch.images.dispose()
    }
  }

  #count(loss: number, finite: boolean, indices: readonly number[]): void {
    if (finite) {
      this.#losses.sum += loss
      this.#losses.count++
      this.#skipped.inRow = 0
      return
    }
    this.#skipped.total++
    this.#skipped.inRow++
    if (this.#skipped.inRow < this.config.maxSkipped) return
    const what = Number.isFinite(loss) ? 'A gradient is not finite' : `The loss is ${loss}`
    const { path } = this.#lastCheckpoint
    throw new InputError(
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
    if (done === config.epochs || this.#isCheckpointDue(done % config.checkpointEvery === 0)) await this.#saveCheckpoint(accuracy)
    this.hooks.onEpoch?.({ epoch: done, loss, seconds, accuracy })
  }

  /** @param otherwise - Whether there is a reason besides steps and time. */
  #isCheckpointDue(otherwise = false): boolean {
    const { checkpointSteps, checkpointMinutes } = this.config
    // What cannot be trained with must not push out what can.
    if (this.#skipped.inRow > 0) return false
    if (otherwise) return true
    if (checkpointSteps > 0 && this.#step % checkpointSteps === 0) return true
    return checkpointMinutes > 0 && performance.now() - this.#lastCheckpoint.time >= 60_000 * checkpointMinutes
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
