import { expected } from '../errors.js'
import * as autograd from '../native/autograd.js'
import { withAnomaly } from '../native/anomaly.js'
import { TensorHandle, type Synchronous } from '../native/tensor-handle.js'
import { zerosLike } from './ops/index.js'
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

/** Whether operations are recorded for gradients. PyTorch: `torch.is_grad_enabled`. */
export const isGradEnabled = autograd.isGradEnabled

/**
 * Runs `callback` in inference mode: nothing is recorded, and tensors made inside cannot take part in autograd later either, which saves
 * what recording would need. With `enabled` false it is off inside. PyTorch: `torch.inference_mode`.
 */
export function inferenceMode<T>(callback: (() => T) & (() => Synchronous<T>), enabled = true): T {
  if (typeof enabled !== 'boolean') throw expected('a boolean', 'enabled', enabled)
  return autograd.withInferenceMode<T>(enabled, callback)
}

/** Whether this is within {@link inferenceMode}. PyTorch: `torch.is_inference_mode_enabled`. */
export const isInferenceModeEnabled = autograd.isInferenceModeEnabled

/** What {@link detectAnomaly} looks for. */
export interface AnomalyOptions {
  /** Whether a NaN in a gradient is an error. Default true. */
  readonly checkNan?: boolean
}

/**
 * Runs `callback`, forward and backward, so that an error of backward names the call of the forward pass whose gradient failed: in its
 * message, and as its `cause` with that call's stack. A NaN in a gradient is such an error. Slow: for the search of a defect. The mode
 * holds for all threads as long as one of them is in it, but each sees its own calls. PyTorch: `torch.autograd.detect_anomaly`.
 */
export function detectAnomaly<T>(callback: (() => T) & (() => Synchronous<T>), options: AnomalyOptions = {}): T {
  if (typeof options !== 'object' || options === null) throw expected('an object', 'the options of detectAnomaly()', options)
  const { checkNan = true } = options
  if (typeof checkNan !== 'boolean') throw expected('a boolean', 'checkNan', checkNan)
  return withAnomaly<T>(checkNan, callback)
}

/** Options of {@link grad}. */
export interface GradientOptions extends autograd.GradOptions {
  /** Gradients with respect to the outputs: one for each, null where an output has a single element. */
  readonly gradOutputs?: Tensor | readonly (Tensor | null)[]
  /** Give zeros for inputs that the outputs do not depend on; implies `allowUnused`. */
  readonly materializeGrads?: boolean
}

type AllUsed = GradientOptions & { readonly allowUnused?: false }

/**
 * Gradients of `outputs` with respect to `inputs`; `.grad` stays as it is. PyTorch: `torch.autograd.grad`.
 *
 * @returns One gradient for each input; null only with `allowUnused`.
 * @throws InputError for what is no tensor. TorchError where an output does not require grad, an input is not used, or the graph of an
 *   earlier pass is gone.
 */
export function grad(outputs: Tensor | readonly Tensor[], inputs: Tensor, options?: AllUsed): [Tensor]
export function grad(outputs: Tensor | readonly Tensor[], inputs: readonly Tensor[], options?: AllUsed): Tensor[]
export function grad(
  outputs: Tensor | readonly Tensor[], inputs: Tensor | readonly Tensor[], options?: GradientOptions
): (Tensor | null)[]
export function grad(
  outputs: Tensor | readonly Tensor[], inputs: Tensor | readonly Tensor[], options: GradientOptions = {}
): (Tensor | null)[] {
  const list = <T>(value: T | readonly T[]) => (Array.isArray(value) ? (value as readonly T[]) : [value as T])
  const { gradOutputs, materializeGrads = false, allowUnused = materializeGrads } = options
  if (materializeGrads && !allowUnused) throw expected('true, or nothing, beside materializeGrads', 'allowUnused', allowUnused)
  const gradients = gradOutputs instanceof TensorHandle ? [gradOutputs] : gradOutputs
  const to = list(inputs)
  const found = autograd.gradientsOf(list(outputs), to, gradients, { ...options, allowUnused }) as (Tensor | null)[]
  return materializeGrads ? found.map((gradient, i) => gradient ?? zerosLike(to[i]!).requiresGrad_(options.createGraph ?? false)) : found
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
