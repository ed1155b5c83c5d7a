import { addon, type OperatorInfo } from './addon.js'
import { TensorHandle, handleOf, wrap } from './tensor-handle.js'
import type { Handle } from './addon.js'

/** An operator of PyTorch's dispatcher, found at its first call: one that this libtorch lacks fails there, by name. */
export class Operator {
  id = -1
  #info: OperatorInfo | undefined
  /** The results are new single tensors: the most frequent case, decided once. */
  single = false

  /** @param options - Names of the arguments that a call gives by name, where it is a generated one. */
  constructor(readonly name: string, readonly overload: string, readonly options: readonly string[] = []) {}

  /** The schema of the running libtorch. */
  get info(): OperatorInfo {
    if (this.#info) return this.#info
    const info = addon.findOperator(this.name, this.overload)
    this.#info = info
    this.single = info.returns.length === 1 && info.returns[0] === 'tensor'
    this.id = info.id
    return info
  }
}

/**
 * Finds an operator of the dispatcher by its name and overload, for {@link call}: `operator('aten::add', 'Tensor')`. Finding it takes longer than
 * calling it: keep it.
 */
export function operator(name: string, overload = '', options?: readonly string[]): Operator {
  return new Operator(name, overload, options)
}

// What the addon takes for a value: handles for tensors, also in lists.
function unwrap(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof TensorHandle) return handleOf(value)
  if (Array.isArray(value)) return unwrapList(value)
  if (value instanceof GeneratorHandle) onGenerator?.(value)
  else if (!(value instanceof StreamHandle)) return value
  return value.handle
}

let onCall: ((op: Operator) => void) | undefined
let onGenerator: ((generator: GeneratorHandle) => void) | undefined

/** Sees every call of an operator before it is made: anomaly mode. Returns the watcher before. */
export function watchCalls(watcher: typeof onCall): typeof onCall {
  const before = onCall
  onCall = watcher
  return before
}

/** Sees every generator before an operator draws from it: gradient checkpointing. Returns the watcher before. */
export function watchGenerators(watcher: typeof onGenerator): typeof onGenerator {
  const before = onGenerator
  onGenerator = watcher
  return before
}

function unwrapList(list: readonly unknown[]): readonly unknown[] {
  for (const element of list) {
    // A new array, since the caller's is not ours to change.
    if (typeof element === 'object' && element !== null) return unwrapAll(list)
    // A list of tensors may begin with null. All else is a list of numbers, as it is.
    if (element !== null) return list
  }
  return list
}

function unwrapAll(values: readonly unknown[]): unknown[] {
  const unwrapped = new Array<unknown>(values.length)
  for (let i = 0; i < values.length; i++) unwrapped[i] = unwrap(values[i])
  return unwrapped
}

/** A random number generator of its own state, in the native table. */
export class GeneratorHandle {
  /** @internal */
  constructor(readonly handle: Handle) {}
}

/** A stream of a GPU, in the native table. */
export class StreamHandle {
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
  if (onCall !== undefined) onCall(op)
  const result = invoke(op.id, args)
  if (op.single) return (result === null ? null : wrap(result as Handle)) as R
  const { returns } = op.info
  if (returns.length === 0) return undefined as R
  if (returns.length === 1) return wrapResult(returns[0]!, result, args) as R
  return returns.map((kind, i) => wrapResult(kind, (result as unknown[])[i], args)) as R
}

// Up to four arguments one by one: the engine then makes no array of them, here or in call().
function invoke(id: number, args: readonly unknown[]): unknown {
  switch (args.length) {
    case 1:
      return addon.call(id, unwrap(args[0]))
    case 2:
      return addon.call(id, unwrap(args[0]), unwrap(args[1]))
    case 3:
      return addon.call(id, unwrap(args[0]), unwrap(args[1]), unwrap(args[2]))
    case 4:
      return addon.call(id, unwrap(args[0]), unwrap(args[1]), unwrap(args[2]), unwrap(args[3]))
    default:
      return addon.call(id, ...unwrapAll(args))
  }
}
