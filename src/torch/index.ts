/**
 * Tensors and autograd of libtorch, with PyTorch's names in camelCase.
 *
 * @module gmml/torch
 */

export { Tensor, type ToOptions } from './tensor.js'
export { keep, memory, scope, type Memory } from '../native/tensor-handle.js'
export { OutOfMemoryError, TorchError, type MemoryShortage } from '../native/errors.js'
export { InputError } from '../errors.js'
export { callByName as call, isTensor, loadLibrary, operator, type Operator } from './dispatch.js'
export type { OperatorInfo } from '../native/addon.js'
export * from './derivatives.js'
export { fromTypedArray, tensor, type CreationOptions, type NestedArray } from './creation.js'
export { ellipsis, slice, Slice, type Index, type Nested } from './indexing.js'
export * from './modes.js'
export { Generator, generator, type GeneratorOptions } from './generator.js'
export { getPrintOptions, setPrintOptions, type PrintOptions } from './print-options.js'
export { getRngState, manualSeed, setRngState } from './random.js'
export * from './numerics.js'
export { profile, profiler, recordFunction, Profiler, type Activity, type ProfilerOptions } from './profiler.js'
export * as cuda from './cuda.js'
export { buildInfo, listOperators, numThreads as getNumThreads, setNumThreads } from '../native/system.js'
export { dtypes, isCudaDevice } from './types.js'
export type { Complex, CudaDevice, DType, Device, Layout, MemoryFormat, Scalar, Shape, TypedArray } from './types.js'
export * from './ops/index.js'
export { unique, type UniqueOptions } from './unique.js'
