// Networks for images.
export {
  Block, initialise, PatchEmbed, patchify, requireBlocks, unpatchify, VisionTransformer, type ImageSize, type VisionTransformerOptions
} from './vision-transformer.js'
export { visionTransformer, visionTransformers, type VisionTransformerName } from './zoo.js'
export { costOf, type Cost } from './cost.js'
