import { expected } from '../errors.js'
import { TorchError } from '../native/errors.js'
import { scope } from '../native/tensor-handle.js'
import { isTensor } from './dispatch.js'
import { enableGrad, grad, noGrad } from './modes.js'
import { stack, zeros } from './ops/index.js'
import type { Tensor } from './tensor.js'

function evaluate(fn: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[]): Tensor {
  if (typeof fn !== 'function') throw expected('a function', 'fn', fn)
  const output: unknown = fn(...inputs)
  if (!isTensor(output)) throw expected('a Tensor', 'the result of fn', output)
  return output
}

// One row for each element of the output: its gradient, flat.
function rows(output: Tensor, input: Tensor, createGraph = false): Tensor {
  const count = output.numel()
  if (count === 0 || !output.requiresGrad) return zeros([count, input.numel()], { dtype: input.dtype, device: input.device })
  const flat = output.reshape([-1])
  const gradients = Array.from({ length: count }, (_, i) =>
    grad(flat.select(0, i), input, { retainGraph: true, createGraph, materializeGrads: true })[0].reshape([-1])
  )
  return stack(gradients)
}

/**
 * The derivative of each element of `fn(x)` by each element of `x`. PyTorch: `torch.autograd.functional.jacobian`.
 *
 * @param options - `createGraph`: the result can be differentiated by `x`.
 * @returns The output's shape followed by the input's.
 */
export function jacobian(fn: (x: Tensor) => Tensor, x: Tensor, options: { readonly createGraph?: boolean } = {}): Tensor {
  if (!isTensor(x)) throw expected('a Tensor', 'x', x)
  const { createGraph = false } = options
  return scope(() =>
    enableGrad(() => {
      const input = createGraph ? x.viewAs(x) : x.detach().requiresGrad_()
      const output = evaluate(fn, [input])
      return rows(output, input, createGraph).reshape([...output.shape, ...x.shape])
    })
  )
}

/**
 * The second derivatives of a function with a single number as its result. PyTorch: `torch.autograd.functional.hessian`.
 *
 * @returns The input's shape twice.
 */
export function hessian(fn: (x: Tensor) => Tensor, x: Tensor, options: { readonly createGraph?: boolean } = {}): Tensor {
  const gradient = (input: Tensor) => {
    const output = evaluate(fn, [input])
    if (output.numel() !== 1) throw expected('a tensor with one element', 'the result of fn', `shape [${output.shape.join(', ')}]`)
    return grad(output.sum(), input, { createGraph: true, materializeGrads: true })[0]
  }
  return jacobian(gradient, x, options)
}

/** How exactly {@link gradCheck} compares. */
export interface GradCheckOptions {
  /** Step of the numerical derivative. Default 1e-6. */
  readonly eps?: number
  /** Differences up to `atol + rtol * |numerical|` pass. Default 1e-5 and 1e-3. */
  readonly atol?: number
  readonly rtol?: number
}

// Central differences, one column for each element of the input.
function numericalRows(fn: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[], which: number, eps: number): Tensor {
  const moved = inputs[which]!.detach().clone({ memoryFormat: 'contiguous' })
  const flat = moved.view([-1])
  const at = (step: number, i: number) => {
    flat.select(0, i).add_(step)
    const output = evaluate(fn, inputs.map((input, k) => (k === which ? moved : input.detach()))).reshape([-1]).clone()
    flat.select(0, i).sub_(step)
    return output
  }
  const columns = Array.from({ length: flat.numel() }, (_, i) => scope(() => at(eps, i).sub(at(-eps, i)).div(2 * eps)))
  return stack(columns, { dim: 1 })
}

/**
 * Compares the gradients of `fn` with numerical ones. For operators with a backward of their own. PyTorch: `torch.autograd.gradcheck`.
 *
 * @param fn - A function without randomness.
 * @param inputs - float64; those that require grad are checked.
 * @returns True.
 * @throws TorchError naming the input whose gradient differs and by how much. InputError for inputs of less precision, for which
 *   numerical derivatives mean nothing, and where none requires grad.
 */
export function gradCheck(fn: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[], options: GradCheckOptions = {}): true {
  const { eps = 1e-6, atol = 1e-5, rtol = 1e-3 } = options
  if (!Array.isArray(inputs) || !inputs.every(isTensor)) throw expected('an array of Tensors', 'inputs', inputs)
  const checked = [...inputs.keys()].filter((i) => inputs[i]!.requiresGrad)
  if (checked.length === 0) throw expected('inputs of which at least one requires grad', 'inputs', inputs.map((input) => input.dtype))
  for (const i of checked) if (inputs[i]!.dtype !== 'float64') throw expected('a float64 tensor', `inputs[${i}]`, inputs[i]!.dtype)
  scope(() => {
    const fresh = inputs.map((input) => input.detach().requiresGrad_(input.requiresGrad))
    const output = enableGrad(() => evaluate(fn, fresh))
    for (const i of checked) {
      if (inputs[i]!.numel() === 0) continue
      const [analytical, numerical] = [rows(output, fresh[i]!), noGrad(() => numericalRows(fn, fresh, i, eps))]
      if (analytical.detach().allclose(numerical, { atol, rtol })) continue
      const worst = analytical.detach().sub(numerical).abs().max().item()
      throw new TorchError(`gradCheck: the gradient for inputs[${i}] differs from the numerical one by up to ${worst.toExponential(2)}`)
    }
  })
  return true
}
