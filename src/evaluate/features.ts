import type { Loader } from '../data/index.js'
import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Tensor } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'

/** Features of a set of images: one row each. Made outside scopes: dispose of them when done. */
export interface Features {
  /** The CLS token after the final norm: [N, D]. */
  readonly cls: Tensor
  /** The mean of the patch tokens after the final norm: [N, D]. */
  readonly mean: Tensor
  /** Positions of the rows' images in the source; broken images have no row. */
  readonly indices: readonly number[]
}

const BATCH = 128

async function collect(loader: Loader, names: readonly string[], compute: (images: Tensor) => Tensor[]): Promise<{ rows: Tensor[]; indices: number[] }> {
  const parts: Tensor[][] = names.map(() => [])
  const indices: number[] = []
  for await (const batch of loader.all(BATCH)) {
    const computed = noGrad(() => scope(() => compute(batch.images).map((rows) => keep(rows))))
    for (const [i, rows] of computed.entries()) parts[i]!.push(rows)
    indices.push(...batch.indices)
    batch.images.dispose()
  }
  const rows = parts.map((list) => keep(torch.cat(list)))
  for (const list of parts) for (const part of list) part.dispose()
  return { rows, indices }
}

/** Runs an encoder over all images of a loader, without augmentation, in evaluation mode. */
export async function extractFeatures(model: VisionTransformer, loader: Loader): Promise<Features> {
  const wasTraining = model.training
  model.eval()
  try {
    const { rows, indices } = await collect(loader, ['cls', 'mean'], (images) => {
      const tokens = model.call(images)
      return [tokens.select(1, 0).clone(), tokens.narrow(1, 1, tokens.shape[1]! - 1).mean(1)]
    })
    return { cls: rows[0]!, mean: rows[1]!, indices }
  } finally {
    model.train(wasTraining)
  }
}

/** The normalised pixels themselves as features: [N, C H W]. */
export async function pixelFeatures(loader: Loader): Promise<{ readonly pixels: Tensor; readonly indices: readonly number[] }> {
  const { rows, indices } = await collect(loader, ['pixels'], (images) => [images.flatten({ startDim: 1 }).clone()])
  return { pixels: rows[0]!, indices }
}
