import { Readable } from 'node:stream'
import { ZipFile } from 'yazl'

import { expected, InputError } from '../errors.js'
import { storage } from '../native/storage.js'
import { Parameter } from '../nn/index.js'
import { call, isTensor, noGrad, operator, scope, type DType, type Tensor } from '../torch/index.js'
import { isDType } from '../torch/types.js'
import { writeAtomic } from './atomic.js'
import { elementSize, writeAll } from './bytes.js'
import { Name, Persistent, Pickler, Reduced, Tuple } from './pickle-writer.js'
import { storageNames } from './torch-file-tensors.js'

const viewAs = operator('aten::view', 'dtype')
const asStrided = operator('aten::as_strided')
const storageOffset = operator('aten::storage_offset')

const orderedDict = new Name('collections', 'OrderedDict')

const CHUNK = 2 ** 22
const ROOT = 'archive/'

/** A piece of memory that is written once, however many tensors lie in it. */
interface SavedStorage {
  /** Its record in the archive. */
  readonly record: string
  readonly dtype: string
  /** All of it, as bytes. */
  readonly bytes: Tensor
  readonly byteLength: number
  readonly reference: Persistent
}

/**
 * Names records so that their bytes begin at multiples of 64, as PyTorch's do: then a file can be mapped into memory, and a GPU can read it
 * directly. PyTorch fills up with a field of the record's header, which the library has not; here the number in the name has zeros before
 * it. That is why the records `.format_version` and `.storage_alignment` are not written: they promise PyTorch's own arithmetic of places.
 */
class RecordNames {
  static readonly #header = 30
  static readonly #longest = 0xfffffffe
  /** Where the next record's header begins. */
  #position = 0

  next(index: number, byteLength: number): string {
    const prefix = `${ROOT}data/`
    const shortest = RecordNames.#header + prefix.length + String(index).length
    const padding = (64 - ((this.#position + shortest) % 64)) % 64
    const key = '0'.repeat(padding) + index
    // After the bytes of a record that is written as a stream come its checksum and lengths.
    const long = byteLength > RecordNames.#longest || this.#position > RecordNames.#longest
    this.#position += shortest + padding + byteLength + (long ? 24 : 16)
    return key
  }
}

/** What is written of an object: the pickle, and the memory that its tensors lie in. */
class TensorPickler {
  readonly storages: SavedStorage[] = []
  readonly #byIdentity = new Map<number, SavedStorage>()
  readonly #names = new RecordNames()
  /** Copies of tensors that are not in memory as they seem. */
  readonly #owned: Tensor[] = []

  dump(value: unknown): Buffer {
    return new Pickler((object, path) => this.#reduce(object, path)).dump(value, 'value')
  }

  dispose(): void {
    for (const tensor of this.#owned) tensor.dispose()
  }

  #reduce(value: object, path: string): Reduced | undefined {
    if (isTensor(value)) return this.#tensor(value, path)
    // As the state dict of a module in Python: some readers tell it by its type.
    const entries = Object.entries(value)
    const isPlain = Object.getPrototypeOf(value) === Object.prototype
    const isState = isPlain && entries.length > 0 && entries.every(([, element]) => isTensor(element))
    return isState ? new Reduced(orderedDict, [], entries) : undefined
  }

  #own(make: () => Tensor): Tensor {
    const tensor = noGrad(() => scope(make))
    this.#owned.push(tensor)
    return tensor
  }

  #tensor(tensor: Tensor, path: string): Reduced {
    const { dtype } = tensor
    if (!isDType(dtype)) throw new InputError(`Cannot save ${path}: a tensor of ${String(dtype)}; dequantize() it before`)
    if (tensor.device === 'meta') throw new InputError(`Cannot save ${path}: a tensor on the device meta, which has no data`)
    // A complex number's conjugate, say, may be a mark and not yet done.
    const plain = this.#own(() => tensor.detach().resolveConj().resolveNeg())
    const { reference } = this.#storage(plain, dtype, path)
    const place = [reference, call<number>(storageOffset, plain), new Tuple(plain.shape), new Tuple(plain.strides)]
    // As `state_dict` in Python, which gives the values of parameters alone.
    const requiresGrad = tensor.requiresGrad && !(tensor instanceof Parameter)
    const hooks = new Reduced(orderedDict, [])
    const rebuild = (version: string, ...more: unknown[]) =>
      new Reduced(new Name('torch._utils', `_rebuild_tensor_${version}`), [...place, requiresGrad, hooks, ...more])
    return storageNames[dtype] ? rebuild('v2') : rebuild('v3', new Name('torch', dtype))
  }

  #storage(tensor: Tensor, dtype: DType, path: string): SavedStorage {
    let identity: number
    let bytes: number
    try {
      ;[identity, bytes] = storage(tensor)
    } catch {
      throw new InputError(`Cannot save ${path}: a tensor that is not dense; toDense() it before`)
    }
    const known = this.#byIdentity.get(identity)
    if (known) {
      if (known.dtype === dtype) return known
      throw new InputError(`Cannot save ${path}: a view as ${dtype} of what another tensor sees as ${known.dtype}; clone() one of them`)
    }
    const index = this.storages.length
    const size = elementSize(dtype)
    const length = Math.floor(bytes / size)
    const byteLength = length * size
    const key = this.#names.next(index, byteLength)
    const type = storageNames[dtype]
    const [module, name, count] = type ? ['torch', type, length] : ['torch.storage', 'UntypedStorage', byteLength]
    const saved: SavedStorage = {
      record: `${ROOT}data/${key}`,
      dtype,
      byteLength,
      bytes: this.#own(() => {
        const all = call<Tensor>(asStrided, tensor, [length], [1], 0)
        return call<Tensor>(viewAs, all, 'uint8')
      }),
      reference: new Persistent(new Tuple(['storage', new Name(module, name), key, tensor.device, count]))
    }
    this.storages.push(saved)
    this.#byIdentity.set(identity, saved)
    return saved
  }
}

async function* chunksOf({ bytes }: SavedStorage): AsyncGenerator<Uint8Array> {
  const length = bytes.shape[0]!
  for (let at = 0; at < length; at += CHUNK) {
    const chunk = noGrad(() => bytes.narrow(0, at, Math.min(CHUNK, length - at)))
    try {
      yield (await chunk.toTypedArrayAsync()) as Uint8Array
    } finally {
      chunk.dispose()
    }
  }
}

const RECORD = { compress: false, mtime: new Date(1980, 0, 1), forceDosTimestamp: true } as const

function archive(pickle: Buffer, storages: readonly SavedStorage[]): Readable {
  const zip = new ZipFile()
  const output = zip.outputStream as Readable
  zip.on('error', (error: Error) => output.destroy(error))
  for (const saved of storages) {
    zip.addReadStreamLazy(saved.record, { ...RECORD, size: saved.byteLength }, (done) => {
      const stream = Readable.from(chunksOf(saved), { objectMode: false })
      stream.on('error', (error) => output.destroy(error))
      done(null, stream)
    })
  }
  const add = (name: string, content: Buffer) => zip.addBuffer(content, ROOT + name, RECORD)
  add('data.pkl', pickle)
  add('byteorder', Buffer.from('little'))
  add('version', Buffer.from('3\n'))
  zip.end()
  return output
}

/**
 * Writes what Python's `torch.load` reads, with `weights_only` or without, also mapped (`mmap=True`). Written piece by piece, atomically;
 * leave the tensors as they are until it is done. PyTorch: `torch.save`.
 *
 * An object becomes a dict (one of tensors alone an OrderedDict, like PyTorch's state dicts), a `Map` a dict with its keys as they are, an
 * array a list, a `Set` a set, a `Uint8Array` bytes, `{ re, im }` a complex number, null None; numbers without a fraction and bigints
 * become int, others float. Tensors that share memory share it in the file, which then holds all of it: `clone()` a small part of a large
 * tensor before. A Parameter becomes a plain tensor, as in a state dict of Python.
 *
 * @throws InputError naming what cannot be saved, before the file is touched.
 */
export async function saveTorch(path: string, value: unknown): Promise<void> {
  if (typeof path !== 'string') throw expected('a path', 'the file', path)
  const pickler = new TensorPickler()
  try {
    const pickle = pickler.dump(value)
    await writeAtomic(path, async (file) => {
      for await (const chunk of archive(pickle, pickler.storages)) await writeAll(file, chunk as Uint8Array)
    })
  } finally {
    pickler.dispose()
  }
}
