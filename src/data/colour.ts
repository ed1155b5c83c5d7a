import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { column } from './batch.js'
import { upload } from './upload.js'

// Each function works on a batch [B, C, H, W] with values in [0, 1], with one parameter per image, and equals the function of the same name
// in torchvision.transforms.functional. Images with one channel are grey.

/** Weights of red, green and blue in brightness (ITU-R 601-2, as torchvision has them). */
const LUMA = [0.2989, 0.587, 0.114] as const

function grey(images: Tensor): Tensor {
  if (images.shape[1] === 1) return images
  return images.mul(upload(Float32Array.of(...LUMA), [1, 3, 1, 1], images.device)).sum(1, { keepdim: true })
}

const blend = (images: Tensor, other: Tensor, factor: Tensor): Tensor =>
  images.mul(factor).add_(other.mul(factor.neg().add(1))).clamp_({ min: 0, max: 1 })

/** Multiplies by a factor: 0 black, 1 unchanged. */
export function adjustBrightness(images: Tensor, factors: readonly number[]): Tensor {
  return torch.scope(() => images.mul(column(factors, images)).clamp({ min: 0, max: 1 }))
}

/** Moves towards the image's mean brightness: 0 flat grey, 1 unchanged. */
export function adjustContrast(images: Tensor, factors: readonly number[]): Tensor {
  return torch.scope(() => blend(images, grey(images).mean([1, 2, 3], { keepdim: true }), column(factors, images)))
}

/** Moves towards grey: 0 no colour, 1 unchanged. Grey images are given back themselves. */
export function adjustSaturation(images: Tensor, factors: readonly number[]): Tensor {
  return images.shape[1] === 1 ? images : torch.scope(() => blend(images, grey(images), column(factors, images)))
}

/** Turns the hue by a part of the circle, -0.5 to 0.5. Grey images are given back themselves. */
export function adjustHue(images: Tensor, turns: readonly number[]): Tensor {
  return images.shape[1] === 1 ? images : torch.scope(() => turnHue(images, turns))
}

function turnHue(images: Tensor, turns: readonly number[]): Tensor {
  const [red, green, blue] = images.unbind({ dim: 1 }) as [Tensor, Tensor, Tensor]
  const value = torch.maximum(red, green).maximum(blue)
  const chroma = value.sub(torch.minimum(red, green).minimum(blue))
  // Sixths of the circle, counted from the channel that is largest. Grey, without a chroma, has red's: none.
  const [fromRed, fromGreen, fromBlue] = [green.sub(blue), blue.sub(red), red.sub(green)]
  const twice = chroma.mul(2)
  const other = torch.where(value.eq(green), fromGreen.add_(twice), fromBlue.add_(twice).add_(twice))
  const hue = torch.where(value.eq(red), fromRed, other).div_(chroma.clamp({ min: 1e-9 })).add_(column(turns, images).squeeze(1).mul(6))
  const channels = [3, 1, -1].map((offset) => {
    // How far round the circle the hue is from where this channel is darkest.
    const distance = hue.add(offset)
    distance.sub_(distance.div(6).round_().mul_(6)).abs_()
    return distance.neg_().add_(2).clamp_({ min: 0, max: 1 }).mul_(chroma).neg_().add_(value)
  })
  return torch.stack(channels, { dim: 1 })
}

/**
 * Moves away from the image's blur: 0 blurred by a kernel of 3 x 3, 1 unchanged, 2 sharpened. The outermost pixels stay as they are, and so
 * does an image of fewer than 3 pixels a side.
 *
 * @throws InputError for a factor below 0, more or fewer factors than images.
 */
export function adjustSharpness(images: Tensor, factors: readonly number[]): Tensor {
  if (!factors.every((factor) => factor >= 0)) throw expected('numbers of at least 0', 'factors', factors)
  const [, , height, width] = images.shape as [number, number, number, number]
  return torch.scope(() => {
    const result = images.clone()
    const strength = column(factors, images)
    if (Math.min(height, width) < 3) return result
    const inner = result.narrow(2, 1, height - 2).narrow(3, 1, width - 2)
    // All nine pixels weigh 1, and the middle one 4 more. Sums of three take a tenth of the time of a convolution or pooling on the CPU.
    const three = (input: Tensor, dim: number, length: number): Tensor =>
      input.narrow(dim, 0, length).add(input.narrow(dim, 1, length)).add_(input.narrow(dim, 2, length))
    const blurred = three(three(images, 2, height - 2), 3, width - 2).add_(inner, { alpha: 4 }).div_(13)
    inner.copy_(blend(inner, blurred, strength))
    return result
  })
}

/** Half the kernel of {@link gaussianBlur}, in sigma: beyond nothing is left. */
const REACH = 4

/** Half the kernel for sigmas up to GMML's largest, 2. */
const LEAST_RADIUS = 2 * REACH

/**
 * Blurs with a Gaussian, mirrored at the border, by two passes of a kernel that reaches four sigma to each side, at least 8 pixels (less for
 * an image of fewer than 9).
 *
 * @param sigmas - Standard deviations in pixels.
 * @throws InputError for a sigma that is not a number above 0.
 */
export function gaussianBlur(images: Tensor, sigmas: readonly number[]): Tensor {
  if (!sigmas.every((sigma) => sigma > 0 && sigma < Infinity)) throw expected('numbers above 0', 'sigmas', sigmas)
  const [batch, , height, width] = images.shape as [number, number, number, number]
  // Each image has a kernel as long as its sigma wants, whatever the others of the batch do: its values are its own.
  const reaches = sigmas.map((sigma) => Math.max(LEAST_RADIUS, Math.ceil(REACH * sigma)))
  const pass = (input: Tensor, vertical: boolean): Tensor => {
    const side = vertical ? height : width
    const radius = Math.min(Math.max(LEAST_RADIUS, ...reaches), side - 1)
    const length = 2 * radius + 1
    const distances = torch.arange(length, { dtype: 'float32', device: images.device }).sub(radius)
    const beyond = distances.abs().gt(column(reaches, images).reshape([batch, 1]))
    const weights = distances.div(column(sigmas, images).reshape([batch, 1])).square().mul(-0.5).exp().maskedFill(beyond, 0)
    const kernel = weights.div(weights.sum(1, { keepdim: true })).reshape([batch, length, 1, 1, 1]).unbind({ dim: 1 })
    const padded = input.reflectionPad2d(vertical ? [0, 0, radius, radius] : [radius, radius, 0, 0])
    const shifted = (by: number): Tensor => padded.narrow(vertical ? 2 : 3, by, side)
    // Sums of shifted images: on the CPU a convolution of one channel takes ten times as long.
    const sum = shifted(0).mul(kernel[0]!)
    for (let by = 1; by < length; by++) sum.addcmul_(shifted(by), kernel[by]!)
    return sum
  }
  return torch.scope(() => pass(pass(images, true), false))
}

/** Mean and deviation as tensors that go with a batch. */
function byChannel(images: Tensor, ...values: readonly (readonly number[])[]): Tensor[] {
  const channels = images.shape[1]!
  if (values.some(({ length }) => length !== channels)) {
    throw expected(`${channels} values`, 'mean and std', values.map(({ length }) => length).join(' and '))
  }
  return values.map((list) => upload(Float32Array.from(list), [1, channels, 1, 1], images.device))
}

/**
 * Subtracts the mean and divides by the standard deviation, channel by channel.
 *
 * @throws InputError unless there is a mean and a deviation for each channel.
 */
export function normalise(images: Tensor, mean: readonly number[], std: readonly number[]): Tensor {
  return torch.scope(() => {
    const [means, deviations] = byChannel(images, mean, std) as [Tensor, Tensor]
    return images.sub(means).div_(deviations)
  })
}

/** Inverse of {@link normalise}. */
export function denormalise(images: Tensor, mean: readonly number[], std: readonly number[]): Tensor {
  return torch.scope(() => {
    const [means, deviations] = byChannel(images, mean, std) as [Tensor, Tensor]
    return images.mul(deviations).add(means)
  })
}
