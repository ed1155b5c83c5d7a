import type { Tensor } from './tensor.js'
import { isDType, type DType, type TypedArray } from './types.js'

const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER)

/** Eight bits: sign, exponent, fraction. Of the specials each format has its own. */
function byteToNumber(bits: number, fractionBits: number, bias: number): number {
  const sign = bits & 0x80 ? -1 : 1
  const exponent = (bits & 0x7f) >> fractionBits
  const fraction = (bits & ((1 << fractionBits) - 1)) / (1 << fractionBits)
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias))
}

const bytes: Partial<Record<DType, (bits: number) => number>> = {
  float8_e4m3fn: (bits) => ((bits & 0x7f) === 0x7f ? NaN : byteToNumber(bits, 3, 7)),
  // The upper half of a float16.
  float8_e5m2: (bits) => halfToNumber(bits << 8),
  float8_e4m3fnuz: (bits) => (bits === 0x80 ? NaN : byteToNumber(bits, 3, 8)),
  float8_e5m2fnuz: (bits) => (bits === 0x80 ? NaN : byteToNumber(bits, 2, 16))
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

const word = new Uint32Array(1)
const float = new Float32Array(word.buffer)

function brainToNumber(bits: number): number {
  word[0] = bits << 16
  return float[0]!
}

/** Reads element `i` of a dtype's typed array as a JavaScript value. */
function reader(dtype: DType, values: TypedArray): (i: number) => unknown {
  switch (dtype) {
    case 'bool':
      return (i) => values[i] !== 0
    case 'float16':
      return (i) => halfToNumber(values[i] as number)
    case 'bfloat16':
      return (i) => brainToNumber(values[i] as number)
    case 'int64':
    case 'uint64':
      return (i) => {
        const value = values[i] as bigint
        return value > MAX_SAFE || value < -MAX_SAFE ? value : Number(value)
      }
    case 'complex32':
      return (i) => ({ re: halfToNumber(values[2 * i] as number), im: halfToNumber(values[2 * i + 1] as number) })
    case 'complex64':
    case 'complex128':
      return (i) => ({ re: values[2 * i], im: values[2 * i + 1] })
    default: {
      const toNumber = bytes[dtype]
      return toNumber ? (i) => toNumber(values[i] as number) : (i) => values[i]
    }
  }
}

/** Nested arrays of a row-major typed array: the element itself for shape []. */
export function nest(dtype: DType, values: TypedArray, shape: readonly number[]): unknown {
  const read = reader(dtype, values)
  let next = 0
  const build = (dimension: number): unknown =>
    dimension === shape.length ? read(next++) : Array.from({ length: shape[dimension]! }, () => build(dimension + 1))
  return build(0)
}

const EDGE = 3
const SUMMARY_ABOVE = 1000

function formatNumber(value: unknown): string {
  if (typeof value !== 'number') {
    if (typeof value === 'object' && value !== null && 're' in value && 'im' in value) {
      return `${formatNumber(value.re)}${(value.im as number) < 0 ? '' : '+'}${formatNumber(value.im)}j`
    }
    return String(value)
  }
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
  return String(Number(value.toPrecision(5)))
}

/** `tensor([[1, 2], [3, 4]], float32, cpu)`: the values, with only the edges of a large tensor, then dtype and device. */
export function formatTensor(tensor: Tensor): string {
  const { shape, dtype, device } = tensor
  const size = shape.reduce((product, length) => product * length, 1)
  const tail = `${dtype}, ${device}${tensor.requiresGrad ? ', requiresGrad' : ''}`
  if (device === 'meta' || !isDType(dtype) || dtype.startsWith('float8')) return `tensor(..., shape [${shape.join(', ')}], ${tail})`
  const read = reader(dtype, tensor.toTypedArray())
  const summarise = size > SUMMARY_ABOVE
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, length) => product * length, 1))
  const print = (dimension: number, offset: number): string => {
    if (dimension === shape.length) return formatNumber(read(offset))
    const length = shape[dimension]!
    const at = (i: number) => print(dimension + 1, offset + i * strides[dimension]!)
    const indices = [...Array(length).keys()]
    const parts =
      summarise && length > 2 * EDGE ? [...indices.slice(0, EDGE).map(at), '...', ...indices.slice(-EDGE).map(at)] : indices.map(at)
    const separator = dimension === shape.length - 1 ? ', ' : `,${'\n'.repeat(shape.length - 1 - dimension)}${' '.repeat(8 + dimension)}`
    return `[${parts.join(separator)}]`
  }
  return `tensor(${print(0, 0)}, ${size === 0 || summarise ? `shape [${shape.join(', ')}], ` : ''}${tail})`
}
