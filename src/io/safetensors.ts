import { expected, InputError } from '../errors.js'
import { call, empty, fromTypedArray, operator, scope, type DType, type Device, type Tensor } from '../torch/index.js'
import { requireDevice } from '../torch/types.js'
import { withFiles, type OpenFile } from './safetensors-files.js'
import { CHUNK, elementSize, readAt } from './bytes.js'
import type { Entry } from './safetensors-header.js'

const fromFile = operator('aten::from_file')
const useMemoryOf = operator('aten::set_', 'source_Tensor_storage_offset')

/** Tensors and metadata of a safetensors file. */
export interface SafetensorsFile {
  readonly tensors: Record<string, Tensor>
  readonly metadata: Readonly<Record<string, string>>
}

/** Which tensors of a safetensors file are read, and how. */
export interface LoadOptions {
  /** Which tensors to read: their names, all of which must be there, or a choice. Default: all. */
  readonly names?: readonly string[] | ((name: string) => boolean)
  /** Where the tensors go. Default `cpu`. */
  readonly device?: Device
  /**
   * Maps the file into memory instead of reading it: nothing is copied, pages come from the disk when they are used, and the system may
   * take them back. Writing into a tensor never changes the file. The file must not be shortened or written over while a tensor of it
   * lives, or the process may end (SIGBUS), which is why this is a choice; replacing it by another file of its name, as `saveSafetensors`
   * does, is harmless. A tensor that is not aligned in the file, and one of bools, is copied. Default false.
   */
  readonly map?: boolean
}

// The tensor whose elements are in `bytes`, a tensor of uint8, from `start` on. It uses that memory where it can, and it is no view of it:
// in-place operations on one tensor of a file are none on the others.
function tensorAt(bytes: Tensor, start: number, { dtype, shape, start: first, end }: Entry): Tensor {
  return scope(() => {
    const own = () => bytes.narrow(0, start, end - first)
    // Any byte may be in a file; in libtorch a bool is 0 or 1.
    if (dtype === 'bool') return own().ne(0).reshape(shape)
    const aligned = start % elementSize(dtype) === 0
    const offset = aligned ? start / elementSize(dtype) : 0
    return call<Tensor>(useMemoryOf, empty([0], { dtype }), aligned ? bytes : own().clone(), offset, shape)
  })
}

async function readTensor({ path, file, header }: OpenFile, entry: Entry, buffer: Uint8Array): Promise<Tensor> {
  const length = entry.end - entry.start
  const bytes = empty([length], { dtype: 'uint8' })
  try {
    for (let done = 0; done < length; done += buffer.length) {
      const part = buffer.subarray(0, length - done)
      if ((await readAt(file, part, header.bytes.length + entry.start + done)) < part.length) {
        throw new InputError(`${path} ends within tensor '${entry.name}': it was changed while it was read`)
      }
      scope(() => {
        bytes.narrow(0, done, part.length).copy_(fromTypedArray(part))
      })
    }
    return tensorAt(bytes, 0, entry)
  } finally {
    bytes.dispose()
  }
}

function mapFile({ path, header }: OpenFile): Tensor {
  const size = header.bytes.length + (header.entries.at(-1)?.end ?? 0)
  const bytes = call<Tensor>(fromFile, path, false, size, 'uint8')
  const head = scope(() => bytes.narrow(0, 0, header.bytes.length).toTypedArray())
  if (Buffer.compare(head as Uint8Array, header.bytes) === 0) return bytes
  bytes.dispose()
  throw new InputError(`${path} was replaced while it was opened`)
}

function place(tensor: Tensor, device: Device | undefined): Tensor {
  if (device === undefined || tensor.device === device) return tensor
  try {
    return tensor.to(device)
  } finally {
    tensor.dispose()
  }
}

function chooser(names: LoadOptions['names'], path: string, files: readonly OpenFile[]): (name: string) => boolean {
  if (names === undefined) return () => true
  if (typeof names === 'function') return names
  if (!Array.isArray(names)) throw expected('a list of names or a function', 'names', names)
  const wanted = new Set<unknown>(names)
  const there = new Set<unknown>(files.flatMap(({ header }) => header.entries.map(({ name }) => name)))
  const missing = [...wanted].filter((name) => !there.has(name))
  if (missing.length) throw new InputError(`${path} has no tensor '${missing.slice(0, 10).map(String).join(`', '`)}'`)
  return (name) => wanted.has(name)
}

function metadataOf(files: readonly OpenFile[]): Record<string, string> {
  return Object.fromEntries(files.flatMap(({ header }) => Object.entries(header.metadata)))
}

/**
 * Reads tensors from a safetensors file, in the file's order.
 *
 * @param path - A file, the index of one that is written in shards (`model.safetensors.index.json`), or a folder with either.
 * @throws InputError naming the file and what is wrong, before any tensor is allocated: an illegal header, an index that does not fit its
 *   files, a tensor that is not there.
 */
export async function loadSafetensors(path: string, options: LoadOptions = {}): Promise<SafetensorsFile> {
  requirePath(path)
  if (typeof options !== 'object' || options === null) throw expected('an object', 'options', options)
  const { names, device, map = false } = options
  if (device !== undefined) requireDevice(device)
  if (typeof map !== 'boolean') throw expected('true or false', 'map', map)
  return withFiles(path, async (files) => {
    const chosen = chooser(names, path, files)
    const selected = files.map((file) => file.header.entries.filter(({ name }) => chosen(name)))
    const longest = Math.max(0, ...selected.map((entries) => entries.reduce((most, { start, end }) => Math.max(most, end - start), 0)))
    const buffer = new Uint8Array(map ? 0 : Math.min(CHUNK, longest))
    const tensors: [string, Tensor][] = []
    try {
      for (const [i, file] of files.entries()) {
        const entries = selected[i]!
        const whole = map && entries.length > 0 ? mapFile(file) : undefined
        try {
          for (const entry of entries) {
            const tensor = whole ? tensorAt(whole, file.header.bytes.length + entry.start, entry) : await readTensor(file, entry, buffer)
            tensors.push([entry.name, place(tensor, device)])
          }
        } finally {
          whole?.dispose()
        }
      }
    } catch (error) {
      for (const [, tensor] of tensors) tensor.dispose()
      throw error
    }
    return { tensors: Object.fromEntries(tensors), metadata: metadataOf(files) }
  })
}

/** Reads only the header: names, dtypes, shapes, metadata. Takes what {@link loadSafetensors} takes. */
export async function inspectSafetensors(path: string): Promise<{
  readonly metadata: Readonly<Record<string, string>>
  readonly tensors: Record<string, { dtype: DType; shape: readonly number[] }>
}> {
  requirePath(path)
  return withFiles(path, (files) => {
    const tensors = files.flatMap(({ header }) => header.entries.map(({ name, dtype, shape }) => [name, { dtype, shape }] as const))
    return Promise.resolve({ metadata: metadataOf(files), tensors: Object.fromEntries(tensors) })
  })
}

/** @throws InputError unless `path` is a string. */
export function requirePath(path: unknown): void {
  if (typeof path !== 'string' || path === '') throw expected('a path', 'a safetensors file', path)
}
