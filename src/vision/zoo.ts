import { expected } from '../errors.js'
import { VisionTransformer, type VisionTransformerOptions } from './vision-transformer.js'

/** Sizes by name. `vit_micro` is for small images and small machines. */
export const visionTransformers = {
  vit_micro: { embedDim: 128, depth: 4, numHeads: 4 },
  vit_tiny: { embedDim: 192, depth: 12, numHeads: 3 },
  vit_small: { embedDim: 384, depth: 12, numHeads: 6 },
  vit_base: { embedDim: 768, depth: 12, numHeads: 12 },
  vit_large: { embedDim: 1024, depth: 24, numHeads: 16 }
} as const satisfies Record<string, Pick<VisionTransformerOptions, 'embedDim' | 'depth' | 'numHeads'>>

/** A size of the zoo, under the name of timm. */
export type VisionTransformerName = keyof typeof visionTransformers

/**
 * A vision transformer by name, at random initialisation.
 *
 * @param options - Image size, patch size, channels, drop path; also overrides of the named sizes.
 * @throws InputError for an unknown name.
 */
export function visionTransformer(name: VisionTransformerName, options: Partial<VisionTransformerOptions> = {}): VisionTransformer {
  if (!Object.hasOwn(visionTransformers, name)) throw expected(`one of ${Object.keys(visionTransformers).join(', ')}`, 'the model', name)
  return new VisionTransformer({ ...visionTransformers[name], ...options })
}
