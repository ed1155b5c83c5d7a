import { expected } from '../errors.js'
import { autocastState } from '../native/autograd.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import type { DropPath, GELU, LayerNorm, Linear } from './layers.js'

/**
 * Whether operators of our own do in one pass what takes several of ATen's: `auto` where that was measured to be faster, `on` wherever there
 * is an implementation, `off` nowhere.
 */
export type Fusion = 'auto' | 'on' | 'off'

// What `auto` takes, by type of device. bench/README.md has the measurements (npm run bench -- fused); CUDA has none yet.
const MEASURED_FASTER: Readonly<Record<FusedOperator, readonly string[]>> = {
  addLayerNorm: [],
  biasGelu: ['cpu'],
  maskedL1: []
}

/** Residual + layer norm, bias + GELU, and the masked L1 of patches. */
export type FusedOperator = 'addLayerNorm' | 'biasGelu' | 'maskedL1'

const WIDEST_ROW = 4096 // of addLayerNorm on CUDA

let fusion: Fusion = 'auto'

/** Which operators are fused: see {@link Fusion}. */
export const getFusion = (): Fusion => fusion

/**
 * Chooses which operators are fused, in all modules of this thread.
 *
 * @returns The choice before.
 * @throws InputError for another value.
 */
export function setFusion(value: Fusion): Fusion {
  if (value !== 'auto' && value !== 'on' && value !== 'off') throw expected(`'auto', 'on' or 'off'`, 'fusion', value)
  const before = fusion
  fusion = value
  return before
}

/** Whether an operator is to be fused for this tensor. */
export function isFused(operator: FusedOperator, x: Tensor): boolean {
  if (fusion === 'off') return false
  const [type = ''] = x.device.split(':')
  if (type !== 'cpu' && type !== 'cuda') return false
  if (fusion === 'auto' && !MEASURED_FASTER[operator].includes(type)) return false
  if (type === 'cuda' && (x.dtype === 'float64' || (operator === 'addLayerNorm' && x.shape.at(-1)! > WIDEST_ROW))) return false
  return /^b?float/.test(x.dtype)
}

const operators = {
  addLayerNorm: torch.operator('gmml::add_layer_norm'),
  biasGelu: torch.operator('gmml::bias_gelu'),
  maskedL1: torch.operator('gmml::masked_l1')
}

/**
 * Adds the result of a residual branch, and normalises the sum for the linear layer that comes next.
 *
 * @param x - The residual stream [B, ..., D].
 * @param branch - [B, ..., D].
 * @param dropPath - Drops samples of the branch in training.
 * @returns The sum, and its layer norm: under autocast in autocast's dtype, to which a linear layer would cast it, if it is fused.
 */
export function addLayerNorm(x: Tensor, branch: Tensor, dropPath: DropPath, norm: LayerNorm): [sum: Tensor, normalised: Tensor] {
  if (!isFused('addLayerNorm', x)) {
    const sum = x.add(dropPath.call(branch))
    return [sum, norm.call(sum)]
  }
  const { enabled, dtype } = autocastState(x.isCuda ? 'cuda' : 'cpu')
  const cast = enabled && x.dtype !== 'float64' ? dtype : undefined
  return torch.call(operators.addLayerNorm, x, branch, norm.weight, norm.bias, norm.eps, dropPath.factor(branch), cast)
}

/** A linear layer and a GELU. @param x - [..., inFeatures]. @returns [..., outFeatures]. */
export function linearGelu(x: Tensor, linear: Linear, gelu: GELU): Tensor {
  if (!linear.bias || gelu.approximate !== 'none' || !isFused('biasGelu', x)) return gelu.call(linear.call(x))
  return torch.call(operators.biasGelu, linear.product(x), linear.bias)
}

/**
 * L1 of predicted patches: the mean of the absolute differences over the elements where `mask` is true, or over all; 0 if there are none.
 * What decides whether it is to be used is {@link isFused}: the composition of ATen's operators is up to the caller.
 *
 * @param prediction - [B, N, C p p], see `patchify`.
 * @param clean - [B, C, H, W].
 * @param mask - True (or a weight) where an element counts: [B, 1, H, W]; null for all.
 * @returns One number, float32 (float64 if one of both is).
 */
export function maskedL1(prediction: Tensor, clean: Tensor, mask: Tensor | null, patchSize: number): Tensor {
  return torch.call(operators.maskedL1, prediction, clean, mask, patchSize)
}
