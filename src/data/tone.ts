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
  return torch.scope(() => {
    // 1 where inverted, 0 elsewhere: with numbers instead of booleans, libtorch has a faster way on the CPU.
    const inverted = images.clone().ge_(column(thresholds, images))
    return torch.lerp(images, images.neg().add_(1), inverted)
  })
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
    return toSteps(images).div_(step).floor_().mul_(step).div_(255)
  })
}

/** Stretches the values of each channel so that they reach from 0 to 1. A channel of one value is left as it is. */
export function autocontrast(images: Tensor): Tensor {
  return torch.scope(() => {
    const lowest = images.amin({ dim: [2, 3], keepdim: true })
    const scale = images.amax({ dim: [2, 3], keepdim: true }).sub(lowest).reciprocal()
    const flat = scale.isfinite().logicalNot()
    return images.sub(lowest.maskedFill(flat, 0)).mul_(scale.maskedFill(flat, 1)).clamp_({ min: 0, max: 1 })
  })
}

/** How often each number from 0 to `length` - 1 is there. On a GPU `bincount` makes the host wait, for a length that is known here. */
function countOf(numbers: Tensor, length: number): Tensor {
  if (!numbers.isCuda) return torch.bincount(numbers, { minlength: length })
  const counts = torch.zeros([length], { dtype: 'int64', device: numbers.device })
  return counts.indexAdd_(0, numbers, numbers.onesLike({ dtype: 'int64' }))
}

/**
 * Spreads the values of each channel so that all are about equally frequent. Channels of few pixels or few values, whose histogram has
 * no whole step, are only rounded.
 */
export function equalize(images: Tensor): Tensor {
  return torch.scope(() => {
    const [batch, channels, height, width] = images.shape as [number, number, number, number]
    const planes = batch * channels
    const steps = toSteps(images).reshape([planes, height * width])
    // One histogram for all planes: each counts in 256 places of its own.
    const first = torch.arange(planes, { dtype: 'int32', device: images.device }).mul(256).reshape([planes, 1])
    const places = steps.to('int32').add_(first).flatten()
    const histogram = countOf(places, planes * 256).reshape([planes, 256])
    const ofBrightest = histogram.gather(1, steps.amax({ dim: 1, keepdim: true }).to('int64'))
    const step = ofBrightest.neg().add(height * width).div(255, { roundingMode: 'floor' })
    const divisor = step.clamp({ min: 1 })
    // How many pixels are darker than each value, in steps.
    const darker = histogram.cumsum(1).sub(histogram)
    const ranks = darker.add(divisor.div(2, { roundingMode: 'floor' })).div(divisor, { roundingMode: 'floor' }).clamp({ max: 255 })
    const table = torch.where(step.eq(0), torch.arange(256, { device: images.device }), ranks).to('float32').div(255)
    return table.flatten().indexSelect(0, places).reshape(images.shape)
  })
}
