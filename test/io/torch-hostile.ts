import { crc32, deflateRawSync } from 'node:zlib'

// Pickles and zip archives put together by hand, so that they can be wrong in any way.

const bytes = (...values: number[]) => Buffer.from(values)
const u32 = (value: number) => {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value)
  return buffer
}

/** Instructions of pickles. */
export const p = {
  global: (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`),
  text: (value: string) => Buffer.concat([bytes(0x58), u32(Buffer.byteLength(value)), Buffer.from(value)]),
  int: (value: number) => {
    const buffer = Buffer.alloc(5, 'J')
    buffer.writeInt32LE(value, 1)
    return buffer
  },
  /** An integer of eight bytes. */
  long: (value: bigint) => {
    const buffer = Buffer.alloc(10)
    buffer.set([0x8a, 8])
    buffer.writeBigInt64LE(value, 2)
    return buffer
  },
  tuple: (...elements: Buffer[]) => Buffer.concat([Buffer.from('('), ...elements, Buffer.from('t')]),
  list: (...elements: Buffer[]) => Buffer.concat([Buffer.from(']('), ...elements, Buffer.from('e')]),
  dict: (...entries: Buffer[]) => Buffer.concat([Buffer.from('}('), ...entries, Buffer.from('u')]),
  reduce: (callee: Buffer, ...args: Buffer[]) => Buffer.concat([callee, p.tuple(...args), Buffer.from('R')]),
  make: (type: Buffer, ...args: Buffer[]) => Buffer.concat([type, p.tuple(...args), bytes(0x81)]),
  none: Buffer.from('N'),
  true: bytes(0x88),
  false: bytes(0x89)
}

export const pickle = (...parts: Buffer[]) => Buffer.concat([bytes(0x80, 2), ...parts, Buffer.from('.')])

/** A reference to a storage of so many elements. */
export const storage = (key: string, count: Buffer, type = p.global('torch', 'FloatStorage')) =>
  Buffer.concat([p.tuple(p.text('storage'), type, p.text(key), p.text('cpu'), count), Buffer.from('Q')])

export const rebuild = p.global('torch._utils', '_rebuild_tensor_v2')
const hooks = p.reduce(p.global('collections', 'OrderedDict'))

/** A tensor in a storage; strides row-major where they are not given. */
export function tensor(inside: Buffer, shape: number[], options: { offset?: Buffer; strides?: Buffer; sizes?: Buffer } = {}): Buffer {
  const rowMajor = shape.map((_, i) => shape.slice(i + 1).reduce((product, size) => product * size, 1))
  const { offset = p.int(0), strides = p.tuple(...rowMajor.map(p.int)), sizes = p.tuple(...shape.map(p.int)) } = options
  return p.reduce(rebuild, inside, offset, sizes, strides, p.false, hooks)
}

export interface Record {
  readonly name: string
  readonly data: Buffer
  /** 8: compressed. */
  readonly method?: number
  readonly crc?: number
  /** What the directory says of the length, where that is not the truth. */
  readonly size?: number
  readonly flags?: number
  /** Where the directory says that the record is. */
  readonly at?: number
}

/** A zip archive. */
export function zip(records: readonly Record[], options: { readonly count?: number } = {}): Buffer {
  const locals: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, data, method = 0, crc = crc32(data), size, flags = 0, at = offset } of records) {
    const stored = method === 8 ? deflateRawSync(data) : data
    const fields = Buffer.alloc(26)
    fields.writeUInt16LE(20, 0)
    fields.writeUInt16LE(flags, 2)
    fields.writeUInt16LE(method, 4)
    fields.writeUInt32LE(crc, 10)
    fields.writeUInt32LE(size ?? stored.length, 14)
    fields.writeUInt32LE(size ?? data.length, 18)
    fields.writeUInt16LE(Buffer.byteLength(name), 22)
    const local = Buffer.concat([bytes(0x50, 0x4b, 3, 4), fields, Buffer.from(name), stored])
    const tail = Buffer.alloc(14)
    tail.writeUInt32LE(at, 10)
    directory.push(Buffer.concat([bytes(0x50, 0x4b, 1, 2, 20, 0), fields, tail, Buffer.from(name)]))
    locals.push(local)
    offset += local.length
  }
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.set([0x50, 0x4b, 5, 6])
  end.writeUInt16LE(options.count ?? records.length, 8)
  end.writeUInt16LE(options.count ?? records.length, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...locals, central, end])
}

/** An archive as torch.save writes it, of a pickle and the storages' bytes. */
export const archive = (value: Buffer, storages: { readonly [key: string]: Buffer | Partial<Record> } = {}, more: readonly Record[] = []) =>
  zip([
    { name: 'a/data.pkl', data: value },
    { name: 'a/version', data: Buffer.from('3\n') },
    ...more,
    ...Object.entries(storages).map(([key, data]) => ({
      name: `a/data/${key}`, data: Buffer.alloc(0), ...(Buffer.isBuffer(data) ? { data } : data)
    }))
  ])
