import { expected } from '../errors.js'
import { fromBytes } from '../native/storage.js'
import { isTensor, withGrad } from './dispatch.js'
import type { Tensor } from './tensor.js'
import { arrayTypes, requireDType, requireDevice, type Complex, type DType, type Device, type Shape, type TypedArray } from './types.js'

/** Dtype, device and the like of a tensor that is made. PyTorch: `torch.empty`. */
export interface CreationOptions {
  readonly dtype?: DType
  readonly device?: Device
  readonly requiresGrad?: boolean
}

/** Numbers nested to any depth. */
export type NestedArray = number | bigint | boolean | Complex | readonly NestedArray[]

function check(options: CreationOptions): void {
  if (typeof options !== 'object' || options === null) throw expected('an object', 'options', options)
  if (options.dtype !== undefined) requireDType(options.dtype)
  if (options.device !== undefined) requireDevice(options.device)
}

function finish(tensor: Tensor, options: CreationOptions): Tensor {
  const { dtype, device, requiresGrad } = options
  const placed = dtype || device ? tensor.to({ ...(dtype && { dtype }), ...(device && { device }) }) : tensor
  // Where nothing changed `to` gives another object for the same tensor.
  if (placed !== tensor) tensor.dispose()
  return withGrad(placed, requiresGrad)
}

function dtypeOf(array: ArrayBufferView): DType {
  // The first dtype of each array type is the one whose elements the array shows as they are.
  for (const [dtype, type] of Object.entries(arrayTypes)) {
    if (dtype !== 'float16' && dtype !== 'bfloat16' && array instanceof type) return dtype as DType
  }
  if (array instanceof Uint8ClampedArray) return 'uint8'
  throw expected('a typed array', 'data', array)
}

/**
 * A tensor with a copy of a typed array's elements.
 *
 * @param array - Elements in row-major order.
 * @param shape - Sizes; default: one dimension.
 * @param options - `dtype` says what the elements are where the array's type leaves it open (`Uint16Array` with `bfloat16` or `float16`,
 *   `Uint8Array` with `bool`, `Float32Array` with `complex64`); otherwise they are converted.
 */
export function fromTypedArray(array: TypedArray | Uint8ClampedArray, shape?: Shape, options: CreationOptions = {}): Tensor {
  if (!ArrayBuffer.isView(array) || array instanceof DataView) throw expected('a typed array', 'data', array)
  check(options)
  const asIs = options.dtype && array instanceof arrayTypes[options.dtype] ? options.dtype : dtypeOf(array)
  const length = asIs.startsWith('complex') ? array.length / 2 : array.length
  const sizes = shape === undefined ? [length] : shape
  const legal = Array.isArray(sizes) && sizes.every((size) => Number.isSafeInteger(size) && size >= 0)
  if (!legal || sizes.reduce((product, size) => product * size, 1) !== length) {
    throw expected(`a shape for ${length} elements`, 'shape', sizes)
  }
  return finish(fromBytes(array, asIs, sizes) as Tensor, options)
}

// As in NumPy and libtorch. An array that holds itself has no end.
const MAX_DIMENSIONS = 64

function shapeOf(data: NestedArray): number[] {
  const shape: number[] = []
  for (let level: NestedArray | undefined = data; Array.isArray(level); level = (level as readonly NestedArray[])[0]) {
    shape.push((level as readonly NestedArray[]).length)
    if (shape.length > MAX_DIMENSIONS) throw expected(`at most ${MAX_DIMENSIONS} dimensions`, 'data', 'deeper nesting')
  }
  return shape
}

type Leaf = number | bigint | boolean | Complex

function flatten(data: NestedArray, shape: readonly number[], depth: number, leaves: Leaf[]): void {
  if (Array.isArray(data)) {
    const level = data as readonly NestedArray[]
    if (depth === shape.length || level.length !== shape[depth]) {
      throw expected(`nested arrays of one shape ([${shape.join(', ')}])`, 'data', `an array of length ${level.length} at depth ${depth}`)
    }
    for (const element of level) flatten(element, shape, depth + 1, leaves)
  } else if (depth !== shape.length) {
    throw expected(`nested arrays of one shape ([${shape.join(', ')}])`, 'data', data)
  } else {
    leaves.push(data as number)
  }
}

/**
 * The elements of nested arrays, row by row. That they are numbers is not looked at.
 *
 * @throws InputError if the nesting is ragged.
 */
export function leavesOf(data: NestedArray): { readonly shape: number[]; readonly leaves: Leaf[] } {
  const shape = shapeOf(data)
  const leaves: Leaf[] = []
  flatten(data, shape, 0, leaves)
  return { shape, leaves }
}

function toBigInt(leaf: number | bigint | boolean, dtype: DType): bigint {
  if (typeof leaf === 'number' && !Number.isInteger(leaf)) throw expected('integers', 'data', leaf)
  const integer = BigInt(leaf)
  // A typed array would wrap it around.
  const wrapped = dtype === 'int64' ? BigInt.asIntN(64, integer) : BigInt.asUintN(64, integer)
  if (wrapped !== integer) throw expected(`integers of ${dtype}`, 'data', leaf)
  return integer
}

const ranges: Partial<Record<DType, readonly [low: number, high: number]>> = {
  int8: [-(2 ** 7), 2 ** 7 - 1], int16: [-(2 ** 15), 2 ** 15 - 1], int32: [-(2 ** 31), 2 ** 31 - 1],
  uint8: [0, 2 ** 8 - 1], uint16: [0, 2 ** 16 - 1], uint32: [0, 2 ** 32 - 1]
}

// A conversion would wrap integers around, make anything at all of NaN and lose imaginary parts. Fractions are cut, as PyTorch does.
function checkRange(leaves: readonly unknown[], dtype: DType): void {
  const range = ranges[dtype]
  const real = !dtype.startsWith('complex') && dtype !== 'bool'
  for (const leaf of leaves) {
    if (real && isComplex(leaf)) throw expected(`real numbers for ${dtype}`, 'data', leaf)
    const number = range && Math.trunc(Number(leaf))
    if (range && !(number! >= range[0] && number! <= range[1])) throw expected(`integers of ${dtype}`, 'data', leaf)
  }
}

const isComplex = (value: unknown): value is Complex => typeof value === 'object' && value !== null && 're' in value && 'im' in value

/**
 * A tensor from a number, nested arrays or a typed array. Numbers become float32 (JavaScript has no integers), bigints int64, booleans bool,
 * `{ re, im }` complex64, unless `dtype` says otherwise. PyTorch: `torch.tensor`.
 *
 * @throws InputError if the nesting is ragged, or an element is no number or none of an integer `dtype`. Tensors are no elements: `stack`
 * joins them, on their device and for autograd.
 */
export function tensor(data: NestedArray | TypedArray, options: CreationOptions = {}): Tensor {
  if (ArrayBuffer.isView(data)) return fromTypedArray(data, undefined, options)
  check(options)
  const { shape, leaves } = leavesOf(data)
  for (const leaf of leaves) {
    if (isTensor(leaf)) throw expected('numbers (stack() and cat() join tensors)', 'data', leaf)
    if (!['number', 'bigint', 'boolean'].includes(typeof leaf) && !isComplex(leaf)) throw expected('numbers', 'data', leaf)
  }
  if (options.dtype) checkRange(leaves, options.dtype)
  const first = leaves[0]
  const wide = options.dtype === 'float64' || options.dtype === 'complex128'
  let values: TypedArray
  let dtype: DType
  if (leaves.some(isComplex)) {
    dtype = wide ? 'complex128' : 'complex64'
    values = new arrayTypes[dtype](leaves.flatMap((leaf) => (isComplex(leaf) ? [leaf.re, leaf.im] : [Number(leaf), 0])))
  } else if (leaves.some((leaf) => typeof leaf === 'bigint') || options.dtype === 'int64' || options.dtype === 'uint64') {
    dtype = options.dtype === 'uint64' ? 'uint64' : 'int64'
    values = new arrayTypes[dtype](leaves.map((leaf) => toBigInt(leaf as number | bigint | boolean, dtype)))
  } else if (typeof first === 'boolean' && leaves.every((leaf) => typeof leaf === 'boolean')) {
    values = Uint8Array.from(leaves as unknown as number[], Number)
    dtype = 'bool'
  } else {
    // float64 on the way to any other dtype, so that an int32 or float64 loses nothing.
    dtype = options.dtype && options.dtype !== 'float32' ? 'float64' : 'float32'
    values = dtype === 'float64' ? Float64Array.from(leaves as number[], Number) : Float32Array.from(leaves as number[], Number)
  }
  return finish(fromBytes(values, dtype, shape) as Tensor, options)
}
