export { centreCrop, randomResizedCrop, type RandomResizedCropOptions, type Rectangle, type Size } from './crop.js'
export {
  BrokenImageError, type Crop, type Crops, decodeCrops, decodeResized, type FolderSource, imageExtensions, type ResizeOptions
} from './folder.js'
export { type IdxArray, type IdxSource, readIdx } from './idx.js'
export { permutation, type Random, randomFor, type RandomKey, sample } from './random.js'
export { type ImageSource, openImages, type OpenOptions, type SourceBase } from './source.js'
export { chooseLabelled, holdOut, parseLabelBudget, selectImages, type LabelBudget } from './subset.js'
export * from './colour.js'
export * from './loader.js'
export * from './resample.js'
export * from './views.js'
