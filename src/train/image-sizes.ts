import type { Size } from '../data/index.js'

/** The sizes of images; smallest and largest by their area. */
export interface SizeSummary {
  readonly smallest: Size
  readonly median: Size
  readonly largest: Size
  /** How many have a side that is shorter than that of the views. */
  readonly smallerThanViews: number
  /** The largest side of views, a multiple of the usual patches, that half of those are not smaller than; null where there are none. */
  readonly fittingImageSize: number | null
}

/** Width by height. */
export interface AspectSummary {
  readonly least: number
  readonly median: number
  readonly most: number
  /** How many are higher than wide, as high as wide, wider than high. */
  readonly portrait: number
  readonly square: number
  readonly landscape: number
}

// The middle one, of two the larger.
const median = <T>(sorted: readonly T[]): T => sorted[sorted.length >> 1]!

/** Down to what the usual patches divide: 16 pixels, or 4 in views of up to 64. */
function toPatches(side: number): number | null {
  const patch = side > 64 ? 16 : 4
  return Math.floor(side / patch) * patch || null
}

/** @param images - At least one. */
export function summariseSizes(images: readonly Size[], views: Size): SizeSummary {
  const byArea = [...images].sort((a, b) => a.width * a.height - b.width * b.height || a.width - b.width)
  const plain = ({ width, height }: Size): Size => ({ width, height })
  const small = images.filter(({ width, height }) => width < views.width || height < views.height)
  const sides = small.map(({ width, height }) => Math.min(width, height)).sort((a, b) => b - a)
  return {
    smallest: plain(byArea[0]!),
    median: plain(median(byArea)),
    largest: plain(byArea.at(-1)!),
    smallerThanViews: small.length,
    fittingImageSize: sides.length > 0 ? toPatches(sides[Math.ceil(sides.length / 2) - 1]!) : null
  }
}

/** @param images - At least one. */
export function summariseAspects(images: readonly Size[]): AspectSummary {
  const ratios = images.map(({ width, height }) => width / height).sort((a, b) => a - b)
  const count = (matches: (ratio: number) => boolean): number => ratios.reduce((sum, ratio) => sum + Number(matches(ratio)), 0)
  return {
    least: ratios[0]!,
    median: median(ratios),
    most: ratios.at(-1)!,
    portrait: count((ratio) => ratio < 1),
    square: count((ratio) => ratio === 1),
    landscape: count((ratio) => ratio > 1)
  }
}

/** Bytes of so many images in one tensor, as high and wide as the highest and the widest of these. @param images - At least one. */
export function heldBytes(count: number, images: readonly Size[]): number {
  const most = (side: keyof Size): number => images.reduce((longest, image) => Math.max(longest, image[side]), 0)
  return 3 * count * most('width') * most('height')
}
