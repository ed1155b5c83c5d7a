import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { ForeignObject, inspectTorch, loadTorch, saveTorch } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'
import { temporaryFolder } from '../support/folder.js'
import { archive, p, pickle, rebuild, storage, tensor, zip, type Record } from './torch-hostile.js'

torch.setNumThreads(1)

const four = Buffer.from(new Float32Array([1, 2, 3, 4]).buffer)
const inFour = storage('0', p.int(4))
const good = pickle(p.dict(p.text('w'), tensor(inFour, [2, 2])))
const raw = (...values: (number | string)[]) =>
  pickle(Buffer.concat(values.map((value) => (typeof value === 'string' ? Buffer.from(value, 'latin1') : Buffer.from([value])))))
const record = (name: string, data: Buffer | string, more: Partial<Record> = {}): Record =>
  ({ name, data: Buffer.from(data as never), ...more })
const call = (module: string, name: string, ...args: Buffer[]) => archive(pickle(p.reduce(p.global(module, name), ...args)))
const nestedLists = (depth: number) => pickle(Buffer.concat([Buffer.alloc(depth, ']'), Buffer.alloc(depth - 1, 'a')]))
const view = (shape: number[], options: Parameters<typeof tensor>[2] = {}) => archive(pickle(tensor(inFour, shape, options)), { 0: four })
const withStorage = (id: Buffer) => archive(pickle(tensor(Buffer.concat([id, Buffer.from('Q')]), [1])), { 0: four })
const magic = Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex')
const legacy = (...parts: Buffer[]) =>
  Buffer.concat([magic, pickle(p.int(1001)), pickle(p.dict(p.text('little_endian'), p.true)), ...parts])
const length = (count: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64LE(BigInt(count))
  return bytes
}
const encodedBytes = p.reduce(p.global('_codecs', 'encode'), p.text('abcdefgh'), p.text('latin1'))
const float64 = p.reduce(p.global('numpy', 'dtype'), p.text('f8'), p.false, p.true)
const reconstruct = p.global('numpy.core.multiarray', '_reconstruct')
const emptyArray = p.reduce(reconstruct, p.global('numpy', 'ndarray'), p.tuple(p.int(0)), encodedBytes)
const numpyArray = (shape: number[], type: Buffer, data: Buffer) =>
  archive(pickle(emptyArray, p.tuple(p.int(1), p.tuple(...shape.map(p.int)), type, p.false, data), Buffer.from('b')))

const calls: [path: string, file: Buffer][] = [
  ['posix.system', call('posix', 'system', p.text('touch /tmp/gmml-was-here'))],
  ['os.system', call('os', 'system', p.text('id'))],
  ['builtins.eval', call('builtins', 'eval', p.text('1'))],
  ['builtins.eval', call('__builtin__', 'eval', p.text('1'))],
  ['builtins.exec', call('builtins', 'exec', p.text('1'))],
  ['builtins.getattr', call('builtins', 'getattr', p.global('os', 'path'), p.text('join'))],
  ['builtins.__import__', call('builtins', '__import__', p.text('os'))],
  ['builtins.open', call('builtins', 'open', p.text('/etc/passwd'))],
  ['subprocess.Popen', call('subprocess', 'Popen', p.list(p.text('id')))],
  ['functools.partial', call('functools', 'partial', p.global('os', 'system'), p.text('id'))],
  ['torch.load', call('torch', 'load', p.text('other.pth'))],
  ['torch.hub.load', call('torch.hub', 'load', p.text('a/b'))],
  ['torch.utils.collect_env.run', call('torch.utils.collect_env', 'run', p.text('id'))],
  ['runpy._run_code', call('runpy', '_run_code', p.text('1'), p.dict())],
  ['pickle.loads', call('pickle', 'loads', encodedBytes)],
  ['pathlib.PosixPath', call('pathlib', 'PosixPath', p.text('a'))],
  ['argparse.Namespace', call('argparse', 'Namespace')],
  ['numpy.load', call('numpy', 'load', p.text('a.npy'))],
  // The names of what JavaScript has, and of parts that are put together otherwise.
  ['constructor.prototype', call('constructor', 'prototype')],
  ['__proto__.constructor', call('__proto__', 'constructor')],
  ['os.system', archive(raw('(ios\nsystem\n'.replace('(i', '(X\x02\x00\x00\x00idi')))],
  ['os.system', archive(raw('(cos\nsystem\nX\x02\x00\x00\x00ido'))],
  ['os.system', archive(raw('X\x02\x00\x00\x00osX\x06\x00\x00\x00system', 0x93, ')R'))],
  ['os.system', archive(pickle(p.reduce(p.reduce(p.global('os', 'system'), p.text('id')))))],
  ['os.system', archive(pickle(p.list(p.dict(p.text('deep'), p.reduce(p.global('os', 'system'))))))],
  ['os.system', legacy(pickle(p.reduce(p.global('os', 'system'), p.text('id'))), pickle(p.list()))],
  ['os.system', Buffer.concat([pickle(p.reduce(p.global('os', 'system'), p.text('id'))), magic])]
]

const files: { readonly [name: string]: readonly [Buffer, RegExp] } = {
  // No file of torch.save.
  'an empty file': [Buffer.alloc(0), /neither a zip archive nor a pickle, but empty/],
  'a text': [Buffer.from('These are the weights of my model.'), /neither a zip archive nor a pickle$/],
  'zeros': [Buffer.alloc(1000), /neither a zip archive nor a pickle/],
  'a pointer of Git LFS': [Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:00'), /pointer of Git LFS.*git lfs pull/],
  'a tar archive': [Buffer.concat([Buffer.alloc(257), Buffer.from('ustar\0'), Buffer.alloc(300)]), /tar archive, as PyTorch before 0.2/],
  'a pickle of something': [pickle(p.int(3)), /it is a pickle, but not one of torch.save/],
  'a zip archive of something': [zip([record('photo.png', 'x')]), /not of torch.save: it has no data.pkl \(photo.png\)/],
  'a zip archive of nothing': [zip([]), /it has no data.pkl \(no records\)/],
  'a TorchScript archive': [
    archive(good, { 0: four }, [record('a/constants.pkl', pickle(p.tuple())), record('a/code/model.py', 'pass')]),
    /TorchScript archive, which is a program; in Python: torch.save\(torch.jit.load/
  ],
  // Broken archives.
  'only its beginning': [archive(good, { 0: four }).subarray(0, 100), /broken zip archive/],
  'all but its last byte': [archive(good, { 0: four }).subarray(0, -1), /broken zip archive/],
  'two letters': [Buffer.from('PK'), /broken zip archive/],
  'more records than there are': [zip([record('a/data.pkl', good)], { count: 5 }), /broken zip archive/],
  'two records of one name': [zip([record('a/data.pkl', good), record('a/data.pkl', good)]), /two records of the name 'a\/data.pkl'/],
  'a record outside of it': [zip([record('a/data.pkl', good, { at: 100_000_000 })]), /broken zip archive: unexpected EOF/],
  'a record in its directory': [zip([record('a/data.pkl', good, { at: 150 })]), /broken zip archive: invalid local file header signature/],
  'a path out of it': [zip([record('../../data.pkl', good)]), /broken zip archive: invalid relative path/],
  'an encrypted record': [zip([record('a/data.pkl', good, { flags: 1, method: 8 })]), /'a\/data.pkl' is encrypted/],
  'a compressed pickle': [zip([record('a/data.pkl', good, { method: 8 })]), /'a\/data.pkl' is compressed, which torch.save never does/],
  'a bomb': [
    archive(pickle(tensor(storage('0', p.int(2 ** 22)), [1])), { 0: { data: Buffer.alloc(2 ** 24), method: 8 } }),
    /'a\/data\/0' is compressed/
  ],
  'a list that is copied over and over': [
    archive(pickle(
      p.global('builtins', 'list'), Buffer.from('q\x010'), p.list(...Array.from({ length: 20_000 }, (_, i) => p.int(i))), Buffer.from('q\x020('),
      ...Array.from({ length: 20_000 }, () => Buffer.from('h\x01h\x02\x85R', 'latin1')), Buffer.from('l')
    )),
    /its pickle copies its values over and over/
  ],
  'a pickle of other bytes than its checksum': [
    zip([record('a/data.pkl', good, { crc: 77 })]),
    /'a\/data.pkl' is damaged: the checksum is another/
  ],
  'a pickle longer than the file': [zip([record('a/data.pkl', good, { size: 900_000_000 })]), /broken|beyond the file/],
  'a pickle of gigabytes': [zip([record('a/data.pkl', good, { size: 3_000_000_000 })]), /3000000000 bytes, more than|broken/],
  'a byte order of its own': [archive(good, { 0: four }, [record('a/byteorder', 'middle')]), /its byte order is 'middle'/],
  // Storages that are not what they should be.
  'no data': [archive(good), /it lacks the data of storage '0' \(record 'a\/data\/0'\)/],
  'too few data': [archive(good, { 0: four.subarray(4) }), /storage '0' has 12 bytes where 16 are needed/],
  'too many data': [archive(good, { 0: Buffer.alloc(20) }), /storage '0' has 20 bytes where 16 are needed/],
  'data longer than the file': [
    archive(pickle(tensor(storage('0', p.int(1e9)), [1])), { 0: { data: four, size: 4e9 } }),
    /beyond the file|broken/
  ],
  'a key that climbs': [
    archive(pickle(tensor(storage('../data.pkl', p.int(4)), [1])), { 0: four }),
    /it lacks the data of storage '..\/data.pkl'/
  ],
  'a negative length': [archive(pickle(tensor(storage('0', p.int(-4)), [1])), { 0: four }), /illegal reference to a storage/],
  'a length beyond counting': [
    archive(pickle(tensor(storage('0', p.long(2n ** 62n)), [1])), { 0: four }),
    /illegal reference to a storage/
  ],
  'a length whose bytes are beyond counting': [
    archive(pickle(tensor(storage('0', p.long(2n ** 52n)), [1])), { 0: four }), /storage '0' has more bytes than can be counted/
  ],
  'a type of storage that is unknown': [
    archive(pickle(tensor(storage('0', p.int(4), p.global('torch', 'TapeStorage')), [1]))),
    /of the type 'torch.TapeStorage', which is not supported/
  ],
  'quantized storage': [
    archive(pickle(tensor(storage('0', p.int(4), p.global('torch', 'QInt8Storage')), [1]))),
    /QInt8Storage', which is not supported: dequantize\(\)/
  ],
  'two descriptions of one storage': [
    archive(pickle(p.list(tensor(inFour, [1]), tensor(storage('0', p.int(2)), [1]))), { 0: four }), /storage '0' has two descriptions/
  ],
  'storages that overlap': [
    zip([
      record('a/data.pkl', pickle(p.list(tensor(inFour, [1]), tensor(storage('1', p.int(4)), [1])))),
      record('a/data/0', four), { name: 'a/data/1', data: four, at: 0 }
    ].map((entry, i, all) => (i === 2 ? { ...entry, at: 30 + 'a/data.pkl'.length + all[0]!.data.length } : entry))),
    /storages '0' and '1' overlap in the file/
  ],
  'a reference to no storage': [withStorage(p.text('0')), /protocol 0|no storage/],
  'a reference to another kind': [withStorage(p.tuple(p.text('file'), p.text('/etc/passwd'))), /refers to 'file', which is no storage/],
  'a reference of three parts': [
    withStorage(p.tuple(p.text('storage'), p.global('torch', 'FloatStorage'), p.text('0'))),
    /illegal reference/
  ],
  'a storage in a storage': [
    withStorage(p.tuple(
      p.text('storage'), p.global('torch', 'FloatStorage'), p.text('0'), p.text('cpu'), p.int(4), p.tuple(p.text('v'), p.int(0), p.int(1))
    )),
    /storages within storages/
  ],
  // Tensors that reach out of their storage.
  'a shape beyond its storage': [view([5]), /float32 \[5\] in storage '0' reaches beyond its end: offset 0, strides \[1\], 4 elements/],
  'an offset beyond its storage': [view([4], { offset: p.int(1) }), /reaches beyond its end/],
  'an offset far beyond it': [view([1], { offset: p.long(2n ** 52n) }), /reaches beyond its end/],
  'an offset behind an empty tensor': [view([0], { offset: p.int(5) }), /reaches beyond its end/],
  'strides beyond its storage': [view([2, 2], { strides: p.tuple(p.int(4), p.int(1)) }), /reaches beyond its end/],
  'strides that wrap around': [view([2, 2], { strides: p.tuple(p.long(2n ** 62n), p.long(2n ** 62n)) }), /illegal arguments/],
  'a negative offset': [view([1], { offset: p.int(-1) }), /'torch._utils._rebuild_tensor_v2' with illegal arguments/],
  'a negative size': [view([-1]), /illegal arguments/],
  'a negative stride': [view([2], { strides: p.tuple(p.int(-1)) }), /illegal arguments/],
  'fewer strides than sizes': [view([2, 2], { strides: p.tuple(p.int(1)) }), /illegal arguments/],
  'sizes that are texts': [view([1], { sizes: p.tuple(p.text('1')) }), /illegal arguments/],
  'a hundred dimensions': [view(Array<number>(100).fill(1)), /illegal arguments/],
  'more elements than can be counted': [
    view([1, 1], { sizes: p.tuple(p.long(2n ** 40n), p.long(2n ** 40n)), strides: p.tuple(p.int(0), p.int(0)) }),
    /more elements than can be counted/
  ],
  'nothing times more than can be counted': [
    view([0, 1, 1], { sizes: p.tuple(p.int(0), p.long(2n ** 40n), p.long(2n ** 40n)) }), /more elements than can be counted/
  ],
  'a tensor in no storage': [archive(pickle(tensor(p.text('0'), [1]))), /illegal arguments/],
  'a tensor in a file of its own making': [archive(pickle(tensor(p.dict(p.text('byteLength'), p.int(99)), [1]))), /illegal arguments/],
  'a tensor without arguments': [archive(pickle(p.reduce(rebuild))), /illegal arguments/],
  'integers that require grad': [
    archive(
      pickle(
        p.reduce(rebuild, storage('0', p.int(2), p.global('torch', 'LongStorage')), p.int(0), p.tuple(p.int(2)), p.tuple(p.int(1)), p.true)
      ),
      { 0: four }
    ),
    /a tensor of int64 that requires grad/
  ],
  'a parameter of no tensor': [
    call('torch._utils', '_rebuild_parameter', p.text('x'), p.true, p.none),
    /'torch._utils._rebuild_parameter' with 'x' for a tensor/
  ],
  'a sparse tensor': [call('torch._utils', '_rebuild_sparse_tensor', p.none, p.none), /sparse tensors are not read: to_dense\(\)/],
  'a quantized tensor': [call('torch._utils', '_rebuild_qtensor', p.none), /quantized tensors are not read: dequantize\(\)/],
  'a tensor on meta': [call('torch._utils', '_rebuild_meta_tensor_no_storage', p.none), /on the device meta, which has no data/],
  'a subclass by a call that is not allowed': [
    call('torch._tensor', '_rebuild_from_type_v2', p.global('os', 'system'), p.none, p.tuple(p.text('id')), p.none),
    /with os.system, which is not allowed/
  ],
  // Pickles that are none.
  'an empty pickle': [archive(Buffer.alloc(0)), /its pickle ends in the middle/],
  'a pickle cut short': [archive(good.subarray(0, -8), { 0: four }), /its pickle ends in the middle/],
  'a text longer than the pickle': [archive(raw('X\xff\xff\xff\xff')), /ends in the middle/],
  'bytes of exabytes': [archive(raw(0x8e, '\xff\xff\xff\xff\xff\xff\xff\x7f')), /ends in the middle/],
  'an integer of gigabytes': [archive(raw(0x8b, '\xff\xff\xff\x7f')), /an integer of 2147483647 bytes/],
  'an integer of digits without end': [archive(raw(`L${'9'.repeat(5000)}L\n`)), /the illegal integer '9999/],
  'a number that is none': [archive(raw('Fabc\n')), /the illegal number 'abc'/],
  'a text that is no UTF-8': [archive(raw('X\x01\x00\x00\x00\xff')), /a text that is no UTF-8/],
  'an unknown instruction': [archive(raw(0xff)), /the unknown instruction 0xff/],
  'an extension': [archive(raw(0x82, 1)), /the unknown instruction 0x82/],
  'a protocol of the future': [archive(Buffer.from([0x80, 9, 0x4e, 0x2e])), /protocol 9; those up to 5 are known/],
  'nothing on the stack': [archive(Buffer.from('.')), /takes more values than it has/],
  'values left behind': [archive(raw('NN')), /leaves values behind/],
  'a mark for a value': [archive(raw('(')), /takes a mark for a value/],
  'no mark': [archive(raw('t')), /lacks a mark/],
  'a value of no place': [archive(raw('h', 7)), /refers to value 7, which it does not have/],
  'an index without end': [archive(raw('g99999999999999999999\n')), /the illegal index/],
  'a key without a value': [archive(raw('}(Nu')), /a key without a value/],
  'entries of a list': [archive(raw('](NNu')), /sets entries of a list/],
  'elements of a number': [archive(raw('K', 1, '(Ne')), /adds elements to 1/],
  'elements of a dict': [archive(raw('}(N', 0x90)), /adds elements to a dict/],
  'attributes of a list': [archive(raw(']}b')), /sets attributes of a list/],
  'a call of a text': [archive(pickle(p.reduce(p.text('os.system')))), /calls 'os.system', which is no function/],
  'a call without a list': [archive(raw('cos\nsystem\nNR')), /calls 'os.system' without a list of arguments/],
  'an instance of a text': [archive(pickle(p.make(p.text('a')))), /an instance of 'a', which is no class/],
  'a name that is no text': [archive(raw('NN', 0x93)), /a name that is no text/],
  'a length without content': [call('builtins', 'bytearray', p.int(2_000_000_000)), /'builtins.bytearray' with illegal arguments/],
  'bytes beyond bytes': [call('_codecs', 'encode', p.text('☃'), p.text('latin1')), /'_codecs.encode' with illegal arguments/],
  'a set of a number': [call('builtins', 'set', p.int(3)), /'builtins.set' with illegal arguments/],
  'a dict of triples': [
    call('collections', 'OrderedDict', p.list(p.tuple(p.none, p.none, p.none))),
    /'collections.OrderedDict' with illegal arguments/
  ],
  'lists in lists in lists': [archive(nestedLists(100_000)), /nested deeper than 500 levels/],
  // Arrays of NumPy.
  'an array larger than its bytes': [numpyArray([1000], float64, encodedBytes), /bytes do not fit its shape/],
  'an array of more than can be counted': [numpyArray([2 ** 30, 2 ** 30, 2 ** 30], float64, encodedBytes), /bytes do not fit its shape/],
  'an array of a negative size': [numpyArray([-1], float64, encodedBytes), /without a legal shape/],
  'an array of objects': [numpyArray([1], p.reduce(p.global('numpy', 'dtype'), p.text('O8')), encodedBytes), /the NumPy type 'O8'/],
  'an array of texts': [numpyArray([1], p.reduce(p.global('numpy', 'dtype'), p.text('U3')), encodedBytes), /the NumPy type 'U3'/],
  'an array of no type': [numpyArray([1], p.none, encodedBytes), /null for a NumPy type/],
  'a number without its bytes': [call('numpy.core.multiarray', 'scalar', float64, p.text('x')), /a NumPy number without its bytes/],
  // Files of PyTorch before 1.6.
  'an old file that ends': [legacy(pickle(tensor(inFour, [1]))), /ends in the middle/],
  'an old file of another version': [Buffer.concat([magic, pickle(p.int(7))]), /its version is 7/],
  'an old file without keys': [legacy(pickle(p.none), pickle(p.none)), /does not list its storages/],
  'an old file with too few data': [
    legacy(pickle(tensor(inFour, [1])), pickle(p.list(p.text('0'))), length(4), four.subarray(1)), /data of storage '0' end beyond the file/
  ],
  'an old file with another length': [
    legacy(pickle(tensor(inFour, [1])), pickle(p.list(p.text('0'))), length(5), four, four),
    /has 5 elements where 4/
  ],
  'an old file with a storage too many': [
    legacy(pickle(p.none), pickle(p.list(p.text('0')))),
    /lists the storage '0', which no tensor is in/
  ],
  'an old file with a storage twice': [
    legacy(pickle(tensor(inFour, [1])), pickle(p.list(p.text('0'), p.text('0'))), length(4), four), /lists the storage '0' twice/
  ],
  'an old file with a storage too few': [legacy(pickle(tensor(inFour, [1])), pickle(p.list())), /lacks the data of storage '0'/]
}

async function refuse(content: Buffer, message: RegExp | string): Promise<void> {
  const path = join(await temporaryFolder(), 'bad.pth')
  await writeFile(path, content)
  const before = memory().tensors
  for (const read of [loadTorch, inspectTorch]) {
    const error: unknown = await read(path).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(InputError)
    expect((error as Error).message).toContain(`Cannot read '${path}': `)
    expect((error as Error).message).toMatch(message)
  }
  expect(memory().tensors).toBeLessThanOrEqual(before)
}

describe('a pickle that calls what is not allowed is refused by its name', () => {
  it.each(calls)('%s', async (path, content) => {
    await refuse(content, `its pickle calls '${path}', which is not allowed; nothing was executed`)
  })
})

it('a name in an error is neither long nor obeyed by a terminal', async () => {
  await refuse(call('\x1b[2Jos', 'x'.repeat(100_000)), /its pickle calls '\?\[2Jos\.x{900,1000}$/)
})

describe('files that are wrong or hostile are refused, and nothing is allocated:', () => {
  it.each(Object.entries(files))('%s', (_, [content, message]) => refuse(content, message))

  it('damaged data, which are seen when they are read', async () => {
    const path = join(await temporaryFolder(), 'damaged.pth')
    await writeFile(path, archive(good, { 0: { data: four, crc: 5 } }))
    const before = memory().tensors
    await expect(loadTorch(path)).rejects.toThrow(/data of storage '0' are damaged: the checksum is another/)
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  it('big-endian data of which it is not known what they are', async () => {
    const path = join(await temporaryFolder(), 'untyped.pth')
    const untyped = storage('0', p.int(16), p.global('torch.storage', 'UntypedStorage'))
    const rest = [p.int(0), p.tuple(p.int(2)), p.tuple(p.int(1)), p.false, p.none, p.global('torch', 'uint16')]
    const value = pickle(p.reduce(p.global('torch._utils', '_rebuild_tensor_v3'), untyped, ...rest))
    await writeFile(path, archive(value, { 0: four }, [record('a/byteorder', 'big')]))
    const before = memory().tensors
    await expect(loadTorch(path)).rejects.toThrow(/untyped storage '0' is of a big-endian machine/)
    expect(memory().tensors).toBeLessThanOrEqual(before)
    await writeFile(path, archive(value, { 0: four }))
    expect((await loadTorch<Tensor>(path)).shape).toEqual([2])
  })
})

describe('what looks bad and is not', () => {
  const load = async <T>(content: Buffer, options = {}): Promise<T> => {
    const path = join(await temporaryFolder(), 'a.pth')
    await writeFile(path, content)
    return loadTorch<T>(path, options)
  }

  it('the good file that the bad ones are made of', async () => {
    expect((await load<{ w: Tensor }>(archive(good, { 0: four }))).w.toArray()).toEqual([[1, 2], [3, 4]])
    const old = legacy(pickle(tensor(inFour, [4])), pickle(p.list(p.text('0'))), length(4), four)
    expect((await load<Tensor>(old)).toArray()).toEqual([1, 2, 3, 4])
  })

  it('big-endian data', async () => {
    const big = Buffer.from(four).swap32()
    expect((await load<{ w: Tensor }>(archive(good, { 0: big }, [record('a/byteorder', 'big')]))).w.toArray()).toEqual([[1, 2], [3, 4]])
  })

  it('bytes for booleans that are neither 0 nor 1', async () => {
    const flags = pickle(tensor(storage('0', p.int(4), p.global('torch', 'BoolStorage')), [4]))
    const loaded = await load<Tensor>(archive(flags, { 0: Buffer.from([0, 1, 2, 255]) }))
    expect([...loaded.toTypedArray()]).toEqual([0, 1, 1, 1])
  })

  it('instances of dangerous classes: data, whatever Python would make of them', async () => {
    const made = p.make(p.global('subprocess', 'Popen'), p.text('id'))
    const popen = Buffer.concat([made, p.dict(p.text('returncode'), p.int(0)), Buffer.from('b')])
    const found = await load<ForeignObject>(archive(pickle(popen)))
    expect(found).toBeInstanceOf(ForeignObject)
    expect(found).toMatchObject({ module: 'subprocess', name: 'Popen', args: ['id'], state: { returncode: 0 } })
  })

  it('a call that the caller knows to be data', async () => {
    const path = call('pathlib', 'PosixPath', p.text('a'), p.text('b'))
    expect(await load(path, { inert: ['pathlib.PosixPath'] })).toMatchObject({ module: 'pathlib', name: 'PosixPath', args: ['a', 'b'] })
    await expect(load(path, { inert: ['pathlib.Path'] })).rejects.toThrow(/'pathlib.PosixPath', which is not allowed/)
  })

  it('a list that holds itself, and one of 2^60 leaves that are all the same', async () => {
    const self = await load<unknown[]>(archive(raw(']q', 0, 'h', 0, 'a')))
    expect(self[0]).toBe(self)
    // Sixty times: the list so far twice in a new one.
    const doubled = Buffer.concat(Array.from({ length: 60 }, (_, i) => Buffer.from([0x71, i, 0x30, 0x5d, 0x28, 0x68, i, 0x68, i, 0x65])))
    let level = await load<unknown[]>(archive(pickle(Buffer.from(']'), doubled)))
    for (let i = 0; i < 60; i++) {
      expect(level[0]).toBe(level[1])
      level = level[0] as unknown[]
    }
    expect(level).toEqual([])
  })
})

describe('files that were changed at random', () => {
  it('are read or refused, and never anything else', async () => {
    const folder = await temporaryFolder()
    const x = torch.arange(12, { dtype: 'float32' }).reshape([3, 4])
    const whole = join(folder, 'whole.pth')
    const list = [1, 2.5, 'text', null, new Set([1]), new Map([[1, 2n ** 60n]])]
    await saveTorch(whole, { x, y: x.t(), list, b: new Uint8Array([1, 2]) })
    const original = await readFile(whole)
    const changed = join(folder, 'changed.pth')
    // Without the checksums, so that what is wrong gets as far as it can.
    const end = original.readUInt32LE(original.length - 6)
    const unchecked = Buffer.from(original)
    for (let at = end; unchecked.readUInt32LE(at) === 0x02014b50; at += 46 + unchecked.readUInt16LE(at + 28)) {
      unchecked.writeUInt32LE(0, at + 16)
    }
    let refused = 0
    let read = 0
    const change = fc.array(fc.tuple(fc.nat(original.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(change, async (changes) => {
        const copy = Buffer.from(unchecked)
        for (const [at, value] of changes) copy[at] = value
        await writeFile(changed, copy)
        const { tensors } = memory()
        const result: unknown = await loadTorch(changed).catch((error: unknown) => error)
        if (result instanceof Error) {
          expect(result).toBeInstanceOf(InputError)
          expect(memory().tensors).toBeLessThanOrEqual(tensors)
          refused++
        } else {
          read++
        }
      }),
      { numRuns: 1500, seed: 5 }
    )
    expect(refused).toBeGreaterThan(100)
    expect(read).toBeGreaterThan(100)
  })
})
