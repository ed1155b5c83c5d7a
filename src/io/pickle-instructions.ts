import { PyDict, Refusal } from './pickle-values.js'
import type { Unpickler } from './pickle.js'

const MAX_PROTOCOL = 5

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

// Python 2 has one type for text and bytes.
const oldString = (bytes: Buffer): string => {
  try {
    return utf8.decode(bytes)
  } catch {
    return bytes.toString('latin1')
  }
}

function unquote(line: string): string {
  const quoted = /^(['"])(.*)\1$/.exec(line.trim())
  if (!quoted) throw new Refusal('its pickle has a text without quotes')
  const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' }
  const plain = (_: string, escape: string) =>
    escape.length === 3 ? String.fromCharCode(parseInt(escape.slice(1), 16)) : (escapes[escape] ?? escape)
  return oldString(Buffer.from(quoted[2]!.replace(/\\(x[\da-fA-F]{2}|.)/g, plain), 'latin1'))
}

const rawUnicode = (line: string): string =>
  line.replace(/\\(?:u([\da-fA-F]{4})|U([\da-fA-F]{8}))/g, (whole, short?: string, long?: string) => {
    const code = parseInt(short ?? long!, 16)
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole
  })

function floatOf(line: string): number {
  const special: Readonly<Record<string, number>> = { nan: NaN, inf: Infinity, '-inf': -Infinity }
  const text = line.trim()
  if (Object.hasOwn(special, text)) return special[text]!
  const value = Number(text)
  if (text === '' || Number.isNaN(value)) throw new Refusal(`its pickle has the illegal number '${line.slice(0, 40)}'`)
  return value
}

function index(line: string): number {
  if (/^\d{1,15}$/.test(line)) return Number(line)
  throw new Refusal(`its pickle has the illegal index '${line.slice(0, 40)}'`)
}

const tuple = (machine: Unpickler, length: number): void => {
  machine.push(Array.from({ length }, () => machine.pop()).reverse())
}

type Instruction = (machine: Unpickler) => void

/** What each instruction does, by its code; with the names of Python's module pickletools. */
export const instructions: Readonly<Record<number, Instruction>> = {
  /* PROTO */ 0x80: (m) => {
    const protocol = m.uint8()
    if (protocol > MAX_PROTOCOL) throw new Refusal(`its pickle has protocol ${protocol}; those up to ${MAX_PROTOCOL} are known`)
  },
  /* FRAME */ 0x95: (m) => void m.uint64(),
  /* MARK */ 0x28: (m) => m.mark(),
  /* POP */ 0x30: (m) => m.drop(),
  /* POP_MARK */ 0x31: (m) => void m.marked(),
  /* DUP */ 0x32: (m) => m.push(m.top()),
  /* NONE */ 0x4e: (m) => m.push(null),
  /* NEWTRUE */ 0x88: (m) => m.push(true),
  /* NEWFALSE */ 0x89: (m) => m.push(false),
  /* INT */ 0x49: (m) => {
    const line = m.line().trim()
    m.push(line === '01' ? true : line === '00' ? false : m.decimal(line))
  },
  /* LONG */ 0x4c: (m) => m.push(m.decimal(m.line().trim().replace(/L$/, ''))),
  /* BININT */ 0x4a: (m) => m.push(m.int32()),
  /* BININT1 */ 0x4b: (m) => m.push(m.uint8()),
  /* BININT2 */ 0x4d: (m) => m.push(m.uint16()),
  /* LONG1 */ 0x8a: (m) => m.push(m.integer(m.uint8())),
  /* LONG4 */ 0x8b: (m) => m.push(m.integer(m.uint32())),
  /* FLOAT */ 0x46: (m) => m.push(floatOf(m.line())),
  /* BINFLOAT */ 0x47: (m) => m.push(m.double()),
  /* STRING */ 0x53: (m) => m.push(unquote(m.line())),
  /* BINSTRING */ 0x54: (m) => m.push(oldString(m.bytesOf(m.uint32()))),
  /* SHORT_BINSTRING */ 0x55: (m) => m.push(oldString(m.bytesOf(m.uint8()))),
  /* UNICODE */ 0x56: (m) => m.push(rawUnicode(m.line())),
  /* BINUNICODE */ 0x58: (m) => m.push(m.text(m.uint32())),
  /* SHORT_BINUNICODE */ 0x8c: (m) => m.push(m.text(m.uint8())),
  /* BINUNICODE8 */ 0x8d: (m) => m.push(m.text(m.uint64())),
  /* BINBYTES */ 0x42: (m) => m.push(new Uint8Array(m.bytesOf(m.uint32()))),
  /* SHORT_BINBYTES */ 0x43: (m) => m.push(new Uint8Array(m.bytesOf(m.uint8()))),
  /* BINBYTES8 */ 0x8e: (m) => m.push(new Uint8Array(m.bytesOf(m.uint64()))),
  /* BYTEARRAY8 */ 0x96: (m) => m.push(new Uint8Array(m.bytesOf(m.uint64()))),
  /* READONLY_BUFFER */ 0x98: () => undefined,
  /* EMPTY_LIST */ 0x5d: (m) => m.push([]),
  /* LIST */ 0x6c: (m) => m.push(m.marked()),
  /* APPEND */ 0x61: (m) => m.append([m.pop()]),
  /* APPENDS */ 0x65: (m) => m.append(m.marked()),
  /* EMPTY_TUPLE */ 0x29: (m) => m.push([]),
  /* TUPLE */ 0x74: (m) => m.push(m.marked()),
  /* TUPLE1 */ 0x85: (m) => tuple(m, 1),
  /* TUPLE2 */ 0x86: (m) => tuple(m, 2),
  /* TUPLE3 */ 0x87: (m) => tuple(m, 3),
  /* EMPTY_DICT */ 0x7d: (m) => m.push(new PyDict()),
  /* DICT */ 0x64: (m) => {
    const dict = new PyDict()
    m.setItems(m.marked(), dict)
    m.push(dict)
  },
  /* SETITEM */ 0x73: (m) => {
    const value = m.pop()
    m.setItems([m.pop(), value])
  },
  /* SETITEMS */ 0x75: (m) => m.setItems(m.marked()),
  /* EMPTY_SET */ 0x8f: (m) => m.push(new Set()),
  /* ADDITEMS */ 0x90: (m) => m.add(m.marked()),
  /* FROZENSET */ 0x91: (m) => m.push(new Set(m.marked())),
  /* GET */ 0x67: (m) => m.get(index(m.line())),
  /* BINGET */ 0x68: (m) => m.get(m.uint8()),
  /* LONG_BINGET */ 0x6a: (m) => m.get(m.uint32()),
  /* PUT */ 0x70: (m) => m.put(index(m.line())),
  /* BINPUT */ 0x71: (m) => m.put(m.uint8()),
  /* LONG_BINPUT */ 0x72: (m) => m.put(m.uint32()),
  /* MEMOIZE */ 0x94: (m) => m.memoize(),
  /* GLOBAL */ 0x63: (m) => {
    const module = m.line()
    m.push(m.global(module, m.line()))
  },
  /* STACK_GLOBAL */ 0x93: (m) => {
    const name = m.pop()
    m.push(m.global(m.pop(), name))
  },
  /* REDUCE */ 0x52: (m) => {
    const args = m.pop()
    m.push(m.call(m.pop(), args))
  },
  /* INST */ 0x69: (m) => {
    const module = m.line()
    const type = m.global(module, m.line())
    m.push(m.call(type, m.marked()))
  },
  /* OBJ */ 0x6f: (m) => {
    const [type, ...args] = m.marked()
    m.push(m.call(type, args))
  },
  /* NEWOBJ */ 0x81: (m) => {
    const args = m.pop()
    m.push(m.make(m.pop(), args))
  },
  /* NEWOBJ_EX */ 0x92: (m) => {
    const [named, args] = [m.pop(), m.pop()]
    m.push(m.makeWithNames(m.pop(), args, named))
  },
  /* BUILD */ 0x62: (m) => m.build(),
  /* PERSID */ 0x50: (m) => m.push(m.context.persistent(m.line())),
  /* BINPERSID */ 0x51: (m) => m.push(m.context.persistent(m.pop()))
}
