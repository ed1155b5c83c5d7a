import { join } from 'node:path'

import { expected } from '../errors.js'
import {
  defaultStatistics, fingerprintOf, ListingCache, Loader, openImages, randomFor, type Augmentation, type Batch, type ImageSource
} from '../data/index.js'
import { corrupt, GroupMaskedModel } from '../gmml/index.js'
import { getNumThreads, manualSeed, noGrad, scope, setNumThreads, type Device, type Tensor } from '../torch/index.js'
import { pretrainAugmentation } from './augmentation.js'
import type { CaptureOptions } from './captured-step.js'
import { buildEncoder, exportEncoder, RECONSTRUCTION_BLOCKS, type EncoderDescription } from './checkpoint.js'
import { describeEncoder } from './encoder.js'
import { parseConfig, resumeConfig, type PretrainConfig, type PretrainConfigInput } from './config.js'
import { readInitialWeights } from './initial-weights.js'
import { heldOutKnn } from './knn-probe.js'
import type { Journal } from './journal.js'
import { TrainingLoop, type EpochFigures, type TrainingTask } from './loop.js'
import type { Precision } from './precision.js'
import { PretrainStep, reconstructionTrial } from './pretrain-step.js'
import { writeReconstructions } from './reconstructions.js'
import type { PretrainHooks, PretrainResult } from './reports.js'
import { keepListings, RunFolder } from './run-folder.js'
import { holdAsSet, imagePaths, loadingOptions, weightsOf, writePaths } from './settings.js'
import { requireNew, requireSame, settleDevice, settleGraph, settlePrecision, settleSettings, type FoundImages, type Saved } from './settle.js'

const VIEWS = 2
const SAMPLES = 8 // images in the reconstruction grid

const settle = (input: PretrainConfigInput) => settleSettings(input, parseConfig, resumeConfig)

/** Every setting that {@link pretrain} would run with. @throws SettingsError for settings that are not legal. */
export async function settleConfig(input: PretrainConfigInput): Promise<PretrainConfig> {
  return (await settle(input)).config
}

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
  const { config, saved } = await settle(input)
  const run = await PretrainRun.prepare(config, saved, hooks)
  try {
    return await run.train()
  } finally {
    run.dispose()
  }
}

/** The images may have moved; but what part of an epoch each source is decides the result. */
function requireSameWeights({ images }: Saved, config: PretrainConfig): void {
  const before = imagePaths.safeParse(images)
  if (!before.success || JSON.stringify(weightsOf(before.data)) === JSON.stringify(weightsOf(config.images))) return
  throw expected(`the weights that the run began with (${writePaths(before.data).join(' ')})`, 'images', writePaths(config.images).join(' '))
}

/** One run: what is settled before the first step, and what is particular to pretraining. */
class PretrainRun implements TrainingTask {
  readonly step: PretrainStep
  readonly stepsPerEpoch: number
  readonly extra: Readonly<Record<string, string>>
  readonly #augmentation: Augmentation
  #loop: TrainingLoop | null = null

  private constructor(
    readonly config: PretrainConfig, readonly folder: RunFolder, readonly source: ImageSource, readonly loader: Loader,
    readonly encoder: EncoderDescription, readonly model: GroupMaskedModel, readonly device: Device, readonly precision: Precision,
    capture: CaptureOptions
  ) {
    this.stepsPerEpoch = loader.steps(config.batchSize)
    model.backbone.gradCheckpointing = config.gradCheckpointing
    this.step = new PretrainStep(model, config, this.stepsPerEpoch, device, precision, capture)
    this.extra = { [RECONSTRUCTION_BLOCKS]: JSON.stringify(model.blocks) }
    this.#augmentation = pretrainAugmentation(config)
  }

  /** @param saved - What config.json holds, if the run goes on. */
  static async prepare(config: PretrainConfig, saved: Saved | null, hooks: PretrainHooks): Promise<PretrainRun> {
    const device = settleDevice(config.device)
    const folder = new RunFolder(config.out)
    requireNew(folder, config.resume)
    const capture = { graph: settleGraph(config, device, hooks.onNotice), onNotice: hooks.onNotice }
    const cache = new ListingCache(folder.index, hooks.onNotice)
    const source = await openImages(config.images, { limit: config.limit, cache })
    if (config.knnEvery && !(source.classes && source.length > 1)) {
      throw expected('at least two images, with classes (sub-folders or labels)', 'knnEvery', config.knnEvery)
    }
    const encoder = describeEncoder(config, source, defaultStatistics(source))
    const [height, width] = encoder.imageSize
    if (config.align > Math.min(height, width)) throw expected(`at most the image size ${Math.min(height, width)}`, 'align', config.align)
    const found = { imageCount: source.length, imagesSha256: await fingerprintOf(source) }
    if (saved) requireSame(saved, { encoder, ...found }, `images '${writePaths(config.images).join(' ')}'`, config.override)
    if (saved && !config.override) requireSameWeights(saved, config)
    if (config.threads) setNumThreads(config.threads)

    const owned: { dispose(): void }[] = []
    try {
      // A run that goes on has its own weights.
      const goesOn = config.resume && (await folder.listCheckpoints()).length > 0
      const initial = config.init === undefined || goesOn ? null : await readInitialWeights(config.init)
      if (initial) owned.push(initial)
      const size = { height, width }
      const loader = new Loader(source, { size, device, statistics: encoder, ...loadingOptions(config, hooks) })
      owned.push(loader)
      loader.steps(config.batchSize)
      manualSeed(config.seed)
      const { dropPath, allPixels, featureBlocks: blocks } = config
      const options = { maskedOnly: !allPixels, ...(blocks && { blocks }) }
      const model = scope(() => new GroupMaskedModel(buildEncoder(encoder, { dropPath }), options).to(device))
      owned.push(model)
      initial?.copyInto(model)
      initial?.dispose()
      const precision = settlePrecision(config.amp, saved, model, device, () => reconstructionTrial(model, device))
      await holdAsSet(loader, config, hooks)
      const run = new PretrainRun(config, folder, source, loader, encoder, model, device, precision, capture)
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
    const { config, encoder, precision, source, device } = this
    const settings = { ...config, encoder, precision, ...found }
    const { loop, resumedFrom } = await TrainingLoop.open(this.folder, config, this, hooks, settings)
    this.#loop = loop
    hooks.onStart?.({
      images: source.length,
      classes: source.classes?.length ?? 0,
      parameters: this.model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0),
      device,
      precision,
      threads: getNumThreads(),
      resumedFrom
    })
  }

  async train(): Promise<PretrainResult> {
    const loop = this.#loop!
    const status = await loop.run()
    const finished = status === 'done'
    const exported = finished ? await loop.withBestWeights(() => exportEncoder(this.folder, this.model.backbone, this.encoder)) : null
    return { status, out: this.config.out, steps: loop.step, loss: loop.loss, exported }
  }

  batches(epoch: number, firstStep: number, signal?: AbortSignal): AsyncIterable<Batch> {
    const { seed, batchSize } = this.config
    return this.loader.epoch({ seed, epoch, batchSize, views: VIEWS, augmentation: this.#augmentation, firstStep, signal })
  }

  trainOn({ indices, images, firstViews }: Batch, step: number, epoch: number): Tensor {
    const random = (row: number) => {
      const i = row % indices.length
      const view = (firstViews?.[i] ?? 0) + Math.floor(row / indices.length)
      return randomFor(this.config.seed, epoch, indices[i]!, view, 'mask')
    }
    return this.step.run(images, step, random)
  }

  async measure(epoch: number, journal: Journal): Promise<EpochFigures> {
    const { knnEvery, seed } = this.config
    await this.#drawReconstructions(epoch, journal)
    if (knnEvery === 0 || epoch % knnEvery !== 0) return { accuracy: null, figures: {} }
    const knn = await heldOutKnn(this.model.backbone, this.source, this.loader, seed)
    return { accuracy: knn, figures: { knn } }
  }

  /** A PNG of the first images of the source, the same corruption after each epoch. */
  async #drawReconstructions(epoch: number, journal: Journal): Promise<void> {
    for await (const { images: clean } of this.loader.all(Math.min(SAMPLES, this.source.length))) {
      const grid = this.#reconstruct(clean)
      try {
        const path = join(this.folder.reconstructions, `epoch-${String(epoch).padStart(4, '0')}.png`)
        const step = epoch * this.stepsPerEpoch
        await journal.picture(step, 'reconstructions', await writeReconstructions(path, grid, this.loader.statistics))
      } finally {
        for (const tensor of Object.values(grid)) tensor.dispose()
      }
      break
    }
  }

  #reconstruct(clean: Tensor) {
    const { model } = this
    const { maskBudget: budget, alien, align, overhang, fill, seed } = this.config
    model.eval()
    try {
      return noGrad(() =>
        scope(() => {
          manualSeed(seed)
          const random = (view: number) => randomFor(seed, view, 'sample')
          const { corrupted, mask } = corrupt(clean, { budget, alien, align, overhang, fill, random })
          return { clean, corrupted, mask, reconstruction: model.reconstruct(corrupted) }
        })
      )
    } finally {
      model.train()
    }
  }

  dispose(): void {
    this.#loop?.dispose()
    this.model.dispose()
    this.step.dispose()
    this.loader.dispose()
  }
}
