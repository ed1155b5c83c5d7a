import { expected } from '../errors.js'
import * as autograd from '../native/autograd.js'
import type { Synchronous } from '../native/tensor-handle.js'
import type { Tensor } from './tensor.js'

export type { GradOptions } from '../native/autograd.js'

/** Runs `callback` without recording for autograd. PyTorch: `torch.no_grad`. */
export function noGrad<T>(callback: (() => T) & (() => Synchronous<T>)): T {
  return autograd.withGradMode<T>(false, 'noGrad', callback)
}

/** Runs `callback` with recording, also inside `noGrad`. PyTorch: `torch.enable_grad`. */
export function enableGrad<T>(callback: (() => T) & (() => Synchronous<T>)): T {
  return autograd.withGradMode<T>(true, 'enableGrad', callback)
}

export const isGradEnabled = autograd.isGradEnabled

/**
 * Gradients of `outputs` with respect to `inputs`; `.grad` stays as it is. PyTorch: `torch.autograd.grad`.
 *
 * @param options - `gradOutputs`: one for each output, not needed for single elements.
 * @returns One gradient for each input; null only with `allowUnused`.
 */
export function grad(
  outputs: Tensor | readonly Tensor[], inputs: Tensor | readonly Tensor[],
  options: autograd.GradOptions & { readonly gradOutputs?: readonly (Tensor | null)[] } = {}
): (Tensor | null)[] {
  const list = (value: Tensor | readonly Tensor[]) => (Array.isArray(value) ? (value as readonly Tensor[]) : [value as Tensor])
  return autograd.gradientsOf(list(outputs), list(inputs), options.gradOutputs, options) as (Tensor | null)[]
}

/** Accumulates the gradients of several outputs at once. PyTorch: `torch.autograd.backward`. */
export function backward(
  outputs: readonly Tensor[], gradients?: readonly (Tensor | null)[], options: Omit<autograd.GradOptions, 'allowUnused'> = {}
): void {
  autograd.backward(outputs, gradients, options)
}

/**
 * Runs `callback` with automatic mixed precision: matrix products and convolutions in `dtype`, sensitive operators in float32. `null` for
 * `dtype` turns autocast off inside. PyTorch: `torch.autocast`.
 */
export function autocast<T>(
  device: 'cpu' | 'cuda' | `cuda:${number}`, dtype: 'bfloat16' | 'float16' | null, callback: (() => T) & (() => Synchronous<T>)
): T {
  const type = String(device).split(':')[0]!
  if (type !== 'cpu' && type !== 'cuda') throw expected(`'cpu' or 'cuda'`, 'the device of autocast()', device)
  if (dtype !== null && dtype !== 'bfloat16' && dtype !== 'float16') throw expected(`'bfloat16', 'float16' or null`, 'the dtype of autocast()', dtype)
  return autograd.withAutocast<T>(type, dtype ?? 'bfloat16', dtype !== null, callback)
}
