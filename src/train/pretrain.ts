import { join } from 'node:path'

import { expected, InputError } from '../errors.js'
import {
  defaultStatistics, gmmlAugmentation, Loader, openImages, randomFor,
  type Augmentation, type ImageSource, type Random
} from '../data/index.js'
import { corrupt, GroupMaskedModel } from '../gmml/index.js'
import { AdamW, clipGradNorm, cosineSchedule, GradScaler } from '../optim/index.js'
import { cuda, getNumThreads, manualSeed, memory, noGrad, scope, setNumThreads, type Device, type Tensor } from '../torch/index.js'
import { buildEncoder, exportEncoder, loadCheckpoint, saveCheckpoint, type EncoderDescription, type Progress } from './checkpoint.js'
import { describeEncoder } from './encoder.js'
import { parseConfig, resumeConfig, type PretrainConfig, type PretrainConfigInput } from './config.js'
import { readInitialWeights } from './initial-weights.js'
import { heldOutKnn } from './knn-probe.js'
import { choosePrecision, inPrecision, precisions, type Precision } from './precision.js'
import { writeReconstructions } from './reconstructions.js'
import type { PretrainHooks, PretrainResult } from './reports.js'
import { RunFolder } from './run-folder.js'
import { StepClock } from './step-clock.js'

const VIEWS = 2
const REFERENCE_BATCH = 256
const SAMPLES = 8 // images in the reconstruction grid

function settleDevice(device: Device | 'auto'): Device {
  if (device === 'auto') return cuda.isAvailable() ? 'cuda' : 'cpu'
  if (!device.startsWith('cuda')) return device
  const count = cuda.deviceCount()
  if (count === 0) throw expected(`'cpu', as libtorch sees no CUDA device here (gmml inspect says more),`, 'device', device)
  if (Number(device.split(':')[1] ?? 0) >= count) throw expected(`one of the ${count} CUDA devices that libtorch sees`, 'device', device)
  return device
}

// Biases and other 1-D parameters are not decayed; position embedding and CLS token are.
function parameterGroups(model: GroupMaskedModel) {
  const parameters = model.parameters()
  const [decayed, plain] = [parameters.filter(({ ndim }) => ndim > 1), parameters.filter(({ ndim }) => ndim <= 1)]
  return [{ parameters: decayed }, { parameters: plain, weightDecay: 0 }]
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
  const resumed = Boolean(input?.resume) && typeof input.out === 'string' && new RunFolder(input.out).exists
  const saved = resumed ? await new RunFolder(input.out).readConfig() : null
  const run = await PretrainRun.prepare(saved ? resumeConfig(saved, input) : parseConfig(input), saved, hooks)
  try {
    return await run.train()
  } finally {
    run.dispose()
  }
}

/** One run: what is settled before the first step, and the loop. */
class PretrainRun {
  readonly #optimizer: AdamW
  readonly #scaler: GradScaler | null
  readonly #stepsPerEpoch: number
  readonly #lr: (step: number) => number
  readonly #weightDecay: (step: number) => number
  readonly #augmentation: Augmentation
  /** Steps done. */
  #step = 0
  /** Of the steps of the epoch. */
  #losses = { sum: 0, count: 0 }

  private constructor(
    readonly config: PretrainConfig, readonly hooks: PretrainHooks, readonly folder: RunFolder, readonly source: ImageSource,
    readonly loader: Loader, readonly encoder: EncoderDescription, readonly model: GroupMaskedModel, readonly device: Device,
    readonly precision: Precision
  ) {
    this.#stepsPerEpoch = loader.steps(config.batchSize)
    const steps = this.#stepsPerEpoch * config.epochs
    const warmupEpochs = Math.min(config.warmupEpochs, config.epochs / 10)
    const base = (config.lr * config.batchSize) / REFERENCE_BATCH
    const warmupSteps = Math.round(warmupEpochs * this.#stepsPerEpoch)
    this.#lr = cosineSchedule({ base, final: Math.min(config.minLr, base), steps, warmupSteps })
    this.#weightDecay = cosineSchedule({ base: config.weightDecay, final: config.weightDecayEnd, steps })
    this.#optimizer = new AdamW(parameterGroups(model))
    this.#scaler = precision === 'float16' ? new GradScaler(device) : null
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
    const newest = config.resume ? (await folder.listCheckpoints()).at(-1) : undefined
    if (newest) {
      resumedFrom = await loadCheckpoint(newest, { model: this.model, optimizer: this.#optimizer, scaler: this.#scaler })
      this.#step = resumedFrom.step
      if (resumedFrom.losses) this.#losses = { ...resumedFrom.losses }
    }
    // Also for a run that goes on: what it goes on with, more epochs for instance, is what the next resumption finds.
    const settings = Object.fromEntries(Object.entries(config).filter(([name]) => name !== 'resume'))
    await folder.create({ ...settings, encoder: this.encoder, precision: this.precision, imageCount: this.source.length })
    await folder.truncateMetrics(this.#step)
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
        await this.#saveCheckpoint()
        return { status: 'interrupted', out: config.out, steps: this.#step, loss: this.#loss, exported: null }
      }
      await this.#endEpoch(epoch, (performance.now() - start) / 1000)
    }
    const exported = await exportEncoder(this.folder, this.model.backbone, this.encoder)
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
      const value = await this.#lossOf(images, (view) =>
        randomFor(config.seed, epoch, indices[view % indices.length]!, Math.floor(view / indices.length), 'mask')
      )
      this.#step++
      this.#checkLoss(value, indices)
      clock.endStep(indices.length)
      if (this.#step % config.logEvery === 0 || this.#step === this.#steps) await this.#report(epoch, value, clock)
      // Lets timers, signals and the progress bar have their turn.
      await nextTurn()
      if (hooks.signal?.aborted) return this.#step === (epoch + 1) * this.#stepsPerEpoch
      clock.wantBatch()
    }
    return true
  }

  /** Trains on a batch and frees it. */
  async #lossOf(images: Tensor, random: (view: number) => Random): Promise<number> {
    let loss: Tensor | null = null
    try {
      loss = this.#trainStep(images, random)
      return await loss.itemAsync()
    } finally {
      loss?.dispose()
      images.dispose()
    }
  }

  /** One optimisation step on views [2 B, C, H, W]. Returns the loss. */
  #trainStep(clean: Tensor, random: (view: number) => Random): Tensor {
    const { config, model, device, precision } = this
    return scope(() => {
      // Dropped paths and noise depend on seed and step alone, so a resumed run draws the same.
      manualSeed(randomFor(config.seed, this.#step, 'torch').integer(0, 2 ** 53))
      const { maskBudget: budget, alien, align, fill } = config
      const { corrupted, mask } = corrupt(clean, { budget, alien, align, fill, random })
      const loss = inPrecision(precision, device, () => model.loss(corrupted, clean, mask))
      this.#update(loss)
      return loss.detach()
    })
  }

  #update(loss: Tensor): void {
    const [decayed, plain] = this.#optimizer.groups as [AdamW['groups'][number], AdamW['groups'][number]]
    decayed.lr = plain.lr = this.#lr(this.#step)
    decayed.weightDecay = this.#weightDecay(this.#step)
    const parameters = this.model.parameters()
    ;(this.#scaler?.scale(loss) ?? loss).backward()
    this.#scaler?.unscale(parameters)
    if (this.config.clip > 0) clipGradNorm(parameters, this.config.clip, { perTensor: true })
    this.#optimizer.step({ foundInf: this.#scaler?.foundInf })
    this.#scaler?.update()
    this.#optimizer.zeroGrad()
  }

  #checkLoss(loss: number, indices: readonly number[]): void {
    if (Number.isFinite(loss)) {
      this.#losses.sum += loss
      this.#losses.count++
      return
    }
    throw new InputError(
      `The loss is ${loss} at step ${this.#step} (lr ${this.#lr(this.#step - 1)}, images ${indices.slice(0, 8).join(', ')}, ...). ` +
        `Checkpoints up to here are in '${this.folder.checkpoints}'; a smaller --lr or --amp off may help`
    )
  }

  async #report(epoch: number, loss: number, clock: StepClock): Promise<void> {
    const { imagesPerSecond, dataShare } = clock.lap()
    const lr = this.#lr(this.#step - 1)
    const line = { step: this.#step, epoch: this.#step / this.#stepsPerEpoch, loss, lr, weightDecay: this.#weightDecay(this.#step - 1) }
    await this.folder.appendMetrics({ ...line, imagesPerSecond, dataShare, tensors: memory().tensors })
    const { epochs } = this.config
    this.hooks.onStep?.({ step: this.#step, steps: this.#steps, epoch: epoch + 1, epochs, loss, lr, imagesPerSecond, dataShare })
  }

  async #endEpoch(epoch: number, seconds: number): Promise<void> {
    const { config, model } = this
    const loss = this.#loss
    const done = epoch + 1
    await this.#drawReconstructions(done)
    const measured = config.knnEvery > 0 && done % config.knnEvery === 0
    const knn = measured ? await heldOutKnn(model.backbone, this.source, this.loader, config.seed) : null
    await this.folder.appendMetrics({ step: this.#step, epoch: done, epochLoss: loss, seconds, ...(knn !== null && { knn }) })
    if (done % config.checkpointEvery === 0 || done === config.epochs) await this.#saveCheckpoint()
    this.hooks.onEpoch?.({ epoch: done, loss, seconds, knn })
  }

  async #saveCheckpoint(): Promise<void> {
    const progress = { step: this.#step, epoch: Math.floor(this.#step / this.#stepsPerEpoch), losses: this.#losses }
    await saveCheckpoint(this.folder, { model: this.model, optimizer: this.#optimizer, scaler: this.#scaler }, progress, this.encoder)
  }

  /** A PNG of the first images of the source, the same corruption after each epoch. */
  async #drawReconstructions(epoch: number): Promise<void> {
    for await (const { images: clean } of this.loader.all(Math.min(SAMPLES, this.source.length))) {
      const grid = this.#reconstruct(clean)
      try {
        const path = join(this.folder.reconstructions, `epoch-${String(epoch).padStart(4, '0')}.png`)
        await writeReconstructions(path, grid, this.loader.statistics)
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
    this.#optimizer.dispose()
    this.#scaler?.dispose()
    this.loader.dispose()
  }
}
