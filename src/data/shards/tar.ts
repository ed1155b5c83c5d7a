import { expected, type InputError } from '../../errors.js'

// tar-stream and tar, the libraries for Node, read an archive from its first byte to its last; here only headers are read and contents are
// leapt over, of thousands of shards. The parser of headers that `tar` exports takes 7 microseconds each (this one 1), knows no line breaks
// in pax paths and no GNU long names. So what is needed of POSIX.1-2017 (pax) and GNU's tar is here: where a member's content begins, its
// length, its name.

/** Bytes of a shard. */
export interface ByteRange {
  readonly offset: number
  readonly length: number
}

/** A file in a shard. */
export interface Member extends ByteRange {
  readonly name: string
}

/** Is shown every file, in order; where it wants a content, it gives who takes it. */
export type Visitor = (member: Member) => ((content: Buffer) => void) | null

/** What asks for bytes and is handed them: fewer than asked for only at the end of the shard. */
export type Walk = Generator<ByteRange, void, Buffer>

const BLOCK = 512
/** Names and pax records are a few hundred bytes. */
const LONGEST_EXTENSION = 1 << 20
/** The end of an archive is filled with zeros up to the size of a record: 10 kB, seldom more. */
const LONGEST_END = 1 << 20

const padded = (length: number): number => Math.ceil(length / BLOCK) * BLOCK

/** What headers before a member say of it. */
interface Extension {
  name?: string
  size?: number
  /** Its content is stored without its holes. */
  sparse?: boolean
}

interface Header {
  readonly name: string
  readonly size: number
  /** The sign of the kind of the member. */
  readonly type: string
}

/**
 * Walks over the headers of a shard.
 *
 * @param shard - What it is called in messages.
 * @param size - Its length in bytes.
 * @throws InputError for what is no tar file, is damaged or cut short, naming the shard and the offset.
 */
export function* walkTar(shard: string, size: number, visit: Visitor): Walk {
  let everywhere: Extension = {}
  let extension: Extension = {}
  let offset = 0
  for (;;) {
    const at = `shard '${shard}' at byte ${offset}`
    const block = yield { offset, length: BLOCK }
    // Who writes a tar to its end writes a block of zeros there.
    if (block.length < BLOCK) throw expected('a header or the mark of the end', at, 'the end: it is cut short')
    if (isZero(block)) return yield* checkEnd(shard, offset, size)
    const header = readHeader(block, at)
    offset += BLOCK
    const begin = offset
    const length = lengthOf(header, extension, everywhere, at)
    offset += padded(length)
    if (begin + length > size) {
      throw expected(`a member that ends by byte ${size}, as the shard does,`, at, `one of ${length} bytes: it is cut short`)
    }
    if ('xgL'.includes(header.type)) {
      if (length > LONGEST_EXTENSION) throw expected(`at most ${LONGEST_EXTENSION} bytes of names and records`, at, length)
      const content = yield { offset: begin, length }
      if (header.type === 'L') extension = { ...extension, name: text(content) }
      else if (header.type === 'x') extension = { ...extension, ...readPax(content, at) }
      else everywhere = { ...everywhere, ...readPax(content, at) }
      continue
    }
    if (header.type === 'K') continue
    const name = extension.name ?? everywhere.name ?? header.name
    if (header.type === 'S' || extension.sparse) throw expected('files with all their bytes', at, `a sparse file '${name}'`)
    extension = {}
    if (header.type !== '0' || name.endsWith('/')) continue
    const take = visit({ name, offset: begin, length })
    if (take) take(yield { offset: begin, length })
  }
}

/** How many bytes follow a header. */
function lengthOf({ type, size }: Header, extension: Extension, everywhere: Extension, at: string): number {
  // Links, devices and folders have no content, whatever their size says.
  if ('123456'.includes(type)) return 0
  const length = 'xgLK'.includes(type) ? size : extension.size ?? everywhere.size ?? size
  if (!(Number.isSafeInteger(length) && length >= 0)) throw expected('a length from 0 on', at, length)
  return length
}

/** After the mark of the end there is nothing: else it is a file that was made large before it was filled, or two archives in one. */
function* checkEnd(shard: string, offset: number, size: number): Walk {
  const at = `shard '${shard}' at byte ${offset}, after the mark of its end`
  const rest = size - offset
  if (rest > LONGEST_END) throw expected(`at most ${LONGEST_END} bytes`, at, `${rest}: it was not written to its end, or is damaged`)
  const end = yield { offset, length: rest }
  if (!isZero(end)) throw expected('zeros', at, 'other bytes: two archives one after the other are not taken')
}

const ZEROS = Buffer.alloc(64 * 1024)

function isZero(bytes: Buffer): boolean {
  if (bytes.length > 0 && bytes[0] !== 0) return false
  for (let first = 0; first < bytes.length; first += ZEROS.length) {
    const part = bytes.subarray(first, first + ZEROS.length)
    if (part.compare(ZEROS, 0, part.length) !== 0) return false
  }
  return true
}

function readHeader(block: Buffer, at: string): Header {
  if (!hasChecksum(block)) {
    const gzip = block[0] === 0x1f && block[1] === 0x8b
    throw expected('a header of tar', at, gzip ? 'a file packed by gzip: unpack it (gunzip)' : 'other bytes: it is damaged or no tar file')
  }
  const type = block[156] === 0 || block[156] === 0x37 ? '0' : String.fromCharCode(block[156]!)
  const name = text(block.subarray(0, 100))
  // Only POSIX has a prefix there; GNU's format has times.
  const prefix = block[345] !== 0 && block.toString('latin1', 257, 263) === 'ustar\0' ? text(block.subarray(345, 500)) : ''
  return { name: prefix ? `${prefix}/${name}` : name, size: readNumber(block, 124, 12), type }
}

/** The sum of the bytes, its own place as blanks. Old programs added bytes with a sign. */
function hasChecksum(block: Buffer): boolean {
  let [sum, high] = [8 * 32, 0]
  for (let i = 0; i < BLOCK; i++) {
    if (i === 148) i = 156
    const byte = block[i]!
    sum += byte
    high += byte >> 7
  }
  const stored = readNumber(block, 148, 8)
  return stored === sum || stored === sum - 256 * high
}

/** An octal number, or one of base 256, marked by the highest bit, where octal digits do not reach. NaN if it is neither. */
function readNumber(block: Buffer, first: number, length: number): number {
  if (block[first]! >= 0x80) {
    // Two's complement: all bits of the first byte but its highest are part of the number.
    let value = block[first] === 0xff ? -1 : block[first]! & 0x7f
    for (let i = first + 1; i < first + length; i++) value = value * 256 + block[i]!
    return value
  }
  const digits = block.toString('latin1', first, first + length).replace(/^[ \0]+|[ \0].*$/gs, '')
  return digits === '' ? 0 : /^[0-7]+$/.test(digits) ? parseInt(digits, 8) : NaN
}

/** Up to the first zero. */
function text(bytes: Buffer): string {
  const end = bytes.indexOf(0)
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end)
}

/** Records `length key=value\n`, where the length is that of the whole record in bytes: a value may have line breaks. */
function readPax(content: Buffer, at: string): Extension {
  const damaged = (): InputError => expected('records of pax', at, 'other bytes: it is damaged')
  const extension: Extension = {}
  for (let first = 0; first < content.length && content[first] !== 0; ) {
    const blank = content.indexOf(0x20, first)
    const length = Number(content.toString('latin1', first, blank))
    const end = first + length
    if (!(blank > first && Number.isInteger(length) && end > blank + 1 && end <= content.length)) throw damaged()
    const record = content.subarray(blank + 1, end - 1)
    const equals = record.indexOf(0x3d)
    if (equals < 1) throw damaged()
    const [key, value] = [record.toString('utf8', 0, equals), record.toString('utf8', equals + 1)]
    if (key === 'path') extension.name = value
    else if (key === 'size') extension.size = /^\d+$/.test(value) ? Number(value) : NaN
    else if (key.startsWith('GNU.sparse.')) extension.sparse = true
    first = end
  }
  return extension
}
