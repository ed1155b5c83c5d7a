import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { call, keep, operator, type Tensor, zerosLike } from '../torch/index.js'
import { type Group, isLegal, Optimizer, type OptimizerKind, type OptimizerStateDict, type ParameterGroup } from './optimizer.js'

const fusedSgd = operator('aten::_fused_sgd_')

/** Options of {@link SGD}, of all parameters or of a group of them. PyTorch: `torch.optim.SGD`. */
export interface SGDOptions {
  /** Step size. Default 1e-3. */
  readonly lr?: number
  /** Part of the last update that goes on into the next one. Default 0. */
  readonly momentum?: number
  /** Part of the gradient that does not enter the momentum, from its second step on. Default 0. */
  readonly dampening?: number
  /** L2 penalty: `weightDecay` times the weight is added to the gradient. Default 0. */
  readonly weightDecay?: number
  /** Nesterov's momentum: the step looks ahead by the momentum. Default false. */
  readonly nesterov?: boolean
}

/** The momentum of a parameter, by PyTorch's name. */
export interface SGDState {
  readonly momentum_buffer: Tensor
}

/** Options of a group in a state dict, by PyTorch's names. */
export interface SGDStateOptions {
  readonly lr: number
  readonly momentum: number
  readonly dampening: number
  readonly weight_decay: number
  readonly nesterov: boolean
}

/** The state dict of SGD, here and in PyTorch. Without momentum there is no state. */
export type SGDStateDict = OptimizerStateDict<SGDState, SGDStateOptions>

const kind: OptimizerKind<SGDOptions, SGDState> = {
  defaults: { lr: 1e-3, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false },
  names: { lr: 'lr', momentum: 'momentum', dampening: 'dampening', weightDecay: 'weight_decay', nesterov: 'nesterov' },
  unsupported: { maximize: false },
  tensors: { momentum_buffer: 'like the parameter' },
  check({ lr, momentum, dampening, weightDecay, nesterov }) {
    if (!isLegal(lr)) throw expected('a number of at least 0', 'lr', lr)
    if (!isLegal(momentum)) throw expected('a number of at least 0', 'momentum', momentum)
    if (!Number.isFinite(dampening)) throw expected('a number', 'dampening', dampening)
    if (!isLegal(weightDecay)) throw expected('a number of at least 0', 'weightDecay', weightDecay)
    if (typeof nesterov !== 'boolean') throw expected('a boolean', 'nesterov', nesterov)
    if (nesterov && momentum === 0) throw expected('a momentum above 0 beside nesterov', 'momentum', momentum)
    if (nesterov && dampening !== 0) throw expected('no dampening beside nesterov', 'dampening', dampening)
  }
}

/**
 * Stochastic gradient descent with momentum, all parameters of a group in one fused operator. PyTorch: `torch.optim.SGD(fused=True)`.
 */
export class SGD extends Optimizer<SGDOptions, SGDState, SGDStateOptions> {
  /**
   * @param parameters - Parameters, or groups of them with options of their own.
   * @throws InputError for an option that is not legal, what is no Parameter, and a Parameter given twice.
   */
  constructor(parameters: Iterable<Parameter> | readonly ParameterGroup<SGDOptions>[], options: SGDOptions = {}) {
    super(kind, parameters, options)
  }

  // Zeros, not what memory has: where `foundInf` skips the first step, the next one adds to them.
  protected override newState(parameter: Parameter): SGDState {
    return { momentum_buffer: keep(zerosLike(parameter)) }
  }

  protected override stepGroup(group: Group<SGDOptions>, parameters: Parameter[], gradients: Tensor[], foundInf: Tensor | null): void {
    const step = (chosen: readonly number[], first: boolean) => {
      if (chosen.length === 0) return
      const own = chosen.map((i) => parameters[i]!)
      const buffers = group.momentum === 0 ? [] : own.map((parameter) => this.stateOf(parameter).momentum_buffer)
      call(
        fusedSgd, own, chosen.map((i) => gradients[i]!), buffers,
        group.weightDecay, group.momentum, group.lr, group.dampening, group.nesterov, false, first, null, foundInf
      )
    }
    // The first gradient enters the momentum undampened, and not every parameter has its first one at the same step.
    const [later, first]: [number[], number[]] = [[], []]
    for (const [i, parameter] of parameters.entries()) (group.momentum === 0 || this.hasState(parameter) ? later : first).push(i)
    step(later, false)
    step(first, true)
  }
}
