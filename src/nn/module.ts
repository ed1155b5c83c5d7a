import { expected, InputError } from '../errors.js'
import { keep, noGrad, scope, Tensor, type Device, type DType, type ToOptions } from '../torch/index.js'
import { isDType } from '../torch/types.js'
import { Parameter } from './parameter.js'

/** Tensors by their dotted names, in the order of definition. */
export type StateDict = Record<string, Tensor>

const LISTED = 10
const isFloating = (dtype: DType) => /^(b?float|complex)/.test(dtype)

function list(names: readonly string[]): string {
  const more = names.length > LISTED ? `, ... (${names.length} in all)` : ''
  return names.slice(0, LISTED).join(', ') + more
}

/** @throws InputError for what is no object of tensors by name, with a hint where they are one level below. */
export function requireStateDict(state: unknown): asserts state is StateDict {
  if (typeof state !== 'object' || state === null) throw expected('an object of tensors by name', 'the state dict', state)
  for (const [name, value] of Object.entries(state)) {
    if (value instanceof Tensor) continue
    const nested = typeof value === 'object' && value !== null && Object.values(value as object).some((inner) => inner instanceof Tensor)
    throw expected(`a Tensor${nested ? ' (what is there holds tensors: give it alone)' : ''}`, `'${name}' of the state dict`, value)
  }
}

/** What the names of one list have in front of the names of the other, if that is the same for several of them and for most. */
function commonPrefix(longer: readonly string[], shorter: readonly string[]): string | undefined {
  const wanted = new Set(shorter)
  const counts = new Map<string, number>()
  for (const name of longer) {
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      const prefix = name.slice(0, dot + 1)
      if (wanted.has(name.slice(dot + 1))) counts.set(prefix, (counts.get(prefix) ?? 0) + 1)
    }
  }
  const [prefix, count] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? ['', 0]
  return count * 2 > Math.min(longer.length, shorter.length) ? prefix : undefined
}

/** Says how names differ that would fit but for a prefix. */
function prefixHint(missing: readonly string[], unexpected: readonly string[]): string[] {
  const given = commonPrefix(unexpected, missing)
  if (given) return [`the names begin with '${given}', which this module's do not: give them without`]
  const own = commonPrefix(missing, unexpected)
  return own ? [`this module's names begin with '${own}', which the given ones do not: load into that part, or give them with it`] : []
}

/**
 * A part of a network: parameters, buffers and other modules held in its properties, and `forward`. Names in the state dict are the paths
 * of the properties, so they are PyTorch's where the properties are. PyTorch: `torch.nn.Module`.
 */
export abstract class Module {
  /** Whether dropout and its like are active. Set by {@link train} and {@link eval}. */
  training = true
  readonly #buffers = new Map<string, Tensor>()

  /** The computation. Call it through {@link call}, which frees what it leaves behind. */
  abstract forward(...inputs: never[]): unknown

  /** Runs `forward` in a scope: intermediate tensors are freed on return, except what autograd needs. */
  call(...inputs: Parameters<this['forward']>): ReturnType<this['forward']> {
    return scope(() => this.forward(...(inputs as never[]))) as ReturnType<this['forward']>
  }

  /** Adds a tensor that belongs to the state but is not learned. Also readable as property `name`. */
  protected registerBuffer(name: string, tensor: Tensor): void {
    this.#buffers.set(name, keep(tensor))
    Object.defineProperty(this, name, { get: () => this.#buffers.get(name), enumerable: false, configurable: true })
  }

  /** The modules held directly, by property name. */
  *children(): Generator<[string, Module]> {
    for (const [name, value] of Object.entries(this)) if (value instanceof Module) yield [name, value]
  }

  /** This module and all below it, by path. */
  *namedModules(prefix = ''): Generator<[string, Module]> {
    yield [prefix, this]
    for (const [name, child] of this.children()) yield* child.namedModules(prefix ? `${prefix}.${name}` : name)
  }

  *#entries(): Generator<[string, Tensor]> {
    const seen = new Set<Tensor>()
    for (const [path, module] of this.namedModules()) {
      const own = Object.entries(module).filter((entry): entry is [string, Parameter] => entry[1] instanceof Parameter)
      for (const [name, tensor] of [...own, ...module.#buffers]) {
        if (seen.has(tensor)) continue // shared between modules
        seen.add(tensor)
        yield [path ? `${path}.${name}` : name, tensor]
      }
    }
  }

  /** Parameters by path, each once. */
  *namedParameters(): Generator<[string, Parameter]> {
    for (const [name, tensor] of this.#entries()) if (tensor instanceof Parameter) yield [name, tensor]
  }

  /** All parameters, those of modules in this one included, each once, in the order of {@link namedParameters}. PyTorch: `Module.parameters`. */
  parameters(): Parameter[] {
    return Array.from(this.namedParameters(), ([, parameter]) => parameter)
  }

  /** Buffers by path. */
  *namedBuffers(): Generator<[string, Tensor]> {
    for (const [name, tensor] of this.#entries()) if (!(tensor instanceof Parameter)) yield [name, tensor]
  }

  /** Parameters and buffers by path: the tensors themselves, not copies. */
  stateDict(): StateDict {
    return Object.fromEntries(this.#entries())
  }

  /**
   * Copies values into the parameters and buffers of the same names.
   *
   * @param options - `strict` (default true) refuses missing and unexpected names.
   * @returns The names that did not match, for `strict: false`.
   * @throws InputError naming the first ten missing, unexpected and mis-shaped entries, or what is no tensor; then nothing has been
   *   changed.
   */
  loadStateDict(state: StateDict, options: { readonly strict?: boolean } = {}): { missing: string[]; unexpected: string[] } {
    requireStateDict(state)
    const strict = options.strict ?? true
    const own = this.stateDict()
    const missing = Object.keys(own).filter((name) => !Object.hasOwn(state, name))
    const unexpected = Object.keys(state).filter((name) => !Object.hasOwn(own, name))
    const misshaped = Object.entries(own).flatMap(([name, tensor]) => {
      const given = state[name]
      if (!given || String(given.shape) === String(tensor.shape)) return []
      return `${name} (expected [${tensor.shape.join(', ')}], received [${given.shape.join(', ')}])`
    })
    const problems = [
      ...(strict && missing.length ? [`missing: ${list(missing)}`] : []),
      ...(strict && unexpected.length ? [`unexpected: ${list(unexpected)}`] : []),
      ...(misshaped.length ? [`of another shape: ${list(misshaped)}`] : []),
      ...(strict ? prefixHint(missing, unexpected) : [])
    ]
    if (problems.length) throw new InputError(`The state dict does not fit ${this.constructor.name}. ${problems.join('; ')}`)
    noGrad(() => {
      for (const [name, tensor] of Object.entries(own)) if (state[name]) tensor.copy_(state[name])
    })
    return { missing, unexpected }
  }

  /**
   * Moves or converts all parameters and buffers in place (integer ones keep their dtype). PyTorch: `Module.to`.
   *
   * @throws InputError for a dtype that is not floating-point.
   */
  to(target: Device | DType | ToOptions): this {
    const options: ToOptions = isDType(target) ? { dtype: target } : typeof target === 'string' ? { device: target } : target
    const { dtype, ...place } = options
    if (dtype !== undefined && !isFloating(dtype)) throw expected('a floating-point dtype', 'the target of Module.to()', dtype)
    noGrad(() => {
      scope(() => {
        for (const [, tensor] of this.#entries()) {
          tensor.setData(tensor.to(isFloating(tensor.dtype) ? target : place))
          const { grad } = tensor
          if (grad) tensor.grad = grad.to(target)
        }
      })
    })
    return this
  }

  /** Training mode on or off, for this module and all below. */
  train(mode = true): this {
    if (typeof mode !== 'boolean') throw expected('a boolean', 'mode', mode)
    for (const [, module] of this.namedModules()) module.training = mode
    return this
  }

  /** Evaluation mode: dropout and its like do nothing. */
  eval(): this {
    return this.train(false)
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.grad = null
  }

  /** Whether the parameters are learned. */
  requiresGrad_(value = true): this {
    for (const parameter of this.parameters()) parameter.requiresGrad = value
    return this
  }

  /** Frees all parameters and buffers. The module cannot be used any more. */
  dispose(): void {
    for (const [, tensor] of this.#entries()) tensor.dispose()
  }
}
