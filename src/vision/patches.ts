import { expected } from '../errors.js'
import { Conv2d, Module } from '../nn/index.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'

/** @throws InputError unless `value` is an integer above 0. */
export function requirePositive(value: unknown, name: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value
  throw expected('a positive integer', name, value)
}

/** Cuts an image into patches and projects each. */
export class PatchEmbed extends Module {
  readonly proj: Conv2d

  constructor(readonly channels: number, readonly patchSize: number, embedDim: number) {
    super()
    this.proj = new Conv2d(channels, embedDim, patchSize, { stride: patchSize })
  }

  /** @param images - [B, C, H, W]. @returns [B, N, D], patches row by row. */
  override forward(images: Tensor): Tensor {
    // The convolution's stride is its kernel, so it is a matrix product per patch, which is faster than a convolution on every device.
    const { weight, bias } = this.proj
    return torch.linear(patchify(images, this.patchSize), weight.flatten({ startDim: 1 }), { bias })
  }
}

/**
 * Pixels by patch.
 *
 * @param images - [B, C, H, W].
 * @returns [B, N, C p p], patches row by row, a patch as channel, row, column.
 * @throws InputError for a patch that does not divide the image.
 */
export function patchify(images: Tensor, patchSize: number): Tensor {
  requirePositive(patchSize, 'patchSize')
  const [batch, channels, height, width] = images.shape as [number, number, number, number]
  if (images.ndim !== 4) throw expected('a batch of images [B, C, H, W]', 'images', `shape [${images.shape.join(', ')}]`)
  if (height % patchSize || width % patchSize) throw expected(`a divisor of the image size ${height} x ${width}`, 'patchSize', patchSize)
  const [rows, columns] = [height / patchSize, width / patchSize]
  return images
    .reshape([batch, channels, rows, patchSize, columns, patchSize])
    .permute([0, 2, 4, 1, 3, 5])
    .reshape([batch, rows * columns, channels * patchSize * patchSize])
}

/** Inverse of {@link patchify}. @param patches - [B, N, C p p]. @returns [B, C, H, W]. @throws InputError for another shape. */
export function unpatchify(patches: Tensor, patchSize: number, height: number, width: number): Tensor {
  requirePositive(patchSize, 'patchSize')
  const { shape } = patches
  const [batch, length, size] = shape as [number, number, number]
  const area = patchSize ** 2
  if (shape.length !== 3 || size % area || length * area !== height * width || height % patchSize || width % patchSize) {
    throw expected(`patches [B, N, C p p] of an image of ${height} x ${width}, p = ${patchSize}`, 'patches', `shape [${shape.join(', ')}]`)
  }
  const [rows, columns, channels] = [height / patchSize, width / patchSize, size / area]
  return patches
    .reshape([batch, rows, columns, channels, patchSize, patchSize])
    .permute([0, 3, 1, 4, 2, 5])
    .reshape([batch, channels, height, width])
}
