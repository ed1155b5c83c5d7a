import pLimit from 'p-limit'

import { expected, InputError } from '../errors.js'
import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Device, type Tensor } from '../torch/index.js'
import type { Rectangle, Size } from './crop.js'
import { BrokenImageError, printable } from './broken.js'
import { decodeCrops } from './decode.js'
import { type EncodedSource, namedContent } from './encoded.js'
import type { MemorySource } from './memory.js'
import { permutation, randomFor } from './random.js'
import { resampleCrops } from './resample.js'
import type { ImageSource } from './source.js'
import {
  drawChange, drawCrop, finishViews, imagenetStatistics, type Augmentation, type Statistics, type ViewChange, type ViewCrop
} from './views.js'

export interface LoaderOptions {
  /** Size of the views in pixels. */
  readonly size: Size
  readonly device: Device
  /** Mean and deviation to normalise with. Default: the data set's own for images in memory, ImageNet's for files. */
  readonly statistics?: Statistics
  /** Files decoded at a time. Default 4. */
  readonly workers?: number
  /** Part of the images that may be broken before loading stops: at least one may be, unless it is 0. Default 0.01. */
  readonly maxBroken?: number
  /** Called once for each broken image. */
  readonly onBroken?: (error: BrokenImageError) => void
}

export interface EpochOptions {
  readonly seed: number
  readonly epoch: number
  /** Images in a batch. A last batch that would be smaller is left out. */
  readonly batchSize: number
  /** Views of each image. */
  readonly views: number
  readonly augmentation: Augmentation
  /** Steps to leave out at the start, for a resumed run. */
  readonly firstStep?: number
}

/** Some images, as the network sees them. */
export interface Batch {
  /** Positions of the images in the source. */
  readonly indices: readonly number[]
  /** [views * B, C, H, W], normalised, on the device: first view 0 of all images, then view 1. */
  readonly images: Tensor
}

/** Mean and standard deviation of each channel over all pixels of all images. */
function statisticsOf({ images, length, channels, height, width }: MemorySource): Statistics {
  const area = height * width
  const counts = Array.from({ length: channels }, () => new Float64Array(256))
  for (let plane = 0; plane < length * channels; plane++) {
    const own = counts[plane % channels]!
    for (let i = plane * area; i < (plane + 1) * area; i++) own[images[i]!]! += 1
  }
  const each = counts.map((own) => {
    // In whole numbers, as far as they go: a data set of one flat colour has a deviation of exactly 0, which cannot be divided by.
    const mean = own.reduce((sum, count, value) => sum + count * value, 0) / (length * area)
    const variance = own.reduce((sum, count, value) => sum + count * (value - mean) ** 2, 0) / (length * area)
    return { mean: mean / 255, std: Math.sqrt(variance) / 255 || 1 }
  })
  return { mean: each.map(({ mean }) => mean), std: each.map(({ std }) => std) }
}

/** What images are normalised with unless told: the data set's own mean and deviation for images in memory, ImageNet's for files. */
export function defaultStatistics(source: ImageSource): Statistics {
  return source.kind === 'memory' ? statisticsOf(source) : imagenetStatistics
}

/** How many batches are prepared ahead of the one in use. */
const PREFETCH = 2

/**
 * Makes batches of views. Which image is where in an epoch, and what its views are, depends on seed, epoch and index alone, so a resumed
 * run and any number of workers see the same.
 */
export class Loader {
  readonly statistics: Statistics
  readonly #source: ImageSource
  readonly #options: LoaderOptions
  /** All images of a source in memory as uint8 [N, C, H, W] on the device. */
  readonly #resident: Tensor | null
  readonly #broken = new Map<number, BrokenImageError>()
  readonly #limit: ReturnType<typeof pLimit>

  /** @throws InputError if `maxBroken` is no part. */
  constructor(source: ImageSource, options: LoaderOptions) {
    const { maxBroken = 0 } = options
    if (!(maxBroken >= 0 && maxBroken <= 1)) throw expected('a number from 0 to 1', 'maxBroken', maxBroken)
    this.#source = source
    this.#options = options
    this.statistics = options.statistics ?? defaultStatistics(source)
    this.#limit = pLimit(options.workers ?? 4)
    this.#resident =
      source.kind === 'memory'
        ? scope(() => {
            const { images, length, channels, height, width } = source
            return keep(torch.fromTypedArray(images, [length, channels, height, width]).to(options.device))
          })
        : null
  }

  /** Broken images met so far, in the source's order: the order in which they were met varies, since files are decoded side by side. */
  get broken(): readonly BrokenImageError[] {
    return [...this.#broken].sort(([a], [b]) => a - b).map(([, error]) => error)
  }

  /** Full batches in an epoch. @throws InputError if there is none. */
  steps(batchSize: number): number {
    if (!Number.isInteger(batchSize) || batchSize < 1) throw expected('an integer of at least 1', 'batchSize', batchSize)
    const steps = Math.floor(this.#source.length / batchSize)
    if (steps === 0) throw expected(`at most the number of images, ${this.#source.length},`, 'batchSize', batchSize)
    return steps
  }

  /**
   * The batches of one epoch in random order. The caller disposes of each batch's images. A broken image's place is taken by the next in
   * the order that is not broken, also in `indices`.
   *
   * @throws InputError for a batch larger than the images, and when too many images are broken.
   */
  async *epoch(options: EpochOptions): AsyncGenerator<Batch> {
    const { batchSize, seed, epoch, firstStep = 0 } = options
    const steps = this.steps(batchSize)
    const order = permutation(this.#source.length, randomFor(seed, epoch, 'order'))
    const pending: Promise<Batch>[] = []
    const start = (step: number): void => {
      if (step >= steps) return
      const batch = this.#batch(step * batchSize, order, options)
      batch.catch(() => undefined) // awaited below; until then a failure must not count as unhandled
      pending.push(batch)
    }
    // Resident images need no waiting for files, so nothing is gained by making batches early.
    const ahead = this.#resident ? 1 : PREFETCH + 1
    for (let step = firstStep; step < firstStep + ahead; step++) start(step)
    try {
      for (let step = firstStep; step < steps; step++) {
        const batch = await pending.shift()!
        yield batch
        start(step + ahead)
      }
    } finally {
      // Left early: what was prepared ahead is not wanted any more.
      for (const batch of await Promise.allSettled(pending)) if (batch.status === 'fulfilled') batch.value.images.dispose()
    }
  }

  async #batch(first: number, order: Uint32Array, options: EpochOptions): Promise<Batch> {
    const { seed, epoch, views, augmentation, batchSize } = options
    const indices = [...order.subarray(first, first + batchSize)]
    const keys = Array.from({ length: views }, (_, view) => indices.map((index) => [seed, epoch, index, view] as const)).flat()
    const { size } = this.#options
    const changes = keys.map((key) => drawChange((purpose) => randomFor(...key, purpose), size, augmentation))
    const crop = (index: number, view: number, width: number, height: number) =>
      drawCrop(randomFor(seed, epoch, index, view, 'crop'), width, height, augmentation, size)
    if (this.#resident) {
      const { width, height } = this.#source as MemorySource
      const crops = keys.map(([, , index, view]) => crop(index, view, width, height))
      return { indices, images: this.#fromResident(indices, crops, changes) }
    }
    const decoded = await Promise.all(
      // A stand-in for a broken image takes that image's random numbers: its own are for its own place.
      indices.map((index, i) =>
        this.#decodeOrNext(first + i, order, async (source, actual) => {
          let crops: ViewCrop[] = []
          const images = await decodeCrops(await namedContent(source, actual), (width, height) => {
            crops = Array.from({ length: views }, (_, view) => crop(index, view, width, height))
            return crops
          }, size)
          return images.map((image, view) => ({ image, shift: crops[view]!.shift ?? null }))
        })
      )
    )
    const cut = Array.from({ length: views }, (_, view) => decoded.map(({ pixels }) => pixels[view]!)).flat()
    const all = changes.map((change, i) => ({ ...change, shift: cut[i]!.shift }))
    return { indices: decoded.map(({ index }) => index), images: this.#upload(cut.map(({ image }) => image), all) }
  }

  /** Views of resident images: as many crops and changes as indices, or a multiple, view by view. */
  #fromResident(
    indices: readonly number[], crops: readonly (Rectangle & Partial<ViewCrop>)[], changes: readonly ViewChange[]
  ): Tensor {
    return noGrad(() =>
      scope(() => {
        const rows = torch.fromTypedArray(Int32Array.from(indices)).to(this.#options.device)
        const chosen = this.#resident!.indexSelect(0, rows).to('float32').div(255)
        const repeated = chosen.repeat([crops.length / indices.length, 1, 1, 1])
        const flips = crops.map(({ flip }) => flip ?? false)
        const all = changes.map((change, i) => ({ ...change, shift: crops[i]!.shift ?? null }))
        return finishViews(resampleCrops(repeated, crops, flips, this.#options.size), all, this.statistics)
      })
    )
  }

  // One copy into a batch, one to the device: bytes, a quarter of what floats would be.
  #upload(pixels: readonly Uint8Array[], changes: readonly ViewChange[]): Tensor {
    const { height, width } = this.#options.size
    const bytes = new Uint8Array(pixels.length * 3 * height * width)
    for (const [i, image] of pixels.entries()) bytes.set(image, i * image.length)
    return noGrad(() =>
      scope(() => {
        const images = torch.fromTypedArray(bytes, [pixels.length, 3, height, width]).to(this.#options.device)
        return finishViews(images.to('float32').div(255), changes, this.statistics)
      })
    )
  }

  /** Decodes an image, or gives null if it is broken. */
  async #decode<T>(index: number, decode: (source: EncodedSource) => Promise<T>): Promise<T | null> {
    if (this.#broken.has(index)) return null
    try {
      return await this.#limit(() => decode(this.#source as EncodedSource))
    } catch (error) {
      if (!(error instanceof BrokenImageError)) throw error
      this.#reportBroken(index, error)
      return null
    }
  }

  /** Decodes the image at a position of the order, or the next one that is not broken. */
  async #decodeOrNext<T>(
    position: number, order: Uint32Array, decode: (source: EncodedSource, index: number) => Promise<T>
  ): Promise<{ index: number; pixels: T }> {
    for (let tried = 0; tried < order.length; tried++) {
      const index = order[(position + tried) % order.length]!
      const pixels = await this.#decode(index, (source) => decode(source, index))
      if (pixels !== null) return { index, pixels }
    }
    throw new InputError(`None of the ${order.length} images in '${this.#source.path}' can be decoded`)
  }

  #reportBroken(index: number, error: BrokenImageError): void {
    if (this.#broken.has(index)) return
    this.#broken.set(index, error)
    this.#options.onBroken?.(error)
    const { maxBroken = 0.01 } = this.#options
    const allowed = maxBroken === 0 ? 0 : Math.max(1, Math.floor(maxBroken * this.#source.length))
    if (this.#broken.size <= allowed) return
    const list = this.broken.map(({ file, reason }) => `  ${printable(file)}: ${reason}`).join('\n')
    const found = `${this.#broken.size} of ${this.#source.length} images are broken`
    throw new InputError(`${found}, and at most ${allowed} may be (maxBroken). Mend or remove them:\n${list}`)
  }

  /**
   * All images in the source's order, without augmentation: the largest central part of the views' aspect, resized. Broken ones are left
   * out.
   *
   * @param batchSize - Images in a batch; the last one may be smaller.
   */
  async *all(batchSize: number): AsyncGenerator<Batch> {
    const { size } = this.#options
    if (!Number.isInteger(batchSize) || batchSize < 1) throw expected('an integer of at least 1', 'batchSize', batchSize)
    const plain = (images: readonly unknown[]) => images.map(() => ({ jitter: null, blur: null }))
    for (let first = 0; first < this.#source.length; first += batchSize) {
      const indices = Array.from({ length: Math.min(batchSize, this.#source.length - first) }, (_, i) => first + i)
      if (this.#resident) {
        const { width, height } = this.#source as MemorySource
        const crop = wholeCrop(width, height, size)
        yield { indices, images: this.#fromResident(indices, indices.map(() => crop), plain(indices)) }
        continue
      }
      const decode = (index: number) =>
        this.#decode(index, async (source) => decodeCrops(await namedContent(source, index), (width, height) => [wholeCrop(width, height, size)], size))
      const pixels = await Promise.all(indices.map(decode))
      const good = pixels.flatMap((views, i) => (views ? [{ image: views[0]!, index: indices[i]! }] : []))
      if (good.length === 0) continue
      yield { indices: good.map(({ index }) => index), images: this.#upload(good.map(({ image }) => image), plain(good)) }
    }
  }

  /** Frees the resident images. */
  dispose(): void {
    this.#resident?.dispose()
  }
}

/** The largest central rectangle of the aspect of `size`. */
function wholeCrop(width: number, height: number, size: Size): Rectangle {
  const scale = Math.min(width / size.width, height / size.height)
  const side = (length: number) => Math.max(1, Math.round(length * scale))
  const crop = { width: side(size.width), height: side(size.height) }
  return { left: Math.floor((width - crop.width) / 2), top: Math.floor((height - crop.height) / 2), ...crop }
}
