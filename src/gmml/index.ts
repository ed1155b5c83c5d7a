// Group masked model learning.
export { corrupt, fills, type Corrupted, type CorruptionOptions, type Fill } from './corruption.js'
export { drawGroupMask, type GroupMask, type Rectangle } from './rectangles.js'
export { GroupMaskedModel, reconstructionBlocks, ReconstructionHead, type GroupMaskedModelOptions } from './model.js'
export { authorsWeights, isAuthorsCheckpoint, loadAuthorsCheckpoint, type AuthorsCheckpoint } from './authors.js'
