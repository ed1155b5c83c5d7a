import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import sharp from 'sharp'

import { denormalise, type Statistics } from '../data/index.js'
import { writeFileAtomic, type EncodedImage } from '../io/index.js'
import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'

/** Pixels that an image takes in the grid at least; small ones are enlarged by whole factors. */
const LEAST_SIDE = 112
const GAP = 4

/** What stands for white in a picture. */
export const WHITE = 255

/** Normalised images as a picture has them: colours from 0 to 255. */
export function shown(images: Tensor, { mean, std }: Statistics): Tensor {
  return denormalise(images.to('float32'), mean, std).clamp({ min: 0, max: 1 }).mul(255).round()
}

/**
 * Draws images as a grid, a row for each image of the batch.
 *
 * @param columns - Makes the columns, each [B, C, H, W] of values from 0 to 255; runs in a scope, without gradients.
 */
export async function drawGrid(columns: () => readonly Tensor[]): Promise<EncodedImage> {
  const { pixels, width, height } = noGrad(() =>
    scope(() => {
      const framed = columns().map((column) => {
        const factor = Math.max(1, Math.ceil(LEAST_SIDE / Math.min(...column.shape.slice(2))))
        return column
          .repeatInterleave(factor, { dim: 2 })
          .repeatInterleave(factor, { dim: 3 })
          .expand([-1, 3, -1, -1])
          .constantPadNd([0, GAP, 0, GAP], { value: WHITE })
      })
      // [B, 3, H, columns * W], then the rows below each other.
      const rows = torch.cat(framed, { dim: 3 })
      const grid = rows.permute([0, 2, 3, 1]).flatten({ startDim: 0, endDim: 1 }).constantPadNd([0, 0, GAP, 0, GAP, 0], { value: WHITE })
      const [height, width] = grid.shape as [number, number]
      return { pixels: grid.to('uint8').toTypedArray() as Uint8Array, width, height }
    })
  )
  const png = await sharp(pixels, { raw: { width, height, channels: 3 } }).png().toBuffer()
  return { png, width, height }
}

/** Writes a picture, and the folders above it that are not there. */
export async function writePicture(path: string, { png }: EncodedImage): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFileAtomic(path, png)
}
