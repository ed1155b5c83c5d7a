import { TensorHandle } from '../native/tensor-handle.js'
import { setRequiresGrad } from '../native/autograd.js'
import type { Tensor } from './tensor.js'

export { Operator, operator, call } from '../native/dispatch.js'

export function isTensor(value: unknown): value is Tensor {
  return value instanceof TensorHandle
}

/** Factories take `requiresGrad` although ATen's schemas do not. */
export function withGrad<T extends Tensor>(tensor: T, requiresGrad: boolean | undefined): T {
  if (requiresGrad) setRequiresGrad(tensor, true)
  return tensor
}
