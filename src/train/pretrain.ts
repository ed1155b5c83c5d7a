import { expected, InputError } from '../errors.js'
import { gmmlAugmentation, Loader, openImages, randomFor, type Augmentation, type BrokenImageError, type ImageSource } from '../data/index.js'
import { corrupt, GroupMaskedModel } from '../gmml/index.js'
import { AdamW, clipGradNorm, cosineSchedule, GradScaler } from '../optim/index.js'
import { cuda, getNumThreads, manualSeed, memory, noGrad, scope, setNumThreads, type Device } from '../torch/index.js'
import { buildEncoder, exportEncoder, loadCheckpoint, saveCheckpoint, type EncoderDescription, type Progress } from './checkpoint.js'
import { describeEncoder } from './encoder.js'
import { parseConfig, resumeConfig, type PretrainConfig, type PretrainConfigInput } from './config.js'
import { heldOutKnn } from './knn-probe.js'
import { choosePrecision, inPrecision, type Precision } from './precision.js'
import { writeReconstructions } from './reconstructions.js'
import { RunFolder } from './run-folder.js'
import { join } from 'node:path'

/** The state of a run at a step, as the progress bar shows it. */
export interface StepReport {
  readonly step: number
  readonly steps: number
  readonly epoch: number
  readonly epochs: number
  /** L1 in normalised pixels, of the last logged step. */
  readonly loss: number
  readonly lr: number
  /** Images per second since the last report, each with two crops. */
  readonly imagesPerSecond: number
  /** Part of the time since the last report that was spent waiting for images. */
  readonly dataShare: number
}

/** What a run tells while it goes on. All optional. */
export interface PretrainHooks {
  /** Once, when all is checked and ready. */
  readonly onStart?: (start: RunStart) => void
  /** At each logging step. */
  readonly onStep?: (report: StepReport) => void
  readonly onEpoch?: (epoch: { readonly epoch: number; readonly loss: number; readonly seconds: number; readonly knn: number | null }) => void
  readonly onBroken?: (error: BrokenImageError) => void
  /** Ends the run after the current step, with a checkpoint. */
  readonly signal?: AbortSignal
}

/** What was settled before the first step. */
export interface RunStart {
  readonly images: number
  readonly classes: number
  readonly parameters: number
  readonly device: Device
  readonly precision: Precision
  readonly threads: number
  readonly resumedFrom: Progress | null
}

export interface PretrainResult {
  readonly status: 'done' | 'interrupted'
  readonly out: string
  readonly steps: number
  /** Mean loss of the last epoch (of what was done of it). */
  readonly loss: number
  /** The encoder's weights, if the run is done. */
  readonly exported: string | null
}

const VIEWS = 2
const REFERENCE_BATCH = 256
const SAMPLES = 8 // images in the reconstruction grid

function settleDevice(device: Device | 'auto'): Device {
  if (device === 'auto') return cuda.isAvailable() ? 'cuda' : 'cpu'
  if (!device.startsWith('cuda')) return device
  const index = Number(device.split(':')[1] ?? 0)
  if (index >= cuda.deviceCount()) throw expected(`one of the ${cuda.deviceCount()} CUDA devices that libtorch sees`, 'device', device)
  return device
}

// Biases and other 1-D parameters are not decayed; position embedding and CLS token are.
function parameterGroups(model: GroupMaskedModel) {
  const parameters = model.parameters()
  return [{ parameters: parameters.filter(({ ndim }) => ndim > 1) }, { parameters: parameters.filter(({ ndim }) => ndim <= 1), weightDecay: 0 }]
}

const nextTurn = () => new Promise<void>((resolve) => void setImmediate(resolve))

/**
 * Pretrains a vision transformer on a folder of images by group masked model learning (arXiv 2205.14986).
 *
 * Everything that can be wrong with the settings is found before the run folder is made.
 *
 * @returns When done, or, after `signal` was aborted, with a checkpoint to resume from.
 * @throws InputError for settings and images that cannot be used.
 */
export async function pretrain(input: PretrainConfigInput, hooks: PretrainHooks = {}): Promise<PretrainResult> {
  const folder = typeof input.out === 'string' ? new RunFolder(input.out) : null
  const config = input.resume && folder?.exists ? resumeConfig(await folder.readConfig(), input) : parseConfig(input)
  const run = await PretrainRun.prepare(config, hooks)
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
  #lossSum = 0
  #lossCount = 0

  private constructor(
    readonly config: PretrainConfig, readonly hooks: PretrainHooks, readonly folder: RunFolder, readonly source: ImageSource, readonly loader: Loader,
    readonly encoder: EncoderDescription, readonly model: GroupMaskedModel, readonly device: Device, readonly precision: Precision
  ) {
    this.#stepsPerEpoch = loader.steps(config.batchSize)
    const steps = this.#stepsPerEpoch * config.epochs
    const warmupEpochs = Math.min(config.warmupEpochs, config.epochs / 10)
    const base = (config.lr * config.batchSize) / REFERENCE_BATCH
    this.#lr = cosineSchedule({ base, final: Math.min(config.minLr, base), steps, warmupSteps: Math.round(warmupEpochs * this.#stepsPerEpoch) })
    this.#weightDecay = cosineSchedule({ base: config.weightDecay, final: config.weightDecayEnd, steps })
    this.#optimizer = new AdamW(parameterGroups(model))
    this.#scaler = precision === 'float16' ? new GradScaler(device) : null
    this.#augmentation = { ...gmmlAugmentation, cropScale: config.cropScale }
  }

  static async prepare(config: PretrainConfig, hooks: PretrainHooks): Promise<PretrainRun> {
    const device = settleDevice(config.device)
    const folder = new RunFolder(config.out)
    if (folder.exists && !config.resume) {
      throw new InputError(`'${config.out}' already holds a run. Go on with it (resume), or choose another folder`)
    }
    if (config.cropScale[0] > config.cropScale[1]) throw expected('the smaller part first', 'cropScale', config.cropScale)
    const source = await openImages(config.images, { limit: config.limit })
    if (config.knnEvery && !source.classes) throw expected('images with classes (sub-folders or labels)', 'knnEvery', config.knnEvery)
    const sizeOnly = describeEncoder(config, source, { mean: [], std: [] })
    const [height, width] = sizeOnly.imageSize
    if (config.align > Math.min(height, width)) throw expected(`at most the image size ${Math.min(height, width)}`, 'align', config.align)
    if (config.threads) setNumThreads(config.threads)
    const loader = new Loader(source, {
      size: { height, width }, device, workers: config.workers, ...(hooks.onBroken && { onBroken: hooks.onBroken })
    })
    loader.steps(config.batchSize)
    const encoder = describeEncoder(config, source, loader.statistics)
    manualSeed(config.seed)
    const model = scope(() => new GroupMaskedModel(buildEncoder(encoder, { dropPath: config.dropPath }), { maskedOnly: !config.allPixels }).to(device))
    const precisions = { off: 'float32', bf16: 'bfloat16', fp16: 'float16' } as const
    const precision = config.amp === 'auto' ? choosePrecision(model, device).precision : precisions[config.amp]
    const run = new PretrainRun(config, hooks, folder, source, loader, encoder, model, device, precision)
    await run.#open()
    return run
  }

  // The first thing that touches the disk.
  async #open(): Promise<void> {
    const { config, folder } = this
    let resumedFrom: Progress | null = null
    const newest = config.resume ? (await folder.listCheckpoints()).at(-1) : undefined
    if (newest) {
      resumedFrom = await loadCheckpoint(newest, { model: this.model, optimizer: this.#optimizer, scaler: this.#scaler })
      this.#step = resumedFrom.step
    } else {
      const { resume: _, ...settings } = config
      await folder.create({ ...settings, encoder: this.encoder })
    }
    await folder.truncateMetrics(this.#step)
    this.hooks.onStart?.({
      images: this.source.length,
      classes: this.source.classes?.length ?? 0,
      parameters: this.model.parameters().reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0),
      device: this.device,
      precision: this.precision,
      threads: getNumThreads(),
      resumedFrom
    })
  }

  async train(): Promise<PretrainResult> {
    const { config } = this
    const steps = this.#stepsPerEpoch * config.epochs
    while (this.#step < steps) {
      const epoch = Math.floor(this.#step / this.#stepsPerEpoch)
      const start = performance.now()
      const finished = await this.#trainEpoch(epoch)
      const loss = this.#lossSum / this.#lossCount
      if (!finished) {
        await this.#saveCheckpoint()
        return { status: 'interrupted', out: config.out, steps: this.#step, loss, exported: null }
      }
      await this.#endEpoch(epoch, loss, (performance.now() - start) / 1000)
    }
    const exported = await exportEncoder(this.folder, this.model.backbone, this.encoder)
    return { status: 'done', out: config.out, steps, loss: this.#lossSum / this.#lossCount, exported }
  }

  /** Runs the steps of an epoch that are left. False if the signal ended it early. */
  async #trainEpoch(epoch: number): Promise<boolean> {
    const { config } = this
    this.#lossSum = this.#lossCount = 0
    const clock = new StepClock()
    const firstStep = this.#step - epoch * this.#stepsPerEpoch
    const batches = this.loader.epoch({
      seed: config.seed, epoch, batchSize: config.batchSize, views: VIEWS, augmentation: this.#augmentation, firstStep
    })
    clock.start()
    for await (const { indices, images } of batches) {
      clock.gotBatch()
      const loss = this.#trainStep(images, (view) =>
        randomFor(config.seed, epoch, indices[view % indices.length]!, Math.floor(view / indices.length), 'mask')
      )
      images.dispose()
      this.#step++
      const value = await loss.itemAsync()
      loss.dispose()
      this.#checkLoss(value, indices)
      clock.endStep(indices.length)
      if (this.#step % config.logEvery === 0) await this.#report(epoch, value, clock)
      // Lets timers, signals and the progress bar have their turn.
      await nextTurn()
      if (this.hooks.signal?.aborted) return this.#step === (epoch + 1) * this.#stepsPerEpoch
    }
    return true
  }

  /** One optimisation step on views [2 B, C, H, W]. Returns the loss. */
  #trainStep(clean: Parameters<typeof corrupt>[0], random: (view: number) => ReturnType<typeof randomFor>) {
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

  #update(loss: ReturnType<GroupMaskedModel['loss']>): void {
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
      this.#lossSum += loss
      this.#lossCount++
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
    this.hooks.onStep?.({ step: this.#step, steps: this.#stepsPerEpoch * epochs, epoch: epoch + 1, epochs, loss, lr, imagesPerSecond, dataShare })
  }

  async #endEpoch(epoch: number, loss: number, seconds: number): Promise<void> {
    const { config } = this
    const done = epoch + 1
    await this.#drawReconstructions(done)
    const knn = config.knnEvery && done % config.knnEvery === 0 ? await heldOutKnn(this.model.backbone, this.source, this.loader, config.seed) : null
    await this.folder.appendMetrics({ step: this.#step, epoch: done, epochLoss: loss, seconds, ...(knn !== null && { knn }) })
    if (done % config.checkpointEvery === 0 || done === config.epochs) await this.#saveCheckpoint()
    this.hooks.onEpoch?.({ epoch: done, loss, seconds, knn })
  }

  async #saveCheckpoint(): Promise<void> {
    const progress = { step: this.#step, epoch: Math.floor(this.#step / this.#stepsPerEpoch) }
    await saveCheckpoint(this.folder, { model: this.model, optimizer: this.#optimizer, scaler: this.#scaler }, progress, this.encoder)
  }

  /** A PNG of the first images of the source, the same corruption after each epoch. */
  async #drawReconstructions(epoch: number): Promise<void> {
    const { config, model } = this
    for await (const { images: clean } of this.loader.all(Math.min(SAMPLES, this.source.length))) {
      model.eval()
      const grid = noGrad(() =>
        scope(() => {
          const { maskBudget: budget, alien, align, fill } = config
          manualSeed(config.seed)
          const { corrupted, mask } = corrupt(clean, { budget, alien, align, fill, random: (view) => randomFor(config.seed, view, 'sample') })
          return { clean, corrupted, mask, reconstruction: model.reconstruct(corrupted) }
        })
      )
      model.train()
      const path = join(this.folder.reconstructions, `epoch-${String(epoch).padStart(4, '0')}.png`)
      await writeReconstructions(path, grid, this.loader.statistics)
      for (const tensor of Object.values(grid)) tensor.dispose()
      break
    }
  }

  dispose(): void {
    this.model.dispose()
    this.#optimizer.dispose()
    this.loader.dispose()
  }
}

/** Measures images per second, and how much of the time went into waiting for them. */
class StepClock {
  #last = 0
  #lapStart = 0
  #waited = 0
  #images = 0

  start(): void {
    this.#last = this.#lapStart = performance.now()
  }

  gotBatch(): void {
    this.#waited += performance.now() - this.#last
  }

  endStep(images: number): void {
    this.#images += images
    this.#last = performance.now()
  }

  lap(): { imagesPerSecond: number; dataShare: number } {
    const elapsed = performance.now() - this.#lapStart
    const result = { imagesPerSecond: (1000 * this.#images) / elapsed, dataShare: this.#waited / elapsed }
    this.#lapStart = performance.now()
    this.#waited = this.#images = 0
    return result
  }
}
