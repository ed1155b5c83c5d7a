import { randomFor, type Loader } from '../data/index.js'
import { corrupt, type CorruptionOptions, type GroupMaskedModel } from '../gmml/index.js'
import { InputError } from '../errors.js'
import { manualSeed, noGrad, scope, type Tensor } from '../torch/index.js'

/** How far reconstructions are from the images. */
export interface ReconstructionError {
  /** Mean L1 of the corrupted pixels, normalised. */
  readonly l1: number
  /** The same for a model that predicts the mean pixel everywhere. */
  readonly meanPixelL1: number
}

const BATCH = 128

/**
 * How well a model reconstructs the corrupted pixels of whole images, without augmentation.
 *
 * @param options - How the images are corrupted, as in training; `seed` decides where.
 * @throws InputError if no image can be decoded.
 */
export async function reconstructionError(
  model: GroupMaskedModel, loader: Loader, options: Omit<CorruptionOptions, 'random'> & { readonly seed?: number } = {}
): Promise<ReconstructionError> {
  const { seed = 0, ...corruption } = options
  const wasTraining = model.training
  model.eval()
  let pixels = 0
  let error = 0
  let meanError = 0
  try {
    for await (const { indices, images } of loader.all(BATCH)) {
      try {
        noGrad(() => {
          scope(() => {
            manualSeed(randomFor(seed, indices[0]!, 'noise').integer(0, 2 ** 53))
            const { corrupted, mask } = corrupt(images, { ...corruption, random: (view) => randomFor(seed, indices[view]!, 'mask') })
            const sum = (distance: Tensor) => distance.abs().mul(mask).sum().item()
            pixels += mask.sum().item() * images.shape[1]!
            error += sum(model.reconstruct(corrupted).sub(images))
            meanError += sum(images) // normalised, the mean pixel is zero
          })
        })
      } finally {
        images.dispose()
      }
    }
  } finally {
    model.train(wasTraining)
  }
  if (pixels === 0) throw new InputError('There is nothing to reconstruct: none of the images can be decoded')
  return { l1: error / pixels, meanPixelL1: meanError / pixels }
}
