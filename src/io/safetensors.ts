import { open, type FileHandle } from 'node:fs/promises'

import { expected, InputError } from '../errors.js'
import { fromTypedArray, scope, type DType, type Tensor } from '../torch/index.js'
import { arrayTypes } from '../torch/types.js'
import { writeAtomic } from './atomic.js'

// Names of dtypes in the format, by ours. https://github.com/huggingface/safetensors
const formatNames = {
  float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16', int64: 'I64', int32: 'I32', int16: 'I16', int8: 'I8',
  uint64: 'U64', uint32: 'U32', uint16: 'U16', uint8: 'U8', bool: 'BOOL', complex64: 'C64', float8_e4m3fn: 'F8_E4M3', float8_e5m2: 'F8_E5M2'
} as const satisfies Partial<Record<DType, string>>

const dtypesByName = new Map<string, DType>(Object.entries(formatNames).map(([dtype, name]) => [name, dtype as DType]))

// The reference implementation refuses longer headers too.
const MAX_HEADER = 100_000_000

const elementSize = (dtype: DType) => arrayTypes[dtype].BYTES_PER_ELEMENT * (dtype.startsWith('complex') ? 2 : 1)

interface Entry {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly start: number
  readonly end: number
}

/** What the header of a safetensors file says. */
interface Header {
  readonly entries: readonly Entry[]
  readonly metadata: Readonly<Record<string, string>>
  /** Where the data begin in the file. */
  readonly offset: number
}

const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0

function parseEntry(name: string, value: unknown, refuse: (reason: string) => never): Entry {
  const { dtype: dtypeName, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>
  const dtype = dtypesByName.get(String(dtypeName))
  if (!dtype) refuse(`tensor '${name}' has the unknown dtype '${String(dtypeName)}'`)
  if (!Array.isArray(shape) || !shape.every(isCount)) refuse(`tensor '${name}' has no legal shape`)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) refuse(`tensor '${name}' has no legal offsets`)
  const [start, end] = offsets as [number, number]
  const bytes = (shape).reduce((product, size) => product * size, 1) * elementSize(dtype)
  if (end - start !== bytes) refuse(`tensor '${name}' has ${end - start} bytes where its shape and dtype need ${bytes}`)
  return { name, dtype, shape: shape, start, end }
}

async function readExactly(file: FileHandle, buffer: Uint8Array, position: number): Promise<number> {
  let done = 0
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

async function readHeader(file: FileHandle, path: string): Promise<Header> {
  const refuse = (reason: string): never => {
    throw new InputError(`${path} is no legal safetensors file: ${reason}`)
  }
  const { size } = await file.stat()
  const prefix = Buffer.alloc(8)
  if ((await readExactly(file, prefix, 0)) < 8) refuse(`it has ${size} bytes, and the length of the header alone takes 8`)
  const length = prefix.readBigUInt64LE()
  if (length > MAX_HEADER || Number(length) + 8 > size) refuse(`its header should have ${length} bytes, the file has ${size}`)
  const text = Buffer.alloc(Number(length))
  await readExactly(file, text, 8)
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(text))
  } catch {
    refuse('its header is no JSON')
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) refuse('its header is no JSON object')
  const { __metadata__: metadata = {}, ...tensors } = parsed as Record<string, unknown>
  if (typeof metadata !== 'object' || metadata === null || Object.values(metadata).some((value) => typeof value !== 'string')) {
    refuse('its metadata are no strings by name')
  }
  const entries = Object.entries(tensors).map(([name, value]) => parseEntry(name, value, refuse))
  entries.sort((a, b) => a.start - b.start || a.end - b.end)
  let next = 0
  for (const { name, start, end } of entries) {
    if (start !== next) refuse(`tensor '${name}' begins at byte ${start} of the data where ${next} was expected (overlap or gap)`)
    next = end
  }
  const offset = Number(length) + 8
  if (offset + next !== size) refuse(`its tensors need ${offset + next} bytes, the file has ${size}`)
  return { entries, metadata: metadata as Record<string, string>, offset }
}

/** Tensors and metadata of a safetensors file. */
export interface SafetensorsFile {
  readonly tensors: Record<string, Tensor>
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Reads a safetensors file, in the file's order.
 *
 * @throws InputError naming the file and what is wrong, before any tensor is allocated.
 */
export async function loadSafetensors(path: string): Promise<SafetensorsFile> {
  const file = await open(path, 'r')
  try {
    const { entries, metadata, offset } = await readHeader(file, path)
    const tensors: [string, Tensor][] = []
    for (const { name, dtype, shape, start, end } of entries) {
      const bytes = new Uint8Array(end - start)
      await readExactly(file, bytes, offset + start)
      tensors.push([name, fromTypedArray(new arrayTypes[dtype](bytes.buffer), shape, { dtype })])
    }
    return { tensors: Object.fromEntries(tensors), metadata }
  } finally {
    await file.close()
  }
}

/** Reads only the header: names, dtypes, shapes, metadata. */
export async function inspectSafetensors(
  path: string
): Promise<Pick<Header, 'metadata'> & { tensors: Record<string, { dtype: DType; shape: readonly number[] }> }> {
  const file = await open(path, 'r')
  try {
    const { entries, metadata } = await readHeader(file, path)
    return { metadata, tensors: Object.fromEntries(entries.map(({ name, dtype, shape }) => [name, { dtype, shape }])) }
  } finally {
    await file.close()
  }
}

// One write may take only a part: the disk is full, or the bytes are more than the system call takes at once.
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten
}

/**
 * Writes tensors as a safetensors file, one at a time (no second copy of all of them in memory), atomically.
 *
 * @param tensors - Any device and layout; written in row-major order.
 * @param metadata - Strings for the header.
 * @throws InputError if a dtype has no name in the format or the metadata are no strings, before the file is touched.
 */
export async function saveSafetensors(
  path: string, tensors: Readonly<Record<string, Tensor>>, metadata: Readonly<Record<string, string>> = {}
): Promise<void> {
  for (const [name, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') throw expected('a string', `metadata '${name}'`, value)
  }
  const entries = Object.entries(tensors).map(([name, tensor]) => {
    const { dtype, shape } = tensor
    const formatName = (formatNames as Partial<Record<DType, string>>)[dtype]
    if (!formatName) throw new InputError(`Tensor '${name}' cannot be written: safetensors has no dtype ${dtype}`)
    if (name === '__metadata__') throw new InputError(`Tensor '${name}' cannot be written: the format uses this name itself`)
    return { name, tensor, formatName, shape, size: elementSize(dtype) }
  })
  // Widest elements first, as the reference implementation writes them: every tensor is aligned for readers that map the file.
  entries.sort((a, b) => b.size - a.size)
  let offset = 0
  const described = entries.map(({ name, formatName, shape, size }) => {
    const start = offset
    offset += shape.reduce((product, length) => product * length, size)
    return [name, { dtype: formatName, shape, data_offsets: [start, offset] }]
  })
  const header = Object.fromEntries([...(Object.keys(metadata).length ? [['__metadata__', metadata]] : []), ...described]) as object
  const text = Buffer.from(JSON.stringify(header))
  // Padded with spaces so that the data are aligned.
  const padded = Buffer.alloc(Math.ceil(text.length / 8) * 8, ' ')
  text.copy(padded)
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(padded.length))
  await writeAtomic(path, async (file) => {
    await writeAll(file, prefix)
    await writeAll(file, padded)
    for (const { tensor } of entries) await writeAll(file, new Uint8Array(scope(() => tensor.toTypedArray()).buffer))
  })
}
