import { expected } from '../errors.js'
import type { Tensor } from './tensor.js'

/** A number as operators take it. Whole numbers count as integers, so `intTensor.mul(2)` stays integer. */
export type Scalar = number | bigint | boolean | Complex

/** A complex number. */
export interface Complex {
  readonly re: number
  readonly im: number
}

/** For each dtype the typed array that holds its elements; 16-bit floats as raw bits, complex numbers as pairs. */
export const arrayTypes = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  complex32: Uint16Array,
  complex64: Float32Array,
  complex128: Float64Array,
  float8_e4m3fn: Uint8Array,
  float8_e5m2: Uint8Array,
  float8_e4m3fnuz: Uint8Array,
  float8_e5m2fnuz: Uint8Array,
  float8_e8m0fnu: Uint8Array,
  /** Two numbers in each element. */
  float4_e2m1fn_x2: Uint8Array
} as const

/** Element type of a tensor, by PyTorch's name. */
export type DType = keyof typeof arrayTypes

/** The arrays that a tensor can be made of and read into. */
export type TypedArray =
  | Float32Array | Float64Array | Int8Array | Int16Array | Int32Array | BigInt64Array | Uint8Array | Uint16Array | Uint32Array | BigUint64Array

/** Every dtype, by PyTorch's name. */
export const dtypes = Object.keys(arrayTypes) as DType[]

export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && Object.hasOwn(arrayTypes, value)
}

/** @throws InputError unless `value` names a dtype whose elements JavaScript can hold. */
export function requireDType(value: unknown, name = 'dtype'): DType {
  if (isDType(value)) return value
  throw expected(`a dtype (${dtypes.join(', ')})`, name, value)
}

/** Where a tensor's memory is: `cpu`, `cuda` (the current GPU, by default the first), `cuda:1`, `meta` (nowhere: shapes only). */
export type Device = 'cpu' | 'cuda' | `cuda:${number}` | 'meta'

export function isDevice(value: unknown): value is Device {
  return typeof value === 'string' && /^(cpu|meta|cuda(:\d+)?)$/.test(value)
}

/** @throws InputError unless `value` names a device. */
export function requireDevice(value: unknown, name = 'device'): Device {
  if (isDevice(value)) return value
  throw expected(`'cpu', 'cuda' or 'cuda:N'`, name, value)
}

/** A GPU: `cuda` is the current one. */
export type CudaDevice = Extract<Device, `cuda${string}`>

/** Whether a device is a GPU. */
export const isCudaDevice = (device: Device): device is CudaDevice => device.startsWith('cuda')

/** @throws InputError unless `value` names a GPU. */
export function requireCudaDevice(value: unknown, name = 'device'): CudaDevice {
  if (isDevice(value) && value.startsWith('cuda')) return value as CudaDevice
  throw expected(`'cuda' or 'cuda:N'`, name, value)
}

/** How the elements of a tensor are stored. PyTorch: `torch.layout`. */
export type Layout = 'strided' | 'sparse_coo' | 'sparse_csr' | 'sparse_csc' | 'sparse_bsr' | 'sparse_bsc' | 'jagged' | 'mkldnn'

/** The order of the dimensions in memory. PyTorch: `torch.memory_format`. */
export type MemoryFormat = 'contiguous' | 'preserve' | 'channels_last' | 'channels_last_3d'

export type { Generator } from './generator.js'

/** Sizes of the dimensions. */
export type Shape = readonly number[]

/** A tensor or a number. */
export type TensorOrScalar = Tensor | Scalar
