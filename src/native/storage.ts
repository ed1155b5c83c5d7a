import { addon, type Handle } from './addon.js'
import { TorchError } from './errors.js'
import { handleOf, wrap, type TensorHandle } from './tensor-handle.js'

export const shape = (tensor: TensorHandle): number[] => addon.shape(handleOf(tensor))
export const strides = (tensor: TensorHandle): number[] => addon.strides(handleOf(tensor))
export const dtype = (tensor: TensorHandle): string => addon.dtype(handleOf(tensor))
export const device = (tensor: TensorHandle): string => addon.device(handleOf(tensor))
export const isContiguous = (tensor: TensorHandle): boolean => addon.isContiguous(handleOf(tensor))
export const storage = (tensor: TensorHandle): [identity: number, byteLength: number] => addon.storage(handleOf(tensor))
export const item = (tensor: TensorHandle): number | bigint | boolean => addon.item(handleOf(tensor))

/** A new CPU tensor with a copy of the bytes, which are elements of `type` in row-major order. */
export const fromBytes = (bytes: ArrayBufferView, type: string, sizes: readonly number[]): TensorHandle =>
  wrap(addon.fromBytes(bytes, type, sizes))

// Made here and not in C++: an allocation that fails is an exception in JavaScript and the end of the process in Node-API.
function bufferFor(handle: Handle): ArrayBuffer {
  const length = addon.byteLength(handle)
  try {
    return new ArrayBuffer(length)
  } catch {
    const tensor = `${addon.dtype(handle)} [${addon.shape(handle).join(', ')}]`
    throw new TorchError(`JavaScript cannot hold the ${length} bytes of this tensor: ${tensor}`)
  }
}

/** A copy of the elements in row-major order, from any layout and device. */
export function toBytes(tensor: TensorHandle): ArrayBuffer {
  const handle = handleOf(tensor)
  const buffer = bufferFor(handle)
  addon.toBytes(handle, buffer)
  return buffer
}

/** As {@link toBytes}, without blocking the event loop while the device works. */
export async function toBytesAsync(tensor: TensorHandle): Promise<ArrayBuffer> {
  const handle = handleOf(tensor)
  const buffer = bufferFor(handle)
  await addon.toBytesAsync(handle, buffer)
  return buffer
}
