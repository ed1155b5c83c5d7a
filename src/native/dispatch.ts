import { addon, type OperatorInfo } from './addon.js'
import { TensorHandle, handleOf, wrap } from './tensor-handle.js'
import type { Handle } from './addon.js'

/** An operator of PyTorch's dispatcher, found at its first call: one that this libtorch lacks fails there, by name. */
export class Operator {
  id = -1
  #info: OperatorInfo | undefined
  /** The results are new single tensors: the most frequent case, decided once. */
  single = false
  /** Some results are the arguments themselves (in-place and out= operators). */
  aliased = false

  constructor(readonly name: string, readonly overload: string) {}

  /** The schema of the running libtorch. */
  get info(): OperatorInfo {
    if (this.#info) return this.#info
    const info = addon.findOperator(this.name, this.overload)
    this.#info = info
    this.single = info.returns.length === 1 && info.returns[0] === 'tensor'
    this.aliased = info.returns.some((result) => typeof result === 'number')
    this.id = info.id
    return info
  }
}

export function operator(name: string, overload = ''): Operator {
  return new Operator(name, overload)
}

function unwrap(value: object): unknown {
  if (value instanceof TensorHandle) return handleOf(value)
  if (value instanceof GeneratorHandle) return value.handle
  // Handles in a list. A new array, since the caller's is not ours to change.
  if (Array.isArray(value) && value.some((element) => element instanceof TensorHandle)) {
    return value.map((element: unknown) => (element instanceof TensorHandle ? handleOf(element) : element))
  }
  return value
}

/** A random number generator of its own state, in the native table. */
export class GeneratorHandle {
  /** @internal */
  constructor(readonly handle: Handle) {}
}

function wrapResult(kind: OperatorInfo['returns'][number], value: unknown, args: readonly unknown[]): unknown {
  if (typeof kind === 'number') return args[kind]
  if (value === null) return null
  if (kind === 'tensor') return wrap(value as Handle)
  if (kind === 'tensors') return (value as (Handle | null)[]).map((handle) => (handle === null ? null : wrap(handle)))
  return value
}

/**
 * Calls an operator with its arguments in the schema's order: `undefined` stands for the schema's default, `null` for None.
 * An operator that works in place returns its argument itself.
 *
 * @throws TorchError naming the operator, the reason and the tensors.
 */
export function call<R>(op: Operator, ...args: unknown[]): R {
  if (op.id < 0) void op.info
  const given = op.aliased ? args.slice() : args
  for (let i = 0; i < args.length; i++) {
    const value = args[i]
    if (typeof value === 'object' && value !== null) args[i] = unwrap(value)
  }
  const result = addon.call(op.id, ...args)
  if (op.single) return (result === null ? null : wrap(result as Handle)) as R
  const { returns } = op.info
  if (returns.length === 0) return undefined as R
  if (returns.length === 1) return wrapResult(returns[0]!, result, given) as R
  return returns.map((kind, i) => wrapResult(kind, (result as unknown[])[i], given)) as R
}
