import { inspect } from 'node:util'

import { expected } from '../errors.js'
import * as autograd from '../native/autograd.js'
import { operator, call } from '../native/dispatch.js'
import * as storage from '../native/storage.js'
import { setTensorClass } from '../native/tensor-handle.js'
import { requireStream, type Stream } from './cuda-streams.js'
import type { NestedArray } from './creation.js'
import { nest } from './format.js'
import * as indexing from './indexing.js'
import { mH, mT, matrixH } from './ops/index.js'
import { TensorMethods } from './ops/methods.generated.js'
import { printTensor } from './print.js'
import {
  arrayTypes, isDType, isDevice, requireDType, type DType, type Device, type Layout, type MemoryFormat, type TypedArray
} from './types.js'
import { unique, type UniqueOptions } from './unique.js'

const recordStreamOperator = operator('aten::record_stream')
const toOperator = operator('aten::to', 'dtype_layout')

/** How a tensor is brought to another device or dtype. PyTorch: `Tensor.to`. */
export interface ToOptions {
  readonly dtype?: DType
  readonly device?: Device
  /** Do not wait for a copy between pinned host memory and a GPU. */
  readonly nonBlocking?: boolean
  /** Copy even where nothing changes. */
  readonly copy?: boolean
  readonly memoryFormat?: MemoryFormat
}

/**
 * A tensor of libtorch: n-dimensional, of one dtype, on one device, differentiable. Every ATen operator with a `self` argument is a method.
 * Made inside a `scope` it is freed at the scope's end, else by `dispose`, `using`, or when its object is collected.
 */
export class Tensor extends TensorMethods {
  /** Sizes of the dimensions. */
  get shape(): number[] {
    return storage.shape(this)
  }

  /** Steps between neighbours along each dimension, in elements. */
  get strides(): number[] {
    return storage.strides(this)
  }

  /** Number of dimensions. */
  get ndim(): number {
    return storage.shape(this).length
  }

  /** The sizes of all dimensions, or that of one; negative: from the end. PyTorch: `Tensor.size`. */
  size(): number[]
  size(dim: number): number
  size(dim?: number): number[] | number {
    const { shape } = this
    if (dim === undefined) return shape
    const size = Number.isInteger(dim) ? shape.at(dim) : undefined
    if (size === undefined) throw expected(`a dimension of ${shape.length}`, 'size()', dim)
    return size
  }

  /** Bytes of one element. */
  elementSize(): number {
    return storage.elementSize(this)
  }

  /** Bytes of all elements, also where they share memory as those of an expanded tensor do. */
  get nbytes(): number {
    return storage.byteLength(this)
  }

  /** True for a tensor in the memory of a GPU. */
  get isCuda(): boolean {
    return this.device.startsWith('cuda')
  }

  /**
   * Says that the tensor's memory is in use on `stream` besides the one it was made on: once freed, it is not given to another tensor before
   * that stream has done what it has now. For tensors of a GPU. PyTorch: `Tensor.record_stream`.
   */
  recordStream(stream: Stream): void {
    call<void>(recordStreamOperator, this, requireStream(stream))
  }

  get dtype(): DType {
    return storage.dtype(this) as DType
  }

  get device(): Device {
    return storage.device(this) as Device
  }

  /** How the elements are kept. PyTorch: `Tensor.layout`. */
  get layout(): Layout {
    return storage.layout(this) as Layout
  }

  /** True if the elements lie in row-major order without gaps. */
  get isContiguous(): boolean {
    return storage.isContiguous(this)
  }

  /** Whether operations on this tensor are recorded for `backward`. */
  get requiresGrad(): boolean {
    return autograd.requiresGrad(this)
  }

  set requiresGrad(value: boolean) {
    autograd.setRequiresGrad(this, value)
  }

  /** Sets {@link requiresGrad} and returns the tensor. */
  requiresGrad_(value = true): this {
    autograd.setRequiresGrad(this, value)
    return this
  }

  /** True for tensors that no recorded operation made: gradients accumulate in these. */
  get isLeaf(): boolean {
    return autograd.isLeaf(this)
  }

  /** The accumulated gradient, or null. A new object at each access. */
  get grad(): Tensor | null {
    return autograd.gradient(this) as Tensor | null
  }

  set grad(value: Tensor | null) {
    autograd.setGradient(this, value)
  }

  /** Makes `backward` keep the gradient of a tensor that is no leaf. */
  retainGrad(): void {
    autograd.retainGrad(this)
  }

  /** Replaces the tensor's memory by that of `data`, unseen by autograd. PyTorch: `tensor.data = ...`. */
  setData(data: Tensor): void {
    autograd.setData(this, data)
  }

  /**
   * Accumulates the gradient of this tensor into the leaves it depends on. PyTorch: `Tensor.backward`.
   *
   * @param gradient - Gradient with respect to this tensor, of its shape. Not needed for a single element.
   */
  backward(gradient?: Tensor, options: Omit<autograd.GradOptions, 'allowUnused'> = {}): void {
    autograd.backward([this], gradient ? [gradient] : undefined, options)
  }

  /** The tensor with another dtype, on another device or both; itself if nothing changes. PyTorch: `Tensor.to`. */
  to(target: DType | Device | ToOptions): Tensor {
    let options: ToOptions
    if (isDType(target)) options = { dtype: target }
    else if (isDevice(target)) options = { device: target }
    else if (typeof target === 'object' && target !== null && !Array.isArray(target)) options = target
    else throw expected('a dtype, a device or { dtype, device }', 'the target of to()', target)
    const { dtype, device, nonBlocking, copy, memoryFormat } = options
    return call<Tensor>(toOperator, this, dtype, undefined, device, undefined, nonBlocking, copy, memoryFormat)
  }

  /** In the memory of the CPU: the tensor itself if it is there, else a copy. PyTorch: `Tensor.cpu`. */
  cpu(): Tensor {
    return this.to('cpu')
  }

  /** In the memory of a GPU (default: the current one): the tensor itself if it is there, else a copy. PyTorch: `Tensor.cuda`. */
  cuda(index?: number): Tensor {
    return this.to(index === undefined ? 'cuda' : `cuda:${index}`)
  }

  /** As float32; itself if it is. */
  float(): Tensor {
    return this.to('float32')
  }

  /** As float64; itself if it is. */
  double(): Tensor {
    return this.to('float64')
  }

  /** As float16; itself if it is. */
  half(): Tensor {
    return this.to('float16')
  }

  /** As bfloat16; itself if it is. */
  bfloat16(): Tensor {
    return this.to('bfloat16')
  }

  /** As int64; itself if it is. */
  long(): Tensor {
    return this.to('int64')
  }

  /** As int32; itself if it is. */
  int(): Tensor {
    return this.to('int32')
  }

  /** As int16; itself if it is. */
  short(): Tensor {
    return this.to('int16')
  }

  /** As int8; itself if it is. */
  char(): Tensor {
    return this.to('int8')
  }

  /** As uint8; itself if it is. */
  byte(): Tensor {
    return this.to('uint8')
  }

  /** As bool; itself if it is. */
  bool(): Tensor {
    return this.to('bool')
  }

  /** The value of a tensor with one element. An integer beyond 2^53 is a bigint. Waits for the device. */
  item(): number {
    // Typed as number for convenience: what is neither float nor a safe integer is rare, and documented above.
    return storage.item(this) as number
  }

  /** As {@link item}, without blocking the event loop while the device works. */
  async itemAsync(): Promise<number> {
    if (this.shape.some((size) => size !== 1)) throw expected('a tensor with one element', 'itemAsync()', `shape [${this.shape.join(', ')}]`)
    const dtype = requireDType(this.dtype, 'the dtype of itemAsync()')
    const values = nest(dtype, new arrayTypes[dtype](await storage.toBytesAsync(this)), [1]) as number[]
    return values[0]!
  }

  /** A copy of the elements, row-major, in the typed array of the dtype; 16-bit floats as raw bits, complex numbers as pairs. */
  toTypedArray(): TypedArray {
    return new arrayTypes[requireDType(this.dtype, 'the dtype of toTypedArray()')](storage.toBytes(this))
  }

  /** As {@link toTypedArray}, without blocking the event loop while the device works. */
  async toTypedArrayAsync(): Promise<TypedArray> {
    const dtype = requireDType(this.dtype, 'the dtype of toTypedArrayAsync()')
    return new arrayTypes[dtype](await storage.toBytesAsync(this))
  }

  /** The elements as nested arrays of numbers; an integer beyond 2^53 is a bigint, a complex number `{ re, im }`. */
  toArray(): unknown {
    return nest(this.dtype, this.toTypedArray(), this.shape)
  }

  /** The matrix transposed: dimensions in reverse order. */
  get T(): Tensor {
    return this.permute([...this.shape.keys()].reverse())
  }

  /** The last two dimensions exchanged: each matrix of a batch transposed. */
  get mT(): Tensor {
    return mT(this)
  }

  /** As {@link mT}, and the conjugate. */
  get mH(): Tensor {
    return mH(this)
  }

  /** A matrix transposed and conjugated. */
  get H(): Tensor {
    return matrixH(this)
  }

  /**
   * A part of the tensor. Python's `x[0, 1:5, None, mask]` is `x.at(0, slice(1, 5), null, mask)`.
   *
   * With integers, slices, null and ellipsis alone the result is a view that shares the tensor's memory. With a mask or an index tensor it
   * is a copy: index tensors broadcast with each other, and their dimensions take the place of the indexed ones, or come first where other
   * dimensions lie between them. PyTorch: `Tensor.__getitem__`.
   *
   * @throws InputError for too many indices, one that is out of range, a mask of another shape, or what is no index.
   */
  at(...indices: readonly indexing.Index[]): Tensor {
    return indexing.at(this, indices)
  }

  /**
   * Writes `value` into a part of the tensor and returns the tensor. Python's `x[0, mask] = value` is `x.setAt([0, mask], value)`.
   *
   * @param indices - As for {@link at}.
   * @param value - A tensor, a number or nested arrays, converted to the tensor's dtype and broadcast to the shape of the part.
   * @throws InputError as {@link at}, or if complex values are given for a real tensor.
   */
  setAt(indices: readonly indexing.Index[], value: Tensor | NestedArray | TypedArray): this {
    indexing.setAt(this, indices, value)
    return this
  }

  /** The different elements: see the function `unique`. PyTorch: `Tensor.unique`. */
  unique(options?: UniqueOptions): [values: Tensor, inverse: Tensor, counts: Tensor] {
    return unique(this, options)
  }

  /** The rows: views along the first dimension, all made at once. PyTorch: `Tensor.__iter__`. */
  [Symbol.iterator](): IterableIterator<Tensor> {
    if (this.ndim === 0) throw expected('a tensor of at least one dimension', 'iteration', 'one of no dimensions')
    return this.unbind()[Symbol.iterator]()
  }

  /** The text that PyTorch prints. Large tensors are shown by their edges; see `setPrintOptions`. */
  override toString(): string {
    return printTensor(this)
  }

  /** How Node shows it. @internal */
  [inspect.custom](depth: number): object {
    const text = !this.isLive ? 'Tensor (disposed)' : depth < 0 ? '[Tensor]' : this.toString()
    // As an object, whose lines are indented to where it stands, which those of a string are not.
    return { [inspect.custom]: () => text }
  }
}

setTensorClass(Tensor)
