import {
  defaultStatistics, Loader, randomFor, sample, selectImages, type ImageSource, type Size
} from '../data/index.js'
import { cuda, type Device } from '../torch/index.js'
import { pretrainAugmentation, type ViewSettings } from './augmentation.js'

/** How fast a run's images come, if nothing waits for anything else. */
export interface LoadingSpeed {
  /** Each with two crops, changed, normalised and on the device. */
  readonly imagesPerSecond: number
  /** So many images were loaded for it. */
  readonly images: number
  readonly workers: number
  readonly batchSize: number
  readonly device: Device
  /** Most bytes of main memory that the process had meanwhile, and how many that was more than before. */
  readonly memory: { readonly peak: number; readonly added: number }
}

export interface LoadingOptions extends ViewSettings {
  /** Positions of images that can be decoded. */
  readonly positions: ArrayLike<number>
  readonly size: Size
  readonly device: Device
  readonly workers: number
  readonly batchSize: number
  readonly seed: number
  /** What is expected, to choose how many are loaded. */
  readonly imagesPerSecond: number
  readonly onProgress?: (done: number, total: number) => void
}

const SECONDS = 3
const [LEAST_BATCHES, MOST_BATCHES] = [2, 20]
const MEMORY_INTERVAL = 10

/** Highest resident memory, looked at now and then. */
class MemoryPeak {
  readonly #before = process.memoryUsage.rss()
  #peak = this.#before
  readonly #timer = setInterval(() => this.look(), MEMORY_INTERVAL)

  look(): void {
    this.#peak = Math.max(this.#peak, process.memoryUsage.rss())
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  found(): LoadingSpeed['memory'] {
    this.look()
    return { peak: this.#peak, added: this.#peak - this.#before }
  }
}

/** Measures for some seconds how fast the loader makes batches as pretraining has them. What the disk keeps in memory counts as it is. */
export async function measureLoading(source: ImageSource, options: LoadingOptions): Promise<LoadingSpeed> {
  const { positions, size, device, workers, seed, imagesPerSecond: guess, onProgress } = options
  const batchSize = Math.min(options.batchSize, positions.length)
  const wanted = Math.min(MOST_BATCHES, Math.max(LEAST_BATCHES, Math.round((SECONDS * guess) / batchSize)))
  const batches = Math.min(wanted, Math.floor(positions.length / batchSize))
  // No more images than are loaded, or the loader would prepare batches that nobody takes.
  const slots = sample(positions.length, batches * batchSize, randomFor(seed, 'loading'))
  const chosen = selectImages(source, Array.from(slots, (slot) => positions[slot]!))
  const loader = new Loader(chosen, { size, device, workers, statistics: defaultStatistics(source), maxBroken: 1 })
  const memory = new MemoryPeak()
  const start = performance.now()
  let images = 0
  try {
    const augmentation = pretrainAugmentation(options)
    for await (const batch of loader.epoch({ seed, epoch: 0, batchSize, views: 2, augmentation })) {
      memory.look()
      batch.images.dispose()
      images += batchSize
      onProgress?.(images, chosen.length)
    }
    if (device.startsWith('cuda')) cuda.synchronize(device)
    const seconds = (performance.now() - start) / 1000
    return { imagesPerSecond: images / seconds, images, workers, batchSize, device, memory: memory.found() }
  } finally {
    memory.stop()
    loader.dispose()
  }
}
