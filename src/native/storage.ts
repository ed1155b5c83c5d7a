import { addon } from './addon.js'
import { handleOf, wrap, type TensorHandle } from './tensor-handle.js'

export const shape = (tensor: TensorHandle): number[] => addon.shape(handleOf(tensor))
export const strides = (tensor: TensorHandle): number[] => addon.strides(handleOf(tensor))
export const dtype = (tensor: TensorHandle): string => addon.dtype(handleOf(tensor))
export const device = (tensor: TensorHandle): string => addon.device(handleOf(tensor))
export const isContiguous = (tensor: TensorHandle): boolean => addon.isContiguous(handleOf(tensor))
export const item = (tensor: TensorHandle): number | bigint | boolean => addon.item(handleOf(tensor))

/** A new CPU tensor with a copy of the bytes, which are elements of `type` in row-major order. */
export const fromBytes = (bytes: ArrayBufferView, type: string, sizes: readonly number[]): TensorHandle =>
  wrap(addon.fromBytes(bytes, type, sizes))

/** A copy of the elements in row-major order, from any layout and device. */
export const toBytes = (tensor: TensorHandle): ArrayBuffer => addon.toBytes(handleOf(tensor))

/** As {@link toBytes}, without blocking the event loop while the device works. */
export const toBytesAsync = (tensor: TensorHandle): Promise<ArrayBuffer> => addon.toBytesAsync(handleOf(tensor))
