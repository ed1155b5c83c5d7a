import { permutation, randomFor, type ImageSource, type Loader } from '../data/index.js'
import { accuracy, extractFeatures, knnPredict } from '../evaluate/index.js'
import * as torch from '../torch/index.js'
import { scope } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'

const QUERY_PART = 0.1

/**
 * kNN accuracy of an encoder within its own training images: a random tenth is classified by the rest. No test image is used, so it may
 * guide choices.
 */
export async function heldOutKnn(model: VisionTransformer, source: ImageSource, loader: Loader, seed: number): Promise<number> {
  const { cls, mean, indices } = await extractFeatures(model, loader)
  try {
    return scope(() => {
      const order = permutation(indices.length, randomFor(seed, 'knn'))
      const count = Math.max(1, Math.floor(QUERY_PART * indices.length))
      const select = (positions: Uint32Array) => ({
        features: mean.indexSelect(0, torch.fromTypedArray(Int32Array.from(positions)).to(mean.device)),
        labels: Array.from(positions, (position) => source.labels![indices[position]!]!)
      })
      const queries = select(order.subarray(0, count))
      return accuracy(knnPredict(select(order.subarray(count)), queries.features, source.classes!.length), queries.labels)
    })
  } finally {
    cls?.dispose()
    mean.dispose()
  }
}
