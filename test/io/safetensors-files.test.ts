import { mkdir, readFile, readdir, rm, symlink, unlink, writeFile, open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'

import { afterEach, describe, expect, it, vi } from 'vitest'

import {
  inspectSafetensors, loadSafetensors, saveSafetensors, type LazyTensor, type LoadOptions, type SaveOptions
} from '../../src/io/index.js'
import { AdamW } from '../../src/optim/index.js'
import { newParameter } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

const INDEX = 'model.safetensors.index.json'
const numbers = (length: number, start = 0) => torch.scope(() => torch.arange(length).add(start).to('float32'))
const values = (tensors: Record<string, Tensor>) => Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, t.toArray()]))

describe('misuse', () => {
  it('of the options', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await saveSafetensors(path, { a: numbers(2), b: numbers(3) })
    const load: readonly [unknown, RegExp][] = [
      [null, /an object for options/],
      [{ device: 'gpu' }, /for device, received 'gpu'/],
      [{ map: 1 }, /true or false for map, received 1/],
      [{ names: 'a' }, /a list of names or a function for names, received 'a'/],
      [{ names: ['a', 'c', 'd'] }, /a\.safetensors has no tensor 'c', 'd'$/]
    ]
    const before = memory().tensors
    for (const [options, message] of load) await expect(loadSafetensors(path, options as LoadOptions)).rejects.toThrow(message)
    for (const wrong of [3, null, '', undefined]) {
      await expect(loadSafetensors(wrong as never)).rejects.toThrow(/a path for a safetensors file/)
      await expect(inspectSafetensors(wrong as never)).rejects.toThrow(/a path/)
      await expect(saveSafetensors(wrong as never, {})).rejects.toThrow(/a path/)
    }
    for (const maxShardBytes of [0, -1, 1.5, NaN, '5' as never]) {
      await expect(saveSafetensors(path, {}, {}, { maxShardBytes })).rejects.toThrow(/a positive integer for maxShardBytes/)
    }
    await expect(saveSafetensors(path, {}, {}, null as never)).rejects.toThrow(/an object for options, received null/)
    await expect(saveSafetensors(path, {}, {}, { snapshot: 1 as never })).rejects.toThrow(/true or false for snapshot, received 1/)
    const lazy: readonly [unknown, RegExp][] = [
      [{ dtype: 'float33', shape: [1], make: () => numbers(1) }, /a dtype .* for the dtype of 'a'/],
      [{ dtype: 'float32', shape: [-1], make: () => numbers(1) }, /sizes for the shape of 'a', received \[ -1 \]/],
      [{ dtype: 'float32', shape: [2 ** 40, 2 ** 40], make: () => numbers(1) }, /sizes for the shape of 'a'/],
      [{ dtype: 'float32', shape: [2], make: () => numbers(3) }, /float32 \[2\] for tensor 'a', received 'float32 \[3\]'/],
      [{ dtype: 'float64', shape: [3], make: () => numbers(3) }, /float64 \[3\] for tensor 'a', received 'float32 \[3\]'/],
      [{ dtype: 'float32', shape: [3], make: () => 3 }, /a Tensor for what make\(\) gives for 'a', received 3/],
      [{ dtype: 'float32', shape: [3], make: () => { throw new Error('not today') } }, /not today/]
    ]
    const content = await readFile(path)
    for (const [a, message] of lazy) await expect(saveSafetensors(path, { a: a as LazyTensor })).rejects.toThrow(message)
    expect(await readFile(path)).toEqual(content)
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })
})

describe('tensors by name', () => {
  it('of a list or by a choice, and nothing else is read', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await saveSafetensors(path, { a: numbers(2), b: numbers(3), ['__proto__']: numbers(1), c: numbers(4) })
    for (const map of [false, true]) {
      const before = memory().tensors
      const { tensors } = await loadSafetensors(path, { names: ['c', 'a'], map })
      expect(values(tensors)).toEqual({ a: [0, 1], c: [0, 1, 2, 3] })
      expect(Object.keys(tensors)).toEqual(['a', 'c'])
      expect(memory().tensors - before).toBe(2)
      expect(Object.keys((await loadSafetensors(path, { names: (name) => name > 'a', map })).tensors)).toEqual(['b', 'c'])
      expect(Object.keys((await loadSafetensors(path, { names: ['__proto__'], map })).tensors)).toEqual(['__proto__'])
      expect((await loadSafetensors(path, { names: [], map })).tensors).toEqual({})
    }
  })

  it('on a device', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await saveSafetensors(path, { a: numbers(2), b: torch.ones([3], { dtype: 'bool' }) })
    for (const map of [false, true]) {
      const before = memory().tensors
      const { tensors } = await loadSafetensors(path, { device: 'meta', map })
      expect(Object.values(tensors).map(({ device, dtype }) => [device, dtype])).toEqual([['meta', 'float32'], ['meta', 'bool']])
      expect(memory().tensors - before).toBe(2)
    }
  })

  it('that are longer than what is read and written at once', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const long = torch.randn([1025, 1031])
    await saveSafetensors(path, { long, turned: long.t(), bytes: torch.arange(3_000_001).to('uint8'), odd: long.gt(0) })
    for (const map of [false, true]) {
      const { tensors } = await loadSafetensors(path, { map })
      expect(tensors['long']!.equal(long)).toBe(true)
      expect(tensors['turned']!.equal(long.t())).toBe(true)
      expect(tensors['odd']!.equal(long.gt(0))).toBe(true)
      expect(tensors['bytes']!.equal(torch.arange(3_000_001).to('uint8'))).toBe(true)
    }
  })

  it('of a file that is shortened after its header was read', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await saveSafetensors(path, { a: numbers(1000), b: numbers(1_000_000) })
    const before = memory().tensors
    const probe = await open(path)
    const handles = Object.getPrototypeOf(probe) as FileHandle
    await probe.close()
    const read = Reflect.get(handles, 'read') as (...args: unknown[]) => Promise<{ bytesRead: number }>
    let shortened = false
    const spy = vi.spyOn(handles, 'read').mockImplementation(async function (this: FileHandle, ...args: unknown[]) {
      // Between the first tensor's data and the second's.
      if ((args[3] as number) > 10_000 && !shortened) {
        shortened = true
        const file = await open(path, 'r+')
        await file.truncate(10_000)
        await file.close()
      }
      return (await read.apply(this, args)) as never
    })
    await expect(loadSafetensors(path)).rejects.toThrow(/ends within tensor 'b': it was changed while it was read/)
    spy.mockRestore()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })
})

describe('mapped', () => {
  it('tensors share the file, and writing into one changes neither the file nor another reader', async () => {
    const path = join(await temporaryFolder(), 'ünï \u{1F600}.safetensors')
    await saveSafetensors(path, { a: numbers(4), b: numbers(4, 10) })
    const content = await readFile(path)
    const before = memory()
    const { tensors } = await loadSafetensors(path, { map: true })
    const a = tensors['a']!
    // One memory, the file's, for both.
    expect(memory().bytes['cpu']! - (before.bytes['cpu'] ?? 0)).toBe(content.length)
    expect(memory().tensors - before.tensors).toBe(2)
    a.add_(100)
    expect(a.toArray()).toEqual([100, 101, 102, 103])
    expect(tensors['b']!.toArray()).toEqual([10, 11, 12, 13])
    expect(await readFile(path)).toEqual(content)
    expect((await loadSafetensors(path, { map: true })).tensors['a']!.toArray()).toEqual([0, 1, 2, 3])
  })

  it('tensors outlive the file, its replacement and each other, and the last one unmaps it', async () => {
    const folder = await temporaryFolder()
    const path = join(folder, 'a.safetensors')
    const isMapped = async () => (await readFile('/proc/self/maps', 'utf8')).includes(folder)
    await saveSafetensors(path, { a: numbers(4), b: numbers(4, 10), none: numbers(0) })
    const { a, b, none } = (await loadSafetensors(path, { map: true })).tensors
    const view = a!.narrow(0, 1, 2)
    await saveSafetensors(path, { a: numbers(4, 50) })
    expect(await isMapped()).toBe(true)
    await unlink(path)
    b!.dispose()
    a!.dispose()
    none!.dispose()
    expect(view.toArray()).toEqual([1, 2])
    expect(await isMapped()).toBe(true)
    view.dispose()
    expect(await isMapped()).toBe(false)
  })

  it('tensors are no views of each other: what is done in place to one does not disturb the gradients of another', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await saveSafetensors(path, { a: numbers(3, 1), b: numbers(3, 1) })
    const { a, b } = (await loadSafetensors(path, { map: true })).tensors
    b!.requiresGrad_()
    a!.requiresGrad_()
    const loss = b!.square().sum().add(a!.sum())
    torch.noGrad(() => a!.zero_())
    loss.backward()
    expect(b!.grad!.toArray()).toEqual([2, 4, 6])
  })

  it('tensors that do not lie where their elements are aligned are copied', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const header = Buffer.from(JSON.stringify({
      byte: { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
      a: { dtype: 'F32', shape: [2], data_offsets: [1, 9] },
      z: { dtype: 'C64', shape: [], data_offsets: [9, 17] },
      none: { dtype: 'F64', shape: [0], data_offsets: [17, 17] }
    }))
    const data = Buffer.alloc(17)
    data.writeFloatLE(1.5, 1)
    data.writeFloatLE(-2, 5)
    data.writeFloatLE(3, 9)
    const prefix = Buffer.alloc(8)
    prefix.writeBigUInt64LE(BigInt(header.length))
    await writeFile(path, Buffer.concat([prefix, header, data]))
    const { tensors } = await loadSafetensors(path, { map: true })
    expect(values(tensors)).toEqual({ byte: [0], a: [1.5, -2], z: { re: 3, im: 0 }, none: [] })
    expect(tensors['a']!.add(1).toArray()).toEqual([2.5, -1])
  })

  it('bools of any byte are true or false', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await saveSafetensors(path, { a: torch.tensor([false, true, true]) })
    const content = await readFile(path)
    content.set([0, 2, 255], content.length - 3)
    await writeFile(path, content)
    for (const map of [false, true]) {
      const { a } = (await loadSafetensors(path, { map })).tensors
      expect([...a!.toTypedArray()]).toEqual([0, 1, 1])
      expect(a!.logicalNot().sum().item()).toBe(1)
    }
  })
})

describe('in shards', () => {
  const bytes = torch.ones([8], { dtype: 'uint8' })
  const tensors = () => ({ a: numbers(4), 'b.w': numbers(2, 10), c: bytes, d: numbers(100), e: numbers(1, 7) })

  async function sharded(options: SaveOptions = { maxShardBytes: 24 }): Promise<string> {
    const folder = await temporaryFolder()
    await saveSafetensors(join(folder, 'model.safetensors'), tensors(), { format: 'pt' }, options)
    return folder
  }

  it('a file is written as Hugging Face does, and read by its index, its folder and its path', async () => {
    const folder = await sharded()
    const shard = (i: number) => `model-0000${i}-of-00004.safetensors`
    expect((await readdir(folder)).sort()).toEqual([shard(1), shard(2), shard(3), shard(4), INDEX])
    expect(JSON.parse(await readFile(join(folder, INDEX), 'utf8'))).toEqual({
      metadata: { total_size: 16 + 8 + 8 + 400 + 4 },
      weight_map: { a: shard(1), 'b.w': shard(1), c: shard(2), d: shard(3), e: shard(4) }
    })
    for (const path of [join(folder, INDEX), folder, join(folder, 'model.safetensors')]) {
      for (const map of [false, true]) {
        const loaded = await loadSafetensors(path, { map })
        expect(Object.keys(loaded.tensors)).toEqual(Object.keys(tensors()))
        expect(values(loaded.tensors)).toEqual(values(tensors()))
        expect(loaded.metadata).toEqual({ format: 'pt' })
      }
      expect((await inspectSafetensors(path)).tensors['d']).toEqual({ dtype: 'float32', shape: [100] })
    }
    expect(values((await loadSafetensors(folder, { names: ['e', 'a'] })).tensors)).toEqual({ a: [0, 1, 2, 3], e: [7] })
    await expect(loadSafetensors(folder, { names: ['x'] })).rejects.toThrow(/has no tensor 'x'$/)
  })

  it('that fit into one are one', async () => {
    const folder = await sharded({ maxShardBytes: 436 })
    expect(await readdir(folder)).toEqual(['model.safetensors'])
    expect(Object.keys((await loadSafetensors(folder)).tensors)).toHaveLength(5)
    await saveSafetensors(join(folder, 'model.safetensors'), {}, {}, { maxShardBytes: 1 })
    expect((await loadSafetensors(folder)).tensors).toEqual({})
  })

  it('a writing replaces the earlier one, and leaves what is not its own', async () => {
    const folder = await sharded()
    const path = join(folder, 'model.safetensors')
    await saveSafetensors(join(folder, 'other.safetensors'), tensors(), {}, { maxShardBytes: 24 })
    const others = (await readdir(folder)).filter((name) => name.startsWith('other'))
    await saveSafetensors(path, { a: numbers(2, 5), b: numbers(2, 8) }, {}, { maxShardBytes: 8 })
    // The same path, written differently.
    await saveSafetensors(`${folder}/.//model.safetensors`, { a: numbers(2), b: numbers(2) }, {}, { maxShardBytes: 8 })
    expect((await readdir(folder)).filter((name) => name.startsWith('model'))).toHaveLength(3)
    await saveSafetensors(path, tensors(), {}, { maxShardBytes: 24 })
    await saveSafetensors(path, { a: numbers(2, 5), b: numbers(2, 8) }, {}, { maxShardBytes: 8 })
    const two = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors', INDEX]
    expect((await readdir(folder)).sort()).toEqual([...two, ...others].sort())
    expect(values((await loadSafetensors(folder)).tensors)).toEqual({ a: [5, 6], b: [8, 9] })
    await saveSafetensors(path, { a: numbers(2) }, {}, { maxShardBytes: 8 })
    expect((await readdir(folder)).sort()).toEqual(['model.safetensors', ...others].sort())
    await saveSafetensors(path, { a: numbers(2, 5), b: numbers(2, 8) }, {}, { maxShardBytes: 8 })
    expect((await readdir(folder)).sort()).toEqual([...two, ...others].sort())
  })

  it('a writing that fails leaves the earlier one whole', async () => {
    const folder = await sharded()
    const before = await readdir(folder)
    const failing = { ...tensors(), e: { dtype: 'float32', shape: [1], make: () => { throw new Error('ENOSPC') } } as LazyTensor }
    await expect(saveSafetensors(join(folder, 'model.safetensors'), failing, {}, { maxShardBytes: 24 })).rejects.toThrow('ENOSPC')
    expect(await readdir(folder)).toEqual(before)
    expect(values((await loadSafetensors(folder)).tensors)).toEqual(values(tensors()))
  })

  it('what does not fit together is refused before a tensor is made', async () => {
    const change = (edit: (index: { weight_map: Record<string, unknown> }) => unknown) => async (folder: string) => {
      const index = JSON.parse(await readFile(join(folder, INDEX), 'utf8')) as { weight_map: Record<string, unknown> }
      await writeFile(join(folder, INDEX), JSON.stringify(edit(index) ?? index))
    }
    const third = 'model-00003-of-00004.safetensors'
    const cases: Record<string, readonly [(folder: string) => Promise<unknown>, RegExp]> = {
      'a missing shard': [(folder) => rm(join(folder, third)), /does not fit its files: 'model-00003-of-00004.safetensors' is missing$/],
      'a folder for a shard': [
        async (folder) => {
          await rm(join(folder, third))
          await mkdir(join(folder, third))
        },
        /is missing$/
      ],
      'a damaged shard': [(folder) => writeFile(join(folder, third), 'x'), /model-00003-of-00004.safetensors is no legal safetensors file/],
      'a tensor that its shard lacks': [
        change((index) => void (index.weight_map['x'] = third)),
        /does not fit its files: 'model-00003-of-00004.safetensors' has no tensor 'x'$/
      ],
      'a tensor that the index lacks': [
        change((index) => void delete index.weight_map['a']),
        /tensor 'a' is in 'model-00001-of-00004.safetensors', which the index does not mention$/
      ],
      'a tensor in another shard': [
        change((index) => void (index.weight_map['a'] = third)),
        /tensor 'a' is in 'model-00001-of-00004.safetensors', which the index says of 'model-00003-of-00004.safetensors'$/
      ],
      'a tensor in two shards': [
        async (folder) => saveSafetensors(join(folder, third), { d: numbers(1), a: numbers(4) }),
        /tensor 'a' is in 'model-00003-of-00004.safetensors', which the index says of 'model-00001/
      ],
      'an index of absurd length': [
        async (folder) => {
          const file = await open(join(folder, INDEX), 'r+')
          await file.truncate(5_000_000_000)
          await file.close()
        },
        /it has 5000000000 bytes, more than the 100000000 of any header$/
      ],
      'no JSON': [(folder) => writeFile(join(folder, INDEX), '{"weight_map":'), /no legal index of safetensors files: it is no JSON$/],
      'a list': [(folder) => writeFile(join(folder, INDEX), '[]'), /it is no JSON object$/],
      'no map': [change(() => ({ metadata: {} })), /it has no weight_map$/],
      'a list for a map': [change(() => ({ weight_map: ['a'] })), /it has no weight_map$/],
      'a name twice': [(folder) => writeFile(join(folder, INDEX), '{"weight_map":{"a":"x","a":"y"}}'), /it has the name 'a' twice$/],
      'a number for a file': [change((index) => void (index.weight_map['a'] = 3)), /tensor 'a' should be in 3, which is no name of a file/],
      ...Object.fromEntries(
        ['../model.safetensors', '..', '.', '', '/etc/passwd', 'sub/a.safetensors', 'a\\b', 'a\0b'].map((file) => [
          `the file ${JSON.stringify(file)}`,
          [change((index) => void (index.weight_map['a'] = file)), /'a' should be in '[^]*', which is no name of a file beside/] as const
        ])
      )
    }
    for (const [name, [damage, message]] of Object.entries(cases)) {
      const folder = await sharded()
      await damage(folder)
      const before = memory().tensors
      for (const map of [false, true]) {
        const error: unknown = await loadSafetensors(folder, { map }).catch((reason: unknown) => reason)
        expect(error, name).toBeInstanceOf(InputError)
        expect((error as Error).message, name).toMatch(message)
        expect((error as Error).message, name).toContain(folder)
      }
      expect(memory().tensors, name).toBe(before)
    }
    await expect(loadSafetensors(await temporaryFolder())).rejects.toThrow(/has neither model.safetensors nor model.safetensors.index.json/)
  })

  it('shards that are links are read, as the cache of Hugging Face has them', async () => {
    const [folder, links] = [await sharded(), await temporaryFolder()]
    for (const name of await readdir(folder)) await symlink(join(folder, name), join(links, name))
    expect(values((await loadSafetensors(links, { map: true })).tensors)).toEqual(values(tensors()))
  })

  it('are read by Python as the index says', async () => {
    const folder = await sharded()
    await writeFile(
      join(folder, 'read.py'),
      `import json, os, sys
from safetensors import safe_open
index = json.load(open(os.path.join(sys.argv[1], "${INDEX}")))
def read(name, file):
    with safe_open(os.path.join(sys.argv[1], file), "pt") as shard:
        return shard.get_tensor(name).tolist()
print(json.dumps({name: read(name, file) for name, file in index["weight_map"].items()}))`
    )
    expect(JSON.parse(await runPython(join(folder, 'read.py'), folder))).toEqual(values(tensors()))
  })
})

describe('writing', () => {
  afterEach(() => {
    vi.restoreAllMocks()
  })

  it('makes lazy tensors one after the other, and frees each', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const before = memory().tensors
    let most = 0
    const lazy = (i: number): LazyTensor => ({
      dtype: 'bfloat16',
      shape: [3],
      make: async () => {
        await Promise.resolve()
        const tensor = torch.scope(() => numbers(3, i).to('bfloat16'))
        most = Math.max(most, memory().tensors - before)
        return tensor
      }
    })
    await saveSafetensors(path, Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`t${i}`, lazy(i)])))
    expect([most, memory().tensors]).toEqual([1, before])
    expect((await loadSafetensors(path)).tensors['t7']!.to('float32').toArray()).toEqual([7, 8, 9])
  })

  it('tensors that share their memory come back as tensors of their own', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const a = numbers(4)
    await saveSafetensors(path, { a, tied: a, part: a.narrow(0, 1, 2) })
    const { tensors } = await loadSafetensors(path)
    tensors['a']!.zero_()
    expect(values(tensors)).toEqual({ a: [0, 0, 0, 0], tied: [0, 1, 2, 3], part: [1, 2] })
  })

  it('refuses a tensor that a training step changes meanwhile, and leaves the earlier file', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    await writeFile(path, 'earlier')
    const weights = [0, 1].map((i) => newParameter(() => numbers(4, i)))
    const optimizer = new AdamW(weights)
    const step = () =>
      torch.scope(() => {
        for (const weight of weights) weight.square().sum().backward()
        optimizer.step()
        optimizer.zeroGrad()
      })
    step()
    // The fused step itself is not counted by libtorch, the number of steps beside it is: a checkpoint with its optimizer is never torn.
    const { step: steps, exp_avg } = optimizer.stateDict().state.get(0)!
    const saving = saveSafetensors(path, { w0: weights[0]!, exp_avg, steps })
    step()
    await expect(saving).rejects.toThrow(`Tensor 'steps' was changed while the file was being written: wait for saveSafetensors()`)
    const model = saveSafetensors(path, { w0: weights[0]!, w1: weights[1]! }, {}, { maxShardBytes: 1 })
    torch.noGrad(() => weights[0]!.mul_(2))
    await expect(model).rejects.toThrow(`Tensor 'w0' was changed`)
    expect(await readFile(path, 'utf8')).toBe('earlier')
  })

  it('with a snapshot writes what the tensors were when it was called', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const [a, b] = [numbers(500_000), numbers(3).requiresGrad_()]
    const before = memory().tensors
    const saving = saveSafetensors(path, { a, b }, {}, { snapshot: true })
    torch.noGrad(() => {
      a.add_(1)
      b.mul_(5)
    })
    await saving
    expect(memory().tensors).toBeLessThanOrEqual(before)
    const { tensors } = await loadSafetensors(path)
    expect(tensors['a']!.equal(a.sub(1))).toBe(true)
    expect(tensors['b']!.toArray()).toEqual([0, 1, 2])
  })

  it('a snapshot made within a scope lives until it is written', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const holder: Promise<void>[] = []
    torch.scope(() => {
      holder.push(saveSafetensors(path, { a: numbers(7) }, {}, { snapshot: true }))
    })
    await holder[0]
    expect((await loadSafetensors(path)).tensors['a']!.shape).toEqual([7])
  })

  it('refuses a tensor that becomes another meanwhile', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const a = numbers(4)
    const saving = saveSafetensors(path, { a })
    a.setData(a.to('float64'))
    await expect(saving).rejects.toThrow(/float32 \[4\] for tensor 'a', received 'float64 \[4\]'/)
  })

  it('takes sparse tensors', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const sparse = torch.eye(3).toSparse()
    await saveSafetensors(path, { sparse })
    expect((await loadSafetensors(path)).tensors['sparse']!.equal(torch.eye(3))).toBe(true)
  })

  it('names of any length are compared without running out of stack', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    const name = 'x"\\'.repeat(2_000_000)
    await saveSafetensors(path, { [name]: numbers(1) })
    expect(Object.keys((await loadSafetensors(path)).tensors)).toEqual([name])
  })
})
