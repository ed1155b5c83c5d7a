import { expected } from '../errors.js'
import { Parameter } from '../nn/index.js'
import { emptyLike, isTensor, noGrad, scope, Tensor } from '../torch/index.js'

/** Parameters that share options. The options may be changed between steps. */
export type ParameterGroup<Options> = Options & { readonly parameters: readonly Parameter[] }

/** A group as an optimizer has it: every option with its value, changeable. */
export type Group<Options> = { -readonly [Name in keyof Options]-?: Options[Name] } & { readonly parameters: readonly Parameter[] }

/**
 * Like the state dict of PyTorch's optimizers: state by the parameter's number, groups with the numbers of their parameters. As
 * `saveTorch` and `loadTorch` have it, it goes to PyTorch's optimizer of the same name and comes from there.
 */
export interface OptimizerStateDict<State, Options> {
  readonly state: ReadonlyMap<number, State>
  readonly param_groups: readonly (Options & { readonly params: readonly number[] })[]
}

/** Whether a value is a finite number of at least 0, as most options must be. */
export const isLegal = (value: unknown): boolean => typeof value === 'number' && value >= 0 && Number.isFinite(value)

/**
 * Parameters, or groups of them, as groups with all options.
 *
 * @param check - Throws for options that are not legal.
 * @throws InputError for what is no Parameter, and a Parameter given twice.
 */
export function makeGroups<Options extends object>(
  parameters: Iterable<Parameter> | readonly ParameterGroup<Options>[], options: Required<Options>, check: (group: Group<Options>) => void
): Group<Options>[] {
  // A tensor is iterable too: its rows are no parameters.
  if (typeof (parameters as Partial<Iterable<unknown>> | null)?.[Symbol.iterator] !== 'function' || isTensor(parameters)) {
    throw expected('Parameters or groups of them', 'parameters', parameters)
  }
  const given: (Parameter | ParameterGroup<Options>)[] = [...parameters]
  const isGroup = (value: unknown) => {
    const inner = (value as Partial<ParameterGroup<Options>> | null)?.parameters
    return typeof inner?.[Symbol.iterator] === 'function' && !isTensor(inner)
  }
  const stranger = given[0] instanceof Parameter ? undefined : given.findIndex((element) => !isGroup(element))
  if (stranger !== undefined && stranger >= 0) throw expected('a Parameter or { parameters }', `parameters[${stranger}]`, given[stranger])
  const plain = given[0] instanceof Parameter || given.length === 0
  const groups = plain ? [{ parameters: given }] : (given as ParameterGroup<Options>[])
  const made = groups.map((group) => ({ ...options, ...group, parameters: [...group.parameters] }) as Group<Options>)
  const seen = new Set<Parameter>()
  for (const group of made) {
    check(group)
    for (const parameter of group.parameters) {
      if (!(parameter instanceof Parameter)) throw expected('a Parameter', 'an element of parameters', parameter)
      if (seen.has(parameter)) throw expected('each parameter once', 'parameters', 'one of them twice')
      seen.add(parameter)
    }
  }
  return made
}

// The fused operators go through parameter, gradient and state as they lie in memory, without a look at their strides. What is empty
// "like" another tensor has its strides only if that has no gaps and no elements in common.
function requireDense(parameter: Parameter): void {
  if (parameter.isContiguous) return
  const strides = scope(() => emptyLike(parameter).strides)
  const received = `strides [${parameter.strides.join(', ')}]`
  if (String(strides) !== String(parameter.strides)) throw expected('memory without gaps', 'an element of parameters', received)
}

function laidOutLike(parameter: Parameter, gradient: Tensor): Tensor {
  if (parameter.isContiguous && gradient.isContiguous) return gradient
  return String(parameter.strides) === String(gradient.strides) ? gradient : emptyLike(parameter).copy_(gradient)
}

/** Forgets the gradients of all parameters. */
export function forgetGradients(groups: readonly { readonly parameters: readonly Parameter[] }[]): void {
  for (const group of groups) for (const parameter of group.parameters) parameter.grad = null
}

/** What one optimizer has of its own besides the formula. */
export interface OptimizerKind<Options, State> {
  readonly defaults: Required<Options>
  /** Throws for options that are not legal. */
  readonly check: (group: Group<Options>) => void
  /** PyTorch's names of the options. */
  readonly names: Readonly<Record<keyof Options, string>>
  /** What PyTorch's optimizer can do besides, and what its group says where it does not. */
  readonly unsupported: Readonly<Record<string, unknown>>
  /** The tensors kept for each parameter: of its shape, or with one number. */
  readonly tensors: Readonly<Record<keyof State, 'like the parameter' | 'one number'>>
}

/** What the optimizers have in common that keep some tensors for each parameter: groups, state and its way to PyTorch and back. */
export abstract class Optimizer<
  Options extends object, State extends { readonly [Name in keyof State]: Tensor }, StateOptions extends object
> {
  /** The options of each group, to be changed between steps: `optimizer.groups[0].lr = 1e-4`. */
  readonly groups: readonly Group<Options>[]
  readonly #kind: OptimizerKind<Options, State>
  readonly #state = new Map<Parameter, State>()

  protected constructor(
    kind: OptimizerKind<Options, State>, parameters: Iterable<Parameter> | readonly ParameterGroup<Options>[], options: Options
  ) {
    this.#kind = kind
    this.groups = makeGroups(parameters, { ...kind.defaults, ...options }, kind.check)
    for (const group of this.groups) for (const parameter of group.parameters) requireDense(parameter)
  }

  /** Kept tensors for a parameter that has none yet. */
  protected abstract newState(parameter: Parameter): State

  /** Updates some parameters of a group in place. */
  protected abstract stepGroup(group: Group<Options>, parameters: Parameter[], gradients: Tensor[], foundInf: Tensor | null): void

  /** Whether a parameter has been updated before, so that there is a state of it. */
  protected hasState(parameter: Parameter): boolean {
    return this.#state.has(parameter)
  }

  /** The state of a parameter, which is made where there is none yet. */
  protected stateOf(parameter: Parameter): State {
    let state = this.#state.get(parameter)
    if (!state) this.#state.set(parameter, (state = this.newState(parameter)))
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
        for (const group of this.groups) {
          this.#kind.check(group)
          const parameters: Parameter[] = []
          const gradients: Tensor[] = []
          for (const parameter of group.parameters) {
            const gradient = parameter.grad
            if (!gradient) continue
            parameters.push(parameter)
            gradients.push(laidOutLike(parameter, gradient))
          }
          if (parameters.length) this.stepGroup(group, parameters, gradients, options.foundInf ?? null)
        }
      })
    })
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    forgetGradients(this.groups)
  }

  /** The state by the parameter's number, and the groups' options. The tensors themselves, not copies. */
  stateDict(): OptimizerStateDict<State, StateOptions> {
    const numbers = new Map(this.groups.flatMap((group) => group.parameters).map((parameter, i) => [parameter, i]))
    const state = Array.from(this.#state, ([parameter, tensors]) => [numbers.get(parameter)!, { ...tensors }] as const)
    const names = Object.entries(this.#kind.names) as [keyof Options, string][]
    return {
      state: new Map(state),
      param_groups: this.groups.map((group) => ({
        ...(Object.fromEntries(names.map(([own, name]) => [name, numberOf(group[own as keyof Group<Options>])])) as StateOptions),
        params: group.parameters.map((parameter) => numbers.get(parameter)!)
      }))
    }
  }

  /**
   * Takes copies of what {@link stateDict} gave, or of PyTorch's optimizer of this name, in place of what it has.
   *
   * @throws InputError if groups, options or shapes are not legal or PyTorch's are of a variant that is not there (`amsgrad`, `maximize`);
   *   then nothing has changed.
   */
  loadStateDict(state: OptimizerStateDict<State, StateOptions>): void {
    const options = this.#optionsIn(state)
    const loaded = this.#statesIn(state)
    for (const [parameter, tensors] of this.#state) {
      if (loaded.has(parameter)) continue
      disposeAll(tensors)
      this.#state.delete(parameter)
    }
    noGrad(() => {
      for (const [parameter, entry] of loaded) {
        const target = this.stateOf(parameter)
        for (const name of Object.keys(target) as (keyof State)[]) target[name].copy_(entry[name])
      }
    })
    for (const [i, group] of this.groups.entries()) {
      for (const [name, value] of Object.entries<unknown>(options[i]!)) {
        const own: unknown = group[name as keyof Group<Options>]
        // A captured graph reads the tensor: it must stay the same one.
        if (own instanceof Tensor) noGrad(() => void own.fill_(value as number))
        else Object.assign(group, { [name]: value })
      }
    }
  }

  /** The options of a state's groups by our names. */
  #optionsIn(state: OptimizerStateDict<State, StateOptions>): Group<Options>[] {
    const { state: perParameter, param_groups }: Partial<typeof state> = state ?? {}
    const isObject = typeof perParameter === 'object' && perParameter !== null
    const isGroup = (group: unknown) => Array.isArray((group as { params?: unknown } | null)?.params)
    if (!isObject || !Array.isArray(param_groups) || !param_groups.every(isGroup)) {
      throw expected('{ state, param_groups }', 'the optimizer state', state)
    }
    const sizes = (groups: readonly { length: number }[]) => groups.map((group) => group.length).join(', ')
    const own = sizes(this.groups.map((group) => group.parameters))
    const given = sizes(state.param_groups.map((group) => group.params))
    if (own !== given) throw expected(`parameter groups of ${own} parameters`, 'the optimizer state', `groups of ${given}`)
    const { names, unsupported, check } = this.#kind
    return (state.param_groups as readonly object[] as readonly Readonly<Record<string, unknown>>[]).map((group) => {
      const options = Object.fromEntries(Object.entries<string>(names).map(([own, name]) => [own, group[name]])) as Group<Options>
      check(options)
      for (const [name, value] of Object.entries(unsupported)) {
        if ((group[name] ?? value) !== value) throw expected(`${name}: ${value}`, 'the optimizer state', group[name])
      }
      return options
    })
  }

  /** The tensors of a state by the parameters that they belong to. */
  #statesIn({ state, param_groups }: OptimizerStateDict<State, StateOptions>): Map<Parameter, State> {
    const parameters = this.groups.flatMap((group) => group.parameters)
    // As in PyTorch, the place of a number in the groups says which parameter it means.
    const byNumber = new Map(param_groups.flatMap((group) => group.params).map((number, i) => [number, parameters[i]!]))
    // A file's dict without entries says nothing of its keys.
    const entries = state instanceof Map ? [...(state as ReadonlyMap<number, State>)] : []
    const unnumbered = entries.length === 0 && Object.keys(state).length > 0
    if (unnumbered) throw expected('a Map by number', 'the state of the optimizer', state)
    // Older versions of PyTorch write None where there is no state.
    const filled = entries.filter(([, entry]) => !isEmpty(entry))
    return new Map(
      filled.map(([number, entry]) => {
        const parameter = byNumber.get(number)
        if (!parameter) throw expected('a parameter of the groups', 'the optimizer state', number)
        this.#checkEntry(entry, parameter, number)
        return [parameter, entry]
      })
    )
  }

  #checkEntry(entry: State, parameter: Parameter, number: number): void {
    for (const [name, kind] of Object.entries(this.#kind.tensors) as [keyof State & string, string][]) {
      const tensor: unknown = entry[name]
      if (!(tensor instanceof Tensor)) throw expected('a Tensor', `${name} of parameter ${number}`, tensor)
      const shape = `shape [${tensor.shape.join(', ')}]`
      const wanted = `shape [${parameter.shape.join(', ')}]`
      if (kind === 'one number' && tensor.ndim) throw expected('one number', `${name} of parameter ${number}`, shape)
      if (kind === 'like the parameter' && shape !== wanted) throw expected(wanted, `${name} of parameter ${number}`, shape)
    }
  }

  /** Frees the state. */
  dispose(): void {
    for (const tensors of this.#state.values()) disposeAll(tensors)
    this.#state.clear()
  }
}

/** An option as a state dict has it. Of a tensor it waits for the device. */
const numberOf = (option: unknown): unknown => (option instanceof Tensor ? option.item() : option)

function isEmpty(entry: object): boolean {
  const values = Object.values(entry)
  return values.length > 0 && values.every((value) => value === null)
}

function disposeAll(tensors: object): void {
  for (const tensor of Object.values(tensors) as Tensor[]) tensor.dispose()
}
