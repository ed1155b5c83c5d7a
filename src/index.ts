/**
 * Group masked model learning in TypeScript: the method, its training loop and its evaluation.
 *
 * @module gmml
 */

export * from './gmml/index.js'
export * from './train/index.js'
export {
  experiment, experimentSchema, type Arm, type Cell, type Choice, type ExperimentConfig, type ExperimentConfigInput, type ExperimentHooks,
  type ExperimentResult, type Finished, type Found
} from './experiment/index.js'
export { visionTransformer, visionTransformers, VisionTransformer } from './vision/index.js'
export { accuracy, classifyImages, extractFeatures, knnPredict, measureKnn, measureProbe, reconstructionError } from './evaluate/index.js'
export { InputError } from './errors.js'
export { TorchError } from './native/errors.js'
