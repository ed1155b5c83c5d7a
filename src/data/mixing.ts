import { randomBeta } from 'd3-random'
import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { column, requireEach } from './batch.js'
import { checkSize, type Rectangle, type Size } from './crop.js'
import type { Random } from './random.js'
import { upload } from './upload.js'

/** How strongly and how often images are mixed: mixup and CutMix. */
export interface MixingSettings {
  /** Alpha of mixup's Beta(alpha, alpha). Default 0: no mixup. */
  readonly mixup?: number
  /** Alpha of CutMix's Beta(alpha, alpha). Default 0: no CutMix. */
  readonly cutmix?: number
  /** How often images are mixed at all. Default 1. */
  readonly probability?: number
  /** Where both have an alpha: how often it is CutMix. Default 0.5. */
  readonly switchProbability?: number
}

/** How each image is mixed with its partner; `lambda` is the image's own part. CutMix takes `box` from the partner. */
export type Mixing =
  | { readonly kind: 'mixup'; readonly lambda: number }
  | { readonly kind: 'cutmix'; readonly lambda: number; readonly box: Rectangle }

/**
 * Draws how a batch (or one image, see {@link mixImages}) is mixed, as timm's `Mixup` does: mixup (arXiv 1710.09412) or CutMix (arXiv
 * 1905.04899). CutMix's lambda is the part of the image that is left, which is more than what was drawn where the box reaches beyond it.
 *
 * @param size - Of the images, in pixels.
 * @returns null where nothing is mixed.
 * @throws InputError for a size below 1, a negative alpha, a probability outside 0 to 1.
 */
export function drawMixing(random: Random, size: Size, settings: MixingSettings): Mixing | null {
  const { mixup = 0, cutmix = 0, probability = 1, switchProbability = 0.5 } = settings
  checkSize('the size of the images', size)
  for (const [name, alpha] of Object.entries({ mixup, cutmix })) {
    if (!(alpha >= 0 && alpha < Infinity)) throw expected('a number of at least 0', name, alpha)
  }
  for (const [name, value] of Object.entries({ probability, switchProbability })) {
    if (!(value >= 0 && value <= 1)) throw expected('a number from 0 to 1', `${name} of mixing`, value)
  }
  if (mixup === 0 && cutmix === 0) return null
  if (!random.chance(probability)) return null
  const cut = mixup > 0 && cutmix > 0 ? random.chance(switchProbability) : cutmix > 0
  const alpha = cut ? cutmix : mixup
  const lambda = randomBeta.source(() => random.uniform())(alpha, alpha)()
  return cut ? cutmixBox(random, size, lambda) : { kind: 'mixup', lambda }
}

/** A box of the image's shape and of 1 - lambda of its area, around a pixel of the image, and cut off where the image ends. */
function cutmixBox(random: Random, { height, width }: Size, lambda: number): Mixing {
  const side = Math.sqrt(1 - lambda)
  const [top, rows] = extent(random, height, Math.trunc(height * side))
  const [left, columns] = extent(random, width, Math.trunc(width * side))
  const box = { left, top, width: columns, height: rows }
  return { kind: 'cutmix', lambda: 1 - (rows * columns) / (height * width), box }
}

function extent(random: Random, side: number, length: number): [start: number, length: number] {
  const middle = random.integer(0, side)
  const start = Math.max(0, middle - Math.floor(length / 2))
  const end = Math.min(side, middle + Math.floor((length + 1) / 2))
  return [start, end - start]
}

/** One for the whole batch, or one for each image. */
export type BatchMixing = Mixing | null | readonly (Mixing | null)[]

const isList = (mixing: BatchMixing): mixing is readonly (Mixing | null)[] => Array.isArray(mixing)

/**
 * Mixes each image with its partner: the first with the last, the second with the last but one, and so on.
 *
 * @param images - [B, C, H, W].
 * @param mixing - Of the whole batch (timm's mode 'batch'), or a list with one for each image (mode 'elem'). The partner is always the
 *   unmixed one.
 * @returns The mixed images; `images` itself where nothing is mixed.
 * @throws InputError for a list that is longer or shorter than the batch.
 */
export function mixImages(images: Tensor, mixing: BatchMixing): Tensor {
  if (isList(mixing)) requireEach(mixing, images, 'mixing')
  const list = isList(mixing) ? mixing : [mixing]
  if (list.every((entry) => entry === null)) return images
  return torch.scope(() => {
    const partners = images.flip([0])
    const result = isList(mixing) || mixing?.kind === 'mixup' ? mixup(images, partners, mixing) : images.clone()
    for (const [row, entry] of list.entries()) {
      if (entry?.kind !== 'cutmix') continue
      const { left, top, width, height } = entry.box
      const cut = (batch: Tensor) => (isList(mixing) ? batch.narrow(0, row, 1) : batch).narrow(2, top, height).narrow(3, left, width)
      torch.scope(() => void cut(result).copy_(cut(partners)))
    }
    return result
  })
}

function mixup(images: Tensor, partners: Tensor, mixing: BatchMixing): Tensor {
  const part = (entry: Mixing | null) => (entry?.kind === 'mixup' ? entry.lambda : 1)
  if (!isList(mixing)) return images.mul(part(mixing)).add(partners.mul(1 - part(mixing)))
  const parts = column(mixing.map(part), images)
  return images.mul(parts).add(partners.mul(parts.neg().add(1)))
}

/**
 * What a classifier is to say of mixed images: timm's `mixup_target`.
 *
 * @param labels - [B], int64, of the images before they were mixed.
 * @param classes - How many there are.
 * @param mixing - What {@link mixImages} got.
 * @param labelSmoothing - Part of each target that is spread over all classes. Default 0.
 * @returns [B, classes], float32; the rows sum to 1.
 * @throws InputError for a smoothing outside 0 to 1, a list that is longer or shorter than the batch.
 */
export function mixTargets(labels: Tensor, classes: number, mixing: BatchMixing, labelSmoothing = 0): Tensor {
  if (!Number.isInteger(classes) || classes < 1) throw expected('an integer of at least 1', 'classes', classes)
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) throw expected('a number from 0 to 1', 'labelSmoothing', labelSmoothing)
  if (isList(mixing)) requireEach(mixing, labels, 'mixing')
  return torch.scope(() => {
    const off = labelSmoothing / classes
    const own = torch.oneHot(labels, { numClasses: classes }).to('float32').mul(1 - labelSmoothing).add(off)
    const list = isList(mixing) ? mixing : [mixing]
    if (list.every((entry) => entry === null)) return own
    const parts = upload(Float32Array.from(list, (entry) => entry?.lambda ?? 1), [list.length, 1], labels.device)
    return own.mul(parts).add(own.flip([0]).mul(parts.neg().add(1)))
  })
}
