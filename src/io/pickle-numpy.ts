import type { DType } from '../torch/index.js'
import { describeValue, type ForeignName, Refusal, type Callables } from './pickle-values.js'

/** Element type of NumPy. */
class NumpyDType {
  constructor(readonly dtype: DType, readonly size: number, public bigEndian: boolean) {}
}

/** An array of NumPy: its bytes in this machine's order, row by row or (`fortran`) column by column. */
export class NumpyArray {
  dtype: DType = 'float64'
  shape: readonly number[] = [0]
  bytes = new Uint8Array()
  fortran = false
}

// NumPy's letters for kind and size.
const dtypes: Readonly<Record<string, DType>> = {
  b1: 'bool', i1: 'int8', i2: 'int16', i4: 'int32', i8: 'int64', u1: 'uint8', u2: 'uint16', u4: 'uint32', u8: 'uint64',
  f2: 'float16', f4: 'float32', f8: 'float64', c8: 'complex64', c16: 'complex128'
}

/** Reverses the bytes of each element of `width` bytes, in place. */
export function swapBytes(bytes: Uint8Array, width: number): void {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (width === 2) buffer.swap16()
  else if (width === 4) buffer.swap32()
  else if (width === 8) buffer.swap64()
}

const refuse = (what: string): never => {
  throw new Refusal(`its pickle has ${what}`)
}

function makeDType(args: readonly unknown[]): NumpyDType {
  const [code] = args
  const [, order, letters] = /^([<>|=]?)([a-zA-Z]\d+)$/.exec(String(code)) ?? []
  const dtype = letters !== undefined && Object.hasOwn(dtypes, letters) ? dtypes[letters] : undefined
  if (!dtype) return refuse(`an array of the NumPy type ${describeValue(code)}, for which there is no tensor; save its tolist()`)
  return new NumpyDType(dtype, Number(letters!.slice(1)), order === '>')
}

const requireDType = (value: unknown): NumpyDType =>
  value instanceof NumpyDType ? value : refuse(`${describeValue(value)} for a NumPy type`)

function native(bytes: Uint8Array, { dtype, size, bigEndian }: NumpyDType): Uint8Array {
  const own = bytes.slice()
  if (bigEndian) swapBytes(own, dtype.startsWith('complex') ? size / 2 : size)
  return own
}

function makeScalar(args: readonly unknown[]): unknown {
  const [dtype, bytes] = [requireDType(args[0]), args[1]]
  if (!(bytes instanceof Uint8Array) || bytes.length !== dtype.size) return refuse('a NumPy number without its bytes')
  const view = Buffer.from(native(bytes, dtype))
  const wide = (value: bigint) => (Number.isSafeInteger(Number(value)) ? Number(value) : value)
  const readers: Partial<Record<DType, () => unknown>> = {
    bool: () => view[0] !== 0, int8: () => view.readInt8(), int16: () => view.readInt16LE(), int32: () => view.readInt32LE(),
    int64: () => wide(view.readBigInt64LE()), uint8: () => view[0], uint16: () => view.readUInt16LE(), uint32: () => view.readUInt32LE(),
    uint64: () => wide(view.readBigUInt64LE()), float32: () => view.readFloatLE(), float64: () => view.readDoubleLE(),
    complex64: () => ({ re: view.readFloatLE(), im: view.readFloatLE(4) }),
    complex128: () => ({ re: view.readDoubleLE(), im: view.readDoubleLE(8) })
  }
  return (readers[dtype.dtype] ?? (() => refuse(`a NumPy number of ${dtype.dtype}`)))()
}

const isShape = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= 64 && value.every((size) => typeof size === 'number' && Number.isSafeInteger(size) && size >= 0)

function fill(array: NumpyArray, shape: unknown, type: unknown, fortran: boolean, bytes: unknown): NumpyArray {
  const dtype = requireDType(type)
  if (!isShape(shape)) return refuse('a NumPy array without a legal shape')
  if (!(bytes instanceof Uint8Array) || bytes.length !== shape.reduce((product, size) => product * size, dtype.size)) {
    return refuse('a NumPy array whose bytes do not fit its shape')
  }
  return Object.assign(array, { dtype: dtype.dtype, shape, fortran, bytes: native(bytes, dtype) })
}

// NumPy 2 has moved its core.
const both = (name: string, callable: (args: readonly unknown[], name: ForeignName) => unknown) =>
  ['numpy.core.', 'numpy._core.'].map((prefix) => [prefix + name, callable] as const)

/** Calls that numbers and arrays of NumPy make: metrics in a checkpoint are often such. */
export const numpyCallables: Callables = new Map([
  ['numpy.dtype', makeDType],
  ...both('multiarray.scalar', makeScalar),
  ...both('multiarray._reconstruct', () => new NumpyArray()),
  ...both('numeric._frombuffer', (args) => fill(new NumpyArray(), args[2], args[1], args[3] === 'F', args[0]))
])

/** The states that NumPy's types and arrays are set. */
export function buildNumpy(value: unknown, state: unknown): boolean {
  if (value instanceof NumpyDType) {
    value.bigEndian = (state as unknown[] | null)?.[1] === '>'
    return true
  }
  if (!(value instanceof NumpyArray)) return false
  const [, shape, dtype, fortran, bytes] = Array.isArray(state) ? (state as unknown[]) : []
  fill(value, shape, dtype, fortran === true, bytes)
  return true
}
