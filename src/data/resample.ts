import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import type { Rectangle, Size } from './crop.js'
import { upload } from './upload.js'

// Catmull-Rom, as Pillow and ATen have it for antialiased resizing.
const A = -0.5

/** Value of the cubic kernel at a distance. */
function cubic(distance: Tensor): Tensor {
  const x = distance.abs()
  const near = x.mul(A + 2).sub(A + 3).mul(x).mul(x).add(1)
  const far = x.sub(5).mul(x).add(8).mul(x).sub(4).mul(A)
  return torch.where(x.lt(1), near, torch.where(x.lt(2), far, torch.zeros([], { device: x.device })))
}

/**
 * For each image the matrix that resizes one side, of numbers [B, 1, 1]: [B, to, from]. Row j holds the weights of the pixels that make output pixel j. What lies
 * outside the crop has no weight, and what remains sums to one.
 */
function resizeMatrix(
  start: Tensor, extent: Tensor, mirror: Tensor | null, from: number, to: number
): Tensor {
  const { device } = start
  const scale = extent.div(to)
  const output = torch.arange(to, { dtype: 'float32', device }).reshape([1, to, 1])
  // Mirrored: the last output pixel comes first.
  const j = mirror ? output.add(mirror.mul(output.mul(-2).add(to - 1))) : output
  const centre = j.add(0.5).mul(scale)
  // Counted from the crop's edge: far from it a float32 would lose the fraction.
  const pixel = torch.arange(from, { dtype: 'float32', device }).reshape([1, 1, from]).sub(start)
  const weights = cubic(pixel.add(0.5).sub(centre).div(scale.clamp({ min: 1 })))
  const inside = pixel.ge(0).logicalAnd(pixel.lt(extent))
  const kept = weights.mul(inside)
  return kept.div(kept.sum(2, { keepdim: true }))
}

/**
 * Cuts one rectangle out of each image and resizes it, bicubic and antialiased, all images at once: two matrix products per image. Equals
 * cropping and then `resize(..., antialias=True)` of torchvision.
 *
 * @param images - [B, C, H, W], float.
 * @param crops - One for each image, inside it.
 * @param flips - Which results are mirrored left to right.
 * @returns [B, C, size.height, size.width]; bicubic weights overshoot, so the range may be a little wider than the input's.
 */
export function resampleCrops(images: Tensor, crops: readonly Rectangle[], flips: readonly boolean[], size: Size): Tensor {
  return torch.scope(() => {
    const [, , height, width] = images.shape as [number, number, number, number]
    const sides = (['top', 'height', 'left', 'width'] as const).map((side) => crops.map((crop) => crop[side]))
    // All that there is to say of the crops, in one copy.
    const numbers = upload(Float32Array.from([...sides, flips.map(Number)].flat()), [5, crops.length, 1, 1], images.device)
    const [top, tall, left, wide, flip] = numbers.unbind() as [Tensor, Tensor, Tensor, Tensor, Tensor]
    const rows = resizeMatrix(top, tall, null, height, size.height)
    const columns = resizeMatrix(left, wide, flip, width, size.width)
    return torch.matmul(torch.matmul(rows.unsqueeze(1), images), columns.transpose(1, 2).unsqueeze(1))
  })
}
