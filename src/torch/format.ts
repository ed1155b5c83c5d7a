import type { DType, TypedArray } from './types.js'

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
  float8_e5m2fnuz: (bits) => (bits === 0x80 ? NaN : byteToNumber(bits, 2, 16)),
  float8_e8m0fnu: (bits) => (bits === 0xff ? NaN : 2 ** (bits - 127))
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
export function reader(dtype: DType, values: TypedArray): (i: number) => unknown {
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
