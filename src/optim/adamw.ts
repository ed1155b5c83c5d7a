import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { call, keep, operator, type Tensor, zeros, zerosLike } from '../torch/index.js'
import { type Group, isLegal, Optimizer, type OptimizerKind, type OptimizerStateDict, type ParameterGroup } from './optimizer.js'

const fusedAdamW = operator('aten::_fused_adamw_')
const foreachSubtract = operator('aten::_foreach_sub_', 'List')
const foreachAdd = operator('aten::_foreach_add_', 'Scalar')

export interface AdamWOptions {
  /** Step size. Default 1e-3. */
  readonly lr?: number
  /** Decay of the running means of gradient and squared gradient. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number]
  /** Added to the denominator. Default 1e-8. */
  readonly eps?: number
  /** Decoupled weight decay: each step takes `lr * weightDecay` of the weight. Default 0.01. */
  readonly weightDecay?: number
}

/** The running means of a parameter, by PyTorch's names. */
export interface AdamWState {
  readonly step: Tensor
  readonly exp_avg: Tensor
  readonly exp_avg_sq: Tensor
}

interface StateOptions {
  readonly lr: number
  readonly betas: readonly [number, number]
  readonly eps: number
  readonly weight_decay: number
}

/** The state dict of AdamW, here and in PyTorch. */
export type AdamWStateDict = OptimizerStateDict<AdamWState, StateOptions>

const kind: OptimizerKind<AdamWOptions, AdamWState> = {
  defaults: { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 },
  names: { lr: 'lr', betas: 'betas', eps: 'eps', weightDecay: 'weight_decay' },
  unsupported: { amsgrad: false, maximize: false },
  tensors: { step: 'one number', exp_avg: 'like the parameter', exp_avg_sq: 'like the parameter' },
  check({ lr, betas, eps, weightDecay }) {
    if (!isLegal(lr)) throw expected('a number of at least 0', 'lr', lr)
    if (!isLegal(eps)) throw expected('a number of at least 0', 'eps', eps)
    if (!isLegal(weightDecay)) throw expected('a number of at least 0', 'weightDecay', weightDecay)
    if (!Array.isArray(betas) || betas.length !== 2) throw expected('two numbers', 'betas', betas)
    if (betas.some((beta) => !isLegal(beta) || beta >= 1)) throw expected('numbers from 0 to below 1', 'betas', betas)
  }
}

/**
 * Adam with decoupled weight decay, all parameters of a group in one fused operator. Paper: arXiv 1711.05101. PyTorch:
 * `torch.optim.AdamW(fused=True)`.
 */
export class AdamW extends Optimizer<AdamWOptions, AdamWState, StateOptions> {
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
    call(
      fusedAdamW, parameters, gradients, states.map((state) => state.exp_avg), states.map((state) => state.exp_avg_sq), [], steps,
      group.lr, group.betas[0], group.betas[1], group.weightDecay, group.eps, false, false, null, foundInf
    )
  }
}
