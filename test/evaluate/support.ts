import { randomFor } from '../../src/data/index.js'
import { GroupMaskedModel } from '../../src/gmml/index.js'
import { scope } from '../../src/torch/index.js'
import { VisionTransformer } from '../../src/vision/index.js'
import { folderWith, idx } from '../data/support.js'

/** Grey images of 8 x 8 pixels in three classes that are easy to tell: class c is bright in the rows from 2 c. */
export async function stripes(count: number, options: { readonly seed?: number; readonly classes?: number } = {}): Promise<string> {
  return folderWith(stripeFiles(count, options.seed, '', options.classes))
}

/** Their IDX files, with names that begin with `prefix`. */
export function stripeFiles(count: number, seed = 0, prefix = '', classes = 3): Record<string, Uint8Array> {
  const random = randomFor(seed, 'stripes')
  const labels = Array.from({ length: count }, (_, i) => i % classes)
  const image = (label: number) =>
    Array.from({ length: 64 }, (_, pixel) => (Math.floor(pixel / 16) === label ? 200 : 60) + random.integer(-30, 31))
  return {
    [`${prefix}images-idx3-ubyte`]: idx([count, 8, 8], labels.flatMap(image)), [`${prefix}labels-idx1-ubyte`]: idx([count], labels)
  }
}

/** An encoder that is as small as one can be, for images of 8 x 8 pixels. */
export const tinyEncoder = (channels = 1, dropPath = 0): VisionTransformer =>
  scope(() => new VisionTransformer({ imageSize: 8, patchSize: 4, channels, embedDim: 8, depth: 2, numHeads: 2, dropPath }))

export const tinyModel = (channels = 1): GroupMaskedModel => scope(() => new GroupMaskedModel(tinyEncoder(channels)))
