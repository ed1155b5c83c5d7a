import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { adjustBrightness, adjustContrast, adjustHue, adjustSaturation, gaussianBlur, normalise } from './colour.js'
import { randomResizedCrop, type Rectangle } from './crop.js'
import type { Random } from './random.js'

/** A value for each property of colour jitter. */
export interface Jitter {
  readonly brightness: number
  readonly contrast: number
  readonly saturation: number
  readonly hue: number
}

/** The largest change of each property, and how often there is one. */
export interface JitterSettings extends Jitter {
  readonly probability: number
}

/** How views are made of images. */
export interface Augmentation {
  /** Part of the image's area that a crop has: smallest and largest. */
  readonly cropScale: readonly [number, number]
  /** Width by height of a crop. */
  readonly cropRatio: readonly [number, number]
  /** Probability of mirroring left to right. */
  readonly flip: number
  /** Probability of colour jitter, and the largest change of each property. */
  readonly jitter: JitterSettings
  /** Probability of blur, and its range of sigma in pixels. */
  readonly blur: { readonly probability: number; readonly sigma: readonly [number, number] }
}

/** The views of the method's authors. */
export const gmmlAugmentation: Augmentation = {
  cropScale: [0.05, 1],
  cropRatio: [3 / 4, 4 / 3],
  flip: 0.5,
  jitter: { probability: 0.3, brightness: 0.1, contrast: 0.1, saturation: 0.1, hue: 0.01 },
  blur: { probability: 0.1, sigma: [0.1, 2] }
}

/** Mean and standard deviation by channel, of values in [0, 1]. */
export interface Statistics {
  readonly mean: readonly number[]
  readonly std: readonly number[]
}

export const imagenetStatistics: Statistics = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }

/** Draws crop and flip of one view of an image of `width` by `height` pixels. */
export function drawCrop(
  random: Random, width: number, height: number, augmentation: Augmentation
): Rectangle & { readonly flip: boolean } {
  const { cropScale: scale, cropRatio: ratio } = augmentation
  return { ...randomResizedCrop(random.uniform, width, height, { scale, ratio }), flip: random.chance(augmentation.flip) }
}

/** What happens to the colours of one view. */
export interface ColourChange {
  readonly jitter: Jitter | null
  /** Sigma of the blur in pixels. */
  readonly blur: number | null
}

/** Draws colour jitter and blur of one view. As many numbers are drawn whether they are used or not. */
export function drawColour(random: Random, { jitter, blur }: Augmentation): ColourChange {
  const factor = (spread: number) => random.uniform(Math.max(0, 1 - spread), 1 + spread)
  const jittered = random.chance(jitter.probability)
  const properties = {
    brightness: factor(jitter.brightness),
    contrast: factor(jitter.contrast),
    saturation: factor(jitter.saturation),
    hue: random.uniform(-jitter.hue, jitter.hue)
  }
  const blurred = random.chance(blur.probability)
  const sigma = random.uniform(...blur.sigma)
  return { jitter: jittered ? properties : null, blur: blurred ? sigma : null }
}

// Replaces some images of a batch by what `change` makes of them.
function onSome<T>(images: Tensor, parameters: readonly (T | null)[], change: (chosen: Tensor, parameters: T[]) => Tensor): Tensor {
  const chosen = parameters.flatMap((parameter, i) => (parameter === null ? [] : [i]))
  if (chosen.length === 0) return images
  const rows = torch.fromTypedArray(BigInt64Array.from(chosen, BigInt)).to(images.device)
  return images.indexCopy(0, rows, change(images.indexSelect(0, rows), chosen.map((i) => parameters[i]!)))
}

/**
 * Applies each view's colour change, all views at once. Jitter goes brightness, contrast, saturation, hue: torchvision draws the order anew
 * for each image, which changes little at these strengths and would take four times the work.
 *
 * @param images - [B, C, H, W], values in [0, 1].
 * @returns The changed images; `images` itself where none is to be changed.
 */
export function applyColour(images: Tensor, changes: readonly ColourChange[]): Tensor {
  return torch.scope(() => {
    const jittered = onSome(images, changes.map((change) => change.jitter), (chosen, jitter) => {
      const bright = adjustBrightness(chosen, jitter.map((change) => change.brightness))
      const contrasted = adjustContrast(bright, jitter.map((change) => change.contrast))
      const saturated = adjustSaturation(contrasted, jitter.map((change) => change.saturation))
      return adjustHue(saturated, jitter.map((change) => change.hue))
    })
    return onSome(jittered, changes.map((change) => change.blur), gaussianBlur)
  })
}

/**
 * Colour, then normalisation.
 *
 * @param images - [B, C, H, W] in [0, 1]; values a little outside, as resizing leaves them, are clamped.
 */
export function finishViews(images: Tensor, changes: readonly ColourChange[], { mean, std }: Statistics): Tensor {
  return torch.scope(() => normalise(applyColour(images.clamp({ min: 0, max: 1 }), changes), mean, std))
}
