import { paddedCrop, randomResizedCrop, type Rectangle, type Size } from './crop.js'
import { type Random, randomFor } from './random.js'
import type { Augmentation } from './views.js'

// Without tensors: decoding threads draw crops too, and shall not load all of libtorch's operators for it.

/** Where a view is taken from its image. */
export interface ViewCrop extends Rectangle {
  /** Mirrored left to right. */
  readonly flip: boolean
  /** By how many pixels the view is then moved, right and down; what it moves away from gets the data set's mean. */
  readonly shift?: readonly [x: number, y: number]
}

/**
 * Draws crop and flip of one view of an image of `width` by `height` pixels.
 *
 * @param size - Of the view. Only for `cropPadding`; default: that of the image.
 */
export function drawCrop(
  random: Random, width: number, height: number, augmentation: RandomCrops['augmentation'], size: Size = { height, width }
): ViewCrop {
  const { cropScale: scale, cropRatio: ratio, cropPadding: padding = null } = augmentation
  if (padding === null) {
    return { ...randomResizedCrop(random.uniform, width, height, { scale, ratio }), flip: random.chance(augmentation.flip) }
  }
  const { shift: [x, y], ...crop } = paddedCrop(random, { height, width }, size, padding)
  const flip = random.chance(augmentation.flip)
  // The view is moved after it was mirrored.
  return { ...crop, flip, shift: [flip ? -x : x, y] }
}

/** Which parts of an image become views: drawn at random, or the largest central part of the view's shape. */
export type CropPlan = RandomCrops | 'whole'

export interface RandomCrops {
  readonly seed: number
  readonly epoch: number
  /** The image whose random numbers are taken. */
  readonly index: number
  /** The number of the first view: above 0 for an image that came before in the epoch. */
  readonly firstView: number
  readonly views: number
  readonly augmentation: Pick<Augmentation, 'cropScale' | 'cropRatio' | 'cropPadding' | 'flip'>
}

/** Where the views of an image of `width` by `height` pixels are. @param size - Of a view. */
export function planCrops(plan: CropPlan, width: number, height: number, size: Size): ViewCrop[] {
  if (plan === 'whole') return [{ ...wholeCrop(width, height, size), flip: false }]
  const { seed, epoch, index, firstView, views, augmentation } = plan
  const draw = (view: number) => drawCrop(randomFor(seed, epoch, index, view, 'crop'), width, height, augmentation, size)
  return Array.from({ length: views }, (_, i) => draw(firstView + i))
}

/** The largest central rectangle of the aspect of `size`. */
function wholeCrop(width: number, height: number, size: Size): Rectangle {
  const scale = Math.min(width / size.width, height / size.height)
  const side = (length: number) => Math.max(1, Math.round(length * scale))
  const crop = { width: side(size.width), height: side(size.height) }
  return { left: Math.floor((width - crop.width) / 2), top: Math.floor((height - crop.height) / 2), ...crop }
}
