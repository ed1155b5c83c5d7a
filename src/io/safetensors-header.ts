import type { FileHandle } from 'node:fs/promises'

import { describe, expected, InputError } from '../errors.js'
import type { DType } from '../torch/index.js'
import { elementSize, readAt } from './bytes.js'

// Names of dtypes in the format, by ours. https://github.com/huggingface/safetensors
const formatNames = {
  float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16', int64: 'I64', int32: 'I32', int16: 'I16', int8: 'I8',
  uint64: 'U64', uint32: 'U32', uint16: 'U16', uint8: 'U8', bool: 'BOOL', complex64: 'C64', float8_e4m3fn: 'F8_E4M3',
  float8_e5m2: 'F8_E5M2', float8_e4m3fnuz: 'F8_E4M3FNUZ', float8_e5m2fnuz: 'F8_E5M2FNUZ', float8_e8m0fnu: 'F8_E8M0', float4_e2m1fn_x2: 'F4'
} as const satisfies Partial<Record<DType, string>>

const dtypesByName = new Map<unknown, DType>(Object.entries(formatNames).map(([dtype, name]) => [name, dtype as DType]))

// Dtypes of the format that libtorch has no tensors of.
const LACKING: readonly unknown[] = ['F6_E2M3', 'F6_E3M2']

/** Bytes of the longest header; the reference implementation refuses longer ones too. */
export const MAX_HEADER = 100_000_000

/** One tensor of a file. */
export interface Entry {
  readonly name: string
  readonly dtype: DType
  /** Sizes as libtorch has them. */
  readonly shape: readonly number[]
  /** Bytes from the beginning of the data. */
  readonly start: number
  readonly end: number
}

/** What the header of a safetensors file says. */
export interface Header {
  /** In the file's order. */
  readonly entries: readonly Entry[]
  readonly metadata: Readonly<Record<string, string>>
  /** All that comes before the data. */
  readonly bytes: Uint8Array
}

const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0)

/** Elements of a shape; NaN where libtorch could not count them, which multiplies the sizes that are not zero for its strides. */
export function countElements(shape: readonly number[]): number {
  const product = shape.reduce((product, size) => product * (size || 1), 1)
  if (!Number.isSafeInteger(product)) return NaN
  return shape.includes(0) ? 0 : product
}

// As deep as the reference implementation goes.
const MAX_DEPTH = 128

// Four to a tensor. A model of half a trillion weights has less than a tenth of it; without a limit a made-up header takes gigabytes.
const MAX_NAMES = 1 << 20

// As many as libtorch's operators take.
const MAX_DIMENSIONS = 64

/**
 * What `JSON.parse` would take although it must not be: a name that an object has twice, of which it takes the last silently and other
 * readers the first, so that a file meant one thing here and another there; and more nesting and names than any file needs.
 */
function flawOf(json: string): string | undefined {
  const open: Set<string>[] = []
  let start = -1 // of the string that `i` is in
  let last = '' // string, as it is written
  let count = 0
  for (let i = 0; i < json.length; i++) {
    const character = json[i]
    if (start >= 0) {
      if (character === '\\') i++
      else if (character === '"') {
        last = json.slice(start, i + 1)
        start = -1
      }
    } else if (character === '"') start = i
    else if (character === '{' || character === '[') {
      if (open.push(new Set()) > MAX_DEPTH) return `nests more than ${MAX_DEPTH} deep`
    } else if (character === '}' || character === ']') open.pop()
    else if (character === ':') {
      const name = JSON.parse(last) as string
      if (open.at(-1)?.has(name)) return `has the name ${describe(name)} twice`
      if (++count > MAX_NAMES) return `has more than ${MAX_NAMES} names`
      open.at(-1)?.add(name)
    }
  }
  return undefined
}

/** Parses the bytes of a JSON object that has no {@link flawOf flaw}. @throws what `refuse` throws. */
export function parseUnique(bytes: Uint8Array, what: string, refuse: (reason: string) => never): Record<string, unknown> {
  let flaw: string | undefined
  let parsed: unknown
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    flaw = flawOf(text)
    parsed = flaw === undefined ? JSON.parse(text) : undefined
  } catch {
    refuse(`${what} is no JSON`)
  }
  if (flaw !== undefined) refuse(`${what} ${flaw}`)
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) refuse(`${what} is no JSON object`)
  return parsed as Record<string, unknown>
}

const isWellFormed = (text: string) => !/\p{Surrogate}/u.test(text)

function parseMetadata(value: unknown, refuse: (reason: string) => never): Record<string, string> {
  if (value === undefined || value === null) return {}
  const strings = Object.entries(value).flat().every((text) => typeof text === 'string' && isWellFormed(text))
  if (!strings || typeof value !== 'object' || Array.isArray(value)) refuse('its metadata are no strings by name')
  return value as Record<string, string>
}

function parseEntry(name: string, value: unknown, refuse: (reason: string) => never): Entry {
  const tensor = `tensor ${describe(name)}`
  if (!isWellFormed(name)) refuse(`the name of ${tensor} is no Unicode text`)
  const { dtype: dtypeName, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>
  if (LACKING.includes(dtypeName)) refuse(`${tensor} has the dtype ${describe(dtypeName)}, which libtorch does not have`)
  const dtype = dtypesByName.get(dtypeName) ?? refuse(`${tensor} has the unknown dtype ${describe(dtypeName)}`)
  if (!Array.isArray(shape) || !shape.every(isCount)) refuse(`${tensor} has no legal shape`)
  if (shape.length > MAX_DIMENSIONS) refuse(`${tensor} has more than ${MAX_DIMENSIONS} dimensions`)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) refuse(`${tensor} has no legal offsets`)
  const [start, end] = offsets as [number, number]
  const own = dtype === 'float4_e2m1fn_x2' ? halveLast(tensor, shape, refuse) : shape
  const bytes = countElements(own) * elementSize(dtype)
  if (!Number.isSafeInteger(bytes)) refuse(`${tensor} has a shape of more elements than can be counted`)
  if (end - start !== bytes) refuse(`${tensor} has ${end - start} bytes where its shape and dtype need ${bytes}`)
  return { name, dtype, shape: own, start, end }
}

// The format counts numbers of four bits, libtorch the bytes that hold two of them.
function halveLast(tensor: string, shape: readonly number[], refuse: (reason: string) => never): number[] {
  const last = shape.at(-1)
  if (last === undefined || last % 2) refuse(`${tensor} has numbers of 4 bits that do not fill the bytes of its last dimension`)
  return [...shape.slice(0, -1), last / 2]
}

/** Reads and checks the header of a file. @throws InputError naming the file and what is wrong with it, before any tensor is allocated. */
export async function readHeader(file: FileHandle, path: string): Promise<Header> {
  const refuse = (reason: string): never => {
    throw new InputError(`${path} is no legal safetensors file: ${reason}`)
  }
  const { size } = await file.stat()
  const prefix = Buffer.alloc(8)
  if ((await readAt(file, prefix, 0)) < 8) refuse(`it has ${size} bytes, and the length of the header alone takes 8`)
  const length = prefix.readBigUInt64LE()
  if (length > MAX_HEADER || Number(length) + 8 > size) refuse(`its header should have ${length} bytes, the file has ${size}`)
  const bytes = Buffer.alloc(8 + Number(length))
  if ((await readAt(file, bytes, 0)) < bytes.length) refuse('it ends within its header')
  if (length > 0 && bytes[8] !== '{'.charCodeAt(0)) refuse(`its header does not begin with '{'`)
  const { __metadata__: metadata, ...tensors } = parseUnique(bytes.subarray(8), 'its header', refuse)
  const entries = Object.entries(tensors).map(([name, value]) => parseEntry(name, value, refuse))
  entries.sort((a, b) => a.start - b.start || a.end - b.end)
  let next = 0
  for (const { name, start, end } of entries) {
    if (start !== next) refuse(`tensor ${describe(name)} begins at byte ${start} of the data where ${next} was expected (overlap or gap)`)
    next = end
  }
  if (bytes.length + next !== size) refuse(`its tensors need ${bytes.length + next} bytes, the file has ${size}`)
  return { entries, metadata: parseMetadata(metadata, refuse), bytes }
}

/**
 * The header of a file with these tensors, one after the other.
 *
 * @throws InputError for what the format cannot hold.
 */
export function writeHeader(
  tensors: readonly { readonly name: string; readonly dtype: DType; readonly shape: readonly number[] }[],
  metadata: Readonly<Record<string, string>>
): Buffer {
  let offset = 0
  const described = tensors.map(({ name, dtype, shape }) => {
    const start = offset
    offset += countElements(shape) * elementSize(dtype)
    const sizes = dtype === 'float4_e2m1fn_x2' ? [...shape.slice(0, -1), shape.at(-1)! * 2] : shape
    return [name, { dtype: formatNames[dtype as keyof typeof formatNames], shape: sizes, data_offsets: [start, offset] }]
  })
  const header = Object.fromEntries([...(Object.keys(metadata).length ? [['__metadata__', metadata]] : []), ...described]) as object
  const text = Buffer.from(JSON.stringify(header))
  // Padded with spaces so that the data are aligned.
  const bytes = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ')
  bytes.writeBigUInt64LE(BigInt(bytes.length - 8))
  text.copy(bytes, 8)
  if (bytes.length - 8 > MAX_HEADER) {
    throw new InputError(`The names, shapes and metadata take ${bytes.length - 8} bytes, and safetensors allows ${MAX_HEADER}`)
  }
  return bytes
}

/** @throws InputError if the format has no place for such a tensor. */
export function requireWritable(name: string, dtype: DType, shape: readonly number[]): void {
  const refuse = (reason: string): never => {
    throw new InputError(`Tensor '${name}' cannot be written: ${reason}`)
  }
  if (!Object.hasOwn(formatNames, dtype)) refuse(`safetensors has no dtype ${dtype}`)
  if (name === '__metadata__') refuse('the format uses this name itself')
  if (!isWellFormed(name)) refuse('its name is no Unicode text')
  if (dtype === 'float4_e2m1fn_x2' && shape.length === 0) refuse(`safetensors has no ${dtype} without dimensions`)
}

/** @throws InputError unless these are strings by name. */
export function requireMetadata(metadata: Readonly<Record<string, string>>): void {
  if (typeof metadata !== 'object' || metadata === null) throw expected('strings by name', 'metadata', metadata)
  for (const [name, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') throw expected('a string', `metadata '${name}'`, value)
    if (!isWellFormed(name) || !isWellFormed(value)) throw expected('Unicode text', `metadata '${name}'`, value)
  }
}
