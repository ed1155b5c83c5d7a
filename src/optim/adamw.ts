import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { call, isTensor, keep, operator, scope, type Tensor, zeros, zerosLike } from '../torch/index.js'
import { type Group, isLegal, Optimizer, type OptimizerKind, type OptimizerStateDict, type ParameterGroup } from './optimizer.js'

const fusedAdamW = operator('aten::_fused_adamw_')
const fusedAdamWByTensor = operator('aten::_fused_adamw_', 'tensor_lr')
const foreachMultiply = operator('aten::_foreach_mul_', 'Tensor')
const foreachSubtract = operator('aten::_foreach_sub_', 'List')
const foreachAdd = operator('aten::_foreach_add_', 'Scalar')

/** Options of {@link AdamW}, of all parameters or of a group of them. PyTorch: `torch.optim.AdamW`. */
export interface AdamWOptions {
  /** Step size; as a tensor of one number (float32, on the parameters' device) it can change in a captured graph. Default 1e-3. */
  readonly lr?: number | Tensor
  /** Decay of the running means of gradient and squared gradient. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number]
  /** Added to the denominator. Default 1e-8. */
  readonly eps?: number
  /** Decoupled weight decay: each step takes `lr * weightDecay` of the weight. A number, or a tensor like `lr`. Default 0.01. */
  readonly weightDecay?: number | Tensor
}

/** The running means of a parameter, by PyTorch's names. */
export interface AdamWState {
  readonly step: Tensor
  readonly exp_avg: Tensor
  readonly exp_avg_sq: Tensor
}

/** Options of a group in a state dict, by PyTorch's names. */
export interface AdamWStateOptions {
  readonly lr: number
  readonly betas: readonly [number, number]
  readonly eps: number
  readonly weight_decay: number
}

/** The state dict of AdamW, here and in PyTorch. */
export type AdamWStateDict = OptimizerStateDict<AdamWState, AdamWStateOptions>

// Of a tensor the number is not looked at: that would wait for the device.
function requireRate(value: unknown, name: string): void {
  if (isLegal(value)) return
  if (!isTensor(value)) throw expected('a number of at least 0', name, value)
  const { dtype, shape } = value
  if (shape.length > 0 || !/^float(32|64)$/.test(dtype)) throw expected('one number, float32,', name, `${dtype} [${shape.join(', ')}]`)
}

const kind: OptimizerKind<AdamWOptions, AdamWState> = {
  defaults: { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 },
  names: { lr: 'lr', betas: 'betas', eps: 'eps', weightDecay: 'weight_decay' },
  unsupported: { amsgrad: false, maximize: false },
  tensors: { step: 'one number', exp_avg: 'like the parameter', exp_avg_sq: 'like the parameter' },
  check({ lr, betas, eps, weightDecay }) {
    requireRate(lr, 'lr')
    if (!isLegal(eps)) throw expected('a number of at least 0', 'eps', eps)
    requireRate(weightDecay, 'weightDecay')
    if (!Array.isArray(betas) || betas.length !== 2) throw expected('two numbers', 'betas', betas)
    if (betas.some((beta) => !isLegal(beta) || beta >= 1)) throw expected('numbers from 0 to below 1', 'betas', betas)
  }
}

/**
 * Adam with decoupled weight decay, all parameters of a group in one fused operator. Paper: arXiv 1711.05101. PyTorch:
 * `torch.optim.AdamW(fused=True)`. A state dict has numbers where `lr` or `weightDecay` are tensors, and loading one writes into them.
 */
export class AdamW extends Optimizer<AdamWOptions, AdamWState, AdamWStateOptions> {
  /**
   * @param parameters - Parameters, or groups of them with options of their own.
   * @throws InputError for an option that is not legal, what is no Parameter, and a Parameter given twice.
   */
  constructor(parameters: Iterable<Parameter> | readonly ParameterGroup<AdamWOptions>[], options: AdamWOptions = {}) {
    super(kind, parameters, options)
  }

  protected override newState(parameter: Parameter): AdamWState {
    return {
      step: keep(zeros([], { dtype: 'float32', device: parameter.device })),
      exp_avg: keep(zerosLike(parameter)),
      exp_avg_sq: keep(zerosLike(parameter))
    }
  }

  protected override stepGroup(group: Group<AdamWOptions>, parameters: Parameter[], gradients: Tensor[], foundInf: Tensor | null): void {
    const states = parameters.map((parameter) => this.stateOf(parameter))
    const steps = states.map((state) => state.step)
    call(foreachAdd, steps, 1)
    if (foundInf) call(foreachSubtract, steps, steps.map(() => foundInf))
    const { lr, betas, eps } = group
    const weightDecay = isTensor(group.weightDecay) ? decay(parameters, lr, group.weightDecay, foundInf) : group.weightDecay
    call(
      isTensor(lr) ? fusedAdamWByTensor : fusedAdamW, parameters, gradients, states.map((state) => state.exp_avg),
      states.map((state) => state.exp_avg_sq), [], steps, lr, betas[0], betas[1], weightDecay, eps, false, false, null, foundInf
    )
  }
}

/** Decays the parameters, which the fused operator does by a number only. @returns The decay that is left for it: none. */
function decay(parameters: Parameter[], lr: number | Tensor, weightDecay: Tensor, foundInf: Tensor | null): 0 {
  scope(() => {
    const part = isTensor(lr) ? lr.mul(weightDecay) : weightDecay.mul(lr)
    call(foreachMultiply, parameters, (foundInf ? part.mul(foundInf.rsub(1)) : part).rsub(1))
  })
  return 0
}
