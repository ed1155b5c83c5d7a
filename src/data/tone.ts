import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { column, toSteps } from './batch.js'

// As in colour.ts, each function works on a batch [B, C, H, W] with values in [0, 1], with one parameter per image where there is one, and
// equals the function of the same name in torchvision.transforms.functional: for those that torchvision defines on bytes alone, values are
// rounded to 256 steps first.

/**
 * Inverts the values that are not below a threshold: 0 inverts the image, above 1 nothing.
 *
 * @throws InputError for more or fewer thresholds than images.
 */
export function solarize(images: Tensor, thresholds: readonly number[]): Tensor {
  return torch.scope(() => torch.where(images.ge(column(thresholds, images)), images.neg().add(1), images))
}

/**
 * Keeps the highest bits of 8 and sets the others to 0.
 *
 * @param bits - 0 to 8: 0 is black, 8 unchanged.
 * @throws InputError for anything else.
 */
export function posterize(images: Tensor, bits: readonly number[]): Tensor {
  if (!bits.every((count) => Number.isInteger(count) && count >= 0 && count <= 8)) throw expected('integers from 0 to 8', 'bits', bits)
  return torch.scope(() => {
    const step = column(bits.map((count) => 2 ** (8 - count)), images)
    return toSteps(images).div(step).floor().mul(step).div(255)
  })
}

/** Stretches the values of each channel so that they reach from 0 to 1. A channel of one value is left as it is. */
export function autocontrast(images: Tensor): Tensor {
  return torch.scope(() => {
    const lowest = images.amin({ dim: [2, 3], keepdim: true })
    const scale = images.amax({ dim: [2, 3], keepdim: true }).sub(lowest).reciprocal()
    const flat = scale.isfinite().logicalNot()
    return images.sub(lowest.maskedFill(flat, 0)).mul(scale.maskedFill(flat, 1)).clamp({ min: 0, max: 1 })
  })
}

/**
 * Spreads the values of each channel so that all are about equally frequent. Channels of few pixels or few values, whose histogram has
 * no whole step, are only rounded.
 */
export function equalize(images: Tensor): Tensor {
  return torch.scope(() => {
    const [batch, channels, height, width] = images.shape as [number, number, number, number]
    const planes = batch * channels
    const steps = toSteps(images).to('int64').reshape([planes, height * width])
    // One histogram for all planes: each counts in 256 places of its own.
    const own = torch.arange(planes, { device: images.device }).mul(256).reshape([planes, 1])
    const histogram = torch.bincount(steps.add(own).flatten(), { minlength: planes * 256 }).reshape([planes, 256])
    const ofBrightest = histogram.gather(1, steps.amax({ dim: 1, keepdim: true }))
    const step = ofBrightest.neg().add(height * width).div(255, { roundingMode: 'floor' })
    const divisor = step.clamp({ min: 1 })
    // The rank of the values below each one, in steps.
    const below = histogram.cumsum(1).sub(histogram)
    const ranks = below.add(divisor.div(2, { roundingMode: 'floor' })).div(divisor, { roundingMode: 'floor' })
    const unchanged = torch.arange(256, { device: images.device })
    const table = torch.where(step.eq(0), unchanged, ranks.clamp({ max: 255 }))
    return table.gather(1, steps).to('float32').div(255).reshape(images.shape)
  })
}
