import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { call, isTensor, noGrad, operator, scope, stack, tensor, type Tensor } from '../torch/index.js'

const foreachNorm = operator('aten::_foreach_norm', 'Scalar')
const foreachScaleAll = operator('aten::_foreach_mul_', 'Tensor')
const foreachScaleEach = operator('aten::_foreach_mul_', 'List')

// PyTorch's clip_grad_norm_ adds this to the norm; equal results need the same.
const EPSILON = 1e-6

/**
 * Scales the gradients down in place so that their L2 norm is at most `maxNorm`. PyTorch: `nn.utils.clip_grad_norm_`.
 *
 * @param options - `perTensor`: each gradient by its own norm (the authors' GMML code), instead of all by their joint norm.
 * @returns The joint norm before clipping, as a tensor with one element: reading it waits for the device.
 */
export function clipGradNorm(
  parameters: Iterable<Parameter>, maxNorm: number, options: { readonly perTensor?: boolean } = {}
): Tensor {
  // A tensor is iterable too, and its rows have no gradients: nothing would be clipped.
  if (isTensor(parameters)) throw expected('an array of Parameters', 'parameters', parameters)
  if (typeof maxNorm !== 'number' || !(maxNorm > 0)) throw expected('a number above 0', 'maxNorm', maxNorm)
  return noGrad(() =>
    scope(() => {
      const gradients: Tensor[] = []
      for (const parameter of parameters) {
        const gradient = parameter.grad
        if (gradient) gradients.push(gradient)
      }
      if (gradients.length === 0) return tensor(0)
      const norms = stack(call<Tensor[]>(foreachNorm, gradients, 2))
      const total = norms.norm()
      const factor = (norm: Tensor) => norm.add(EPSILON).reciprocal_().mul_(maxNorm).clamp_({ max: 1 })
      if (options.perTensor) call(foreachScaleEach, gradients, factor(norms).unbind())
      else call(foreachScaleAll, gradients, factor(total))
      return total
    })
  )
}
