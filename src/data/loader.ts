import { setImmediate as nextTurn, setTimeout } from 'node:timers/promises'
import { expected, InputError } from '../errors.js'
import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Device, type Tensor } from '../torch/index.js'
import type { BrokenImageError } from './broken.js'
import { BrokenList, type BrokenOptions } from './broken-list.js'
import type { Size } from './crop.js'
import { type Decoder, libuvDecoder, threadDecoder } from './decoder.js'
import type { CropPlan } from './draw.js'
import { EncodedImages, type Slot } from './encoded-images.js'
import { holdImages } from './hold.js'
import { placesOf } from './places.js'
import { randomFor } from './random.js'
import { ResidentImages } from './resident-images.js'
import type { ImageSource } from './source.js'
import { type Staged, Staging } from './staging.js'
import { type StallOptions, StallWatch } from './stall.js'
import { defaultStatistics } from './statistics.js'
import { drawChange, finishViews, type Augmentation, type Statistics, type ViewChange } from './views.js'

/** How a {@link Loader} reads images, and what it makes of them. */
export interface LoaderOptions extends BrokenOptions, StallOptions {
  /** Size of the views in pixels. */
  readonly size: Size
  readonly device: Device
  /** Mean and deviation to normalise with. Default: the data set's own for images in memory, ImageNet's for files. */
  readonly statistics?: Statistics
  /** Threads that decode. 0: no threads of one's own, but those of Node's file system. Default 4. */
  readonly workers?: number
}

/** What an epoch of a {@link Loader} is made of. */
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
  /** Ends the epoch at once, also while a batch is waited for. */
  readonly signal?: AbortSignal | undefined
  /** Which part of the epoch is wanted, where several processes share it: each step, as many neighbouring batches as there are `ranks`. */
  readonly share?: { readonly rank: number; readonly ranks: number }
}

/** Some images, as the network sees them. */
export interface Batch {
  /** Positions of the images in the source. */
  readonly indices: readonly number[]
  /** [views * B, C, H, W], normalised, on the device: first view 0 of all images, then view 1. */
  readonly images: Tensor
  /** For each image the number of its first view in this epoch: above 0 where it came before, as images of a source with a weight may. */
  readonly firstViews?: readonly number[]
  /** Whether a GPU was still making the images when the batch was given: work on the current stream waits for them by itself. */
  readonly late?: boolean
}

/** A batch that may still be in the making. */
interface StagedBatch extends Omit<Batch, 'images' | 'late'> {
  readonly images: Staged
}

/** How many batches are prepared ahead of the one in use. */
const PREFETCH = 2

/**
 * On the CPU, so many values are changed in one go, or those of one view: few enough to stay in the processor's cache, and a millisecond or
 * two of work, between which timers and signals have their turn.
 */
const SLICE = 200_000

/** Milliseconds that images at work have to come to their end when an epoch is left. */
const LEAVING = 1000

/**
 * Makes batches of views. Which image is where in an epoch, and what its views are, depends on seed, epoch and index alone, so a resumed
 * run, any number of workers, and processes that share an epoch see the same.
 *
 * Memory (bench/README.md has the measurement): each worker thread takes 26 MB with files of 500x375 pixels and 45 MB with files of
 * 2000x1500. Each of the at most three batches at a time has `views * B * 3 * H * W` bytes, and as a tensor four times as many on the device:
 * for two views of 224 pixels, on the CPU, 3.1 MB for each image of a batch in all.
 */
export class Loader {
  readonly statistics: Statistics
  readonly #source: ImageSource
  readonly #options: LoaderOptions
  #images: EncodedImages | ResidentImages
  /** null for images in memory. */
  readonly #decoder: Decoder | null
  readonly #broken: BrokenList
  readonly #watch: StallWatch
  readonly #staging: Staging

  /** @throws InputError if `maxBroken` is no part, `dataTimeout` not positive, or `workers` not a number of threads. */
  constructor(source: ImageSource, options: LoaderOptions) {
    const { size, device, workers = 4, onNotice } = options
    if (!Number.isInteger(workers) || workers < 0) throw expected('an integer of at least 0', 'workers', workers)
    this.#source = source
    this.#options = options
    this.statistics = options.statistics ?? defaultStatistics(source)
    this.#broken = new BrokenList(source.length, options)
    this.#watch = new StallWatch(options)
    this.#staging = new Staging(device)
    const staging = this.#staging
    if (source.kind === 'memory') {
      this.#decoder = null
      this.#images = ResidentImages.of(source, size, device, staging)
    } else {
      const onEnded = (name: string, reason: string) => onNotice?.(`A thread has ended (${reason}): '${name}' is decoded once more`)
      const decoder = (this.#decoder = workers > 0 ? threadDecoder(workers, onEnded) : libuvDecoder())
      this.#images = new EncodedImages(source, size, device, { decoder, broken: this.#broken, watch: this.#watch, staging })
    }
  }

  /**
   * Decodes all images once and holds them on the device, if all of them fit: from then on views are cut there, and nothing is loaded any
   * more. Order, crops and changes stay what they are; values differ by what a view is rounded to where it is cut from a file. Images in
   * memory (IDX, CIFAR) are held anyway.
   *
   * @param bytes - What they may take: three for each pixel, all counted as high and wide as the highest and the widest of them.
   * @returns Whether they are held now.
   * @throws InputError if too many images are broken, or none comes for too long.
   */
  async hold(bytes: number, signal?: AbortSignal): Promise<boolean> {
    if (!(bytes >= 0)) throw expected('a number of bytes', 'bytes', bytes)
    const { device, size, onNotice } = this.#options
    if (this.#source.kind === 'memory' || this.#images instanceof ResidentImages) return true
    const left = new AbortController()
    const abort = () => left.abort()
    signal?.addEventListener('abort', abort)
    const tools = { decoder: this.#decoder!, broken: this.#broken, watch: this.#watch }
    const onFit = (taken: number) =>
      onNotice?.(`Decoding ${this.#source.length} images to hold them on ${device}, ${sizeOf(taken)}`)
    try {
      const held = await this.#watch.wait(holdImages(this.#source, bytes, device, tools, left.signal, onFit), signal)
      if (held === null) {
        if (!signal?.aborted) onNotice?.(`The images are not held: decoded, they take more than ${sizeOf(bytes)}`)
        return false
      }
      this.#images.dispose()
      this.#images = new ResidentImages(held.images, (index) => held.sizes[index]!, size, this.#staging)
      return true
    } finally {
      left.abort()
      signal?.removeEventListener('abort', abort)
    }
  }

  /** Broken images met so far, in the source's order. */
  get broken(): readonly BrokenImageError[] {
    return this.#broken.inOrder
  }

  /**
   * Full batches in an epoch.
   *
   * @param ranks - Processes that share it.
   * @throws InputError if there is none.
   */
  steps(batchSize: number, ranks = 1): number {
    if (!Number.isInteger(batchSize) || batchSize < 1) throw expected('an integer of at least 1', 'batchSize', batchSize)
    if (!Number.isInteger(ranks) || ranks < 1) throw expected('an integer of at least 1', 'ranks', ranks)
    const steps = Math.floor(this.#source.length / (batchSize * ranks))
    const among = ranks === 1 ? '' : ` by ${ranks} ranks`
    if (steps === 0) throw expected(`at most the number of images, ${this.#source.length}${among},`, 'batchSize', batchSize)
    return steps
  }

  /**
   * The batches of one epoch in random order. The caller disposes of each batch's images. A broken image's place is taken by the next in
   * the order that is not broken, also in `indices`.
   *
   * @throws InputError for a batch larger than the images, when too many images are broken, and when none comes for too long.
   */
  async *epoch(options: EpochOptions): AsyncGenerator<Batch> {
    const { batchSize, seed, epoch, firstStep = 0, share = { rank: 0, ranks: 1 }, views, augmentation, signal } = options
    const { rank, ranks } = share
    const steps = this.steps(batchSize, ranks)
    if (!Number.isInteger(rank) || rank < 0 || rank >= ranks) throw expected(`an integer from 0 to ${ranks - 1}`, 'rank', rank)
    const { order, repeats } = placesOf(this.#source, seed, epoch)
    const next = (place: number) => (tried: number) => {
      if (tried < order.length) return order[(place + tried) % order.length]!
      throw new InputError(`None of the ${order.length} images in '${this.#source.path}' can be decoded`)
    }
    yield* this.#ahead(firstStep, steps, async (step, left) => {
      const first = (step * ranks + rank) * batchSize
      const wanted = [...order.subarray(first, first + batchSize)]
      // A stand-in for a broken image takes that image's random numbers: its own are for its own place.
      // Views of an image that comes again are counted on: they are others.
      const seen = wanted.map((_, i) => views * (repeats?.[first + i] ?? 0))
      const plans = wanted.map((index, i) => ({ seed, epoch, index, firstView: seen[i]!, views, augmentation: cropsOf(augmentation) }))
      const changes = Array.from({ length: views }, (_, view) =>
        wanted.map((index, i) =>
          drawChange((purpose) => randomFor(seed, epoch, index, seen[i]! + view, purpose), this.#options.size, augmentation)
        )
      ).flat()
      const batch = await this.#batch(wanted.map((index, i) => ({ index, plan: plans[i]!, candidate: next(first + i) })), views, changes, left)
      return { ...batch, firstViews: seen }
    }, signal)
  }

  /**
   * All images in the source's order, without augmentation: the largest central part of the views' aspect, resized. Broken ones are left
   * out.
   *
   * @param batchSize - Images in a batch; the last one may be smaller.
   */
  async *all(batchSize: number): AsyncGenerator<Batch> {
    if (!Number.isInteger(batchSize) || batchSize < 1) throw expected('an integer of at least 1', 'batchSize', batchSize)
    const { length } = this.#source
    const batches = this.#ahead(0, Math.ceil(length / batchSize), async (step, signal) => {
      const slots = Array.from({ length: Math.min(batchSize, length - step * batchSize) }, (_, i) => {
        const index = step * batchSize + i
        return { index, plan: 'whole' as const, candidate: (tried: number) => (tried === 0 ? index : null) }
      })
      return this.#batch(slots, 1, null, signal)
    })
    for await (const batch of batches) {
      if (batch.indices.length > 0) yield batch
      else batch.images.dispose()
    }
  }

  /** Makes batches before they are asked for, as many as {@link PREFETCH}. */
  async *#ahead(
    first: number, end: number, make: (step: number, signal: AbortSignal) => Promise<StagedBatch>, signal?: AbortSignal
  ): AsyncGenerator<Batch> {
    const pending: Promise<StagedBatch>[] = []
    const left = new AbortController()
    const start = (step: number): void => {
      if (step >= end) return
      const batch = make(step, left.signal)
      batch.catch(() => undefined) // awaited below; until then a failure must not count as unhandled
      pending.push(batch)
    }
    // Resident images need no waiting for files, so nothing is gained by making batches early.
    const ahead = this.#images instanceof ResidentImages ? 1 : PREFETCH + 1
    for (let step = first; step < first + ahead; step++) start(step)
    try {
      for (let step = first; step < end; step++) {
        const batch = await this.#watch.wait(pending[0]!, signal)
        if (batch === null) return
        void pending.shift()
        const late = this.#staging.take(batch.images)
        yield { ...batch, images: batch.images.tensor, ...(late && { late }) }
        start(step + ahead)
      }
    } finally {
      // Left early: what was prepared ahead is not wanted any more, and what is not begun is not done.
      left.abort()
      const freed = pending.map((batch) => batch.then(({ images }) => images.tensor.dispose(), () => undefined))
      if (signal?.aborted) return // somebody is in a hurry
      // Not for long: of a disk that stalls nothing comes.
      const enough = new AbortController()
      await Promise.race([Promise.all(freed), setTimeout(LEAVING, undefined, { signal: enough.signal }).catch(() => undefined)])
      enough.abort()
    }
  }

  async #batch(
    slots: readonly (Slot & { readonly index: number; readonly plan: CropPlan })[], count: number, changes: readonly ViewChange[] | null,
    signal: AbortSignal
  ): Promise<StagedBatch> {
    if (this.#images instanceof ResidentImages) {
      const taken = slots.flatMap((slot) => {
        const index = this.#unbroken(slot)
        return index === null ? [] : [{ index, plan: slot.plan }]
      })
      const indices = taken.map(({ index }) => index)
      if (indices.length === 0) return { indices, images: this.#staging.stage(this.#noViews()) }
      const { views, shifts } = this.#images.cut(indices, taken.map(({ plan }) => plan))
      return { indices, images: await this.#finish(views, shifts, changes, signal) }
    }
    const { indices, views, shifts } = await this.#images.decode(slots, count, signal)
    if (indices.length === 0) return { indices, images: this.#staging.stage(views) }
    return { indices, images: await this.#finish(views, shifts, changes, signal) }
  }

  /** The image of a place, or the next that is not broken, where all have been decoded; null if there is none. */
  #unbroken(slot: Slot): number | null {
    for (let tried = 0; ; tried++) {
      const index = slot.candidate(tried)
      if (index === null || !this.#broken.has(index)) return index
    }
  }

  #noViews(): Tensor {
    const { device, size } = this.#options
    return keep(torch.empty([0, this.#source.channels, size.height, size.width], { device }))
  }

  /** Changes and normalises views, and frees them. @param changes - One for each view; null: none. */
  async #finish(
    views: Tensor, shifts: readonly (readonly [number, number] | null)[], changes: readonly ViewChange[] | null, signal: AbortSignal
  ): Promise<Staged> {
    const all = shifts.map((shift, i) => ({ jitter: null, blur: null, ...changes?.[i], shift }))
    const values = views.shape.slice(1).reduce((a, b) => a * b, 1)
    const slice = this.#options.device === 'cpu' ? Math.max(1, Math.floor(SLICE / values)) : all.length
    const finish = (part: Tensor, own: readonly ViewChange[]): Tensor =>
      noGrad(() => scope(() => finishViews(part.dtype === 'uint8' ? part.to('float32').div(255) : part, own, this.statistics)))
    let images: Tensor | null = null
    try {
      if (all.length <= slice) return this.#staging.stage(this.#staging.run(() => finish(views, all)))
      images = keep(torch.empty(views.shape, { dtype: 'float32' }))
      for (let first = 0; first < all.length; first += slice) {
        signal.throwIfAborted()
        const own = all.slice(first, first + slice)
        const target = images
        const part = (tensor: Tensor) => tensor.narrow(0, first, own.length)
        scope(() => void part(target).copy_(finish(part(views), own)))
        await nextTurn()
      }
      return this.#staging.stage(images)
    } catch (error) {
      images?.dispose()
      throw error
    } finally {
      views.dispose()
    }
  }

  /** Frees images and memory that are kept between batches. */
  dispose(): void {
    this.#images.dispose()
  }
}

const sizeOf = (bytes: number): string => (bytes < 1e9 ? `${Number((bytes / 1e6).toPrecision(2))} MB` : `${Number((bytes / 1e9).toPrecision(3))} GB`)

/** What a decoding thread needs to know: less to send. */
function cropsOf({ cropScale, cropRatio, cropPadding = null, flip }: Augmentation): Pick<
  Augmentation, 'cropScale' | 'cropRatio' | 'cropPadding' | 'flip'
> {
  return { cropScale, cropRatio, cropPadding, flip }
}
