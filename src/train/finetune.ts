import { existsSync } from 'node:fs'

import { fingerprintOf, ListingCache, Loader, supervisedAugmentation, type Augmentation, type Batch } from '../data/index.js'
import { InputError } from '../errors.js'
import { classify } from '../evaluate/classify.js'
import type { EvaluationSet } from '../evaluate/labelled.js'
import { readResults, resultsOf, writeResults, type Results } from '../evaluate/results.js'
import { getNumThreads, setNumThreads, type Device, type Tensor } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'
import type { CaptureOptions } from './captured-step.js'
import { exportClassifier, keptCheckpoints, loadCheckpoint, type EncoderDescription } from './checkpoint.js'
import { parseFinetuneConfig, resumeFinetuneConfig, type FinetuneConfig, type FinetuneConfigInput } from './finetune-config.js'
import { openFinetuneData, startClassifier, type FinetuneData } from './finetune-start.js'
import { classificationTrial, FinetuneStep } from './finetune-step.js'
import { TrainingLoop, type EpochFigures, type TrainingTask } from './loop.js'
import type { Precision } from './precision.js'
import type { PretrainHooks } from './reports.js'
import { best } from './retention.js'
import { keepListings, RunFolder } from './run-folder.js'
import { holdAsSet, loadingOptions } from './settings.js'
import { describedIn, requireNew, requireSame, settleDevice, settleGraph, settlePrecision, settleSettings, type FoundImages, type Saved } from './settle.js'

/** What became of a finetuning. */
export interface FinetuneResult {
  readonly status: 'done' | 'interrupted'
  readonly out: string
  readonly steps: number
  /** Mean loss of the last epoch. */
  readonly loss: number
  /** The finished run's results.json: on the test images, or without them on the validation images. */
  readonly results: Results | null
  /** The finished run's weights. */
  readonly exported: string | null
}

const settle = (input: FinetuneConfigInput) => settleSettings(input, parseFinetuneConfig, resumeFinetuneConfig)

/** Every setting that {@link finetune} would run with. @throws SettingsError for settings that are not legal. */
export async function settleFinetuneConfig(input: FinetuneConfigInput): Promise<FinetuneConfig> {
  return (await settle(input)).config
}

/**
 * Trains a vision transformer with a classifier on labelled images, from pretrained weights or from scratch, and measures it. Test images
 * are asked once, when the training is done; what is chosen is chosen by images that are held out of the training images.
 *
 * Everything that can be wrong with the settings is found before the run folder is made. The seed decides the result: a run that was
 * interrupted and resumed equals one that was not.
 *
 * @param input - Settings; {@link finetuneSchema} lists them with their defaults.
 * @returns When done, or, after `signal` was aborted, with a checkpoint to resume from.
 * @throws InputError for settings, weights and images that cannot be used, a loss that is not finite, and a disk that is full.
 */
export async function finetune(input: FinetuneConfigInput, hooks: PretrainHooks = {}): Promise<FinetuneResult> {
  const { config, saved } = await settle(input)
  const run = await FinetuneRun.prepare(config, saved, hooks)
  try {
    return await run.train()
  } finally {
    run.dispose()
  }
}

function augmentationOf(config: FinetuneConfig): Augmentation {
  const { cropScale, cropPadding, flip, randAugment: ops, randAugmentMagnitude: magnitude, erasing: probability } = config
  return {
    ...supervisedAugmentation, cropScale, cropPadding: cropPadding || null, flip,
    randAugment: ops ? { ops, magnitude } : null,
    erasing: probability ? { probability } : null
  }
}

/** One run: what is settled before the first step, and what is particular to finetuning. */
class FinetuneRun implements TrainingTask {
  readonly step: FinetuneStep
  readonly stepsPerEpoch: number
  readonly #batchSize: number
  readonly #augmentation: Augmentation
  readonly #start = performance.now()
  #loop: TrainingLoop | null = null

  private constructor(
    readonly config: FinetuneConfig, readonly folder: RunFolder, readonly data: FinetuneData, readonly loader: Loader,
    readonly encoder: EncoderDescription, readonly model: VisionTransformer, readonly device: Device, readonly precision: Precision,
    capture: CaptureOptions
  ) {
    this.#batchSize = Math.min(config.batchSize, data.train.length)
    this.stepsPerEpoch = loader.steps(this.#batchSize)
    model.gradCheckpointing = config.gradCheckpointing
    this.step = new FinetuneStep(model, config, this.#batchSize, this.stepsPerEpoch, device, precision, capture)
    this.#augmentation = augmentationOf(config)
  }

  /** @param saved - What config.json holds, if the run goes on. */
  static async prepare(config: FinetuneConfig, saved: Saved | null, hooks: PretrainHooks): Promise<FinetuneRun> {
    const device = settleDevice(config.device)
    const folder = new RunFolder(config.out)
    requireNew(folder, config.resume)
    const capture = { graph: settleGraph(config, device, hooks.onNotice), onNotice: hooks.onNotice }
    // A run that goes on has its own weights.
    const goesOn = saved !== null && (await folder.listCheckpoints()).length > 0 ? describedIn(saved) : null
    if (!goesOn && config.from !== 'random' && !existsSync(config.from)) {
      throw new InputError(`Expected a run's folder, a file of weights or 'random' for from, received '${config.from}'`)
    }
    const cache = new ListingCache(folder.index, hooks.onNotice)
    const data = await openFinetuneData(config, cache)
    if (config.selectBest && !data.validation) {
      throw new InputError('Expected images that are held out (validation above 0) for selectBest, received none')
    }
    const owned: { dispose(): void }[] = []
    try {
      if (config.threads) setNumThreads(config.threads)
      const { model, encoder } = await startClassifier(config, data.train, device, goesOn)
      owned.push(model)
      const found = { imageCount: data.train.length, imagesSha256: await fingerprintOf(data.train) }
      if (saved) requireSame(saved, { encoder, ...found }, `train '${config.train}'`, config.override)
      const [height, width] = model.imageSize
      const loader = new Loader(data.train, { size: { height, width }, device, statistics: encoder, ...loadingOptions(config, hooks) })
      owned.push(loader)
      const precision = settlePrecision(config.amp, saved, model, device, () => classificationTrial(model, device))
      await holdAsSet(loader, config, hooks)
      const run = new FinetuneRun(config, folder, data, loader, encoder, model, device, precision, capture)
      owned.push(run)
      await run.#open(found, hooks)
      await keepListings(cache, hooks)
      return run
    } catch (error) {
      for (const resource of owned) resource.dispose()
      throw error
    }
  }

  async #open(found: FoundImages, hooks: PretrainHooks): Promise<void> {
    const { config, encoder, precision, data, device, model } = this
    const loopConfig = { ...config, keepBest: config.keepBest || config.selectBest }
    const settings = { ...config, encoder, precision, ...found }
    const { loop, resumedFrom } = await TrainingLoop.open(this.folder, loopConfig, this, hooks, settings)
    this.#loop = loop
    const parameters = model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)
    const classes = data.train.classes.length
    hooks.onStart?.({ images: found.imageCount, classes, parameters, device, precision, threads: getNumThreads(), resumedFrom })
  }

  async train(): Promise<FinetuneResult> {
    const loop = this.#loop!
    const status = await loop.run()
    const state = { status, out: this.config.out, steps: loop.step, loss: loop.loss }
    if (status === 'interrupted') return { ...state, results: null, exported: null }
    if (this.config.selectBest) await this.#takeBest()
    const exported = await loop.withBestWeights(() => exportClassifier(this.folder, this.model, this.encoder))
    return { ...state, results: await this.#finalResults(), exported }
  }

  /** The weights of the epoch that was best on what is held out. */
  async #takeBest(): Promise<void> {
    const top = best(await keptCheckpoints(this.folder))
    if (top) await loadCheckpoint(top.path, this.step)
  }

  /** Of a run that was done before what it found then, if on these images: the test images are asked once. */
  async #finalResults(): Promise<Results> {
    const { config, data, folder } = this
    const before = await readResults(folder.path)
    const evaluation = (data.test ?? data.validation)!
    const { path, split } = evaluation
    if (before?.settings['steps'] === this.#loop!.step && before.measuredOn.path === path && before.measuredOn.split === split) return before
    const scores = await this.#loop!.withBestWeights(() => this.#measureOn(evaluation))
    const elsewhere = ['from', 'train', 'test', 'out', 'resume', 'override']
    const settings = Object.fromEntries(Object.entries(config).filter(([name]) => !elsewhere.includes(name)))
    const measurement = { command: 'finetune', subject: config.from, train: data.train, evaluation, start: this.#start } as const
    const results = resultsOf({ ...measurement, settings: { ...settings, steps: this.#loop!.step } }, scores)
    await writeResults(folder.path, results)
    return results
  }

  #measureOn(images: EvaluationSet): ReturnType<EvaluationSet['measure']> {
    const { device, encoder: statistics, model } = this
    const options = { device, statistics, ...loadingOptions(this.config, this.#loop!.hooks) }
    return images.measure((unlabelled) => classify(model, unlabelled, options))
  }

  batches(epoch: number, firstStep: number, signal?: AbortSignal): AsyncIterable<Batch> {
    const { seed } = this.config
    return this.loader.epoch({ seed, epoch, batchSize: this.#batchSize, views: 1, augmentation: this.#augmentation, firstStep, signal })
  }

  trainOn({ indices, images }: Batch, step: number): Tensor {
    return this.step.run(images, indices.map((index) => this.data.train.labels[index]!), step)
  }

  async measure(epoch: number): Promise<EpochFigures> {
    const { validateEvery, epochs } = this.config
    const { validation } = this.data
    if (!validation || (epoch % validateEvery !== 0 && epoch !== epochs)) return { accuracy: null, figures: {} }
    const { accuracy } = (await this.#measureOn(validation))['classifier']!
    return { accuracy, figures: { accuracy } }
  }

  dispose(): void {
    this.#loop?.dispose()
    this.model.dispose()
    this.step.dispose()
    this.loader.dispose()
  }
}
