import * as torch from '../torch/index.js'
import type { Device, Shape, Tensor, TypedArray } from '../torch/index.js'

/**
 * A tensor on a device with a copy of an array's elements. A GPU fetches them by itself from pinned memory, in the order of the current
 * stream: the host does not wait.
 */
export function upload(array: TypedArray, shape: Shape, device: Device): Tensor {
  if (!torch.isCudaDevice(device)) return torch.fromTypedArray(array, shape, { device })
  return torch.scope(() => torch.fromTypedArray(array, shape).pinMemory().to({ device, nonBlocking: true }))
}
