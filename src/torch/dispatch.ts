import { TensorHandle } from '../native/tensor-handle.js'
import { isLeaf, setRequiresGrad } from '../native/autograd.js'
import { call, operator } from '../native/dispatch.js'
import type { Tensor } from './tensor.js'

export { Operator, operator, call } from '../native/dispatch.js'

export function isTensor(value: unknown): value is Tensor {
  return value instanceof TensorHandle
}

const detach_ = operator('aten::detach_')

/** Factories take `requiresGrad` although ATen's schemas do not, and they record nothing: `randint_like` would in the dispatcher. */
export function withGrad<T extends Tensor>(tensor: T, requiresGrad: boolean | undefined): T {
  if (!isLeaf(tensor)) call(detach_, tensor)
  if (requiresGrad) setRequiresGrad(tensor, true)
  return tensor
}
