// Files of tensors.
export { inspectSafetensors, loadSafetensors, saveSafetensors, type SafetensorsFile } from './safetensors.js'
export { isTemporary, writeAtomic, writeFileAtomic } from './atomic.js'
export { TensorBoardWriter, type EncodedImage } from './tensorboard.js'
