import { rm, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join, normalize } from 'node:path'

import { expected, InputError } from '../errors.js'
import { call, isTensor, keep, noGrad, operator, scope, type DType, type Tensor } from '../torch/index.js'
import { requireDType } from '../torch/types.js'
import { writeTogether, type Writing } from './atomic.js'
import { indexOf, isShardOf, readIndex, shardOf } from './safetensors-files.js'
import { CHUNK, elementSize, writeAll } from './bytes.js'
import { countElements, requireMetadata, requireWritable, writeHeader } from './safetensors-header.js'
import { requirePath } from './safetensors.js'

const version = operator('aten::_version')

/** A tensor that is made when its turn comes to be written, and freed afterwards. */
export interface LazyTensor {
  readonly dtype: DType
  readonly shape: readonly number[]
  /** Makes the tensor, of this dtype and shape. */
  readonly make: () => Tensor | Promise<Tensor>
}

/** Into how many files tensors are written, and whether they may change meanwhile. */
export interface SaveOptions {
  /**
   * Writes several files of at most so many bytes of tensors (a longer tensor has a file of its own) and their index, as Hugging Face does:
   * `model-00001-of-00003.safetensors`, `model.safetensors.index.json`. One file if all fit into it.
   */
  readonly maxShardBytes?: number
  /**
   * Copies all tensors into host memory before anything is written, so that a training step may change them while this function works.
   * Without it they must stay as they are until it is done; a change is an error, as far as libtorch counts it (fused optimizers and
   * replayed CUDA graphs change weights without counting). Default false.
   */
  readonly snapshot?: boolean
}

interface Item {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly bytes: number
  readonly source: Tensor | LazyTensor
  /** Libtorch's count of in-place operations on the tensor. */
  readonly version: number | undefined
}

const versionOf = (tensor: Tensor) => (tensor.isInference() ? undefined : call<number>(version, tensor))

function toItem(name: string, source: unknown): Item {
  const lazy = !isTensor(source) && typeof (source as LazyTensor | null)?.make === 'function'
  if (!lazy && !isTensor(source)) throw expected('a Tensor or { dtype, shape, make }', `tensor '${name}'`, source)
  const { dtype, shape } = source as Tensor | LazyTensor
  if (lazy) {
    requireDType(dtype, `the dtype of '${name}'`)
    const sizes = Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 0)
    if (!sizes || Number.isNaN(countElements(shape))) throw expected('sizes', `the shape of '${name}'`, shape)
  } else if ((source as Tensor).device === 'meta') {
    throw new InputError(`Tensor '${name}' cannot be written: it is on the device meta and has no elements`)
  }
  requireWritable(name, dtype, shape)
  const bytes = countElements(shape) * elementSize(dtype)
  return { name, dtype, shape, bytes, source: source as Tensor | LazyTensor, version: lazy ? undefined : versionOf(source as Tensor) }
}

function toShards(items: readonly Item[], maxBytes: number): Item[][] {
  const shards: Item[][] = [[]]
  let size = 0
  for (const item of items) {
    if (size + item.bytes > maxBytes && shards.at(-1)!.length > 0) {
      shards.push([])
      size = 0
    }
    shards.at(-1)!.push(item)
    size += item.bytes
  }
  // Widest elements first, as the reference implementation writes them: every tensor is aligned for readers that map the file.
  for (const shard of shards) shard.sort((a, b) => elementSize(b.dtype) - elementSize(a.dtype))
  return shards
}

function requireUnchanged(items: readonly Item[]): void {
  for (const { name, source, version } of items) {
    if (version === undefined || versionOf(source as Tensor) === version) continue
    const remedy = 'wait for saveSafetensors(), or give it { snapshot: true }'
    throw new InputError(`Tensor '${name}' was changed while the file was being written: ${remedy}`)
  }
}

async function writeTensor(file: FileHandle, { name, dtype, shape }: Item, tensor: Tensor): Promise<void> {
  if (tensor.dtype !== dtype || String(tensor.shape) !== String(shape)) {
    throw expected(`${dtype} [${shape.join(', ')}]`, `tensor '${name}'`, `${tensor.dtype} [${tensor.shape.join(', ')}]`)
  }
  const bytes = scope(() => noGrad(() => {
    const plain = tensor.detach().toDense().resolveConj().resolveNeg().contiguous()
    return plain.flatten().view('uint8')
  }))
  try {
    const length = bytes.numel()
    for (let start = 0; start < length; start += CHUNK) {
      const slice = bytes.narrow(0, start, Math.min(CHUNK, length - start))
      try {
        await writeAll(file, (await slice.toTypedArrayAsync()) as Uint8Array)
      } finally {
        slice.dispose()
      }
    }
  } finally {
    bytes.dispose()
  }
}

async function writeItem(file: FileHandle, item: Item): Promise<void> {
  const { name, source } = item
  if (isTensor(source)) return writeTensor(file, item, source)
  const tensor = await source.make()
  if (!isTensor(tensor)) throw expected('a Tensor', `what make() gives for '${name}'`, tensor)
  try {
    await writeTensor(file, item, tensor)
  } finally {
    tensor.dispose()
  }
}

// The files that an earlier call with this path left and this one did not write. Nothing else is touched.
async function earlierFiles(path: string, written: readonly string[]): Promise<string[]> {
  const index = await readIndex(indexOf(path)).catch(() => new Map<string, string>())
  const shards = [...new Set(index.values())].map((name) => join(dirname(path), name)).filter((file) => isShardOf(file, path))
  return [indexOf(path), path, ...shards].filter((file) => !written.includes(file))
}

/**
 * Writes tensors as a safetensors file: one at a time and in pieces, so that there is no second copy of them in memory, and atomically:
 * what stood there before stays until all is on disk, and if that fails.
 *
 * @param tensors - Any device and layout; written in row-major order. A {@link LazyTensor} is made when its turn comes.
 * @param metadata - Strings for the header.
 * @throws InputError if the format cannot hold a tensor or the metadata are no strings, before the file is touched; also if a tensor is
 *   changed in place before the file is complete (see `snapshot`).
 */
export async function saveSafetensors(
  path: string, tensors: Readonly<Record<string, Tensor | LazyTensor>>, metadata: Readonly<Record<string, string>> = {},
  options: SaveOptions = {}
): Promise<void> {
  requirePath(path)
  path = normalize(path)
  if (typeof tensors !== 'object' || tensors === null) throw expected('tensors by name', 'tensors', tensors)
  requireMetadata(metadata)
  if (typeof options !== 'object' || options === null) throw expected('an object', 'options', options)
  const { maxShardBytes, snapshot = false } = options
  if (maxShardBytes !== undefined && !(Number.isSafeInteger(maxShardBytes) && maxShardBytes > 0)) {
    throw expected('a positive integer', 'maxShardBytes', maxShardBytes)
  }
  if (typeof snapshot !== 'boolean') throw expected('true or false', 'snapshot', snapshot)
  const items = Object.entries(tensors).map(([name, source]) => toItem(name, source))
  const copies = snapshot ? items.map((item) => (isTensor(item.source) ? copied(item, item.source) : item)) : items
  try {
    const shards = toShards(copies, maxShardBytes ?? Infinity)
    const files: Writing[] = shards.map((shard, i) => {
      const header = writeHeader(shard, metadata)
      const write = async (file: FileHandle) => {
        await writeAll(file, header)
        for (const item of shard) await writeItem(file, item)
        requireUnchanged(copies)
      }
      return { path: shards.length > 1 ? shardOf(path, i + 1, shards.length) : path, write }
    })
    if (shards.length > 1) {
      const map = shards.flatMap((shard, i) => shard.map(({ name }) => [name, basename(files[i]!.path)] as const))
      map.sort(([a], [b]) => (a < b ? -1 : 1))
      const index = { metadata: { total_size: items.reduce((sum, { bytes }) => sum + bytes, 0) }, weight_map: Object.fromEntries(map) }
      files.push({ path: indexOf(path), write: (file) => file.writeFile(`${JSON.stringify(index, null, 2)}\n`) })
    }
    const earlier = maxShardBytes === undefined ? [] : await earlierFiles(path, files.map(({ path }) => path))
    await writeTogether(files)
    for (const file of earlier) await rm(file, { force: true })
  } finally {
    if (snapshot) for (const { source } of copies) if (isTensor(source)) source.dispose()
  }
}

function copied(item: Item, tensor: Tensor): Item {
  const copy = keep(scope(() => tensor.detach().to({ device: 'cpu', copy: true })))
  return { ...item, source: copy, version: versionOf(copy) }
}
