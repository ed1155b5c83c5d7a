import { open, type FileHandle } from 'node:fs/promises'
import { crc32 } from 'node:zlib'

import { expected, InputError } from '../errors.js'
import { Parameter } from '../nn/index.js'
import { call, empty, fromTypedArray, noGrad, operator, scope, type Device, type DType, type Tensor } from '../torch/index.js'
import { arrayTypes, requireDevice } from '../torch/types.js'
import { elementSize, readAt } from './bytes.js'
import { NumpyArray, swapBytes } from './pickle-numpy.js'
import { ForeignObject, PyDict, Refusal } from './pickle-values.js'
import { readArchive, type Archive, type Place } from './torch-file-archive.js'
import { TensorSpec, type StorageSpec } from './torch-file-tensors.js'

/** What of a file of PyTorch is read, and where to. */
export interface LoadTorchOptions {
  /** Where the tensors go, wherever they were when they were saved. Default: the CPU. */
  readonly device?: Exclude<Device, 'meta'>
  /** Python functions and classes that the file may call and that are read as inert data: `['pathlib.PosixPath']`. */
  readonly inert?: readonly string[]
}

/** What {@link inspectTorch} says of a tensor. */
export class TensorInfo {
  constructor(
    readonly dtype: DType, readonly shape: readonly number[], readonly strides: readonly number[],
    /** Where it was when it was saved. */
    readonly device: string, readonly requiresGrad: boolean
  ) {}
}

const view = operator('aten::view', 'dtype')
const negativeView = operator('aten::_neg_view')
const setStorage = operator('aten::set_', 'source_Tensor_storage_offset')

const CHUNK = 2 ** 22
// Python itself can save no deeper ones.
const MAX_DEPTH = 500
const MAX_MESSAGE = 1000

/**
 * What a dict, a list, ... of Python becomes here; the same object in two places stays the same, also where it holds itself.
 *
 * @param leaf - What becomes of tensors and arrays.
 */
function convert(root: unknown, leaf: (spec: TensorSpec | NumpyArray) => unknown): unknown {
  const done = new Map<unknown, unknown>()
  const walk = (value: unknown, depth: number): unknown => {
    if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
    if (done.has(value)) return done.get(value)
    if (depth > MAX_DEPTH) throw new Refusal(`its values are nested deeper than ${MAX_DEPTH} levels`)
    // Known before what it holds is looked at, because that may be itself.
    const become = <T>(made: T): T => {
      done.set(value, made)
      return made
    }
    const inside = (child: unknown) => walk(child, depth + 1)
    if (value instanceof TensorSpec || value instanceof NumpyArray) return become(leaf(value))
    if (Array.isArray(value)) {
      const list = become<unknown[]>([])
      for (const element of value as unknown[]) list.push(inside(element))
      return list
    }
    if (value instanceof Set) {
      const set = become(new Set())
      for (const element of value) set.add(inside(element))
      return set
    }
    if (value instanceof ForeignObject) {
      const object = become(new ForeignObject(value))
      object.args = value.args.map(inside)
      object.state = inside(value.state)
      object.items = inside(value.items)
      return object
    }
    if (!(value instanceof PyDict)) return value
    const { entries } = value
    if ([...entries.keys()].every((key) => typeof key === 'string')) {
      const object = become<Record<string, unknown>>({})
      for (const [key, element] of entries as Map<string, unknown>) {
        const made = inside(element)
        // An assignment to this name would change what the object is.
        if (key === '__proto__') Object.defineProperty(object, key, { value: made, enumerable: true, writable: true, configurable: true })
        else object[key] = made
      }
      return object
    }
    const map = become(new Map())
    for (const [key, element] of entries) map.set(inside(key), inside(element))
    return map
  }
  return walk(root, 0)
}

// The elements of NumPy's arrays lie in the pickle itself.
function fromNumpy({ dtype, shape, bytes, fortran }: NumpyArray, device: Device): Tensor {
  const sizes = fortran ? [...shape].reverse() : shape
  return scope(() => {
    const tensor = fromTypedArray(new arrayTypes[dtype](bytes.buffer), sizes, { dtype })
    return (fortran ? tensor.permute([...sizes.keys()].reverse()) : tensor).to(device)
  })
}

/** Bytes of elements in the other order: of complex numbers each half by itself. */
function swap(bytes: Uint8Array, { key, dtype }: StorageSpec): void {
  if (dtype === null) throw new Refusal(`the untyped storage '${key}' is of a big-endian machine: what its bytes mean is not known`)
  swapBytes(bytes, dtype.startsWith('complex') ? elementSize(dtype) / 2 : elementSize(dtype))
}

/** A storage's bytes as a tensor of uint8, by way of `buffer`. @throws Refusal if the file has changed or is damaged. */
async function readStorage(
  file: FileHandle, spec: StorageSpec, { position, checksum }: Place, bigEndian: boolean, device: Device, buffer: Uint8Array
): Promise<Tensor> {
  const { byteLength } = spec
  const base = empty([byteLength], { dtype: 'uint8' })
  try {
    let crc = 0
    for (let at = 0; at < byteLength; at += buffer.length) {
      const chunk = buffer.subarray(0, byteLength - at)
      const got = await readAt(file, chunk, position + at)
      if (got < chunk.length) throw new Refusal(`the data of storage '${spec.key}' end beyond the file`)
      if (checksum !== null) crc = crc32(chunk, crc)
      if (bigEndian) swap(chunk, spec)
      // In C++ a bool that is neither 0 nor 1 is undefined behaviour.
      if (spec.dtype === 'bool') for (let i = 0; i < chunk.length; i++) chunk[i] = Number(chunk[i] !== 0)
      noGrad(() => scope(() => void base.narrow(0, at, chunk.length).copy_(fromTypedArray(chunk))))
    }
    if (checksum !== null && crc !== checksum) throw new Refusal(`the data of storage '${spec.key}' are damaged: the checksum is another`)
    if (device === 'cpu') return base
    const moved = base.to(device)
    base.dispose()
    return moved
  } catch (error) {
    base.dispose()
    throw error
  }
}

/** A tensor in the memory of its storage, not a view of another tensor for autograd. */
function tensorOf(spec: TensorSpec, base: Tensor): Tensor {
  const { dtype, offset, shape, strides, requiresGrad, parameter } = spec
  const tensor = noGrad(() =>
    scope(() => {
      const size = elementSize(dtype)
      const elements = call<Tensor>(view, base.narrow(0, 0, Math.floor(spec.storage.byteLength / size) * size), dtype)
      const own = empty([0], { dtype, device: base.device })
      call(setStorage, own, elements, offset, shape, strides)
      const conjugated = spec.conjugate ? own.conj() : own
      const made = spec.negative ? call<Tensor>(negativeView, conjugated) : conjugated
      return parameter ? new Parameter(made, { requiresGrad }) : made
    })
  )
  return requiresGrad ? tensor.requiresGrad_() : tensor
}

function requireOptions(path: unknown, { device = 'cpu', inert = [] }: LoadTorchOptions): void {
  if (typeof path !== 'string') throw expected('a path', 'the file', path)
  if (requireDevice(device) === 'meta') throw expected(`'cpu', 'cuda' or 'cuda:N' (inspectTorch reads no data)`, 'device', device)
  if (!Array.isArray(inert) || !inert.every((name) => typeof name === 'string')) throw expected('names as in the error', 'inert', inert)
}

async function withArchive<T>(
  path: string, options: LoadTorchOptions, use: (archive: Archive, file: FileHandle) => T | Promise<T>
): Promise<T> {
  requireOptions(path, options)
  const file = await open(path, 'r')
  try {
    return await use(await readArchive(file, options.inert ?? []), file)
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    // Names in it are the file's: they may be long, and may hold what a terminal would obey.
    throw new InputError(`Cannot read '${path}': ${error.message.replace(/\p{Cc}/gu, '?').slice(0, MAX_MESSAGE)}`)
  } finally {
    await file.close()
  }
}

/**
 * Reads what Python's `torch.save` wrote. No code is executed: a file is data, and one that calls anything beyond the putting together of
 * tensors and plain data is refused, with the name of what it calls. PyTorch: `torch.load(weights_only=True)`.
 *
 * A dict whose keys are all texts becomes an object (in whose order, as in any object, keys like '7' come first), any other a `Map`; lists
 * and tuples become arrays, None null, bytes a `Uint8Array`, a complex number `{ re, im }`, an integer beyond 2^53 a bigint, a dtype or a
 * device its name, a set a `Set`, numbers of NumPy numbers and its arrays tensors. Instances of other classes become a
 * {@link ForeignObject}. Tensors of one memory share it here, with the strides that they had.
 *
 * @returns The saved object; for a state dict, tensors by name.
 * @throws InputError naming the file and what is wrong with it, before any tensor is allocated (damaged data: when they are read).
 */
export async function loadTorch<T = unknown>(path: string, options: LoadTorchOptions = {}): Promise<T> {
  return withArchive(path, options, async (archive, file) => {
    const { device = 'cpu' } = options
    // Once without tensors: what can be wrong with the object is found before anything is allocated.
    convert(archive.value, () => null)
    const bases = new Map<StorageSpec, Tensor>()
    const made: Tensor[] = []
    try {
      const buffer = new Uint8Array(CHUNK)
      for (const [spec, place] of archive.places) {
        bases.set(spec, await readStorage(file, spec, place, archive.bigEndian, device, buffer))
      }
      return convert(archive.value, (spec) => {
        const tensor = spec instanceof TensorSpec ? tensorOf(spec, bases.get(spec.storage)!) : fromNumpy(spec, device)
        made.push(tensor)
        return tensor
      }) as T
    } catch (error) {
      for (const tensor of made) tensor.dispose()
      throw error
    } finally {
      for (const base of bases.values()) base.dispose()
    }
  })
}

/** As {@link loadTorch}, without reading the tensors' data: a {@link TensorInfo} stands for each. */
export async function inspectTorch<T = unknown>(path: string, options: Omit<LoadTorchOptions, 'device'> = {}): Promise<T> {
  return withArchive(path, options, ({ value }) =>
    convert(value, (spec) => {
      if (spec instanceof NumpyArray) return new TensorInfo(spec.dtype, spec.shape, [], 'cpu', false)
      return new TensorInfo(spec.dtype, spec.shape, spec.strides, spec.storage.location, spec.requiresGrad)
    }) as T
  )
}
