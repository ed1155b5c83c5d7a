import { expected } from '../errors.js'
import { scope } from '../native/tensor-handle.js'
import { leavesOf, tensor, type NestedArray } from './creation.js'
import { isTensor } from './dispatch.js'
import { full } from './ops/index.js'
import type { Tensor } from './tensor.js'
import { requireDType, type Scalar, type TypedArray } from './types.js'

/** A range of one dimension, made by {@link slice}. */
export class Slice {
  /** @internal */
  constructor(readonly start: number | undefined, readonly stop: number | undefined, readonly step: number) {}
}

/** As many whole dimensions as the other indices leave. Python: `...`. */
export const ellipsis: unique symbol = Symbol('ellipsis')

/** Values of one type, nested to any depth. */
export type Nested<T> = readonly (T | Nested<T>)[]

/**
 * One index of {@link Tensor.at}:
 *
 * - an integer takes one position and removes the dimension; from -1 downwards it counts from the end
 * - `slice(start, stop, step)` takes a range
 * - `null` adds a dimension of size 1
 * - `ellipsis` stands for the dimensions that no other index takes
 * - a bool tensor, or nested arrays of booleans, is a mask over as many dimensions as it has
 * - an int64 or int32 tensor, or nested arrays of integers, takes one position for each of its elements
 */
export type Index = number | Slice | null | typeof ellipsis | boolean | Tensor | Nested<number | bigint> | Nested<boolean>

/**
 * A range for {@link Tensor.at}. Python: `start:stop:step`.
 *
 * @param start - First position; negative: from the end. Left out or null: the first.
 * @param stop - Position after the last; negative: from the end. Left out or null: to the end. What lies outside the tensor is ignored.
 * @param step - Distance of neighbours, at least 1.
 * @throws InputError for what is no integer, or a step below 1.
 */
export function slice(start?: number | null, stop?: number | null, step?: number | null): Slice {
  for (const [name, value] of [['start', start], ['stop', stop]] as const) {
    if (value != null && !Number.isSafeInteger(value)) throw expected('an integer or null', `${name} of slice()`, value)
  }
  if (step != null && !(Number.isSafeInteger(step) && step > 0)) throw expected('an integer of at least 1', 'step of slice()', step)
  return new Slice(start ?? undefined, stop ?? undefined, step ?? 1)
}

const LEGAL = 'an integer, slice(), null, ellipsis, a bool or integer tensor, or nested arrays of integers or booleans'

const plural = (count: number, noun: string) => `${count} ${noun}${count === 1 ? '' : 's'}`
const shapeText = ({ shape }: Tensor) => `shape [${shape.join(', ')}]`

/** An index given as arrays, as the tensor it stands for. */
function fromArrays(value: NestedArray, name: string, device: Tensor['device']): Tensor {
  const { leaves } = leavesOf(value)
  const mask = typeof leaves[0] === 'boolean'
  for (const leaf of leaves) {
    const legal = mask ? typeof leaf === 'boolean' : typeof leaf === 'bigint' || Number.isSafeInteger(leaf)
    if (!legal) throw expected(mask ? 'booleans only' : 'integers only', name, leaf)
  }
  return tensor(value, { dtype: mask ? 'bool' : 'int64', device })
}

/** An index after all that needs no tensor to be looked at: arrays are tensors, and a tensor of one integer is that integer. */
type Parsed = number | Slice | null | typeof ellipsis | boolean | Tensor

function parse(value: unknown, name: string, device: Tensor['device']): Parsed {
  if (value === null || value === ellipsis || typeof value === 'boolean' || value instanceof Slice) return value
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) throw expected('an integer', name, value)
    return value
  }
  if (Array.isArray(value)) return fromArrays(value as NestedArray, name, device)
  if (!isTensor(value)) throw expected(LEGAL, name, value)
  const { dtype } = value
  if (dtype === 'bool') return value
  if (dtype !== 'int64' && dtype !== 'int32') throw expected('a tensor of dtype bool, int64 or int32', name, `a tensor of dtype ${dtype}`)
  return value.ndim === 0 ? value.item() : value
}

const isMask = (index: Parsed): index is Tensor => isTensor(index) && index.dtype === 'bool'

/** How many dimensions of the tensor an index takes. */
function width(index: Parsed): number {
  if (index === null || index === ellipsis || typeof index === 'boolean') return 0
  return isMask(index) ? index.ndim : 1
}

function checkCount(x: Tensor, indices: readonly Parsed[], method: string): void {
  const taken = indices.reduce<number>((sum, index) => sum + width(index), 0)
  const { ndim } = x
  if (taken > ndim) {
    throw expected(`indices for at most ${plural(ndim, 'dimension')}`, `${method} on a tensor of ${shapeText(x)}`, `indices for ${taken}`)
  }
  const ellipses = indices.filter((index) => index === ellipsis).length
  if (ellipses > 1) throw expected('at most one ellipsis', method, `${ellipses} of them`)
}

function checkMask(mask: Tensor, x: Tensor, dim: number, name: string): void {
  const sizes = x.shape.slice(dim, dim + mask.ndim)
  if (mask.shape.every((size, i) => size === sizes[i])) return
  const place = mask.ndim === 1 ? `dimension ${dim}` : `dimensions ${dim} to ${dim + mask.ndim - 1}`
  throw expected(`a mask of shape [${sizes.join(', ')}], the size of ${place}`, name, `a mask of ${shapeText(mask)}`)
}

/**
 * Takes the indices in turn. What gives a view is applied at once; tensors are collected for `index`, each at the place of its dimension,
 * with null for a dimension that has none.
 */
function resolve(x: Tensor, values: readonly unknown[], method: string): { view: Tensor; tensors: (Tensor | null)[] } {
  const { device } = x
  const indices = values.map((value, i) => parse(value, `index ${i} of ${method}`, device))
  checkCount(x, indices, method)
  const left = x.ndim - indices.reduce<number>((sum, index) => sum + width(index), 0)
  const tensors: (Tensor | null)[] = []
  let view = x
  let source = 0 // the dimension of x
  let dim = 0 // the dimension of view that it has become
  const skip = (count: number) => {
    for (let i = 0; i < count; i++) tensors.push(null)
    dim += count
    source += count
  }
  for (const [i, index] of indices.entries()) {
    const name = `index ${i} of ${method}`
    if (index === ellipsis) {
      skip(left)
    } else if (index === null) {
      view = view.unsqueeze(dim)
      skip(1)
      source--
    } else if (typeof index === 'number') {
      const size = x.shape[source]!
      if (index < -size || index >= size) {
        const range = size === 0 ? `no index, as dimension ${source} has size 0` : `an integer from ${-size} to ${size - 1}`
        throw expected(range + (size ? `, as dimension ${source} has size ${size}` : ''), name, index)
      }
      view = view.select(dim, index)
      source++
    } else if (index instanceof Slice) {
      const { start, stop, step } = index
      view = view.slice({ dim, start: start ?? null, end: stop ?? null, step })
      skip(1)
    } else if (typeof index === 'boolean' || (isMask(index) && index.ndim === 0)) {
      // A mask of no dimensions: one more dimension, of size 1 or 0.
      view = view.unsqueeze(dim)
      tensors.push(typeof index === 'boolean' ? tensor([index], { device }) : index.reshape([1]))
      dim++
    } else {
      if (isMask(index)) checkMask(index, x, source, name)
      tensors.push(index)
      dim += width(index)
      source += width(index)
    }
  }
  return { view, tensors: tensors.some((index) => index !== null) ? tensors : [] }
}

/** @see Tensor.at */
export function at(x: Tensor, indices: readonly Index[]): Tensor {
  return scope(() => {
    const { view, tensors } = resolve(x, indices, 'at()')
    if (tensors.length > 0) return view.index(tensors)
    return view === x ? x.alias() : view
  })
}

const isScalar = (value: unknown): value is Scalar =>
  ['number', 'bigint', 'boolean'].includes(typeof value) || (typeof value === 'object' && value !== null && 're' in value && 'im' in value)

/** A value to assign as a tensor of the target's dtype, without the leading dimensions of size 1 that broadcasting does not need. */
function toValue(value: Tensor | NestedArray | TypedArray, target: Tensor): Tensor {
  const { dtype, device } = target
  if (isScalar(value)) return full([], value, { dtype, device })
  const given = isTensor(value) ? value : tensor(value, { dtype: requireDType(dtype, 'the dtype of setAt()'), device })
  if (given.isComplex() && !target.isComplex()) throw expected(`real values for a tensor of ${dtype}`, 'the value of setAt()', given.dtype)
  const { shape } = given
  const first = shape.findIndex((size) => size !== 1)
  const needed = first < 0 ? [] : shape.slice(first)
  return (needed.length < shape.length ? given.reshape(needed) : given).to({ dtype, device })
}

/** @see Tensor.setAt */
export function setAt(x: Tensor, indices: readonly Index[], value: Tensor | NestedArray | TypedArray): void {
  if (!Array.isArray(indices)) throw expected('an array of indices', 'setAt()', indices)
  if (value === null || value === undefined) throw expected('a tensor, a number or nested arrays', 'the value of setAt()', value)
  scope(() => {
    const { view, tensors } = resolve(x, indices, 'setAt()')
    if (tensors.length > 0) view.indexPut_(tensors, toValue(value, x))
    else if (isScalar(value)) view.fill_(value)
    else view.copy_(toValue(value, x))
  })
}
