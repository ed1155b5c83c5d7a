import { describeValue, ForeignName, ForeignObject, PyDict, Refusal, type Callables } from './pickle-values.js'

// What plain Python data may call. Each entry makes data of data.

function illegal(name: ForeignName, args: readonly unknown[]): never {
  throw new Refusal(`its pickle calls '${name.path}' with illegal arguments (${args.slice(0, 4).map(describeValue).join(', ')})`)
}

/** Elements of a list, a set or the keys of a dict. */
function elements(args: readonly unknown[], name: ForeignName): unknown[] {
  const [from = []] = args
  if (args.length > 1) illegal(name, args)
  if (Array.isArray(from)) return [...(from as unknown[])]
  if (from instanceof Set) return [...(from as Set<unknown>)]
  return illegal(name, args)
}

function dict(args: readonly unknown[], name: ForeignName): PyDict {
  const [from = []] = args
  const made = new PyDict()
  const pairs: unknown[] = from instanceof PyDict ? [...from.entries] : Array.isArray(from) ? (from as unknown[]) : illegal(name, args)
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) illegal(name, args)
    made.entries.set((pair as unknown[])[0], (pair as unknown[])[1])
  }
  return made
}

/** The bytes of a text: protocol 2 writes bytes as a text and how to encode it. */
function encode(args: readonly unknown[], name: ForeignName): Uint8Array {
  const [text, encoding = 'utf-8'] = args
  if (typeof text !== 'string') return illegal(name, args)
  if (encoding === 'utf-8' || encoding === 'utf8') return new Uint8Array(Buffer.from(text, 'utf8'))
  if ((encoding !== 'latin1' && encoding !== 'latin-1') || /[^\u0000-\u00ff]/.test(text)) return illegal(name, args)
  return new Uint8Array(Buffer.from(text, 'latin1'))
}

function bytes(args: readonly unknown[], name: ForeignName): Uint8Array {
  const [from] = args
  if (args.length === 0) return new Uint8Array()
  // Never a number: that would be a length without content.
  return from instanceof Uint8Array ? from.slice() : encode(args, name)
}

function complex(args: readonly unknown[], name: ForeignName): { re: number; im: number } {
  const [re, im = 0] = args
  return typeof re === 'number' && typeof im === 'number' ? { re, im } : illegal(name, args)
}

/** How protocols 0 and 1 make an instance of a class. */
function reconstruct(args: readonly unknown[], name: ForeignName): ForeignObject {
  const [type, base, state] = args
  if (!(type instanceof ForeignName) || !(base instanceof ForeignName)) return illegal(name, args)
  const made = new ForeignObject(type)
  if (base.path !== 'builtins.object') made.items = state
  return made
}

function foreign(args: readonly unknown[], name: ForeignName): ForeignObject {
  const made = new ForeignObject(name)
  made.args = [...args]
  return made
}

/** Calls that plain data of Python's own types make. */
export const pythonCallables: Callables = new Map<string, (args: readonly unknown[], name: ForeignName) => unknown>([
  ['collections.OrderedDict', dict],
  ['collections.Counter', dict],
  ['collections.defaultdict', (args, name) => dict(args.slice(1), name)],
  ['builtins.dict', dict],
  ['builtins.list', elements],
  ['builtins.tuple', elements],
  ['builtins.set', (args, name) => new Set(elements(args, name))],
  ['builtins.frozenset', (args, name) => new Set(elements(args, name))],
  ['builtins.bytes', bytes],
  ['builtins.bytearray', bytes],
  ['builtins.complex', complex],
  ['builtins.slice', foreign],
  ['builtins.range', foreign],
  ['_codecs.encode', encode],
  ['copyreg._reconstructor', reconstruct]
])
