import type { Loader } from '../data/index.js'
import { expected, InputError } from '../errors.js'
import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Tensor } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'

/** Features of a set of images: one row each. Made outside scopes: dispose of them when done. */
export interface Features {
  /** The CLS token after the final norm: [N, D]. Null for an encoder without one. */
  readonly cls: Tensor | null
  /** The mean of the patch tokens after the final norm: [N, D]. */
  readonly mean: Tensor
  /** Positions of the rows' images in the source; broken images have no row. */
  readonly indices: readonly number[]
}

/** Where in an encoder features are taken. */
export interface FeatureOptions {
  /** The block whose output they are, counted from 1, after the final norm. Default: the last. */
  readonly block?: number
}

const BATCH = 128

/** What `compute` gives for all images of a loader, batch by batch, put together. */
export async function collect(loader: Loader, compute: (images: Tensor) => Tensor[]): Promise<{ rows: Tensor[]; indices: number[] }> {
  const parts: Tensor[][] = []
  const indices: number[] = []
  try {
    for await (const batch of loader.all(BATCH)) {
      try {
        parts.push(noGrad(() => scope(() => compute(batch.images).map((rows) => keep(rows)))))
      } finally {
        batch.images.dispose()
      }
      indices.push(...batch.indices)
    }
    if (parts.length === 0) throw new InputError('There are no features: none of the images can be decoded')
    return { rows: parts[0]!.map((_, i) => keep(torch.cat(parts.map((part) => part[i]!)))), indices }
  } finally {
    for (const tensor of parts.flat()) tensor.dispose()
  }
}

/**
 * Runs an encoder over all images of a loader, without augmentation, in evaluation mode.
 *
 * @throws InputError for a block that the encoder does not have, if no image can be decoded, and for images of another size than its.
 */
export async function extractFeatures(model: VisionTransformer, loader: Loader, options: FeatureOptions = {}): Promise<Features> {
  const { block = model.depth } = options
  if (!(Number.isInteger(block) && block >= 1 && block <= model.depth)) throw expected(`a block from 1 to ${model.depth}`, 'block', block)
  const wasTraining = model.training
  model.eval()
  try {
    const { rows, indices } = await collect(loader, (images) => {
      const tokens = model.call(images, [block])
      // A copy of the CLS token: a view would hold all tokens.
      return [model.pool(tokens, 'avg'), ...(model.options.classToken ? [model.pool(tokens, 'token').clone()] : [])]
    })
    return { cls: rows[1] ?? null, mean: rows[0]!, indices }
  } finally {
    model.train(wasTraining)
  }
}

/** The normalised pixels themselves as features: [N, C H W]. Dispose of them when done. */
export async function pixelFeatures(loader: Loader): Promise<{ readonly pixels: Tensor; readonly indices: readonly number[] }> {
  const { rows, indices } = await collect(loader, (images) => [images.flatten({ startDim: 1 }).clone()])
  return { pixels: rows[0]!, indices }
}
