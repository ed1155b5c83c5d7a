import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { constants, gunzip, gunzipSync } from 'node:zlib'
import { expected } from '../errors.js'
import { chooseSplit, type MemorySource, type SplitFiles } from './memory.js'
import type { OpenOptions } from './source.js'

/** The content of one IDX file: `data` in row-major order, one byte per element. */
export interface IdxArray {
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

/**
 * Reads an IDX file of unsigned bytes, gzipped or not (told by its first bytes, not by its name).
 *
 * @param file - Path.
 * @param dimensions - How many the file must have: 3 for images [N, H, W], 1 for labels [N].
 * @throws InputError that names the file: it cannot be read, another magic number, fewer or more bytes than its header promises, a
 * damaged gzip stream.
 */
export async function readIdx(file: string, dimensions: number): Promise<IdxArray> {
  const name = `the IDX file '${file}'`
  const stored = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    throw expected('a readable file', name, error.code)
  })
  const gzipped = stored[0] === 0x1f && stored[1] === 0x8b
  const start = gzipped ? partOfGzip(stored.subarray(0, 4096), name) : stored
  const header = 4 + 4 * dimensions
  const magic = 0x800 + dimensions
  if (start.length < 4) throw expected('at least 4 bytes', name, start.length)
  if (start.readUInt32BE(0) !== magic) throw expected(`the magic number ${hex(magic)} (unsigned bytes)`, name, hex(start.readUInt32BE(0)))
  if (start.length < header) throw expected(`a header of ${header} bytes`, name, start.length)
  const shape = Array.from({ length: dimensions }, (_, axis) => start.readUInt32BE(4 + 4 * axis))
  const total = shape.reduce((product, length) => product * length, 1) + header
  const promised = `${total} bytes (${shape.join(' x ')} and a header of ${header})`
  const content = gzipped ? await unpack(stored, total, promised, name) : stored
  if (content.length !== total) throw expected(promised, name, content.length)
  return { shape, data: content.subarray(header) }
}

const hex = (value: number): string => `0x${value.toString(16).padStart(8, '0')}`

const gunzipAsync = promisify(gunzip) as unknown as (
  bytes: Uint8Array,
  options: { maxOutputLength: number; info: true }
) => Promise<{ buffer: Buffer; engine: { bytesWritten: number } }>

/** Unpacks at most one byte more than the header promises, so that a small file cannot fill the memory. */
async function unpack(stored: Buffer, total: number, promised: string, name: string): Promise<Buffer> {
  try {
    const { buffer, engine } = await gunzipAsync(stored, { maxOutputLength: Math.min(total + 1, constants.Z_MAX_CHUNK), info: true })
    // zlib passes over zeros after the end of the stream; other bytes it takes for another stream.
    const rest = stored.length - engine.bytesWritten
    if (rest > 0) throw expected('nothing after the end of the gzip stream', name, `${rest} bytes more`)
    return buffer
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ERR_BUFFER_TOO_LARGE') throw expected(promised, name, 'more bytes')
    if (code === 'Z_BUF_ERROR') throw expected(promised, name, `a gzip stream cut short after ${partOfGzip(stored, name).length} bytes`)
    throw damaged(error, name)
  }
}

/** As much as can be unpacked of a gzip stream that is not whole. */
function partOfGzip(bytes: Uint8Array, name: string): Buffer {
  try {
    return gunzipSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH })
  } catch (error) {
    throw damaged(error, name)
  }
}

function damaged(error: unknown, name: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  return code?.startsWith('Z_') ? expected('an intact gzip stream', name, message) : error
}

interface IdxPair extends SplitFiles {
  readonly images: readonly [string]
  readonly labels: string | null
}

/** `train-images-idx3-ubyte.gz`, `t10k-labels-idx1-ubyte`, `images-idx3-ubyte.gz`, and the same with a dot as some copies have it. */
const namePattern = /^((?:train|t10k|test)-)?(images[-.]idx3|labels[-.]idx1)-ubyte(?:\.gz)?$/

/** The pairs of image and label files that lie directly in a folder, by their names. */
export async function findIdxPairs(folder: string): Promise<IdxPair[]> {
  // Sorted: an unpacked file comes before its gzipped copy and is taken.
  const names = (await readdir(folder)).sort()
  const find = (prefix: string, kind: string): string | undefined =>
    names.find((name) => {
      const match = namePattern.exec(name)
      return match !== null && (match[1] ?? '') === prefix && match[2]!.startsWith(kind)
    })
  return ['', 'train-', 't10k-', 'test-'].flatMap((prefix) => {
    const images = find(prefix, 'images')
    const split = prefix === '' ? null : prefix === 'train-' ? 'train' : 'test'
    return images === undefined ? [] : [{ split, images: [images], labels: find(prefix, 'labels') ?? null }]
  })
}

/**
 * Opens the IDX files of a folder: grey images. Of several image files, `split` says which ({@link chooseSplit}).
 *
 * @returns null if there is no image file by such a name.
 * @throws InputError for a split that is not there, a damaged file, as many labels as there are not images, an empty set.
 */
export async function openIdx(folder: string, { split }: Pick<OpenOptions, 'split'> = {}): Promise<MemorySource | null> {
  const pairs = await findIdxPairs(folder)
  if (pairs.length === 0) return null
  const pair = chooseSplit(pairs, split, folder, 'IDX')
  const file = join(folder, pair.images[0])
  const { shape, data: images } = await readIdx(file, 3)
  const [length, height, width] = shape as [number, number, number]
  if (length === 0 || height === 0 || width === 0) throw expected('at least one image of one pixel', `the IDX file '${file}'`, shape)
  const labels = pair.labels === null ? null : (await readIdx(join(folder, pair.labels), 1)).data
  if (labels !== null && labels.length !== length) {
    throw expected(`${length} labels, as many as images`, `the IDX file '${join(folder, pair.labels!)}'`, labels.length)
  }
  const highest = labels?.reduce((a, b) => Math.max(a, b), 0) ?? 0
  return {
    kind: 'memory',
    path: folder,
    length,
    channels: 1,
    classes: labels && Array.from({ length: highest + 1 }, (_, label) => String(label)),
    labels: labels && Int32Array.from(labels),
    images,
    height,
    width,
    name(index) {
      if (!Number.isInteger(index) || index < 0 || index >= length) throw expected(`an integer from 0 to ${length - 1}`, 'index', index)
      return `${basename(file)}#${index}`
    }
  }
}
