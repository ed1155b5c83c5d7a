import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Device, type Tensor } from '../torch/index.js'
import { BrokenImageError } from './broken.js'
import type { BrokenList } from './broken-list.js'
import type { Size } from './crop.js'
import type { Decoder } from './decoder.js'
import { type EncodedSource, namedContent } from './encoded.js'
import { openHeader, readHeader } from './header.js'
import type { StallWatch } from './stall.js'

export interface HoldingTools {
  readonly decoder: Decoder
  readonly broken: BrokenList
  readonly watch: StallWatch
}

/** Images that were decoded, and how large each of them is. */
export interface HeldImages {
  /** uint8 [N, 3, H, W] on the device, as high and wide as the highest and the widest image; each begins at the upper left corner. */
  readonly images: Tensor
  readonly sizes: readonly Size[]
}

/** Calls `work` for 0, 1, ... below `count`, some at a time, until one fails or the signal is aborted. All that were begun have ended then. */
async function eachOf(count: number, atOnce: number, signal: AbortSignal, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  const run = async (): Promise<void> => {
    try {
      while (next < count && !signal.aborted) await work(next++)
    } catch (error) {
      next = count
      throw error
    }
  }
  const runs = await Promise.allSettled(Array.from({ length: Math.min(count, atOnce) }, run))
  for (const outcome of runs) if (outcome.status === 'rejected') throw outcome.reason
}

/** Bytes of `count` images in one tensor. */
const bytesOf = (count: number, { width, height }: Size): number => 3 * count * width * height

/**
 * The sizes of all images by their headers, and the largest width and height; of one without a header 1 x 1, of which decoding will say why.
 *
 * @returns null as soon as they take more than so many bytes.
 */
async function readSizes(
  source: EncodedSource, bytes: number, atOnce: number, watch: StallWatch, signal: AbortSignal
): Promise<{ readonly sizes: Size[]; readonly largest: Size } | null> {
  const sizes = Array<Size>(source.length)
  const largest = { width: 1, height: 1 }
  const fits = () => bytesOf(source.length, largest) <= bytes
  const header = async (index: number) => {
    try {
      return await readHeader(await openHeader(source, index, signal))
    } catch (error) {
      if (error instanceof BrokenImageError) return null
      throw error
    }
  }
  const enough = new AbortController()
  await eachOf(source.length, atOnce, AbortSignal.any([signal, enough.signal]), async (index) => {
    const { width, height } = (await watch.image(source.name(index), () => header(index))) ?? { width: 1, height: 1 }
    sizes[index] = { width, height }
    largest.width = Math.max(largest.width, width)
    largest.height = Math.max(largest.height, height)
    if (!fits()) enough.abort()
  })
  return fits() ? { sizes, largest } : null
}

/**
 * Decodes all images of a source, once, into one tensor on a device.
 *
 * @param bytes - What the tensor may take at most.
 * @param onFit - Called with the bytes that it takes before they are decoded.
 * @returns null where they take more, and when the signal is aborted.
 * @throws InputError if too many images are broken.
 */
export async function holdImages(
  source: EncodedSource, bytes: number, device: Device, { decoder, broken, watch }: HoldingTools, signal: AbortSignal,
  onFit?: (bytes: number) => void
): Promise<HeldImages | null> {
  const found = await readSizes(source, bytes, decoder.concurrency, watch, signal)
  if (found === null || signal.aborted) return null
  const { sizes, largest } = found
  onFit?.(bytesOf(source.length, largest))
  const images = keep(torch.zeros([source.length, 3, largest.height, largest.width], { dtype: 'uint8', device }))
  const decode = async (index: number): Promise<void> => {
    const { width, height } = sizes[index]!
    const planes = new Uint8Array(new SharedArrayBuffer(3 * width * height))
    const image = await namedContent(source, index, signal)
    const outcome = await decoder.decode({ ...image, plan: 'whole', size: { width, height }, planes })
    if ('broken' in outcome) throw new BrokenImageError(outcome.broken.file, outcome.broken.reason)
    const { imageSize: own } = outcome
    if (own.width !== width || own.height !== height) {
      throw new BrokenImageError(image.name, `its content has ${own.width} x ${own.height} pixels, its header says ${width} x ${height}`)
    }
    if (signal.aborted) return
    noGrad(() => scope(() => void images.select(0, index).narrow(1, 0, height).narrow(2, 0, width).copy_(torch.fromTypedArray(planes, [3, height, width]))))
  }
  try {
    await eachOf(source.length, decoder.concurrency, signal, async (index) => {
      try {
        await watch.image(source.name(index), () => decode(index))
      } catch (error) {
        if (!(error instanceof BrokenImageError)) throw error
        broken.add(index, error)
      }
    })
  } catch (error) {
    images.dispose()
    throw error
  }
  if (!signal.aborted) return { images, sizes }
  images.dispose()
  return null
}
