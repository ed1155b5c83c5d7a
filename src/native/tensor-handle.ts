import { addon, type Handle } from './addon.js'
import { expected } from '../errors.js'
import { TorchError } from './errors.js'

export let handleOf: (tensor: TensorHandle) => Handle
let setRegistered: (tensor: TensorHandle, registered: boolean) => boolean

// The safety net for tensors outside every scope: what nobody disposed of is freed when its object is collected.
const collected = new FinalizationRegistry<Handle>((handle) => {
  if (addon.isLive(handle)) addon.dispose(handle)
})

/** A reference to a tensor in the native table. The class `Tensor` adds all that users see. */
export class TensorHandle {
  readonly #handle: Handle
  #registered = false

  static {
    handleOf = (tensor) => tensor.#handle
    setRegistered = (tensor, registered) => {
      const before = tensor.#registered
      tensor.#registered = registered
      return before
    }
  }

  /** @internal */
  constructor(handle: Handle) {
    this.#handle = handle
  }

  /** False once the tensor was disposed of or its scope has ended. */
  get isLive(): boolean {
    return addon.isLive(this.#handle)
  }

  /** Frees the tensor's memory now, unless a view or the autograd graph needs it. Doing it twice is harmless. */
  dispose(): void {
    if (setRegistered(this, false)) collected.unregister(this)
    if (addon.isLive(this.#handle)) addon.dispose(this.#handle)
  }

  /** What `using` calls at the end of its block: {@link dispose}. */
  [Symbol.dispose](): void {
    this.dispose()
  }
}

type TensorConstructor = new (handle: Handle) => TensorHandle
let Tensor: TensorConstructor = TensorHandle

/** The class that results are wrapped in, set by the layer above. */
export function setTensorClass(constructor: TensorConstructor): void {
  Tensor = constructor
}

let depth = 0

/** The object for a handle that the addon has just made. */
export function wrap(handle: Handle): TensorHandle {
  const tensor = new Tensor(handle)
  if (depth === 0) register(tensor)
  return tensor
}

function register(tensor: TensorHandle): void {
  if (setRegistered(tensor, true)) return
  collected.register(tensor, handleOf(tensor), tensor)
}

/**
 * Hands a tensor over to another object: gives the handle, which `tensor` no longer frees when it is collected. For subclasses of `Tensor`
 * that take a tensor's place.
 */
export function release(tensor: TensorHandle): Handle {
  if (setRegistered(tensor, false)) collected.unregister(tensor)
  return handleOf(tensor)
}

/** Takes a tensor out of every scope: it lives until it is disposed of or collected. Returns it. */
export function keep<T extends TensorHandle>(tensor: T): T {
  addon.keep(requireHandle(tensor, 'the argument of keep()'))
  register(tensor)
  return tensor
}

// What a scope returns may be a tensor or hold some: in arrays, plain objects, maps and sets, which may hold themselves.
function collect(value: unknown, found: TensorHandle[], seen?: Set<object>): void {
  if (typeof value !== 'object' || value === null) return
  if (value instanceof TensorHandle) {
    found.push(value)
    return
  }
  const elements = elementsOf(value)
  if (!elements || seen?.has(value)) return
  const known = (seen ?? new Set()).add(value)
  for (const element of elements) collect(element, found, known)
}

function elementsOf(value: object): Iterable<unknown> | undefined {
  if (Array.isArray(value)) return value as unknown[]
  if (value instanceof Map || value instanceof Set) return value.values()
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null ? Object.values(value) : undefined
}

/** A callback that must not be asynchronous: a scope cannot follow it across an `await`. */
export type Synchronous<T> = T extends PromiseLike<unknown> ? never : unknown

/** Throws unless `callback` can be called. */
export function requireFunction(callback: unknown, name: string): void {
  if (typeof callback !== 'function') throw expected('a function', name, callback)
}

/** Throws if a synchronous region was given an async function, and keeps that function's failure from going unhandled. */
export function refusePromise(result: unknown, name: string): void {
  if (typeof (result as PromiseLike<unknown> | null)?.then !== 'function') return
  void Promise.resolve(result as PromiseLike<unknown>).catch(() => undefined)
  throw expected('a synchronous function', name, 'an async function')
}

/**
 * Runs `callback` and frees every tensor made in it, except those it returns (also inside arrays, plain objects, maps and sets),
 * which move to the enclosing scope. What autograd needs stays alive in its graph.
 *
 * @throws InputError if the callback is async.
 */
export function scope<T>(callback: (() => T) & (() => Synchronous<T>)): T {
  requireFunction(callback, 'the callback of scope()')
  const own = addon.scopeBegin()
  depth = own
  const survivors: TensorHandle[] = []
  try {
    const result = (callback as () => T)()
    refusePromise(result, 'the callback of scope()')
    collect(result, survivors)
    return result
  } finally {
    depth = addon.scopeEnd(own, survivors.map(handleOf))
    // A survivor that leaves the outermost scope has no scope to free it. Disposed ones among them need nothing.
    if (depth === 0) for (const tensor of survivors) if (tensor.isLive) register(tensor)
  }
}

/** Takes the tensors of a result out of every scope: those that {@link scope} would have let out. */
export function keepResults(result: unknown): TensorHandle[] {
  const found: TensorHandle[] = []
  collect(result, found)
  return found.map(keep)
}

/** What is alive now. `bytes` counts each storage once, by device. */
export interface Memory {
  readonly tensors: number
  readonly scopes: number
  readonly bytes: Readonly<Record<string, number>>
}

/** Live tensors of this thread, open scopes, and bytes per device. */
export function memory(): Memory {
  return addon.memory()
}

/** The handle of what must be a tensor, with an error that says what came instead. */
export function requireHandle(value: unknown, name: string): Handle {
  if (value instanceof TensorHandle) return handleOf(value)
  throw new TorchError(expected('a Tensor', name, value).message)
}
