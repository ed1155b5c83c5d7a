import type { Statistics } from '../data/index.js'
import type { EncodedImage } from '../io/index.js'
import type { Tensor } from '../torch/index.js'
import { drawGrid, shown, WHITE, writePicture } from './grid.js'
import { writing } from './run-folder.js'

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
export async function writeReconstructions(path: string, images: Reconstructions, statistics: Statistics): Promise<EncodedImage> {
  const { clean, corrupted, reconstruction, mask } = images
  const picture = await drawGrid(() => [
    ...[clean, corrupted, reconstruction].map((column) => shown(column, statistics)), mask.expand(clean.shape).to('float32').mul(WHITE)
  ])
  await writing(`'${path}'`, () => writePicture(path, picture))
  return picture
}
