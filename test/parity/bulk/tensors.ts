import { randomFor } from '../../../src/data/random.js'
import * as torch from '../../../src/torch/index.js'
import type { DType, Tensor } from '../../../src/torch/index.js'
import { arrayTypes } from '../../../src/torch/types.js'

/**
 * What the elements are: ordinary numbers; those with extreme ones among them; 0.1 to 3; 0.05 to 0.95; square matrices with a strong
 * diagonal,
 * also Hermitian; rows in ascending order; each number from 0 on once; integers of a range, both ends included.
 */
export type Content =
  | 'normal' | 'special' | 'positive' | 'unit' | 'dominant' | 'definite' | 'sorted' | 'permutation' | readonly [low: number, high: number]

/** A tensor as both sides make it: values from a seed, written into memory by size, stride and offset. */
export interface TensorSpec {
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly strides: readonly number[]
  readonly offset: number
  readonly content: Content
  readonly seed: number
  /** No gradient is asked of it; what the operator leaves in it is compared. */
  readonly constant?: boolean
  /** Of complex numbers: a view that is conjugated when it is read. */
  readonly conjugated?: boolean
}

export const isSpec = (value: unknown): value is TensorSpec => typeof value === 'object' && value !== null && 'strides' in value

export const isComplex = (dtype: DType): boolean => dtype.startsWith('complex')
export const isFloat = (dtype: DType): boolean => dtype.includes('float')
export const isDifferentiable = (dtype: DType): boolean => isFloat(dtype) || isComplex(dtype)

const product = (sizes: readonly number[]): number => sizes.reduce((total, size) => total * size, 1)

export const contiguousStrides = (shape: readonly number[]): number[] =>
  shape.map((_, i) => shape.slice(i + 1).reduce((total, size) => total * Math.max(size, 1), 1))

/** Elements of memory that the tensor spans. */
export const storageLength = ({ shape, strides, offset }: TensorSpec): number =>
  product(shape) === 0 ? offset : offset + 1 + shape.reduce((last, size, i) => last + (size - 1) * strides[i]!, 0)

const bits: Partial<Record<DType, number>> = { int8: 8, int16: 16, int32: 32, int64: 64, uint8: 8, uint16: 16, uint32: 32, uint64: 64 }

function extremes(dtype: DType): readonly (number | bigint)[] {
  if (dtype === 'bool') return [0, 1]
  const width = bits[dtype]
  if (width !== undefined) {
    const signed = !dtype.startsWith('u')
    const top = 2n ** BigInt(signed ? width - 1 : width) - 1n
    return [signed ? -top - 1n : 0n, top, 0n, 1n, ...(width === 64 ? [2n ** 53n + 1n, -(2n ** 53n) - 1n, 2n ** 62n] : [])]
  }
  const [largest, smallest, subnormal] = dtype === 'float16' ? [65504, 6.1e-5, 6e-8] : ['float64', 'complex128'].includes(dtype)
    ? [1.7e308, 2.3e-308, 5e-324]
    : [3.38e38, 1.2e-38, 1e-40]
  return [NaN, Infinity, -Infinity, 0, -0, 1, -1, 0.5, -0.5, 2, largest, -largest, smallest, subnormal, -subnormal]
}

type Next = () => number

function ordinary(dtype: DType, content: Content, next: Next): number {
  if (typeof content !== 'string') return content[0] + Math.floor(next() * (content[1] - content[0] + 1))
  if (dtype === 'bool') return Math.floor(next() * 2)
  const whole = !isDifferentiable(dtype)
  if (content === 'positive') return whole ? 1 + Math.floor(next() * 5) : 0.1 + 2.9 * next()
  if (content === 'unit') return whole ? Math.floor(next() * 2) : 0.05 + 0.9 * next()
  if (whole) return Math.floor(next() * (dtype.startsWith('u') ? 12 : 19)) - (dtype.startsWith('u') ? 0 : 9)
  // Sum of three: bell-shaped enough, and without the logarithm's rare giants.
  return 2 * (next() + next() + next() - 1.5)
}

/** Values of a square matrix, or a batch of them: random, with a diagonal that outweighs its row. */
function matrices(values: number[], shape: readonly number[], hermitian: 1 | -1 | 0, diagonal: number): void {
  const n = shape.at(-1) ?? 1
  if (shape.length < 2 || shape.at(-2) !== n) return
  values.forEach((value, at) => {
    const [row, column] = [Math.floor(at / n) % n, at % n]
    if (row === column) values[at] = diagonal === 0 ? (hermitian === -1 ? 0 : value) : value * 0.2 + 2 * n * diagonal
    else if (hermitian && row > column) values[at] = hermitian * values[at - (row - column) * (n - 1)]!
  })
}

/** One real number for each element, row-major; the imaginary parts are drawn in a second pass. */
function reals({ dtype, shape, content }: TensorSpec, next: Next, imaginary: boolean): (number | bigint)[] {
  const count = product(shape)
  if (content === 'special') {
    const list = extremes(dtype)
    return Array.from({ length: count }, () => (next() < 0.35 ? list[Math.floor(next() * list.length)]! : ordinary(dtype, 'normal', next)))
  }
  const values = Array.from({ length: count }, () => ordinary(dtype, content, next))
  if (content === 'dominant') matrices(values, shape, 0, imaginary ? 0 : 1)
  if (content === 'definite') matrices(values, shape, imaginary ? -1 : 1, imaginary ? 0 : 1)
  if (content === 'sorted') {
    const width = shape.at(-1) ?? 1
    for (let at = 0; at < count; at += width) values.splice(at, width, ...values.slice(at, at + width).sort((a, b) => a - b))
  }
  if (content === 'permutation') {
    const order = values.map((_, i) => [next(), i] as const).sort((a, b) => a[0] - b[0])
    return order.map(([, i]) => i)
  }
  return values
}

const word = new Uint32Array(1)
const single = new Float32Array(word.buffer)

// By cutting, not rounding: which number of a dtype it is does not matter, and nothing of the addon is needed.
function toBfloat16(value: number): number {
  single[0] = value
  return Number.isNaN(value) ? 0x7fc0 : word[0]! >>> 16
}

function toFloat16(value: number): number {
  if (Number.isNaN(value)) return 0x7e00
  single[0] = value
  const sign = (word[0]! >>> 16) & 0x8000
  const exponent = ((word[0]! >>> 23) & 0xff) - 112
  if (exponent >= 31) return sign | 0x7c00
  if (exponent <= 0) return sign | Math.min(0x3ff, Math.floor(Math.abs(value) * 2 ** 24))
  return sign | (exponent << 10) | ((word[0]! >>> 13) & 0x3ff)
}

/** The memory of a tensor: what lies between its elements is 1. */
export function memoryOf(spec: TensorSpec): InstanceType<(typeof arrayTypes)[DType]> {
  const { dtype, shape, strides, offset } = spec
  const { uniform } = randomFor(spec.seed)
  const next = () => uniform()
  const width = isComplex(dtype) ? 2 : 1
  const encode = (value: number | bigint): number | bigint => {
    if (dtype === 'int64' || dtype === 'uint64') return BigInt(value)
    return dtype === 'bfloat16' ? toBfloat16(Number(value)) : dtype === 'float16' ? toFloat16(Number(value)) : Number(value)
  }
  const memory = new arrayTypes[dtype](storageLength(spec) * width)
  memory.fill(encode(1) as never)
  const parts = Array.from({ length: width }, (_, part) => reals(spec, next, part === 1))
  const steps = contiguousStrides(shape)
  for (let at = 0; at < product(shape); at++) {
    const place = shape.reduce((sum, size, i) => sum + (Math.floor(at / steps[i]!) % size) * strides[i]!, offset)
    parts.forEach((part, i) => void (memory[place * width + i] = encode(part[at]!) as never))
  }
  return memory
}

/** The tensor itself: a view of its memory, so that stride and offset are the given ones. */
export function materialise(spec: TensorSpec): Tensor {
  const base = torch.fromTypedArray(memoryOf(spec), [storageLength(spec)], { dtype: spec.dtype })
  const tensor = base.asStrided(spec.shape, spec.strides, { storageOffset: spec.offset })
  return spec.conjugated ? tensor.conj() : tensor
}
