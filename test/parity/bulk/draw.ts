import fc from 'fast-check'

import type { Complex, DType, Scalar } from '../../../src/torch/index.js'
import type { Row } from './row.js'
import { contiguousStrides, isComplex, isDifferentiable, type Content, type TensorSpec } from './tensors.js'

/** What may stand for an argument before it is made: tensors as their descriptions. */
export type Value = undefined | null | Scalar | string | TensorSpec | readonly Value[]

export const floats = ['float32', 'float32', 'float64', 'float16', 'bfloat16'] as const
export const complexes = ['complex64', 'complex128'] as const
export const integers = ['int64', 'int32', 'int16', 'int8', 'uint8'] as const
const unsigned = ['uint16', 'uint32', 'uint64'] as const
export const everything = [...floats, ...floats, ...complexes, ...integers, 'bool', ...unsigned] as const
export const numeric = [...floats, ...complexes, ...integers] as const
export const real = [...floats, ...floats, ...integers] as const
export const inexact = [...floats, ...complexes] as const
export const wide = ['float32', 'float64', 'complex64', 'complex128'] as const

/** Draws the parts of a case by fast-check. The dtype of the case is drawn first; tensors have it unless told. */
export class Draw {
  readonly dtype: DType

  constructor(private readonly generator: fc.GeneratorValue, private readonly row: Pick<Row, 'dtypes' | 'content' | 'unexpanded'>) {
    this.dtype = this.pick(row.dtypes)
  }

  /** Both ends included. Shrinks towards the first. */
  int(low: number, high: number): number {
    return this.generator(fc.integer, { min: low, max: high })
  }

  /** True once in so many times. */
  oneIn(times: number): boolean {
    return this.int(1, times) === times
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)]!
  }

  seed(): number {
    return this.generator(fc.nat)
  }

  float(low = 0.1, high = 2): number {
    return low + ((high - low) * this.int(0, 1000)) / 1000
  }

  /** Sizes 1 to 4, seldom 0. */
  size(high = 4): number {
    return this.oneIn(16) ? 0 : this.int(1, high)
  }

  sizes(count: number, high = 4): number[] {
    return Array.from({ length: count }, () => this.size(high))
  }

  shape(low = 0, high = 4): number[] {
    const rank = this.oneIn(8) ? low : this.int(low, high)
    const sizes = Array.from({ length: rank }, () => this.int(1, rank > 3 ? 3 : 5))
    if (rank > 0 && this.oneIn(12)) sizes[this.int(0, rank - 1)] = 0
    return sizes
  }

  /** Zero to two dimensions of a batch. */
  batch(): number[] {
    return this.shape(0, 2)
  }

  /** Shapes that broadcast with each other, the first the full one in most cases. */
  broadcast(count: number): number[][] {
    const full = this.shape()
    return Array.from({ length: count }, (_, i) => {
      if (this.int(1, 3) > (i === 0 ? 1 : 2)) return full
      const own = full.map((size) => (this.oneIn(3) ? 1 : size))
      return own.slice(this.oneIn(2) ? this.int(0, own.length) : 0)
    })
  }

  dimension(rank: number): number {
    return rank === 0 ? this.int(-1, 0) : this.int(-rank, rank - 1)
  }

  /** Different dimensions, some counted from the end. */
  dimensions(rank: number, count = this.int(1, Math.max(rank, 1))): number[] {
    const order = this.order(rank).slice(0, count)
    return order.map((dim) => (this.oneIn(3) ? dim - rank : dim))
  }

  /** The numbers from 0 on in a random order. */
  order(count: number): number[] {
    const left = Array.from({ length: count }, (_, i) => i)
    return Array.from({ length: count }, (_, i) => left.splice(this.int(0, count - 1 - i), 1)[0]!)
  }

  /** A tensor with any strides. */
  t(shape: readonly number[], content?: Content, dtype: DType = this.dtype): TensorSpec {
    const chosen = content ?? this.row.content ?? (this.oneIn(4) ? 'special' : 'normal')
    const spec = { dtype, shape, ...this.layout(shape), content: chosen, seed: this.seed() }
    return isComplex(dtype) && this.oneIn(6) ? { ...spec, conjugated: true } : spec
  }

  /** A tensor that the operator may keep up to date, and that has no gradient. */
  state(shape: readonly number[], content: Content): TensorSpec {
    return { ...this.t(shape, content), strides: contiguousStrides(shape), constant: true }
  }

  private layout(shape: readonly number[]): { strides: number[]; offset: number } {
    const offset = this.oneIn(5) ? this.int(1, 3) : 0
    if (this.oneIn(2) || shape.length === 0) return { strides: contiguousStrides(shape), offset }
    const order = this.oneIn(3) ? shape.map((_, i) => i) : this.order(shape.length)
    const strides = new Array<number>(shape.length).fill(0)
    let step = this.oneIn(4) ? 2 : 1
    for (const dim of order.reverse()) {
      strides[dim] = step
      step *= Math.max(shape[dim]!, 1) + (this.oneIn(8) ? 1 : 0)
    }
    if (!this.row.unexpanded && this.oneIn(8)) strides[this.int(0, shape.length - 1)] = 0
    return { strides, offset }
  }

  /** Indices from 0 up to `size`, some of them counted from the end where that is legal. */
  index(shape: readonly number[], size: number, negative = false): TensorSpec {
    return this.t(shape, size > 0 ? [negative && this.oneIn(2) ? -size : 0, size - 1] : [0, 0], 'int64')
  }

  /** A number for a place beside tensors of the dtype. */
  scalar(dtype: DType = this.dtype): Scalar {
    switch (this.int(1, 12)) {
      case 1: return this.oneIn(2)
      case 2: return this.pick([2n ** 53n + 1n, -(2n ** 62n) - 1n, 2n ** 63n + 1n, 5n])
      case 3: return this.pick([NaN, Infinity, -Infinity, -0, 1e300, 5e-324, 16777217, 2 ** 60])
      case 4: return this.complex()
      case 5: case 6: case 7: return this.int(-3, 4)
      default: return isComplex(dtype) ? this.complex() : isDifferentiable(dtype) ? this.float(-2, 3) : this.int(0, 5)
    }
  }

  /** A number without surprises: a fraction, or an integer where the dtype has no other. */
  plain(): number {
    return isDifferentiable(this.dtype) ? this.float(-1.5, 2) : this.int(-2, 4)
  }

  private complex(): Complex {
    return { re: this.float(-2, 2), im: this.float(-2, 2) }
  }
}
