import { expected } from '../errors.js'
import type { Tensor } from '../torch/index.js'
import { upload } from './upload.js'

// What functions on a batch of images share that have one parameter per image.

/**
 * One number per image as a tensor that goes with a batch: [B, 1, 1, 1].
 *
 * @throws InputError unless there are as many values as images.
 */
export function column(values: readonly number[], images: Tensor): Tensor {
  requireEach(values, images, 'the parameters')
  return upload(Float32Array.from(values), [values.length, 1, 1, 1], images.device)
}

/** @throws InputError unless `list` has one element for each image of the batch. */
export function requireEach(list: readonly unknown[], images: Tensor, name: string): void {
  const batch = images.shape[0]!
  if (list.length !== batch) throw expected(`${batch} elements, one for each image,`, name, `${list.length}`)
}

/** One number per channel as a tensor that goes with a batch: [1, C, 1, 1]. A single number is taken for every channel. */
export function perChannel(values: number | readonly number[], images: Tensor, name: string): Tensor {
  const channels = images.shape[1]!
  const list = typeof values === 'number' ? Array<number>(channels).fill(values) : values
  if (list.length !== channels) throw expected(`${channels} values, one for each channel,`, name, list)
  return upload(Float32Array.from(list), [1, channels, 1, 1], images.device)
}

/** Positions in a batch as a tensor on the images' device. */
export function rowsOf(positions: readonly number[], images: Tensor): Tensor {
  return upload(BigInt64Array.from(positions, BigInt), [positions.length], images.device)
}

/** Values in [0, 1] as the nearest of 256 steps, 0 to 255. A new tensor. */
export function toSteps(images: Tensor): Tensor {
  return images.mul(255).round_().clamp_({ min: 0, max: 255 })
}
