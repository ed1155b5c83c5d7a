import { Loader, type ImageSource, type LoaderOptions, type Statistics } from '../data/index.js'
import type { Tensor } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'
import { collect } from './features.js'
import type { Classified } from './labelled.js'

/** How images come to a network. */
export interface InputOptions extends Omit<LoaderOptions, 'size'> {
  /** What images are normalised with. */
  readonly statistics: Statistics
}

/** Probabilities [B, C] of a batch [B, channels, H, W], by a model with a classifier in evaluation mode. */
export const classifyBatch = (model: VisionTransformer, images: Tensor): Tensor => model.logits(images).softmax(1, { dtype: 'float32' })

/**
 * What a model with a classifier says of images, without augmentation, in evaluation mode.
 *
 * @returns Probabilities [M, C] by the name `classifier`, outside scopes.
 * @throws InputError if no image can be decoded, or for a model without a classifier.
 */
export async function classify(model: VisionTransformer, images: ImageSource, options: InputOptions): Promise<Classified> {
  const [height, width] = model.imageSize
  const loader = new Loader(images, { size: { height, width }, ...options })
  const wasTraining = model.training
  model.eval()
  try {
    const { rows, indices } = await collect(loader, (batch) => [classifyBatch(model, batch)])
    return { indices, scores: { classifier: rows[0]! } }
  } finally {
    model.train(wasTraining)
    loader.dispose()
  }
}
