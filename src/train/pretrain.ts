import { join } from 'node:path'

import { expected, InputError } from '../errors.js'
import {
  defaultStatistics, gmmlAugmentation, Loader, openImages, randomFor,
  type Augmentation, type ImageSource, type Random
} from '../data/index.js'
import { corrupt, GroupMaskedModel } from '../gmml/index.js'
import {
  cuda, getNumThreads, manualSeed, memory, noGrad, scope, setNumThreads, type Device, type Tensor
} from '../torch/index.js'
import {
  buildEncoder, exportEncoder, loadNewestCheckpoint, removeSuperfluous, saveCheckpoint, type EncoderDescription, type Progress
} from './checkpoint.js'
import { describeEncoder } from './encoder.js'
import { parseConfig, resumeConfig, type PretrainConfig, type PretrainConfigInput } from './config.js'
import { readInitialWeights } from './initial-weights.js'
import { heldOutKnn } from './knn-probe.js'
import { choosePrecision, precisions, type Precision } from './precision.js'
import { writeReconstructions } from './reconstructions.js'
import { Journal } from './journal.js'
import type { PretrainHooks, PretrainResult } from './reports.js'
import { RunFolder } from './run-folder.js'
import { TrainingStep } from './step.js'
import { StepClock } from './step-clock.js'

const VIEWS = 2
const SAMPLES = 8 // images in the reconstruction grid

function settleDevice(device: Device | 'auto'): Device {
  if (device === 'auto') return cuda.isAvailable() ? 'cuda' : 'cpu'
  if (!device.startsWith('cuda')) return device
  const count = cuda.deviceCount()
  if (count === 0) throw expected(`'cpu', as libtorch sees no CUDA device here (gmml inspect says more),`, 'device', device)
  if (Number(device.split(':')[1] ?? 0) >= count) throw expected(`one of the ${count} CUDA devices that libtorch sees`, 'device', device)
  return device
}

/** What config.json of a run holds. */
type Saved = Readonly<Record<string, unknown>>

/** @throws InputError unless the images are those that the run began with: each step's place in an epoch stands and falls with them. */
function requireSameImages(config: PretrainConfig, saved: Saved, source: ImageSource, encoder: EncoderDescription): void {
  const { imageCount, encoder: before } = saved
  if (imageCount !== undefined && imageCount !== source.length) {
    throw expected(`the ${JSON.stringify(imageCount)} images that the run began with`, `images '${config.images}'`, source.length)
  }
  if (before !== undefined && JSON.stringify(before) !== JSON.stringify(encoder)) {
    throw expected('the images that the run began with', `images '${config.images}'`, 'images of another size or with other statistics')
  }
}

/** What the settings say; `auto` is measured once, and a run that goes on keeps what was found. */
function settlePrecision(config: PretrainConfig, saved: Saved | null, model: GroupMaskedModel, device: Device): Precision {
  if (config.amp !== 'auto') return ({ off: 'float32', bf16: 'bfloat16', fp16: 'float16' } as const)[config.amp]
  return precisions.find((precision) => precision === saved?.['precision']) ?? choosePrecision(model, device).precision
}

/** What config.json holds, if the settings ask to go on with a run that is there. */
async function savedSettings(input: PretrainConfigInput): Promise<Saved | null> {
  const resumed = Boolean(input?.resume) && typeof input.out === 'string' && new RunFolder(input.out).exists
  return resumed ? new RunFolder(input.out).readConfig() : null
}

/** Every setting that {@link pretrain} would run with. @throws SettingsError for settings that are not legal. */
export async function settleConfig(input: PretrainConfigInput): Promise<PretrainConfig> {
  const saved = await savedSettings(input)
  return saved ? resumeConfig(saved, input) : parseConfig(input)
}

const nextTurn = () => new Promise<void>((resolve) => void setImmediate(resolve))

/**
 * Pretrains a vision transformer on a folder of images by group masked model learning (arXiv 2205.14986).
 *
 * Everything that can be wrong with the settings is found before the run folder is made. The seed decides the result: a run that was
 * interrupted and resumed equals one that was not.
 *
 * @param input - Settings; {@link pretrainSchema} lists them with their defaults.
 * @returns When done, or, after `signal` was aborted, with a checkpoint to resume from.
 * @throws InputError for settings and images that cannot be used, a loss that is not finite, and a disk that is full.
 */
export async function pretrain(input: PretrainConfigInput, hooks: PretrainHooks = {}): Promise<PretrainResult> {
  const saved = await savedSettings(input)
  const run = await PretrainRun.prepare(saved ? resumeConfig(saved, input) : parseConfig(input), saved, hooks)
  try {
    return await run.train()
  } finally {
    run.dispose()
  }
}

/** One run: what is settled before the first step, and the loop. */
class PretrainRun {
  readonly #trainingStep: TrainingStep
  #journal!: Journal
  readonly #stepsPerEpoch: number
  readonly #augmentation: Augmentation
  /** Steps done. */
  #step = 0
  /** Of the steps of the epoch. */
  #losses = { sum: 0, count: 0 }
  /** Steps whose loss or gradient was not finite: they changed nothing. */
  #skipped = { total: 0, inRow: 0 }
  #lastCheckpoint = { path: null as string | null, time: performance.now() }

  private constructor(
    readonly config: PretrainConfig, readonly hooks: PretrainHooks, readonly folder: RunFolder, readonly source: ImageSource,
    readonly loader: Loader, readonly encoder: EncoderDescription, readonly model: GroupMaskedModel, readonly device: Device,
    readonly precision: Precision
  ) {
    this.#stepsPerEpoch = loader.steps(config.batchSize)
    model.backbone.gradCheckpointing = config.gradCheckpointing
    this.#trainingStep = new TrainingStep(model, config, this.#stepsPerEpoch, device, precision)
    this.#augmentation = { ...gmmlAugmentation, cropScale: config.cropScale }
  }

  /** @param saved - What config.json holds, if the run goes on. */
  static async prepare(config: PretrainConfig, saved: Saved | null, hooks: PretrainHooks): Promise<PretrainRun> {
    const device = settleDevice(config.device)
    const folder = new RunFolder(config.out)
    if (folder.exists && !config.resume) {
      throw new InputError(`'${config.out}' already holds a run. Go on with it (resume), or choose another folder`)
    }
    const source = await openImages(config.images, { limit: config.limit })
    if (config.knnEvery && !(source.classes && source.length > 1)) {
      throw expected('at least two images, with classes (sub-folders or labels)', 'knnEvery', config.knnEvery)
    }
    const encoder = describeEncoder(config, source, defaultStatistics(source))
    const [height, width] = encoder.imageSize
    if (config.align > Math.min(height, width)) throw expected(`at most the image size ${Math.min(height, width)}`, 'align', config.align)
    if (saved) requireSameImages(config, saved, source, encoder)
    if (config.threads) setNumThreads(config.threads)

    const owned: { dispose(): void }[] = []
    try {
      // A run that goes on has its own weights.
      const goesOn = config.resume && (await folder.listCheckpoints()).length > 0
      const initial = config.init === undefined || goesOn ? null : await readInitialWeights(config.init)
      if (initial) owned.push(initial)
      const { onBroken } = hooks
      const size = { height, width }
      const loader = new Loader(source, { size, device, statistics: encoder, workers: config.workers, ...(onBroken && { onBroken }) })
      owned.push(loader)
      loader.steps(config.batchSize)
      manualSeed(config.seed)
      const { dropPath, allPixels } = config
      const model = scope(() => new GroupMaskedModel(buildEncoder(encoder, { dropPath }), { maskedOnly: !allPixels }).to(device))
      owned.push(model)
      initial?.copyInto(model)
      initial?.dispose()
      const precision = settlePrecision(config, saved, model, device)
      const run = new PretrainRun(config, hooks, folder, source, loader, encoder, model, device, precision)
      owned.push(run)
      await run.#open()
      return run
    } catch (error) {
      for (const resource of owned) resource.dispose()
      throw error
    }
  }

  // The first thing that touches the disk.
  async #open(): Promise<void> {
    const { config, folder } = this
    let resumedFrom: Progress | null = null
    if (config.resume) {
      resumedFrom = await loadNewestCheckpoint(folder, this.#trainingStep, (error) => this.hooks.onNotice?.(`${error.message}. Going on from the one before`))
    }
    if (resumedFrom) {
      this.#step = resumedFrom.step
      this.#losses = { ...resumedFrom.losses }
      this.#skipped = { ...resumedFrom.skipped }
      this.#lastCheckpoint.path = folder.checkpoint(this.#step)
    }
    await folder.removeUnfinished()
    // Also for a run that goes on: what it goes on with, more epochs for instance, is what the next resumption finds.
    const settings = Object.fromEntries(Object.entries(config).filter(([name]) => name !== 'resume' && name !== 'override'))
    await folder.create({ ...settings, encoder: this.encoder, precision: this.precision, imageCount: this.source.length })
    this.#journal = await Journal.open(folder, this.#step, config)
    this.hooks.onStart?.({
      images: this.source.length,
      classes: this.source.classes?.length ?? 0,
      parameters: this.model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0),
      device: this.device,
      precision: this.precision,
      threads: getNumThreads(),
      resumedFrom
    })
  }

  get #steps(): number {
    return this.#stepsPerEpoch * this.config.epochs
  }

  /** Mean loss of the epoch. */
  get #loss(): number {
    return this.#losses.sum / this.#losses.count
  }

  async train(): Promise<PretrainResult> {
    const { config } = this
    while (this.#step < this.#steps) {
      const epoch = Math.floor(this.#step / this.#stepsPerEpoch)
      const start = performance.now()
      if (!(await this.#trainEpoch(epoch))) {
        await this.#saveCheckpoint(null)
        return { status: 'interrupted', out: config.out, steps: this.#step, loss: this.#loss, exported: null }
      }
      await this.#endEpoch(epoch, (performance.now() - start) / 1000)
    }
    const exported = await this.#withBestWeights(() => exportEncoder(this.folder, this.model.backbone, this.encoder))
    return { status: 'done', out: config.out, steps: this.#step, loss: this.#loss, exported }
  }

  /** Runs the steps of an epoch that are left. False if the signal ended it early. */
  async #trainEpoch(epoch: number): Promise<boolean> {
    const { config, hooks } = this
    if (hooks.signal?.aborted) return false
    const clock = new StepClock()
    const firstStep = this.#step - epoch * this.#stepsPerEpoch
    if (firstStep === 0) this.#losses = { sum: 0, count: 0 }
    const batches = this.loader.epoch({
      seed: config.seed, epoch, batchSize: config.batchSize, views: VIEWS, augmentation: this.#augmentation, firstStep
    })
    for await (const { indices, images } of batches) {
      clock.gotBatch()
      const { loss, finite } = await this.#trainOn(images, (view) =>
        randomFor(config.seed, epoch, indices[view % indices.length]!, Math.floor(view / indices.length), 'mask')
      )
      this.#step++
      this.#count(loss, finite, indices)
      clock.endStep(indices.length)
      if (this.#step % config.logEvery === 0 || this.#step === this.#steps) await this.#report(epoch, finite ? loss : NaN, clock)
      // Lets timers, signals and the progress bar have their turn.
      await nextTurn()
      const atEnd = this.#step === (epoch + 1) * this.#stepsPerEpoch // whose checkpoint follows its figures
      if (hooks.signal?.aborted) return atEnd
      if (!atEnd && this.#isCheckpointDue()) await this.#saveCheckpoint(null)
      clock.wantBatch()
    }
    return true
  }

  /** Trains on a batch and frees it. */
  async #trainOn(images: Tensor, random: (view: number) => Random): Promise<{ loss: number; finite: boolean }> {
    let outcome: Tensor | null = null
    try {
      outcome = this.#trainingStep.run(images, this.#step, random)
      const [loss, finite] = (await outcome.toTypedArrayAsync()) as Float32Array
      return { loss: loss!, finite: finite === 1 }
    } finally {
      outcome?.dispose()
      images.dispose()
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
        `(lr ${this.#trainingStep.lr(this.#step - 1)}, images ${indices.slice(0, 8).join(', ')}, ...). The last checkpoint is ` +
        `${path ? `'${path}'` : 'not written yet'}; a smaller --lr or --amp off may help`
    )
  }

  async #report(epoch: number, loss: number, clock: StepClock): Promise<void> {
    const { imagesPerSecond, dataShare } = clock.lap()
    const lr = this.#trainingStep.lr(this.#step - 1)
    const skipped = this.#skipped.total
    const weightDecay = this.#trainingStep.weightDecay(this.#step - 1)
    await this.#journal.write('step', {
      step: this.#step, epoch: this.#step / this.#stepsPerEpoch, loss: Number.isFinite(loss) ? loss : null, lr, weightDecay,
      ...(skipped && { skipped }), imagesPerSecond, dataShare, tensors: memory().tensors
    })
    const { epochs } = this.config
    const at = { step: this.#step, steps: this.#steps, epoch: epoch + 1, epochs }
    this.hooks.onStep?.({ ...at, loss, lr, imagesPerSecond, dataShare, skipped })
  }

  /** With the mean weights, where there are some. */
  #withBestWeights<T>(callback: () => Promise<T>): Promise<T> {
    return this.#trainingStep.ema?.applied(callback) ?? callback()
  }

  async #endEpoch(epoch: number, seconds: number): Promise<void> {
    const { config, model } = this
    const loss = this.#loss
    const done = epoch + 1
    await this.#drawReconstructions(done)
    const measured = config.knnEvery > 0 && done % config.knnEvery === 0
    const measure = () => heldOutKnn(model.backbone, this.source, this.loader, config.seed)
    const knn = measured ? await this.#withBestWeights(measure) : null
    const epochLoss = Number.isFinite(loss) ? loss : null
    await this.#journal.write('epoch', { step: this.#step, epoch: done, epochLoss, seconds, ...(knn !== null && { knn }) })
    if (done === config.epochs || this.#isCheckpointDue(done % config.checkpointEvery === 0)) await this.#saveCheckpoint(knn)
    this.hooks.onEpoch?.({ epoch: done, loss, seconds, knn })
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

  async #saveCheckpoint(knn: number | null): Promise<void> {
    const [step, perEpoch] = [this.#step, this.#stepsPerEpoch]
    const epochEnd = step > 0 && step % perEpoch === 0
    const progress = { step, epoch: Math.floor(step / perEpoch), losses: this.#losses, skipped: this.#skipped, epochEnd, knn }
    const path = await saveCheckpoint(this.folder, this.#trainingStep, progress, this.encoder)
    this.#lastCheckpoint = { path, time: performance.now() }
    await removeSuperfluous(this.folder, this.config)
  }

  /** A PNG of the first images of the source, the same corruption after each epoch. */
  async #drawReconstructions(epoch: number): Promise<void> {
    for await (const { images: clean } of this.loader.all(Math.min(SAMPLES, this.source.length))) {
      const grid = this.#reconstruct(clean)
      try {
        const path = join(this.folder.reconstructions, `epoch-${String(epoch).padStart(4, '0')}.png`)
        await this.#journal.picture(this.#step, 'reconstructions', await writeReconstructions(path, grid, this.loader.statistics))
      } finally {
        for (const tensor of Object.values(grid)) tensor.dispose()
      }
      break
    }
  }

  #reconstruct(clean: Tensor) {
    const { model } = this
    const { maskBudget: budget, alien, align, fill, seed } = this.config
    model.eval()
    try {
      return noGrad(() =>
        scope(() => {
          manualSeed(seed)
          const { corrupted, mask } = corrupt(clean, { budget, alien, align, fill, random: (view) => randomFor(seed, view, 'sample') })
          return { clean, corrupted, mask, reconstruction: model.reconstruct(corrupted) }
        })
      )
    } finally {
      model.train()
    }
  }

  dispose(): void {
    this.model.dispose()
    this.#trainingStep.dispose()
    this.loader.dispose()
  }
}
