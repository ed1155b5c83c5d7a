// Files of tensors.
export { inspectSafetensors, loadSafetensors, saveSafetensors, type SafetensorsFile } from './safetensors.js'
export { saveOnnx, type OnnxModel, type OnnxNode, type OnnxValue } from './onnx-file.js'
export { writeAtomic, writeFileAtomic } from './atomic.js'
