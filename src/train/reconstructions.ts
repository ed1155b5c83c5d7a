import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import sharp from 'sharp'

import { denormalise, type Statistics } from '../data/index.js'
import { writeFileAtomic, type EncodedImage } from '../io/index.js'
import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'
import { writing } from './run-folder.js'

/** Pixels that an image takes in the grid at least; small ones are enlarged by whole factors. */
const LEAST_SIDE = 112
const GAP = 4
const WHITE = 255

/** What a model was shown, and what it made of it. */
export interface Reconstructions {
  readonly clean: Tensor
  readonly corrupted: Tensor
  readonly reconstruction: Tensor
  readonly mask: Tensor
}

/**
 * Writes a PNG with one row per image: clean, corrupted, reconstruction, mask. Colours are de-normalised.
 *
 * @param images - `clean`, `corrupted`, `reconstruction`: [B, C, H, W], normalised; `mask`: bool [B, 1, H, W], shown white where corrupted.
 * @param statistics - What the images were normalised with.
 * @returns The same picture.
 * @throws InputError if the disk does not take it.
 */
export async function writeReconstructions(path: string, images: Reconstructions, { mean, std }: Statistics): Promise<EncodedImage> {
  const { pixels, width, height } = noGrad(() =>
    scope(() => {
      const show = (image: Tensor) => denormalise(image.to('float32'), mean, std).clamp({ min: 0, max: 1 }).mul(255).round()
      const mask = images.mask.expand(images.clean.shape).to('float32').mul(255)
      const columns = [show(images.clean), show(images.corrupted), show(images.reconstruction), mask]
      const factor = Math.max(1, Math.ceil(LEAST_SIDE / Math.min(...images.clean.shape.slice(2))))
      const framed = columns.map((column) =>
        column
          .repeatInterleave(factor, { dim: 2 })
          .repeatInterleave(factor, { dim: 3 })
          .expand([-1, 3, -1, -1])
          .constantPadNd([0, GAP, 0, GAP], { value: WHITE })
      )
      // [B, 3, H, 4 W], then the rows below each other.
      const rows = torch.cat(framed, { dim: 3 })
      const grid = rows.permute([0, 2, 3, 1]).flatten({ startDim: 0, endDim: 1 }).constantPadNd([0, 0, GAP, 0, GAP, 0], { value: WHITE })
      const [height, width] = grid.shape as [number, number]
      return { pixels: grid.to('uint8').toTypedArray() as Uint8Array, width, height }
    })
  )
  const png = await sharp(pixels, { raw: { width, height, channels: 3 } }).png().toBuffer()
  await writing(`'${path}'`, async () => {
    await mkdir(dirname(path), { recursive: true })
    await writeFileAtomic(path, png)
  })
  return { png, width, height }
}
