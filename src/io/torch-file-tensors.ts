import { dtypes, type DType } from '../torch/index.js'
import { elementSize } from './bytes.js'
import { buildNumpy, numpyCallables } from './pickle-numpy.js'
import { pythonCallables } from './pickle-globals.js'
import { describeValue, ForeignName, PyDict, Refusal, type Callables } from './pickle-values.js'
import type { Context } from './pickle.js'

/** Names of PyTorch's typed storages. Younger dtypes have none: their bytes are untyped and the tensor says what they are. */
export const storageNames: Readonly<Partial<Record<DType, string>>> = {
  float64: 'DoubleStorage', float32: 'FloatStorage', float16: 'HalfStorage', bfloat16: 'BFloat16Storage', int64: 'LongStorage',
  int32: 'IntStorage', int16: 'ShortStorage', int8: 'CharStorage', uint8: 'ByteStorage', bool: 'BoolStorage',
  complex64: 'ComplexFloatStorage', complex128: 'ComplexDoubleStorage'
}

const dtypesByStorage = new Map<string, DType | null>([
  ...Object.entries(storageNames).flatMap(([dtype, name]) =>
    ['torch.', 'torch.cuda.', 'torch.storage.'].map((module) => [module + name, dtype as DType] as const)
  ),
  ['torch.storage.UntypedStorage', null],
  ['torch.storage._UntypedStorage', null],
  ['torch.UntypedStorage', null]
])

/** A piece of memory of a file, that several tensors may lie in. Nothing is read yet. */
export interface StorageSpec {
  /** Its name in the file. */
  readonly key: string
  /** What its elements are; null for plain bytes. */
  readonly dtype: DType | null
  readonly byteLength: number
  /** Where it was when it was saved: `cpu`, `cuda:0`. */
  readonly location: string
}

/** A tensor of a file: a view of a storage. All of it is checked, nothing of it is read yet. */
export class TensorSpec {
  requiresGrad = false
  /** A `torch.nn.Parameter`. */
  parameter = false
  conjugate = false
  negative = false

  /** Offset and strides in elements. @throws Refusal unless it lies within its storage. */
  constructor(
    readonly storage: StorageSpec, readonly dtype: DType, readonly offset: number, readonly shape: readonly number[],
    readonly strides: readonly number[]
  ) {
    const where = `a tensor of ${dtype} [${shape.join(', ')}] in storage '${storage.key}'`
    // As libtorch counts them, for strides: without the zeros.
    const count = shape.reduce((product, size) => product * (size || 1), 1)
    if (!Number.isSafeInteger(count)) throw new Refusal(`${where} has more elements than can be counted`)
    if (storage.dtype !== null && storage.dtype !== dtype) throw new Refusal(`${where} takes its ${storage.dtype} for ${dtype}`)
    // Its bytes would have to be made legal, and other tensors may see them as something else.
    if (storage.dtype === null && dtype === 'bool') throw new Refusal(`${where}, which is untyped`)
    const room = Math.floor(storage.byteLength / elementSize(dtype))
    const last = shape.reduce((end, size, i) => end + (size - 1) * strides[i]!, offset)
    const beyond = shape.includes(0) ? offset > room : last >= room
    if (beyond) throw new Refusal(`${where} reaches beyond its end: offset ${offset}, strides [${strides.join(', ')}], ${room} elements`)
  }
}

const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
const isCounts = (value: unknown): value is number[] => Array.isArray(value) && value.length <= 64 && value.every(isCount)

/** Collects the storages that a file's pickle refers to. */
export class StorageList {
  readonly #byKey = new Map<string, StorageSpec>()

  /** Those met so far, by key. */
  get all(): ReadonlyMap<string, StorageSpec> {
    return this.#byKey
  }

  /** What a persistent id stands for: ('storage', class, key, location, number of elements[, view]). */
  persistent(id: unknown): unknown {
    if (typeof id === 'string') throw new Refusal('its tensors are in protocol 0, which PyTorch cannot read either; save them with protocol 2')
    if (!Array.isArray(id)) throw new Refusal(`its pickle refers to ${describeValue(id)}, which is no storage`)
    const [kind, type, key, location, count, view] = id as unknown[]
    // A class with its source code, as old files of whole modules have them.
    if (kind === 'module') return type
    if (kind !== 'storage' || !(type instanceof ForeignName)) {
      throw new Refusal(`its pickle refers to ${describeValue(kind)}, which is no storage`)
    }
    const dtype = dtypesByStorage.get(type.path)
    if (dtype === undefined) throw new Refusal(`it has a storage of the type '${type.path}', which is not supported${remedyFor(type.name)}`)
    const name = typeof key === 'number' ? String(key) : key
    if (typeof name !== 'string' || typeof location !== 'string' || !isCount(count)) {
      throw new Refusal('its pickle has an illegal reference to a storage')
    }
    if (view != null) throw new Refusal('it has storages within storages, as PyTorch before 0.4 wrote; save it again with a current one')
    const spec: StorageSpec = { key: name, dtype, byteLength: count * (dtype ? elementSize(dtype) : 1), location }
    if (!Number.isSafeInteger(spec.byteLength)) throw new Refusal(`storage '${name}' has more bytes than can be counted`)
    const known = this.#byKey.get(name)
    if (known && (known.dtype !== dtype || known.byteLength !== spec.byteLength)) {
      throw new Refusal(`storage '${name}' has two descriptions that contradict each other`)
    }
    if (!known) this.#byKey.set(name, spec)
    return known ?? spec
  }

  has(value: unknown): value is StorageSpec {
    return value !== undefined && this.#byKey.get((value as StorageSpec | null)?.key ?? '') === value
  }
}

const remedyFor = (name: string) => (/^Q/.test(name) ? ': dequantize() its tensors before they are saved' : '')

// Calls that make tensors of kinds that are not read, with what to do about it.
const remedies: Readonly<Record<string, string>> = {
  _rebuild_sparse_tensor: 'sparse tensors are not read: to_dense() them before they are saved',
  _rebuild_sparse_csr_tensor: 'sparse tensors are not read: to_dense() them before they are saved',
  _rebuild_qtensor: 'quantized tensors are not read: dequantize() them before they are saved',
  _rebuild_nested_tensor: 'nested tensors are not read: unbind() them before they are saved',
  _rebuild_meta_tensor_no_storage: 'it has a tensor on the device meta, which has no data',
  _rebuild_device_tensor_from_numpy: 'tensors of this device are not read: move them to the CPU before they are saved',
  _rebuild_device_tensor_from_cpu_tensor: 'tensors of this device are not read: move them to the CPU before they are saved'
}

function tensorOf(storages: StorageList, args: readonly unknown[], name: ForeignName, dtype: unknown): TensorSpec {
  const [storage, offset, shape, strides] = args
  const legal = storages.has(storage) && isCount(offset) && isCounts(shape) && isCounts(strides) && shape.length === strides.length
  const known = dtypes.find((candidate) => candidate === dtype)
  if (!legal || !known) {
    throw new Refusal(`its pickle calls '${name.path}' with illegal arguments (${args.slice(0, 4).map(describeValue).join(', ')})`)
  }
  return new TensorSpec(storage, known, offset, shape, strides)
}

// Bits that are applied when a tensor is used, not in its memory.
function setMetadata(spec: TensorSpec, metadata: unknown): void {
  if (!(metadata instanceof PyDict)) return
  spec.conjugate = metadata.entries.get('conj') === true
  spec.negative = metadata.entries.get('neg') === true
}

function setRequiresGrad(spec: TensorSpec, requiresGrad: unknown): void {
  if (requiresGrad === true && !/float|complex/.test(spec.dtype)) throw new Refusal(`it has a tensor of ${spec.dtype} that requires grad`)
  spec.requiresGrad = requiresGrad === true
}

/** The calls by which PyTorch's tensors are put together. */
function tensorCallables(storages: StorageList): Callables {
  const storageDType = (args: readonly unknown[]) => (storages.has(args[0]) ? args[0].dtype : null)
  const rebuild = (args: readonly unknown[], name: ForeignName) => tensorOf(storages, args, name, storageDType(args))
  const rebuild2 = (args: readonly unknown[], name: ForeignName) => {
    const spec = rebuild(args, name)
    setRequiresGrad(spec, args[4])
    setMetadata(spec, args[6])
    return spec
  }
  const rebuild3 = (args: readonly unknown[], name: ForeignName) => {
    const spec = tensorOf(storages, args, name, args[6])
    setRequiresGrad(spec, args[4])
    setMetadata(spec, args[7])
    return spec
  }
  const parameter = ([data, requiresGrad = true]: readonly unknown[], name: ForeignName) => {
    if (!(data instanceof TensorSpec)) throw new Refusal(`its pickle calls '${name.path}' with ${describeValue(data)} for a tensor`)
    setRequiresGrad(data, requiresGrad)
    data.parameter = true
    return data
  }
  const callables = new Map<string, (args: readonly unknown[], name: ForeignName) => unknown>([
    ['torch._utils._rebuild_tensor', rebuild],
    ['torch._utils._rebuild_tensor_v2', rebuild2],
    ['torch._utils._rebuild_tensor_v3', rebuild3],
    ['torch._utils._rebuild_parameter', parameter],
    ['torch._utils._rebuild_parameter_with_state', parameter],
    ['torch.nn.parameter.Parameter', parameter],
    ['torch.Size', (args, name) => pythonCallables.get('builtins.tuple')!(args, name)],
    ['torch.device', (args) => args.filter((part) => typeof part === 'string' || typeof part === 'number').join(':')],
    ['torch.serialization._get_layout', ([layout]) => (typeof layout === 'string' ? layout.replace(/^torch\./, '') : null)]
  ])
  // A tensor with attributes, or of a subclass: the tensor counts.
  callables.set('torch._tensor._rebuild_from_type_v2', ([callee, , args], name) => {
    const inner = callee instanceof ForeignName ? callables.get(callee.path) : undefined
    if (!inner || !Array.isArray(args)) {
      throw new Refusal(`its pickle calls '${name.path}' with ${describeValue(callee)}, which is not allowed`)
    }
    return inner(args as unknown[], callee as ForeignName)
  })
  for (const [name, remedy] of Object.entries(remedies)) {
    callables.set(`torch._utils.${name}`, () => {
      throw new Refusal(remedy)
    })
  }
  return callables
}

const constants = new Map<string, unknown>(
  [...dtypes, 'strided', 'sparse_coo', 'contiguous_format', 'channels_last', 'preserve_format'].map((name) => [`torch.${name}`, name])
)

/** What a pickle of PyTorch may name and call. @param inert - Further names that may be called, and give inert data. */
export function torchContext(storages: StorageList, inert: readonly string[]): Context {
  return {
    callables: new Map([...pythonCallables, ...numpyCallables, ...tensorCallables(storages)]),
    constants,
    inert: new Set(inert),
    persistent: (id) => storages.persistent(id),
    // Attributes of a tensor are not read.
    build: (value, state) => value instanceof TensorSpec || buildNumpy(value, state)
  }
}

