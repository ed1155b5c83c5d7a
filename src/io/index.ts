// Files of tensors.
export { inspectSafetensors, loadSafetensors, type LoadOptions, type SafetensorsFile } from './safetensors.js'
export { saveSafetensors, type LazyTensor, type SaveOptions } from './save-safetensors.js'
export { writeAtomic, writeFileAtomic } from './atomic.js'
