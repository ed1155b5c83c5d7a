/**
 * Files of tensors.
 *
 * @module gmml/io
 */

export { inspectSafetensors, loadSafetensors, type LoadOptions, type SafetensorsFile } from './safetensors.js'
export { saveSafetensors, type LazyTensor, type SaveOptions } from './save-safetensors.js'
export { saveOnnx, type OnnxModel, type OnnxNode, type OnnxValue } from './onnx-file.js'
export { isTemporary, writeAtomic, writeFileAtomic } from './atomic.js'
export { inspectTorch, loadTorch, TensorInfo, type LoadTorchOptions } from './torch-file.js'
export { saveTorch } from './torch-file-save.js'
export { ForeignName, ForeignObject } from './pickle-values.js'
export { TensorBoardWriter, type EncodedImage } from './tensorboard.js'
