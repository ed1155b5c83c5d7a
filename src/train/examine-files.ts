import { type ImageHeader, openHeader, readHeader } from '../data/header.js'
import { BrokenImageError, type Crop, decodeCrops, type EncodedSource, type Statistics } from '../data/index.js'

/** What is found out about one image file. */
export type ExaminedFile = ImageHeader

/** What is found out about the files of a folder. */
export interface ExaminedFiles {
  /** In the order of the positions; null where the file is broken. */
  readonly files: readonly (ExaminedFile | null)[]
  readonly broken: readonly { readonly file: string; readonly reason: string }[]
  readonly bytes: number
  /** How many were decoded, or tried to be. */
  readonly tried: number
  /** How many were broken of those that were decoded although nothing was wrong with the header. */
  readonly decoded: { readonly count: number; readonly broken: number; readonly seconds: number }
  /** Over the middles of the decoded images, as the views have them; null if there is none. */
  readonly statistics: Statistics | null
}

export interface ExamineOptions {
  /** Positions in the source. */
  readonly positions: ArrayLike<number>
  /** Which of them are decoded; of the others only the header is read. */
  readonly decode: ReadonlySet<number>
  /** Side of the views in pixels. */
  readonly side: number
  /** Files read at a time. */
  readonly workers: number
  readonly onProgress?: (done: number) => void
}

/** Sums over pixels, from which mean and deviation follow: of whole numbers, so in any order the same. */
class ChannelSums {
  readonly #sums = [0, 0, 0]
  readonly #squares = [0, 0, 0]
  #count = 0

  /** @param pixels - [3, H, W]. */
  add(pixels: Uint8Array): void {
    const area = pixels.length / 3
    for (let channel = 0; channel < 3; channel++) {
      let [sum, square] = [0, 0]
      for (let i = channel * area; i < (channel + 1) * area; i++) {
        const value = pixels[i]!
        sum += value
        square += value * value
      }
      this.#sums[channel]! += sum
      this.#squares[channel]! += square
    }
    this.#count += area
  }

  statistics(): Statistics | null {
    if (this.#count === 0) return null
    const mean = this.#sums.map((sum) => sum / this.#count)
    const deviation = this.#squares.map((square, channel) => Math.sqrt(Math.max(0, square / this.#count - mean[channel]! ** 2)))
    return { mean: mean.map((value) => value / 255), std: deviation.map((value) => value / 255) }
  }
}

/** The largest square in the middle. */
function middle(width: number, height: number): Crop {
  const side = Math.min(width, height)
  return { left: Math.floor((width - side) / 2), top: Math.floor((height - side) / 2), width: side, height: side }
}

/** Reads the headers of image files, and decodes some of them. What has no header that makes sense is decoded, for the reason. */
export async function examineFiles(source: EncodedSource, options: ExamineOptions): Promise<ExaminedFiles> {
  const { positions, decode, side, workers, onProgress } = options
  const files = Array<ExaminedFile | null>(positions.length).fill(null)
  const broken = new Map<number, string>()
  const sums = new ChannelSums()
  const decoded = { count: 0, broken: 0 }
  const ended = new AbortController()
  let [bytes, tried] = [0, 0]
  let decodingTime = 0 // of all workers together

  function breaks(slot: number, error: unknown): null {
    if (!(error instanceof BrokenImageError)) throw error
    broken.set(slot, error.reason)
    return (files[slot] = null)
  }

  async function examine(slot: number): Promise<void> {
    const position = positions[slot]!
    const found = await openHeader(source, position, ended.signal).catch((error: unknown) => breaks(slot, error))
    if (!found) return void tried++
    bytes += found.bytes
    const header = await readHeader(found)
    files[slot] = header
    if (header && !decode.has(position)) return
    tried++
    const start = performance.now()
    try {
      const crops = (width: number, height: number) => {
        files[slot] ??= { width, height, format: 'unknown' }
        return [middle(width, height)]
      }
      const [pixels] = await decodeCrops(found, crops, { width: side, height: side })
      sums.add(pixels!)
    } catch (error) {
      breaks(slot, error)
      if (header) decoded.broken++
    }
    if (header) decoded.count++
    decodingTime += performance.now() - start
  }

  let next = 0
  let done = 0
  const work = async (): Promise<void> => {
    while (next < positions.length && !ended.signal.aborted) {
      await examine(next++)
      onProgress?.(++done)
    }
  }
  try {
    await Promise.all(Array.from({ length: workers }, work))
  } finally {
    // The first error (a server that is gone) ends the others.
    ended.abort()
  }
  const inOrder = [...broken].sort(([a], [b]) => a - b)
  return {
    files,
    broken: inOrder.map(([slot, reason]) => ({ file: source.name(positions[slot]!), reason })),
    bytes,
    tried,
    decoded: { ...decoded, seconds: decodingTime / 1000 / workers },
    statistics: sums.statistics()
  }
}
