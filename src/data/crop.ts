import { expected } from '../errors.js'
import type { Random } from './random.js'

/** Pixels. */
export interface Size {
  readonly height: number
  readonly width: number
}

/** A rectangle of an image, in pixels. */
export interface Rectangle extends Size {
  readonly left: number
  readonly top: number
}

/** A part of an image in pixels of the upright image, mirrored left to right if `flip`. */
export interface Crop extends Rectangle {
  readonly flip?: boolean
}

/** Which part of an image a random crop is, and its shape. PyTorch: torchvision's `RandomResizedCrop`. */
export interface RandomResizedCropOptions {
  /** The area of the crop as a part of the image's area: smallest and largest. Default [0.05, 1]. */
  readonly scale?: readonly [number, number]
  /** Width divided by height: smallest and largest. Default [3/4, 4/3]. */
  readonly ratio?: readonly [number, number]
}

/**
 * A random rectangle of an image, by the procedure of torchvision's `RandomResizedCrop.get_params`: ten tries with an area uniform in
 * `scale` and an aspect ratio log-uniform in `ratio`; where none fits, the largest central rectangle whose aspect is in `ratio`.
 *
 * @param random - Gives numbers in [0, 1); a try takes two of them, the try that fits two more (top, then left).
 * @param width - Of the image, in pixels.
 * @param height - Of the image, in pixels.
 * @returns A rectangle of at least 1 x 1 pixels inside the image.
 * @throws InputError for a size below 1, or a range that is not positive and ascending.
 */
export function randomResizedCrop(
  random: () => number,
  width: number,
  height: number,
  { scale = [0.05, 1], ratio = [3 / 4, 4 / 3] }: RandomResizedCropOptions = {}
): Rectangle {
  checkSize('the size of the image', { height, width })
  checkRange('scale', scale)
  checkRange('ratio', ratio)
  const between = (low: number, high: number): number => low + (high - low) * random()
  const [lowest, highest] = [Math.log(ratio[0]), Math.log(ratio[1])]
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = width * height * between(...scale)
    const aspect = Math.exp(between(lowest, highest))
    const crop = { width: roundToEven(Math.sqrt(area * aspect)), height: roundToEven(Math.sqrt(area / aspect)) }
    if (crop.width > 0 && crop.width <= width && crop.height > 0 && crop.height <= height) {
      const top = Math.floor(random() * (height - crop.height + 1))
      const left = Math.floor(random() * (width - crop.width + 1))
      return { left, top, ...crop }
    }
  }
  // torchvision would give a side of 0 for a tiny image and an extreme ratio.
  const crop = {
    width: Math.max(1, Math.min(width, roundToEven(height * ratio[1]))),
    height: Math.max(1, Math.min(height, roundToEven(width / ratio[0])))
  }
  return { left: Math.floor((width - crop.width) / 2), top: Math.floor((height - crop.height) / 2), ...crop }
}

/**
 * A random part of the view's size, at the image's own scale: that of torchvision's `Resize` to the smallest size that covers the view, and
 * then `RandomCrop(size, padding)`.
 *
 * @param image - The size of the image.
 * @param size - Of the view.
 * @param padding - Pixels that are added on each side of the resized image, from 0.
 * @returns The part of the image, in its pixels, and by how many pixels of the view it lies further right and down in the view than at its
 *   corner: other than 0 where the view reaches into the padding.
 */
export function paddedCrop(
  random: Random, image: Size, size: Size, padding: number
): Rectangle & { readonly shift: readonly [x: number, y: number] } {
  if (!Number.isInteger(padding) || padding < 0) throw expected('an integer of at least 0', 'cropPadding', padding)
  const scale = Math.min(image.width / size.width, image.height / size.height)
  const along = (whole: number, part: number): { start: number; length: number; shift: number } => {
    const room = Math.round(whole / scale) - part
    const place = random.integer(-padding, room + padding + 1)
    const inside = Math.max(0, Math.min(place, room))
    const length = Math.max(1, Math.round(part * scale))
    return { start: Math.min(Math.round(inside * scale), whole - length), length, shift: inside - place }
  }
  const vertical = along(image.height, size.height)
  const horizontal = along(image.width, size.width)
  return {
    left: horizontal.start, top: vertical.start, width: horizontal.length, height: vertical.length,
    shift: [horizontal.shift, vertical.shift]
  }
}

/**
 * Where the evaluation crop lies, by the rules of torchvision's `Resize(resize)` and `CenterCrop(crop)`: the shorter side becomes
 * `resize`, the longer one is rounded down, and the crop is taken from the middle.
 *
 * @returns The size of the resized image, and the rectangle in it.
 * @throws InputError if the crop is larger than `resize`: not every image would cover it.
 */
export function centreCrop(width: number, height: number, resize: number, crop: Size): { resized: Size; crop: Rectangle } {
  checkSize('the size of the image', { height, width })
  checkSize('crop', crop)
  if (!Number.isInteger(resize) || resize < Math.max(crop.height, crop.width)) {
    throw expected(`an integer of at least the crop's ${Math.max(crop.height, crop.width)} pixels`, 'resize', resize)
  }
  const longer = Math.floor((resize * Math.max(width, height)) / Math.min(width, height))
  const resized = width <= height ? { width: resize, height: longer } : { width: longer, height: resize }
  const left = roundToEven((resized.width - crop.width) / 2)
  const top = roundToEven((resized.height - crop.height) / 2)
  return { resized, crop: { left, top, width: crop.width, height: crop.height } }
}

/** @throws InputError unless both sides are integers of at least 1. */
export function checkSize(name: string, { height, width }: Size): void {
  if (!Number.isInteger(height) || !Number.isInteger(width) || height < 1 || width < 1) {
    throw expected('a height and a width of at least 1 pixel', name, { height, width })
  }
}

/** @throws InputError unless the range is positive and ascending. */
export function checkRange(name: string, range: readonly [number, number]): void {
  const legal = range[0] > 0 && range[0] <= range[1] && range[1] < Infinity
  if (!legal) throw expected('two positive numbers, the smaller one first', name, range)
}

/** Python's `round`: halves go to the even neighbour. */
export function roundToEven(value: number): number {
  const down = Math.floor(value)
  return value - down === 0.5 ? down + (down % 2) : Math.round(value)
}
