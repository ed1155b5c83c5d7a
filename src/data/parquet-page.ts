import type { PageHeader } from 'hyparquet'
import { deltaBinaryUnpack, deltaByteArray, deltaLengthByteArray } from 'hyparquet/src/delta.js'
import { readPlain } from 'hyparquet/src/plain.js'
import type { Leaf } from './parquet-file.js'

/** A value of a column: bytes (also of a text), a number, or nothing. */
export type Cell = Uint8Array<ArrayBuffer> | number | bigint | null

/** What a page holds: values, or, where it is coded, their places in the dictionary of the row group. */
export interface Cells {
  readonly cells: readonly Cell[]
  readonly coded: boolean
}

type Encoding = NonNullable<PageHeader['data_page_header']>['encoding']

/** What is to be known of a page to read it. */
export interface PageContent {
  readonly encoding: Encoding
  readonly values: number
  /** Bytes of definition levels before the values; null: the page itself says how many. */
  readonly levels: Uint8Array | null
}

const damaged = (what: string): Error => new Error(what)

/** An unsigned number in groups of seven bits. @returns Also the place behind it. */
function readVarint(bytes: Uint8Array, at: number): [value: number, next: number] {
  let value = 0
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined) throw damaged('numbers are cut short')
    value += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) return [value, at]
  }
  throw damaged('a number is too long')
}

/** Parquet's hybrid of runs and packed bits: `count` numbers of `width` bits. No damage makes it give more, or read beyond the end. */
export function readHybrid(bytes: Uint8Array, width: number, count: number): Uint32Array {
  const numbers = new Uint32Array(count)
  if (width > 32) throw damaged(`numbers of ${width} bits`)
  let at = 0
  for (let seen = 0; seen < count; ) {
    const [header, next] = readVarint(bytes, at)
    at = next
    const run = Math.floor(header / 2)
    const length = Math.min(header & 1 ? run * 8 : run, count - seen)
    if (header & 1) {
      for (let i = 0; i < length; i++) numbers[seen + i] = bitsAt(bytes, at * 8 + i * width, width)
      at += run * width
    } else {
      numbers.fill(bitsAt(bytes, at * 8, width), seen, seen + length)
      at += Math.ceil(width / 8)
    }
    seen += length
  }
  return numbers
}

function bitsAt(bytes: Uint8Array, first: number, width: number): number {
  if (first + width > bytes.length * 8) throw damaged('numbers are cut short')
  let value = 0
  for (let bit = 0; bit < width; bit++) value += ((bytes[(first + bit) >> 3]! >> ((first + bit) & 7)) & 1) * 2 ** bit
  return value
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The values of a page, unpacked. @param body - Its bytes, with the levels in front unless they are given apart. */
export function readDataPage(leaf: Leaf, { encoding, values, levels }: PageContent, body: Uint8Array<ArrayBuffer>): Cells {
  const { defined, rest } = readDefined(leaf, values, levels, body)
  const present = defined === null ? values : defined.reduce((sum, here) => sum + here, 0)
  const coded = encoding === 'PLAIN_DICTIONARY' || encoding === 'RLE_DICTIONARY'
  const found = coded ? readPlaces(rest, present) : readValues(leaf, encoding, rest, present)
  let next = 0
  return { coded, cells: defined === null ? found : Array.from(defined, (here) => (here ? found[next++]! : null)) }
}

/** Of a page with nulls, which values there are. */
function readDefined(leaf: Leaf, values: number, levels: Uint8Array | null, body: Uint8Array<ArrayBuffer>) {
  const { maxDefinition } = leaf
  if (maxDefinition === 0) return { defined: null, rest: body }
  const length = levels === null ? viewOf(body).getUint32(0, true) : 0
  const own = levels ?? body.subarray(4, 4 + length)
  const read = readHybrid(own, 32 - Math.clz32(maxDefinition), values)
  const rest = levels === null ? body.subarray(4 + length) : body
  return { defined: Uint8Array.from(read, (level) => (level === maxDefinition ? 1 : 0)), rest }
}

function readPlaces(bytes: Uint8Array, count: number): number[] {
  if (count === 0) return []
  const [width] = bytes
  if (width === undefined) throw damaged('places in the dictionary are cut short')
  return Array.from(readHybrid(bytes.subarray(1), width, count))
}

/** The values of a page of a dictionary. */
export const readDictionaryPage = (leaf: Leaf, values: number, body: Uint8Array<ArrayBuffer>): Cells => ({
  cells: readValues(leaf, 'PLAIN', body, values),
  coded: false
})

function readValues({ element }: Leaf, encoding: Encoding, bytes: Uint8Array<ArrayBuffer>, count: number): Cell[] {
  if (count === 0) return []
  const reader = { view: viewOf(bytes), offset: 0 }
  const { type } = element
  if (type === 'BYTE_ARRAY') {
    if (encoding === 'PLAIN') return splitBytes(bytes, count)
    const values = new Array<Uint8Array<ArrayBuffer>>(count)
    if (encoding === 'DELTA_LENGTH_BYTE_ARRAY') deltaLengthByteArray(reader, count, values)
    else if (encoding === 'DELTA_BYTE_ARRAY') deltaByteArray(reader, count, values)
    else throw damaged(`an unknown encoding ${encoding}`)
    return values
  }
  if (type !== 'INT32' && type !== 'INT64') throw damaged(`values of the type ${String(type)}`)
  if (encoding === 'PLAIN') return Array.from(readPlain(reader, type, count, undefined) as ArrayLike<number | bigint>)
  if (encoding !== 'DELTA_BINARY_PACKED') throw damaged(`an unknown encoding ${encoding}`)
  const values = type === 'INT32' ? new Int32Array(count) : new BigInt64Array(count)
  deltaBinaryUnpack(reader, count, values)
  return Array.from<number | bigint>(values)
}

/** Byte strings, each behind its length. No copy is made. */
function splitBytes(bytes: Uint8Array<ArrayBuffer>, count: number): Cell[] {
  const view = viewOf(bytes)
  const values: Cell[] = []
  for (let at = 0; values.length < count; ) {
    if (at + 4 > bytes.length) throw damaged('values are cut short')
    const length = view.getUint32(at, true)
    if (at + 4 + length > bytes.length) throw damaged('a value is cut short')
    values.push(bytes.subarray(at + 4, at + 4 + length))
    at += 4 + length
  }
  return values
}
