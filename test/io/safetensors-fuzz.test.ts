import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus'
import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { expect, it } from 'vitest'

import { inspectSafetensors, loadSafetensors } from '../../src/io/index.js'
import { InputError, memory } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

const CASES = 2000

const random = xoroshiro128plus(20240229)
const below = (limit: number) => uniformInt(random, 0, limit - 1)
const pick = <T>(values: ArrayLike<T>): T => values[below(values.length)]!

const frame = (header: Buffer, data: Buffer) => {
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(header.length))
  return Buffer.concat([prefix, header, data])
}

const dtypes = [
  'BOOL', 'F4', 'F6_E2M3', 'F6_E3M2', 'U8', 'I8', 'F8_E5M2', 'F8_E4M3', 'F8_E8M0', 'F8_E4M3FNUZ', 'F8_E5M2FNUZ', 'I16', 'U16', 'F16',
  'BF16', 'I32', 'U32', 'F32', 'C64', 'F64', 'I64', 'U64'
]
const bits = (dtype: string) => (dtype === 'BOOL' ? 8 : dtype === 'BF16' ? 16 : Number(/^[A-Z](\d+)/.exec(dtype)![1]))

/** A legal file: a few tensors of any dtype, sometimes metadata. */
function legalFile(): { header: string; data: Buffer } {
  const header: Record<string, unknown> = {}
  if (below(2)) header['__metadata__'] = below(2) ? { format: 'pt', note: 'a "b" \u{1F600}' } : {}
  let offset = 0
  for (let i = below(4); i >= 0; i--) {
    const dtype = pick(dtypes)
    const shape = Array.from({ length: below(4) }, () => below(4))
    // Whole bytes, also where elements are smaller.
    if (bits(dtype) < 8) shape.push(4)
    const end = offset + (shape.reduce((product, size) => product * size, 1) * bits(dtype)) / 8
    header[pick(['a', 'b.weight', 'ünï', '', '__proto__', '1']) + (below(3) ? i : '')] = { dtype, shape, data_offsets: [offset, end] }
    offset = end
  }
  // A name that came twice has replaced the first: such a header has a gap, and that is a case too.
  return { header: JSON.stringify(header), data: Buffer.alloc(offset, 1) }
}

type Mutation = (header: Buffer) => Buffer

const replaced = (pattern: RegExp, replacement: () => string): Mutation => (header) => {
  const text = header.toString('latin1')
  const found = [...text.matchAll(pattern)]
  if (found.length === 0) return header
  const { index, 0: old } = pick(found)
  return Buffer.from(text.slice(0, index) + replacement() + text.slice(index + old.length), 'latin1')
}

const spliced = (header: Buffer, start: number, remove: number, insert: Buffer) =>
  Buffer.concat([header.subarray(0, start), insert, header.subarray(start + remove)])

const mutations: readonly Mutation[] = [
  (header) => header,
  // One bit, one byte, one character that means something in JSON.
  (header) => spliced(header, below(header.length), 1, Buffer.of(below(256))),
  (header) => {
    const copy = Buffer.from(header)
    const at = below(copy.length)
    copy[at]! ^= 1 << below(8)
    return copy
  },
  (header) => spliced(header, below(header.length), below(2), Buffer.from(pick('{}[]",:0123456789.eE-+\\ \n\t'))),
  (header) => spliced(header, below(header.length), 1 + below(8), Buffer.alloc(0)),
  (header) => {
    const [start, length] = [below(header.length), 1 + below(30)]
    return spliced(header, start, 0, header.subarray(start, start + length))
  },
  replaced(/\d+/g, () => pick([...'01248', '-1', '-0', '1.0', '1e0', '00', '9007199254740993', '18446744073709551616', '99999999999'])),
  replaced(/"[A-Z][A-Z0-9_]+"/g, () => pick([...dtypes.map((name) => `"${name}"`), '"F7"', 'null', '4', '"f32"'])),
  replaced(/\[[\d,]*\]/g, () => pick(['[]', '[1]', '[0]', '[4294967296,4294967296]', '[0,4]', '[4,8]', '[2,2]', '{}', 'null', '[[1]]'])),
  replaced(/"[^"]*"(?=:)/g, () => pick(['"a"', '"__metadata__"', '"dtype"', '"shape"', '"data_offsets"', '"\\ud800"', '"\\u0061"', '"x"'])),
  // A tensor or a field once more.
  replaced(/\{(?=")/g, () => pick(['{"a":1,', '{"dtype":"F32",', '{"x":[],', '{"__metadata__":{},'])),
  (header) => Buffer.concat([header, Buffer.from(pick([' ', '\n', '}', '\0', ',', 'x']))]),
  (header) => Buffer.concat([Buffer.from(pick([' ', '\n', '\ufeff', '{', '['])), header])
]

function mutatedFile(): Buffer {
  const { header, data } = legalFile()
  let bytes: Buffer = Buffer.from(header)
  for (let i = below(3); i > 0; i--) bytes = pick(mutations)(bytes)
  const file = frame(bytes, data)
  switch (below(12)) {
    case 0: // another length of the header
      file[below(8)] = below(256)
      return file
    case 1:
      return file.subarray(0, below(file.length + 1))
    case 2:
      return Buffer.concat([file, Buffer.alloc(1 + below(8))])
    case 3: // a length that is a little wrong
      file.writeBigUInt64LE(BigInt(Math.max(0, bytes.length + below(5) - 2)))
      return file
    default:
      return file
  }
}

// The reference is given each file as bytes and says nothing or why it refuses.
const script = `import json, struct, sys
from safetensors import deserialize
data, reasons, at = open(sys.argv[1], "rb").read(), [], 0
while at < len(data):
    (length,) = struct.unpack_from("<Q", data, at)
    at += 8 + length
    try:
        deserialize(data[at - length:at])
        reasons.append(None)
    except Exception as error:
        reasons.append(str(error))
print(json.dumps(reasons))`

// Where the reference is more lenient than the format's description or than what libtorch can hold.
const STRICTER = [
  /has the name '.*' twice$/s, // "duplicate keys are disallowed"; the reference takes the last tensor
  /does not begin with '\{'$/, // "must begin with a {"; the reference takes white space too
  /which libtorch does not have$/, // numbers of six bits
  /numbers of 4 bits that do not fill the bytes of its last dimension$/, // libtorch has them in pairs
  /more elements than can be counted$/, // no elements at all, but strides beyond int64
  /no legal (shape|offsets)$/ // sizes beyond 2^53, which only tensors without elements can have
]

// Where this reader is more lenient: JSON has one kind of number, so 1.0 and 1e0 are 1.
const LENIENT = /invalid type: floating point `\d+\.\d+`, expected usize/

it('refuses and accepts what the reference implementation does, in thousands of damaged headers', async () => {
  const folder = await temporaryFolder()
  const files = Array.from({ length: CASES }, mutatedFile)
  await writeFile(join(folder, 'all'), Buffer.concat(files.map((file) => frame(file, Buffer.alloc(0)))))
  await writeFile(join(folder, 'judge.py'), script)
  const reasons = JSON.parse(await runPython(join(folder, 'judge.py'), join(folder, 'all'))) as (string | null)[]
  expect(reasons).toHaveLength(CASES)

  const path = join(folder, 'a.safetensors')
  const unexplained: unknown[] = []
  const count = { accepted: 0, refused: 0, stricter: 0, lenient: 0 }
  for (const [i, file] of files.entries()) {
    await writeFile(path, file)
    const before = memory().tensors
    const refused = await inspectSafetensors(path).then(() => null, (error: unknown) => error as Error)
    const theirs = reasons[i]!
    if (refused) {
      expect(refused, refused.stack).toBeInstanceOf(InputError)
      expect(refused.message).toContain(path)
      for (const map of [false, true]) await expect(loadSafetensors(path, { map })).rejects.toThrow(refused.message)
    } else {
      const { tensors: described } = await inspectSafetensors(path)
      for (const map of [false, true]) {
        const { tensors } = await loadSafetensors(path, { map })
        for (const [name, { dtype, shape }] of Object.entries(described)) {
          const tensor = Object.getOwnPropertyDescriptor(tensors, name)!.value as (typeof tensors)[string]
          expect([tensor.dtype, tensor.shape]).toEqual([dtype, shape])
          tensor.toTypedArray()
          tensor.dispose()
        }
      }
    }
    expect(memory().tensors).toBeLessThanOrEqual(before)
    if (!refused === (theirs === null)) count[refused ? 'refused' : 'accepted']++
    else if (refused && STRICTER.some((pattern) => pattern.test(refused.message))) count.stricter++
    else if (!refused && LENIENT.test(theirs)) count.lenient++
    else unexplained.push([file.toString('latin1'), refused?.message ?? 'accepted', theirs ?? 'accepted'])
  }
  if (process.env['GMML_MEASURED']) console.log(count)
  expect(unexplained).toEqual([])
  expect(count.accepted).toBeGreaterThan(CASES / 10)
  expect(count.refused).toBeGreaterThan(CASES / 3)
})
