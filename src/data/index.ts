/**
 * Images: sources of them, decoding, views, augmentation, loading.
 *
 * @module gmml/data
 */

export { centreCrop, type Crop, randomResizedCrop, type RandomResizedCropOptions, type Rectangle, type Size } from './crop.js'
export { BrokenImageError } from './broken.js'
export { type Content, type FilePart, readContent } from './content.js'
export { type Crops, decodeCrops, decodeResized, type NamedContent, type ResizeOptions } from './decode.js'
export { drawCrop, type ViewCrop } from './draw.js'
export { type EncodedSource, namedContent } from './encoded.js'
export { fingerprintOf } from './fingerprint.js'
export { imageExtensions } from './folder.js'
export { type IdxArray, readIdx } from './idx.js'
export { ListingCache } from './listing-cache.js'
export type { MemorySource } from './memory.js'
export { epochOrder, SHUFFLE_BUFFER } from './order.js'
export { permutation, type Random, randomFor, type RandomKey, sample } from './random.js'
export { isUrl, openShards, type ShardOptions, TransferError } from './shards/index.js'
export { type ImagePaths, type ImageSource, openImages, type OpenOptions, type SourceBase, type WeightedPath } from './source.js'
export { joinSources } from './join.js'
export { chooseLabelled, holdOut, parseLabelBudget, selectImages, type LabelBudget } from './subset.js'
export * from './colour.js'
export * from './erasing.js'
export * from './geometry.js'
export * from './loader.js'
export * from './mixing.js'
export * from './rand-augment.js'
export * from './resample.js'
export { defaultStatistics } from './statistics.js'
export * from './tone.js'
export * from './views.js'
export { blocksWithin, partShares, repetitions, type SourcePart, weightedOrder } from './weighted-order.js'
