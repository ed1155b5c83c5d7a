/**
 * Modules, with PyTorch's names.
 *
 * @module gmml/nn
 */

export { Module, requireStateDict, type StateDict } from './module.js'
export { newParameter, Parameter } from './parameter.js'
export { Attention, type AttentionOptions } from './attention.js'
export { checkpoint, checkpointSequential, type UnaryBlock, type UnaryModule } from './checkpoint.js'
export { ModuleList, Sequential } from './containers.js'
export { Conv2d, ConvTranspose2d, Dropout, DropPath, GELU, Identity, LayerNorm, Linear, type ConvOptions } from './layers.js'
export { addLayerNorm, getFusion, isFused, linearGelu, maskedL1, setFusion, type FusedOperator, type Fusion } from './fused.js'
export * as init from './init.js'
