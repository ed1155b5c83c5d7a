import { instructions } from './pickle-instructions.js'
import { describeValue, ForeignName, ForeignObject, PyDict, Refusal, Truncated, type Callables } from './pickle-values.js'

/** What a file of pickles means beyond the language of pickles. */
export interface Context {
  /** What may be called, by `module.name`. */
  readonly callables: Callables
  /** Names that stand for values: `torch.float32`. */
  readonly constants: ReadonlyMap<string, unknown>
  /** Names that may be called and give inert data. */
  readonly inert: ReadonlySet<string>
  /** Takes the state that a pickle sets on a value. False if it is no value that has one. */
  readonly build: (value: unknown, state: unknown) => boolean
  /** What a reference to the world outside the pickle stands for. */
  readonly persistent: (id: unknown) => unknown
}

// Python itself prints no longer integers; nothing that is saved with tensors has them.
const MAX_INTEGER_BYTES = 1024
const MARK = Symbol('mark')

// What a call may copy: values that were made once can be named again and again in a few bytes.
const COPIES_PER_BYTE = 4
const COPIES_FOR_ANY = 4096

function extent(value: unknown): number {
  if (typeof value === 'string' || Array.isArray(value) || value instanceof Uint8Array) return value.length
  if (value instanceof Set) return value.size
  return value instanceof PyDict ? value.entries.size : 0
}

// Protocols up to 2 have the names of Python 2.
const RENAMED: Readonly<Record<string, string>> = { __builtin__: 'builtins', copy_reg: 'copyreg' }

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const number = (value: bigint): number | bigint => {
  const narrow = Number(value)
  return Number.isSafeInteger(narrow) ? narrow : value
}

/**
 * A machine for the language of Python's pickles, protocols 0 to 5, that makes plain data and calls nothing: a name is a name, and what a
 * pickle calls is looked up in the context's list or refused. Its work and memory are bounded by the length of the pickle: no
 * instruction makes more than its own bytes say, and what calls copy is counted. Format: the module pickletools of Python documents the instructions.
 */
export class Unpickler {
  #at: number
  #stack: unknown[] = []
  #copies = 0
  readonly #memo = new Map<number, unknown>()

  constructor(readonly bytes: Buffer, readonly context: Context, start = 0) {
    this.#at = start
  }

  /** Where the pickle ends. */
  get end(): number {
    return this.#at
  }

  /** Runs the pickle up to its end. @throws Refusal for what is illegal or not allowed, {@link Truncated} if it has no end. */
  load(): unknown {
    for (;;) {
      const opcode = this.#take(1)[0]!
      if (opcode === 0x2e) {
        const value = this.#pop()
        if (this.#stack.length) throw new Refusal('its pickle leaves values behind')
        return value
      }
      const instruction = instructions[opcode]
      if (!instruction) throw new Refusal(`its pickle has the unknown instruction 0x${opcode.toString(16).padStart(2, '0')}`)
      instruction(this)
    }
  }

  #take(length: number): Buffer {
    if (length > this.bytes.length - this.#at) throw new Truncated()
    return this.bytes.subarray(this.#at, (this.#at += length))
  }

  uint8 = (): number => this.#take(1)[0]!
  uint16 = (): number => this.#take(2).readUInt16LE()
  int32 = (): number => this.#take(4).readInt32LE()
  uint32 = (): number => this.#take(4).readUInt32LE()
  uint64 = (): number => Number(this.#take(8).readBigUInt64LE())
  double = (): number => this.#take(8).readDoubleBE()
  bytesOf = (length: number): Buffer => this.#take(length)

  line(): string {
    const end = this.bytes.indexOf(0x0a, this.#at)
    if (end < 0) throw new Truncated()
    const text = this.#take(end - this.#at).toString('latin1')
    this.#at++
    return text
  }

  text(length: number): string {
    try {
      return utf8.decode(this.#take(length))
    } catch (error) {
      if (error instanceof Refusal) throw error
      throw new Refusal('its pickle has a text that is no UTF-8')
    }
  }

  /** A signed integer, little-endian. */
  integer(length: number): number | bigint {
    if (length > MAX_INTEGER_BYTES) throw new Refusal(`its pickle has an integer of ${length} bytes`)
    if (length === 0) return 0
    const digits = Buffer.from(this.#take(length)).reverse().toString('hex')
    return number(BigInt.asIntN(8 * length, BigInt(`0x${digits}`)))
  }

  decimal(text: string): number | bigint {
    if (!/^[+-]?\d{1,2000}$/.test(text)) throw new Refusal(`its pickle has the illegal integer '${text.slice(0, 40)}'`)
    return number(BigInt(text.replace('+', '')))
  }

  push(value: unknown): void {
    this.#stack.push(value)
  }

  #pop(): unknown {
    if (this.#stack.length === 0) throw new Refusal('its pickle takes more values than it has')
    const value = this.#stack.pop()
    if (value === MARK) throw new Refusal('its pickle takes a mark for a value')
    return value
  }

  pop = (): unknown => this.#pop()

  /** Drops the value on top, or the mark. */
  drop(): void {
    if (this.#stack.pop() === undefined) throw new Refusal('its pickle takes more values than it has')
  }

  top(): unknown {
    const value = this.#pop()
    this.#stack.push(value)
    return value
  }

  mark(): void {
    this.#stack.push(MARK)
  }

  /** The values above the last mark. */
  marked(): unknown[] {
    const at = this.#stack.lastIndexOf(MARK)
    if (at < 0) throw new Refusal('its pickle lacks a mark')
    const values = this.#stack.splice(at)
    values.shift()
    return values
  }

  put(index: number): void {
    this.#memo.set(index, this.top())
  }

  memoize(): void {
    this.put(this.#memo.size)
  }

  get(index: number): void {
    if (!this.#memo.has(index)) throw new Refusal(`its pickle refers to value ${index}, which it does not have`)
    this.push(this.#memo.get(index))
  }

  global(module: unknown, name: unknown): unknown {
    if (typeof module !== 'string' || typeof name !== 'string') throw new Refusal('its pickle has a name that is no text')
    const found = new ForeignName(Object.hasOwn(RENAMED, module) ? RENAMED[module]! : module, name)
    return this.context.constants.get(found.path) ?? found
  }

  /** What a call gives: data for what is on the list, else the file is refused. */
  call(callee: unknown, args: unknown): unknown {
    if (!(callee instanceof ForeignName)) throw new Refusal(`its pickle calls ${describeValue(callee)}, which is no function`)
    if (!Array.isArray(args)) throw new Refusal(`its pickle calls '${callee.path}' without a list of arguments`)
    if (callee.path === 'copyreg.__newobj__') return this.make(args[0], args.slice(1))
    if (callee.path === 'copyreg.__newobj_ex__') return this.makeWithNames(args[0], args[1], args[2])
    this.#countCopies(args as unknown[])
    const callable = this.context.callables.get(callee.path)
    if (callable) return callable(args as unknown[], callee)
    if (this.context.inert.has(callee.path)) return this.#foreign(callee, args as unknown[])
    throw new Refusal(
      `its pickle calls '${callee.path}', which is not allowed; nothing was executed. If the call is known to make plain data, ` +
        `{ inert: ['${callee.path}'] } reads it as such`
    )
  }

  /** An instance of a class, without its initialiser. */
  make(type: unknown, args: unknown): unknown {
    if (!(type instanceof ForeignName)) throw new Refusal(`its pickle makes an instance of ${describeValue(type)}, which is no class`)
    if (!Array.isArray(args)) throw new Refusal(`its pickle makes a '${type.path}' without a list of arguments`)
    this.#countCopies(args as unknown[])
    return this.context.callables.get(type.path)?.(args as unknown[], type) ?? this.#foreign(type, args as unknown[])
  }

  makeWithNames(type: unknown, args: unknown, named: unknown): unknown {
    if (!(named instanceof PyDict)) throw new Refusal('its pickle has named arguments that are no dict')
    return this.make(type, named.entries.size && Array.isArray(args) ? [...(args as unknown[]), named] : args)
  }

  #countCopies(args: readonly unknown[]): void {
    for (const value of args) this.#copies += extent(value)
    if (this.#copies > COPIES_PER_BYTE * this.bytes.length + COPIES_FOR_ANY) throw new Refusal('its pickle copies its values over and over')
  }

  #foreign(type: ForeignName, args: unknown[]): ForeignObject {
    const made = new ForeignObject(type)
    made.args = args
    return made
  }

  build(): void {
    const [state, value] = [this.#pop(), this.top()]
    if (this.context.build(value, state)) return
    if (value instanceof ForeignObject) value.state = state
    // Attributes of an OrderedDict: those of a state dict are versions of modules, which mean nothing here.
    else if (!(value instanceof PyDict)) throw new Refusal(`its pickle sets attributes of ${describeValue(value)}`)
  }

  append(values: readonly unknown[]): void {
    const target = this.top()
    const list = target instanceof ForeignObject ? (target.items ??= []) : target
    if (!Array.isArray(list)) throw new Refusal(`its pickle adds elements to ${describeValue(target)}`)
    for (const value of values) list.push(value)
  }

  add(values: readonly unknown[]): void {
    const target = this.top()
    const set = target instanceof ForeignObject ? (target.items ??= new Set()) : target
    if (!(set instanceof Set)) throw new Refusal(`its pickle adds elements to ${describeValue(target)}`)
    for (const value of values) set.add(value)
  }

  setItems(values: readonly unknown[], target: unknown = this.top()): void {
    const dict = target instanceof ForeignObject ? (target.items ??= new PyDict()) : target
    if (!(dict instanceof PyDict)) throw new Refusal(`its pickle sets entries of ${describeValue(target)}`)
    if (values.length % 2) throw new Refusal('its pickle has a key without a value')
    for (let i = 0; i < values.length; i += 2) dict.entries.set(values[i], values[i + 1])
  }
}
