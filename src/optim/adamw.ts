import { expected } from '../errors.js'
import { Parameter } from '../nn/index.js'
import { call, isTensor, keep, noGrad, operator, scope, Tensor, zeros, zerosLike } from '../torch/index.js'

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

/** Parameters that share options. The options may be changed between steps. */
export interface ParameterGroup extends AdamWOptions {
  readonly parameters: readonly Parameter[]
}

interface Group {
  readonly parameters: readonly Parameter[]
  lr: number
  betas: readonly [number, number]
  eps: number
  weightDecay: number
}

interface State {
  readonly step: Tensor
  readonly expAvg: Tensor
  readonly expAvgSq: Tensor
}

/** The running means of a parameter, by PyTorch's names. */
export interface ParameterState {
  readonly step: Tensor
  readonly exp_avg: Tensor
  readonly exp_avg_sq: Tensor
}

/**
 * Like the state dict of PyTorch's optimizers: state by the parameter's number, groups with the numbers of their parameters. As
 * `saveTorch` and `loadTorch` have it, it goes to PyTorch's AdamW and comes from there.
 */
export interface OptimizerStateDict {
  readonly state: ReadonlyMap<number, ParameterState>
  readonly param_groups: readonly {
    readonly lr: number
    readonly betas: readonly [number, number]
    readonly eps: number
    readonly weight_decay: number
    readonly params: readonly number[]
  }[]
}

// What PyTorch's AdamW can do besides, and what its group says where it does not.
const UNSUPPORTED = { amsgrad: false, maximize: false } as const

const DEFAULTS = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 } as const

function check(group: Omit<Group, 'parameters'>): void {
  const { lr, betas, eps, weightDecay } = group
  const legal = (value: unknown) => typeof value === 'number' && value >= 0 && Number.isFinite(value)
  if (!legal(lr)) throw expected('a number of at least 0', 'lr', lr)
  if (!legal(eps)) throw expected('a number of at least 0', 'eps', eps)
  if (!legal(weightDecay)) throw expected('a number of at least 0', 'weightDecay', weightDecay)
  if (!Array.isArray(betas) || betas.length !== 2) throw expected('two numbers', 'betas', betas)
  if (betas.some((beta) => !legal(beta) || beta >= 1)) throw expected('numbers from 0 to below 1', 'betas', betas)
}

/**
 * Adam with decoupled weight decay, all parameters of a group in one fused operator. Paper: arXiv 1711.05101. PyTorch:
 * `torch.optim.AdamW(fused=True)`.
 */
export class AdamW {
  /** Change `lr` and `weightDecay` here between steps. */
  readonly groups: readonly Group[]
  readonly #state = new Map<Parameter, State>()

  /**
   * @param parameters - Parameters, or groups of them with options of their own.
   * @throws InputError for an option that is not legal, what is no Parameter, and a Parameter given twice.
   */
  constructor(parameters: Iterable<Parameter> | readonly ParameterGroup[], options: AdamWOptions = {}) {
    // A tensor is iterable too: its rows are no parameters.
    if (typeof (parameters as Partial<Iterable<unknown>> | null)?.[Symbol.iterator] !== 'function' || isTensor(parameters)) {
      throw expected('Parameters or groups of them', 'parameters', parameters)
    }
    const given = [...(parameters as Iterable<Parameter | ParameterGroup>)]
    const isGroup = (value: unknown) =>
      typeof (value as ParameterGroup | null)?.parameters?.[Symbol.iterator] === 'function' && !isTensor((value as ParameterGroup).parameters)
    const stranger = given[0] instanceof Parameter ? undefined : given.findIndex((element) => !isGroup(element))
    if (stranger !== undefined && stranger >= 0) throw expected('a Parameter or { parameters }', `parameters[${stranger}]`, given[stranger])
    const plain = given[0] instanceof Parameter || given.length === 0
    const groups = plain ? [{ parameters: given as Parameter[] }] : (given as ParameterGroup[])
    this.groups = groups.map((group) => ({ ...DEFAULTS, ...options, ...group, parameters: [...group.parameters] }))
    const seen = new Set<Parameter>()
    for (const group of this.groups) {
      check(group)
      for (const parameter of group.parameters) {
        if (!(parameter instanceof Parameter)) throw expected('a Parameter', 'an element of parameters', parameter)
        if (seen.has(parameter)) throw expected('each parameter once', 'parameters', 'one of them twice')
        seen.add(parameter)
      }
    }
  }

  #stateOf(parameter: Parameter): State {
    let state = this.#state.get(parameter)
    if (!state) {
      state = {
        step: keep(zeros([], { dtype: 'float32', device: parameter.device })),
        expAvg: keep(zerosLike(parameter)),
        expAvgSq: keep(zerosLike(parameter))
      }
      this.#state.set(parameter, state)
    }
    return state
  }

  /**
   * Updates every parameter that has a gradient.
   *
   * @param options - `foundInf`: a tensor that is 1 if nothing must change, see `GradScaler.foundInf`.
   */
  step(options: { readonly foundInf?: Tensor | undefined } = {}): void {
    noGrad(() => {
      scope(() => {
        for (const group of this.groups) this.#stepGroup(group, options.foundInf)
      })
    })
  }

  #stepGroup(group: Group, foundInf: Tensor | undefined): void {
    check(group)
    const parameters: Parameter[] = []
    const gradients: Tensor[] = []
    for (const parameter of group.parameters) {
      const gradient = parameter.grad
      if (!gradient) continue
      parameters.push(parameter)
      gradients.push(gradient)
    }
    if (parameters.length === 0) return
    const states = parameters.map((parameter) => this.#stateOf(parameter))
    const steps = states.map((state) => state.step)
    call(foreachAdd, steps, 1)
    if (foundInf) call(foreachSubtract, steps, steps.map(() => foundInf))
    call(
      fusedAdamW, parameters, gradients, states.map((state) => state.expAvg), states.map((state) => state.expAvgSq), [], steps,
      group.lr, group.betas[0], group.betas[1], group.weightDecay, group.eps, false, false, null, foundInf ?? null
    )
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    for (const group of this.groups) for (const parameter of group.parameters) parameter.grad = null
  }

  /** The running means by the parameter's number, and the groups' options. The tensors themselves, not copies. */
  stateDict(): OptimizerStateDict {
    const numbers = new Map(this.groups.flatMap((group) => group.parameters).map((parameter, i) => [parameter, i]))
    const state = Array.from(this.#state, ([parameter, { step, expAvg, expAvgSq }]) =>
      [numbers.get(parameter)!, { step, exp_avg: expAvg, exp_avg_sq: expAvgSq }] as const
    )
    return {
      state: new Map(state),
      param_groups: this.groups.map(({ lr, betas, eps, weightDecay, parameters }) => ({
        lr, betas, eps, weight_decay: weightDecay, params: parameters.map((parameter) => numbers.get(parameter)!)
      }))
    }
  }

  /**
   * Takes copies of what {@link stateDict} gave, or of PyTorch's AdamW, in place of what it has.
   *
   * @throws InputError if groups, options or shapes are not legal or PyTorch's are of a variant that is not there (`amsgrad`, `maximize`);
   *   then nothing has changed.
   */
  loadStateDict(state: OptimizerStateDict): void {
    const { state: perParameter, param_groups }: Partial<OptimizerStateDict> = state ?? {}
    const isObject = typeof perParameter === 'object' && perParameter !== null
    const isGroup = (group: unknown) => Array.isArray((group as { params?: unknown } | null)?.params)
    if (!isObject || !Array.isArray(param_groups) || !param_groups.every(isGroup)) throw expected('{ state, param_groups }', 'the optimizer state', state)
    const parameters = this.groups.flatMap((group) => group.parameters)
    const sizes = (groups: readonly { length: number }[]) => groups.map((group) => group.length).join(', ')
    const own = sizes(this.groups.map((group) => group.parameters))
    const given = sizes(state.param_groups.map((group) => group.params))
    if (own !== given) throw expected(`parameter groups of ${own} parameters`, 'the optimizer state', `groups of ${given}`)
    const options = state.param_groups.map(({ lr, betas, eps, weight_decay }) => ({ lr, betas, eps, weightDecay: weight_decay }))
    for (const group of options) check(group)
    for (const group of state.param_groups as readonly Readonly<Record<string, unknown>>[]) {
      for (const [name, value] of Object.entries(UNSUPPORTED)) {
        if ((group[name] ?? value) !== value) throw expected(`${name}: ${value}`, 'the optimizer state', group[name])
      }
    }
    // As in PyTorch, the place of a number in the groups says which parameter it means.
    const byNumber = new Map(state.param_groups.flatMap((group) => group.params).map((number, i) => [number, parameters[i]!]))
    // A file's dict without entries says nothing of its keys.
    const entries = perParameter instanceof Map ? [...(perParameter as OptimizerStateDict['state'])] : []
    const unnumbered = entries.length === 0 && Object.keys(perParameter).length > 0
    if (unnumbered) throw expected('a Map by number', 'the state of the optimizer', perParameter)
    const loaded = entries.map(([number, entry]) => {
      const parameter = byNumber.get(number)
      if (!parameter) throw expected('a parameter of the groups', 'the optimizer state', number)
      const { shape } = parameter
      for (const name of ['step', 'exp_avg', 'exp_avg_sq'] as const) {
        if (!(entry[name] instanceof Tensor)) throw expected('a Tensor', `${name} of parameter ${number}`, entry[name])
      }
      for (const [name, tensor] of [['exp_avg', entry.exp_avg], ['exp_avg_sq', entry.exp_avg_sq]] as const) {
        if (String(tensor.shape) !== String(shape)) {
          throw expected(`shape [${shape.join(', ')}]`, `${name} of parameter ${number}`, `shape [${tensor.shape.join(', ')}]`)
        }
      }
      if (entry.step.shape.length) throw expected('one number', `step of parameter ${number}`, `shape [${entry.step.shape.join(', ')}]`)
      return [parameter, entry] as const
    })
    const kept = new Set(loaded.map(([parameter]) => parameter))
    for (const [parameter, { step, expAvg, expAvgSq }] of this.#state) {
      if (kept.has(parameter)) continue
      for (const tensor of [step, expAvg, expAvgSq]) tensor.dispose()
      this.#state.delete(parameter)
    }
    noGrad(() => {
      for (const [parameter, { step, exp_avg, exp_avg_sq }] of loaded) {
        const target = this.#stateOf(parameter)
        target.step.copy_(step)
        target.expAvg.copy_(exp_avg)
        target.expAvgSq.copy_(exp_avg_sq)
      }
    })
    for (const [i, group] of this.groups.entries()) Object.assign(group, options[i])
  }

  /** Frees the running means. */
  dispose(): void {
    for (const { step, expAvg, expAvgSq } of this.#state.values()) for (const tensor of [step, expAvg, expAvgSq]) tensor.dispose()
    this.#state.clear()
  }
}
