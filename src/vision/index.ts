/**
 * Networks for images.
 *
 * @module gmml/vision
 */

export { Block, LayerScale, Mlp, type BlockOptions } from './block.js'
export { fromHuggingFace, loadHuggingFace, saveHuggingFace, toHuggingFace, type HuggingFaceModel } from './huggingface.js'
export { exportOnnx, onnxOpsets, type OnnxOptions } from './onnx.js'
export { PatchEmbed, patchify, unpatchify } from './patches.js'
export type { ImageStatistics } from './statistics.js'
export { timmArguments } from './timm.js'
export { saveTimm } from './timm-folder.js'
export {
  initialise, requireBlocks, VisionTransformer, type ImageSize, type Pooling, type ResolvedVisionTransformerOptions,
  type VisionTransformerOptions
} from './vision-transformer.js'
export { visionTransformer, visionTransformers, type VisionTransformerName } from './zoo.js'
export { loadTimm, visionTransformerFromTimm, type LoadTimmOptions } from './load-timm.js'
export { costOf, type Cost } from './cost.js'
