import { InputError } from '../errors.js'

/** What Python calls with which arguments to get an object, and the entries that it then sets on it, as on a dict. */
export class Reduced {
  constructor(readonly callee: Name, readonly args: readonly unknown[], readonly entries: readonly (readonly [unknown, unknown])[] = []) {}
}

/** A tuple, which JavaScript does not have. */
export class Tuple {
  constructor(readonly elements: readonly unknown[]) {}
}

/** The name of a class, function or value of Python. */
export class Name {
  constructor(readonly module: string, readonly name: string) {}
}

/** A reference to something that lies in the file beside the pickle. */
export class Persistent {
  constructor(readonly id: Tuple) {}
}

const MAX_DEPTH = 500
const BATCH = 1000
const INT32 = 2n ** 31n

const uint32 = (opcode: number, value: number): Buffer => {
  const bytes = Buffer.alloc(5)
  bytes[0] = opcode
  bytes.writeUInt32LE(value, 1)
  return bytes
}

/** The shortest two's complement of an integer, little-endian. */
function twosComplement(value: bigint): Buffer {
  let length = 1
  while (BigInt.asIntN(8 * length, value) !== value) length++
  const digits = BigInt.asUintN(8 * length, value).toString(16).padStart(2 * length, '0')
  return Buffer.from(digits, 'hex').reverse()
}

/**
 * Writes values as a pickle of protocol 2, the one that `torch.save` writes and every reader of its files knows. Format: the module
 * pickletools of Python.
 */
export class Pickler {
  readonly #parts: Buffer[] = [Buffer.from([0x80, 2])]
  readonly #memo = new Map<unknown, number>()
  readonly #names = new Map<string, Name>()
  #depth = 0

  /** @param replace - How an object is written that is not what it seems; undefined for plain data. */
  constructor(readonly replace: (value: object, path: string) => Reduced | undefined) {}

  /** @throws InputError naming the place of a value that cannot be written. */
  dump(value: unknown, name: string): Buffer {
    this.#write(value, name)
    this.#code('.')
    return Buffer.concat(this.#parts)
  }

  #code(codes: string): void {
    this.#parts.push(Buffer.from(codes, 'latin1'))
  }

  #memoize(value: unknown): void {
    const index = this.#memo.size
    this.#memo.set(value, index)
    this.#parts.push(index < 256 ? Buffer.from([0x71, index]) : uint32(0x72, index))
  }

  /** Refers to a value that was written before. False if it was not. */
  #again(value: unknown): boolean {
    const index = this.#memo.get(value)
    if (index === undefined) return false
    this.#parts.push(index < 256 ? Buffer.from([0x68, index]) : uint32(0x6a, index))
    return true
  }

  #write(value: unknown, path: string): void {
    if (++this.#depth > MAX_DEPTH) {
      throw new InputError(`Cannot save a value that is nested deeper than ${MAX_DEPTH} levels (${path.slice(0, 80)}...)`)
    }
    this.#dispatch(value, path)
    this.#depth--
  }

  #dispatch(value: unknown, path: string): void {
    switch (typeof value) {
      case 'boolean':
        return this.#code(value ? '\x88' : '\x89')
      case 'string':
        return this.#text(value, path)
      case 'bigint':
        return this.#integer(value, path)
      case 'number':
        if (Number.isSafeInteger(value) && !Object.is(value, -0)) return this.#integer(BigInt(value), path)
        return this.#float(value)
      case 'object':
        return value === null ? this.#code('N') : this.#object(value, path)
      default:
        throw new InputError(`Cannot save ${path}: ${typeof value === 'undefined' ? 'undefined (null becomes None)' : `a ${typeof value}`}`)
    }
  }

  #integer(value: bigint, path: string): void {
    if (value >= 0n && value < 256n) return void this.#parts.push(Buffer.from([0x4b, Number(value)]))
    if (value >= -INT32 && value < INT32) {
      const bytes = Buffer.from([0x4a, 0, 0, 0, 0])
      bytes.writeInt32LE(Number(value), 1)
      return void this.#parts.push(bytes)
    }
    const bytes = twosComplement(value)
    if (bytes.length > 255) throw new InputError(`Cannot save ${path}: an integer of ${bytes.length} bytes`)
    this.#parts.push(Buffer.from([0x8a, bytes.length]), bytes)
  }

  #float(value: number): void {
    const bytes = Buffer.alloc(9, 'G')
    bytes.writeDoubleBE(value, 1)
    this.#parts.push(bytes)
  }

  #text(value: string, path: string): void {
    if (this.#again(value)) return
    if (/\p{Surrogate}/u.test(value)) throw new InputError(`Cannot save ${path}: a text with half a character`)
    const bytes = Buffer.from(value, 'utf8')
    this.#parts.push(uint32(0x58, bytes.length), bytes)
    this.#memoize(value)
  }

  #name({ module, name }: Name): void {
    const code = `c${module}\n${name}\n`
    const known = this.#names.get(code)
    if (known && this.#again(known)) return
    const first = new Name(module, name)
    this.#names.set(code, first)
    this.#code(code)
    this.#memoize(first)
  }

  #object(value: object, path: string): void {
    if (value instanceof Name) return this.#name(value)
    if (this.#again(value)) return
    if (value instanceof Tuple) {
      this.#tuple(value.elements, path)
      return this.#memoize(value)
    }
    if (value instanceof Persistent) {
      this.#write(value.id, path)
      return this.#code('Q')
    }
    if (Array.isArray(value)) {
      this.#code(']')
      this.#memoize(value)
      return this.#batches(value as unknown[], 'e', (element, i) => this.#write(element, `${path}[${i}]`))
    }
    if (value instanceof Map) {
      this.#code('}')
      this.#memoize(value)
      return this.#entries([...(value as Map<unknown, unknown>)], path)
    }
    const reduced = value instanceof Reduced ? value : (plainObject(value) ?? this.replace(value, path))
    if (reduced) {
      this.#name(reduced.callee)
      this.#tuple(reduced.args, path)
      this.#code('R')
      this.#memoize(value)
      return this.#entries(reduced.entries, path)
    }
    const prototype: unknown = Object.getPrototypeOf(value)
    if (prototype !== Object.prototype && prototype !== null) {
      throw new InputError(`Cannot save ${path}: an object of the class ${value.constructor.name}; PyTorch has none such`)
    }
    this.#code('}')
    this.#memoize(value)
    this.#entries(Object.entries(value), path)
  }

  #tuple(elements: readonly unknown[], path: string): void {
    this.#code('(')
    for (const element of elements) this.#write(element, path)
    this.#code('t')
  }

  #entries(entries: readonly (readonly [unknown, unknown])[], path: string): void {
    this.#batches(entries, 'u', ([key, value]) => {
      const plain = key === null || ['string', 'number', 'bigint', 'boolean'].includes(typeof key)
      if (!plain) throw new InputError(`Cannot save ${path}: a Map with a key that is neither text nor number`)
      this.#write(key, `a key of ${path}`)
      this.#write(value, `${path}.${String(key)}`)
    })
  }

  // A reader holds the values above a mark until they are added.
  #batches<T>(values: readonly T[], add: string, write: (value: T, i: number) => void): void {
    for (let start = 0; start < values.length; start += BATCH) {
      this.#code('(')
      for (const [i, value] of values.slice(start, start + BATCH).entries()) write(value, start + i)
      this.#code(add)
    }
  }
}

const builtin = (name: string) => new Name('__builtin__', name)

/** Objects of Python's own that protocol 2 has no instructions for. */
function plainObject(value: object): Reduced | undefined {
  if (value instanceof Uint8Array) {
    const text = Buffer.from(value.buffer, value.byteOffset, value.length).toString('latin1')
    return new Reduced(new Name('_codecs', 'encode'), [text, 'latin1'])
  }
  if (value instanceof Set) return new Reduced(builtin('set'), [[...(value as Set<unknown>)]])
  const { re, im } = value as Record<string, unknown>
  const complex = typeof re === 'number' && typeof im === 'number' && Object.keys(value).length === 2
  return complex ? new Reduced(builtin('complex'), [re, im]) : undefined
}
