import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { rowsOf } from './batch.js'
import { adjustBrightness, adjustContrast, adjustHue, adjustSaturation, gaussianBlur, normalise } from './colour.js'
import type { Size } from './crop.js'
import { applyErasing, drawErasing, type Erasing, type ErasingSettings } from './erasing.js'
import { affine } from './geometry.js'
import { applyRandAugment, drawRandAugment, type RandAugmentPlan, type RandAugmentSettings } from './rand-augment.js'
import type { Random } from './random.js'
import { solarize } from './tone.js'

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
  /**
   * If given, crops have the image's own scale, as is usual for small images: the image is resized to cover a view, this many pixels of
   * the data set's mean are put around it, and a part of the view's size is taken. `cropScale` and `cropRatio` are not used then.
   */
  readonly cropPadding?: number | null
  /** Probability of mirroring left to right. */
  readonly flip: number
  /** Probability of colour jitter, and the largest change of each property. Default: none. */
  readonly jitter?: JitterSettings | null
  /** Probability of blur, and its range of sigma in pixels. Default: none. */
  readonly blur?: { readonly probability: number; readonly sigma: readonly [number, number] } | null
  /** Probability of inverting the bright parts, and the value in [0, 1] that they begin at. Default: none. */
  readonly solarize?: { readonly probability: number; readonly threshold: number } | null
  /** Random operations on colours and places, before the jitter. Default: none. */
  readonly randAugment?: RandAugmentSettings | null
  /** Rectangles that are replaced, after normalisation. Default: none. */
  readonly erasing?: ErasingSettings | null
}

/** The views of the method's authors, for pretraining. */
export const gmmlAugmentation = {
  cropScale: [0.05, 1],
  cropRatio: [3 / 4, 4 / 3],
  flip: 0.5,
  jitter: { probability: 0.3, brightness: 0.1, contrast: 0.1, saturation: 0.1, hue: 0.01 },
  blur: { probability: 0.1, sigma: [0.1, 2] }
} satisfies Augmentation

/** What vision transformers are usually finetuned with: crops, RandAugment and erasing of DeiT (arXiv 2012.12877, table 9). */
export const supervisedAugmentation = {
  cropScale: [0.08, 1],
  cropRatio: [3 / 4, 4 / 3],
  flip: 0.5,
  randAugment: { ops: 2, magnitude: 9 },
  erasing: { probability: 0.25 }
} satisfies Augmentation

/** Mean and standard deviation by channel, of values in [0, 1]. */
export interface Statistics {
  readonly mean: readonly number[]
  readonly std: readonly number[]
}

/** Mean and standard deviation of the colours of ImageNet, of values from 0 to 1: what photographs are normalised with. */
export const imagenetStatistics: Statistics = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }

/** What happens to the colours of one view. */
export interface ColourChange {
  readonly jitter: Jitter | null
  /** Sigma of the blur in pixels. */
  readonly blur: number | null
  /** From which value on the view is inverted. Left out: not. */
  readonly solarize?: number | null
}

const NO_JITTER: JitterSettings = { probability: 0, brightness: 0, contrast: 0, saturation: 0, hue: 0 }
const NO_BLUR = { probability: 0, sigma: [0, 0] } as const
const NO_SOLARIZING = { probability: 0, threshold: 1 }

/** Draws colour jitter, blur and solarizing of one view. As many numbers are drawn whether they are used or not. */
export function drawColour(random: Random, augmentation: Pick<Augmentation, 'jitter' | 'blur' | 'solarize'>): ColourChange {
  const jitter = augmentation.jitter ?? NO_JITTER
  const blur = augmentation.blur ?? NO_BLUR
  const solarize = augmentation.solarize ?? NO_SOLARIZING
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
  // Drawn last: what there was before it keeps its numbers.
  const solarized = random.chance(solarize.probability)
  return { jitter: jittered ? properties : null, blur: blurred ? sigma : null, solarize: solarized ? solarize.threshold : null }
}

/** What happens to one view after it was cut out of its image. What is left out does not happen. */
export interface ViewChange extends ColourChange {
  /** See {@link ViewCrop}. */
  readonly shift?: readonly [x: number, y: number] | null
  readonly randAugment?: RandAugmentPlan | null
  readonly erasing?: Erasing | null
}

/**
 * Draws what happens to one view after its crop.
 *
 * @param randomOf - The random numbers of each purpose: 'colour', 'randAugment', 'erasing'.
 * @param size - Of the view.
 */
export function drawChange(randomOf: (purpose: string) => Random, size: Size, augmentation: Augmentation): ViewChange {
  const { randAugment = null, erasing = null } = augmentation
  return {
    ...drawColour(randomOf('colour'), augmentation),
    randAugment: randAugment && drawRandAugment(randomOf('randAugment'), randAugment),
    erasing: erasing && drawErasing(randomOf('erasing'), size.height, size.width, erasing)
  }
}

// Replaces some images of a batch by what `change` makes of them.
function onSome<T>(images: Tensor, parameters: readonly (T | null)[], change: (chosen: Tensor, parameters: T[]) => Tensor): Tensor {
  const chosen = parameters.flatMap((parameter, i) => (parameter === null ? [] : [i]))
  if (chosen.length === 0) return images
  if (chosen.length === parameters.length) return change(images, chosen.map((i) => parameters[i]!))
  const rows = rowsOf(chosen, images)
  return images.indexCopy(0, rows, change(images.indexSelect(0, rows), chosen.map((i) => parameters[i]!)))
}

/**
 * Applies each view's colour change, all views at once: jitter, blur, solarizing. Jitter goes brightness, contrast, saturation, hue: torchvision draws the order anew
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
    const blurred = onSome(jittered, changes.map((change) => change.blur), gaussianBlur)
    return onSome(blurred, changes.map((change) => change.solarize ?? null), solarize)
  })
}

/** Moves views by whole pixels; what they move away from gets the fill. */
function applyShifts(images: Tensor, changes: readonly ViewChange[], fill: readonly number[]): Tensor {
  const moves = changes.map(({ shift }) => (shift && shift.some((pixels) => pixels !== 0) ? { translate: shift } : null))
  return onSome(images, moves, (chosen, maps) => affine(chosen, maps, { interpolation: 'nearest', fill }))
}

/**
 * Shift, RandAugment, colour, normalisation, and erasing. The mean fills what a view's own pixels do not.
 *
 * @param images - [B, C, H, W] in [0, 1]; values a little outside, as resizing leaves them, are clamped.
 */
export function finishViews(images: Tensor, changes: readonly ViewChange[], { mean, std }: Statistics): Tensor {
  return torch.scope(() => {
    const shifted = applyShifts(images.clamp({ min: 0, max: 1 }), changes, mean)
    const plans = changes.map(({ randAugment }) => randAugment ?? null)
    const augmented = onSome(shifted, plans, (chosen, own) => applyRandAugment(chosen, own, { fill: mean }))
    return applyErasing(normalise(applyColour(augmented, changes), mean, std), changes.map(({ erasing }) => erasing ?? null))
  })
}
