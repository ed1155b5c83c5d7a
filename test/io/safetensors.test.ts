import { readFile, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { describe, expect, it } from 'vitest'

import { inspectSafetensors, loadSafetensors, saveSafetensors } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type DType, type Tensor } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

/** A file with this header, as text or as an object, and so many bytes of data. */
function file(header: unknown, bytes = 0, length?: bigint): Buffer {
  const text = Buffer.isBuffer(header) ? header : Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(length ?? BigInt(text.length))
  return Buffer.concat([prefix, text, Buffer.alloc(bytes)])
}

const text = (value: unknown) => JSON.stringify(value)
const f32 = (...data_offsets: number[]) => ({ dtype: 'F32', shape: [1], data_offsets })

describe('loading refuses', () => {
  const malformed: Record<string, readonly [Buffer, RegExp]> = {
    'an empty file': [Buffer.alloc(0), /it has 0 bytes, and the length of the header alone takes 8/],
    'seven bytes': [Buffer.alloc(7), /it has 7 bytes/],
    'no header': [Buffer.alloc(8), /its header is no JSON$/],
    'a header longer than the file': [file('{}', 0, 3n), /its header should have 3 bytes, the file has 10/],
    'a header of absurd length': [file('{}', 0, 2n ** 63n), /its header should have 9223372036854775808 bytes/],
    'a header longer than any': [file('{}', 0, 100_000_001n), /its header should have 100000001 bytes/],
    'a text file': [Buffer.from('This is not a file of tensors, it is a letter.'), /its header should have/],
    'a header that is no JSON': [file('{"a":'), /its header is no JSON$/],
    'a header that is no UTF-8': [file(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), /its header is no JSON$/],
    'a list for a header': [file('[]'), /its header does not begin with '\{'$/],
    'null for a header': [file('null'), /its header does not begin with '\{'$/],
    'space before the header': [file(' {}'), /its header does not begin with '\{'$/],
    'a byte order mark': [file('\ufeff{}'), /its header does not begin with '\{'$/],
    'two headers': [file('{}{}'), /its header is no JSON$/],
    'a zero after the header': [file('{}\0'), /its header is no JSON$/],
    'a header length of zero before data': [file('', 8), /its header is no JSON$/],
    'a header without end': [file('{"a":'.repeat(100_000)), /its header nests more than 128 deep$/],
    'a header of brackets': [file(`{"a":{"x":${'['.repeat(200)}${']'.repeat(200)}}}`), /its header nests more than 128 deep$/],
    'a name twice': [file(`{"a":${text(f32(0, 4))},"a":${text(f32(0, 4))}}`, 4), /its header has the name 'a' twice$/],
    'a name twice, written differently': [
      file(`{"a":${text(f32(0, 4))},"\\u0061" :${text(f32(4, 8))}}`, 8),
      /its header has the name 'a' twice$/
    ],
    'a dtype twice': [file('{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', 4), /the name 'dtype' twice$/],
    'metadata twice': [file('{"__metadata__":{},"__metadata__":{}}'), /the name '__metadata__' twice$/],
    'a name of metadata twice': [file('{"__metadata__":{"a\\"":"1","a\\"":"2"}}'), /the name 'a"' twice$/],
    'half a character for a name': [file(`{"\\ud800":${text(f32(0, 4))}}`, 4), /the name of tensor '.' is no Unicode text$/],
    'half a character in the metadata': [file('{"__metadata__":{"a":"\\udc00"}}'), /its metadata are no strings by name$/],
    'a number for a tensor': [file({ a: 3 }), /tensor 'a' has the unknown dtype undefined/],
    'null for a tensor': [file({ a: null }), /tensor 'a' has the unknown dtype undefined/],
    'an unknown dtype': [file({ a: { ...f32(0, 4), dtype: 'F7' } }, 4), /tensor 'a' has the unknown dtype 'F7'/],
    'an object that is no text for a dtype': [file({ a: { ...f32(0, 4), dtype: { toString: 1 } } }, 4), /unknown dtype \{ toString: 1 \}$/],
    'a dtype in small letters': [file({ a: { ...f32(0, 4), dtype: 'f32' } }, 4), /tensor 'a' has the unknown dtype 'f32'/],
    'a list for a dtype': [file({ a: { ...f32(0, 4), dtype: ['F32'] } }, 4), /tensor 'a' has the unknown dtype \[ 'F32' \]/],
    'a property of every object for a dtype': [file({ a: { ...f32(0, 4), dtype: '__proto__' } }, 4), /unknown dtype '__proto__'/],
    'a dtype that libtorch lacks': [
      file({ a: { dtype: 'F6_E2M3', shape: [4], data_offsets: [0, 3] } }, 3),
      /tensor 'a' has the dtype 'F6_E2M3', which libtorch does not have$/
    ],
    'numbers of four bits that leave half a byte': [
      file({ a: { dtype: 'F4', shape: [2, 3], data_offsets: [0, 3] } }, 3),
      /tensor 'a' has numbers of 4 bits that do not fill the bytes of its last dimension$/
    ],
    'one number of four bits': [file({ a: { dtype: 'F4', shape: [], data_offsets: [0, 1] } }, 1), /tensor 'a' has numbers of 4 bits/],
    'no shape': [file({ a: { dtype: 'F32', data_offsets: [0, 4] } }, 4), /tensor 'a' has no legal shape/],
    'a negative size': [file({ a: { ...f32(0, 4), shape: [-1, -1] } }, 4), /tensor 'a' has no legal shape/],
    'a fraction of a size': [file({ a: { ...f32(0, 4), shape: [0.5, 2] } }, 4), /tensor 'a' has no legal shape/],
    'one offset': [file({ a: f32(0) }, 4), /tensor 'a' has no legal offsets/],
    'a negative offset': [file({ a: f32(-4, 0) }, 4), /tensor 'a' has no legal offsets/],
    'offsets in reverse': [file({ a: f32(4, 0) }, 4), /tensor 'a' has -4 bytes where its shape and dtype need 4/],
    'offsets that do not fit the shape': [file({ a: f32(0, 8) }, 8), /tensor 'a' has 8 bytes where its shape and dtype need 4/],
    'a string of a size': [file({ a: { ...f32(0, 4), shape: ['1'] } }, 4), /tensor 'a' has no legal shape/],
    'an object for a shape': [file({ a: { ...f32(0, 4), shape: { 0: 1, length: 1 } } }, 4), /tensor 'a' has no legal shape/],
    'a size beyond 2^53': [file(`{"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,4]}}`, 4), /no legal shape/],
    'an offset beyond 2^53': [file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1e300]}}`, 1), /no legal offsets/],
    'a fraction of an offset': [file({ a: f32(0.5, 4.5) }, 5), /tensor 'a' has no legal offsets/],
    'three offsets': [file({ a: f32(0, 4, 8) }, 8), /tensor 'a' has no legal offsets/],
    'more dimensions than an operator takes': [
      file({ a: { ...f32(0, 4), shape: Array<number>(65).fill(1) } }, 4),
      /tensor 'a' has more than 64 dimensions$/
    ],
    'more names than any file has': [
      file(`{${Array.from({ length: 2 ** 20 }, (_, i) => `"${i}":1,`).join('')}"a":1}`),
      /its header has more than 1048576 names$/
    ],
    'a name that fills the screen': [file({ ['x'.repeat(1000)]: 3 }), /tensor 'x{77}\.\.\.' has the unknown dtype undefined$/],
    'more than there is memory': [file({ a: { dtype: 'U8', shape: [2 ** 50], data_offsets: [0, 2 ** 50] } }, 4), /need 11258999/],
    'a shape whose product overflows': [file({ a: { ...f32(0, 4), shape: [2 ** 40, 2 ** 40] } }, 4), /more elements than can be counted$/],
    'a product that overflows to zero': [file({ a: { ...f32(0, 0), shape: [2 ** 32, 2 ** 32] } }), /more elements than can be counted$/],
    'no elements of a size that overflows': [file({ a: { ...f32(0, 0), shape: [0, 2 ** 40, 2 ** 40] } }), /more elements than can/],
    'bytes that overflow': [file({ a: { dtype: 'F64', shape: [2 ** 52], data_offsets: [0, 2 ** 53 - 1] } }, 8), /more elements than/],
    'an overlap by an empty tensor': [
      file({ a: { dtype: 'U8', shape: [4], data_offsets: [0, 4] }, b: { dtype: 'U8', shape: [0], data_offsets: [2, 2] } }, 4),
      /tensor 'b' begins at byte 2 of the data where 4 was expected/
    ],
    'tensors that overlap': [file({ a: f32(0, 4), b: f32(2, 6) }, 6), /tensor 'b' begins at byte 2 of the data where 4 was expected/],
    'two tensors in one place': [file({ a: f32(0, 4), b: f32(0, 4) }, 4), /tensor 'b' begins at byte 0 of the data where 4 was expected/],
    'a gap': [file({ a: f32(0, 4), b: f32(8, 12) }, 12), /tensor 'b' begins at byte 8 of the data where 4 was expected/],
    'a gap at the start': [file({ a: f32(4, 8) }, 8), /tensor 'a' begins at byte 4 of the data where 0 was expected/],
    'a truncated file': [file({ a: f32(0, 4) }, 3), /its tensors need \d+ bytes, the file has \d+/],
    'trailing bytes': [file({ a: f32(0, 4) }, 5), /its tensors need \d+ bytes, the file has \d+/],
    'metadata that are no strings': [file({ __metadata__: { epoch: 3 } }), /its metadata are no strings by name/],
    'metadata that are no object': [file({ __metadata__: 'epoch 3' }), /its metadata are no strings by name/]
  }

  it.each(Object.entries(malformed))('%s', async (_, [content, message]) => {
    const path = join(await temporaryFolder(), 'bad.safetensors')
    await writeFile(path, content)
    const before = memory().tensors
    for (const read of [loadSafetensors, inspectSafetensors, (path: string) => loadSafetensors(path, { map: true })]) {
      const error: unknown = await read(path).catch((reason: unknown) => reason)
      expect(error).toBeInstanceOf(InputError)
      expect((error as Error).message).toContain(`${path} is no legal safetensors file: `)
      expect((error as Error).message).toMatch(message)
    }
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  it('a file that is not there', async () => {
    await expect(loadSafetensors(join(await temporaryFolder(), 'none.safetensors'))).rejects.toThrow(/ENOENT.*none.safetensors/)
  })
})

describe('saving refuses, before the file is touched,', () => {
  const misuse: Record<string, readonly [Record<string, Tensor>, Record<string, string>, RegExp]> = {
    'a dtype that the format lacks': [
      { a: torch.ones([2], { dtype: 'complex128' }) },
      {},
      /'a' cannot be written: safetensors has no dtype complex128/
    ],
    'four bits without a dimension': [
      { a: torch.empty([], { dtype: 'float4_e2m1fn_x2' }) },
      {},
      /'a' cannot be written: safetensors has no float4_e2m1fn_x2 without dimensions/
    ],
    'a tensor of no elements': [{ a: torch.empty([2], { device: 'meta' }) }, {}, /'a' cannot be written: it is on the device meta/],
    'half a character for a name': [{ '\ud800': torch.ones([1]) }, {}, /cannot be written: its name is no Unicode text/],
    'what is no tensor': [{ a: [1, 2] as never }, {}, /a Tensor or \{ dtype, shape, make \} for tensor 'a', received \[ 1, 2 \]/],
    'null for a tensor': [{ a: null as never }, {}, /a Tensor or .* for tensor 'a', received null/],
    'no tensors': [null as never, {}, /tensors by name for tensors, received null/],
    'no metadata': [{}, null as never, /strings by name for metadata, received null/],
    'half a character in the metadata': [{}, { a: '\udfff' }, /Unicode text for metadata 'a'/],
    'a header that no reader takes': [{}, { a: 'x'.repeat(100_000_000) }, /take 1000\d+ bytes, and safetensors allows 100000000/],
    'the name of the metadata': [{ __metadata__: torch.ones([1]) }, {}, /'__metadata__' cannot be written/],
    'metadata that are no strings': [{}, { epoch: 3 as never }, /a string for metadata 'epoch', received 3/]
  }
  it.each(Object.entries(misuse))('%s', async (_, [tensors, metadata, message]) => {
    const folder = await temporaryFolder()
    const path = join(folder, 'a.safetensors')
    await writeFile(path, 'earlier')
    await expect(saveSafetensors(path, tensors, metadata)).rejects.toThrow(message)
    expect(await readFile(path, 'utf8')).toBe('earlier')
    expect(await readdir(folder)).toEqual(['a.safetensors'])
  })

  it('a tensor that was disposed of', async () => {
    const gone = torch.ones([1])
    gone.dispose()
    const folder = await temporaryFolder()
    await expect(saveSafetensors(join(folder, 'a.safetensors'), { gone })).rejects.toThrow(torch.TorchError)
    expect(await readdir(folder)).toEqual([])
  })
})

const formats = {
  float64: 'F64',
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
  int64: 'I64',
  int32: 'I32',
  int16: 'I16',
  int8: 'I8',
  uint64: 'U64',
  uint32: 'U32',
  uint16: 'U16',
  uint8: 'U8',
  bool: 'BOOL',
  complex64: 'C64',
  float8_e4m3fn: 'F8_E4M3',
  float8_e5m2: 'F8_E5M2',
  float8_e4m3fnuz: 'F8_E4M3FNUZ',
  float8_e5m2fnuz: 'F8_E5M2FNUZ',
  float8_e8m0fnu: 'F8_E8M0',
  float4_e2m1fn_x2: 'F4'
} as const satisfies Partial<Record<DType, string>>

/** A tensor whose every byte is of interest, some of it NaN, infinite or the largest there is. */
function sample(dtype: DType): Tensor {
  if (dtype === 'bool')
    return torch.tensor([
      [true, false, true],
      [false, false, true]
    ])
  if (dtype === 'complex64')
    return torch.tensor([
      [{ re: 1, im: -2 }, { re: NaN, im: 0.5 }, 3],
      [0, { re: -1e30, im: Infinity }, 5]
    ])
  if (dtype === 'int64')
    return torch.tensor([
      [1n, -1n, 2n ** 63n - 1n],
      [-(2n ** 63n), 0n, 9007199254740993n]
    ])
  if (dtype === 'uint64') return torch.fromTypedArray(BigUint64Array.of(0n, 1n, 2n ** 64n - 1n, 5n, 6n, 7n), [2, 3])
  // Bits as they are: libtorch converts no numbers to these.
  if (/e8m0|float4/.test(dtype)) return torch.fromTypedArray(Uint8Array.of(0, 1, 127, 128, 254, 255), [2, 3], { dtype })
  if (/^u?int/.test(dtype))
    return torch.tensor(
      [
        [0, 1, 127],
        [dtype.startsWith('u') ? 2 : -128, 5, 6]
      ],
      { dtype }
    )
  const values = torch.tensor([
    [0.5, -0, NaN],
    [-1.5, 448, 2 ** -9]
  ])
  return values.to(dtype)
}

const bits = (tensor: Tensor) => Buffer.from(tensor.toTypedArray().buffer).toString('hex')

describe('a round trip', () => {
  it.each(Object.entries(formats) as [DType, string][])('of %s as %s', async (dtype, format) => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const tensor = sample(dtype)
    expect(tensor.dtype).toBe(dtype)
    const one = tensor.flatten().narrow(0, 1, 1)
    // The format counts single numbers of four bits: there are always two of them.
    const scalar = dtype === 'float4_e2m1fn_x2' ? one : one.reshape([])
    await saveSafetensors(path, { tensor, empty: torch.empty([0, 3], { dtype }), scalar })
    expect((await readFile(path)).toString('latin1')).toContain(`"dtype":"${format}"`)
    for (const map of [false, true]) {
      const { tensors } = await loadSafetensors(path, { map })
      expect(Object.entries(tensors).map(([name, { shape }]) => [name, shape])).toEqual([
        ['tensor', [2, 3]],
        ['empty', [0, 3]],
        ['scalar', scalar.shape]
      ])
      for (const loaded of Object.values(tensors)) expect([loaded.dtype, loaded.isContiguous]).toEqual([dtype, true])
      expect(bits(tensors['tensor']!)).toBe(bits(tensor))
      expect(bits(tensors['scalar']!)).toBe(bits(tensor).slice(bits(tensor).length / 6, bits(tensor).length / 3))
    }
  })

  it('of names, metadata and nothing at all', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const names = ['', 'ein "Name"', 'ünï\n\u{1F600}', '__proto__', 'toString', 'a.b/c']
    const tensors = Object.fromEntries(names.map((name, i) => [name, torch.tensor([i])]))
    const metadata = { note: 'zwei\nZeilen "und" \u{1F600}', ['__proto__x']: '' }
    await saveSafetensors(path, tensors, metadata)
    const loaded = await loadSafetensors(path)
    expect(Object.keys(loaded.tensors)).toEqual(names)
    for (const [i, name] of names.entries())
      expect(Object.getOwnPropertyDescriptor(loaded.tensors, name)!.value as Tensor).toSatisfy((t: Tensor) => t.item() === i)
    expect(loaded.metadata).toEqual(metadata)
    const inspected = await inspectSafetensors(path)
    expect(inspected.metadata).toEqual(metadata)
    expect(inspected.tensors['a.b/c']).toEqual({ dtype: 'float32', shape: [1] })
    await saveSafetensors(path, {})
    expect(await loadSafetensors(path)).toEqual({ tensors: {}, metadata: {} })
    await saveSafetensors(path, {}, metadata)
    expect(await loadSafetensors(path)).toEqual({ tensors: {}, metadata })
  })

  it('of what is not contiguous, a view, requires grad, conjugated', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const base = torch.arange(24).reshape([4, 6]).to('float32')
    const tensors = {
      transposed: base.t(),
      strided: base.slice({ dim: 1, start: 1, end: 6, step: 2 }),
      expanded: torch.tensor([7]).expand([2, 3]),
      learned: torch.ones([2], { requiresGrad: true }),
      conjugated: torch.tensor([{ re: 1, im: 2 }]).conj()
    }
    expect([tensors.transposed.isContiguous, tensors.strided.isContiguous, tensors.expanded.isContiguous]).toEqual([false, false, false])
    await saveSafetensors(path, tensors)
    const loaded = (await loadSafetensors(path)).tensors
    for (const [name, tensor] of Object.entries(tensors)) {
      expect(loaded[name]!.toArray(), name).toEqual(tensor.toArray())
      expect(loaded[name]!.isContiguous).toBe(true)
    }
    expect(loaded['learned']!.requiresGrad).toBe(false)
  })

  it('of two at once, and of a file over itself', async () => {
    const folder = await temporaryFolder()
    const path = join(folder, 'a.safetensors')
    await Promise.all([1, 2, 3, 4].map((i) => saveSafetensors(path, { a: torch.full([50_000], i) })))
    const { tensors } = await loadSafetensors(path)
    expect(tensors['a']!.min().item()).toBe(tensors['a']!.max().item())
    await saveSafetensors(path, { a: tensors['a']!.add(10) })
    expect((await loadSafetensors(path)).tensors['a']!.min().item()).toBeGreaterThan(10)
    expect(await readdir(folder)).toEqual(['a.safetensors'])
  })

  it('reads files of other writers: any order, spaces, no padding, metadata of null', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const content = file(`{ "b": {"dtype": "U8", "shape": [3], "data_offsets": [4, 7]}, "a": ${text(f32(0, 4))},"__metadata__":null}\n `, 7)
    content.writeFloatLE(1.5, content.length - 7)
    await writeFile(path, content)
    const { tensors } = await loadSafetensors(path)
    expect(tensors['a']!.toArray()).toEqual([1.5])
    expect(tensors['b']!.toArray()).toEqual([0, 0, 0])
  })
})

describe('read by Python', () => {
  const script = (body: string) => `import sys, json\npath = sys.argv[1]\n${body}`
  // Tensors of odd lengths first, so that a writer that does not align has something to get wrong.
  const tensors = Object.fromEntries((Object.keys(formats) as DType[]).reverse().map((dtype) => [dtype, sample(dtype)]))
  const sums = (keep: (dtype: string) => boolean) =>
    Object.fromEntries(
      Object.entries(tensors)
        .filter(([dtype]) => keep(dtype))
        .map(([dtype, tensor]) => [dtype, bits(tensor)])
    )
  const dump = '{k: v.contiguous().view(torch.uint8).numpy().tobytes().hex() for k, v in tensors.items()}'

  it('every tensor lies where its elements are aligned', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await saveSafetensors(path, tensors)
    const content = await readFile(path)
    const length = Number(content.readBigUInt64LE())
    const header = JSON.parse(content.toString('utf8', 8, 8 + length)) as Record<string, { data_offsets: [number, number] }>
    expect(length % 8).toBe(0)
    for (const [name, tensor] of Object.entries(tensors)) {
      const [start, end] = header[name]!.data_offsets
      expect(start % ((end - start) / tensor.numel()), name).toBe(0)
    }
  })

  it('with its own small reader', async () => {
    const folder = await temporaryFolder()
    const known = (dtype: string) => !/^(uint(16|32|64)|complex|float[48])/.test(dtype)
    const path = join(folder, 'a.safetensors')
    await saveSafetensors(path, Object.fromEntries(Object.entries(tensors).filter(([dtype]) => known(dtype))), { note: 'x' })
    const reader = join(import.meta.dirname, '../../bench/pytorch')
    await writeFile(
      join(folder, 'read.py'),
      script(
        `sys.path.insert(0, ${JSON.stringify(reader)})\nimport torch, model\ntensors = model.load_tensors(path)\nprint(json.dumps(${dump}))`
      )
    )
    expect(JSON.parse(await runPython(join(folder, 'read.py'), path))).toEqual(sums(known))
  })

  it('with the official package: shapes of every kind, of every dtype, both ways', async () => {
    const folder = await temporaryFolder()
    const [path, copy] = [join(folder, 'a.safetensors'), join(folder, 'b.safetensors')]
    const shapes = Object.fromEntries((Object.keys(formats) as DType[]).flatMap((dtype) => {
      const tensor = sample(dtype)
      // The format has no single number of four bits.
      const scalar = dtype === 'float4_e2m1fn_x2' ? [] : [[`${dtype} scalar`, tensor.select(0, 1).select(0, 2)] as const]
      const empty = torch.empty([2, 0, 3], { dtype })
      return [[`${dtype} empty`, empty] as const, [`${dtype} column`, tensor.narrow(1, 1, 1)] as const, ...scalar]
    }))
    await saveSafetensors(path, shapes)
    await writeFile(
      join(folder, 'read.py'),
      script(`import torch
from safetensors.torch import load_file, save_file
tensors = load_file(path)
save_file({k: v.unsqueeze(0) for k, v in tensors.items()}, sys.argv[2])
print(json.dumps({k: [str(v.dtype), v.shape] for k, v in tensors.items()}))`)
    )
    const described = Object.fromEntries(Object.entries(shapes).map(([name, { dtype, shape }]) => [name, [`torch.${dtype}`, shape]]))
    expect(JSON.parse(await runPython(join(folder, 'read.py'), path, copy))).toEqual(described)
    for (const map of [false, true]) {
      const { tensors: back } = await loadSafetensors(copy, { map })
      expect(Object.keys(back).sort()).toEqual(Object.keys(shapes).sort())
      for (const [name, tensor] of Object.entries(shapes)) {
        expect([back[name]!.dtype, back[name]!.shape, bits(back[name]!)], name).toEqual([tensor.dtype, [1, ...tensor.shape], bits(tensor)])
      }
    }
  })

  it('with the official package, every dtype, and what that writes is read here', async () => {
    const folder = await temporaryFolder()
    const [path, copy] = [join(folder, 'a.safetensors'), join(folder, 'b.safetensors')]
    await saveSafetensors(path, tensors, { note: 'x' })
    await writeFile(
      join(folder, 'read.py'),
      script(`import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
tensors = load_file(path)
with safe_open(path, "pt") as file:
    metadata = file.metadata()
save_file(tensors, sys.argv[2], metadata)
print(json.dumps([metadata, ${dump}]))`)
    )
    expect(JSON.parse(await runPython(join(folder, 'read.py'), path, copy))).toEqual([{ note: 'x' }, sums(() => true)])
    const back = await loadSafetensors(copy)
    expect(back.metadata).toEqual({ note: 'x' })
    expect(Object.fromEntries(Object.entries(back.tensors).map(([name, tensor]) => [name, bits(tensor)]))).toEqual(sums(() => true))
  })
})
