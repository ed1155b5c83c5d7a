import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { afterEach, describe, expect, it, vi } from 'vitest'

import { ForeignObject, loadTorch, saveTorch } from '../../src/io/index.js'
import { Linear, Parameter, Sequential } from '../../src/nn/index.js'
import { AdamW, type AdamWStateDict } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { dtypes, InputError, memory, type DType, type Tensor } from '../../src/torch/index.js'
import { expectNear, runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'
import { fillDisk } from '../train/support.js'
import { describeTree, torchFiles } from './torch-support.js'

torch.setNumThreads(1)

afterEach(() => void vi.restoreAllMocks())

interface Read {
  readonly found: { readonly [way: string]: unknown }
  readonly offsets: readonly number[]
  readonly kinds: Readonly<Record<string, string>>
}

/** Saves, and compares what Python finds (loaded plainly, as weights only, and mapped) and what we find with what it was. */
async function expectRoundTrips(values: readonly unknown[]): Promise<Read[]> {
  const folder = await temporaryFolder()
  const paths = values.map((_, i) => join(folder, `${i}.pth`))
  for (const [i, value] of values.entries()) {
    const before = memory().tensors
    await saveTorch(paths[i]!, value)
    expect(memory().tensors).toBeLessThanOrEqual(before)
  }
  const reads = await torchFiles<Read[]>('read', ...paths)
  for (const [i, value] of values.entries()) {
    const wanted = describeTree(value)
    const ways = Object.entries(reads[i]!.found)
    expect(ways).toHaveLength(3)
    for (const [way, found] of ways) expect(found, way).toEqual(wanted)
    expect(describeTree(await loadTorch(paths[i]!))).toEqual(wanted)
  }
  return reads
}

const expectRoundTrip = async (value: unknown): Promise<Read> => (await expectRoundTrips([value]))[0]!

const numbers = (...shape: number[]) => torch.arange(shape.reduce((a, b) => a * b, 1), { dtype: 'float32' }).reshape(shape)

describe('saving refuses, before the file is touched,', () => {
  const deep: unknown[] = []
  let end = deep
  for (let i = 0; i < 1000; i++) end.push((end = []))
  const x = torch.ones([4])
  const cases: Readonly<Record<string, readonly [unknown, RegExp]>> = {
    'undefined': [{ a: undefined }, /Cannot save value.a: undefined \(null becomes None\)/],
    'a function': [{ list: [1, () => 3] }, /Cannot save value.list\[1\]: a function/],
    'a symbol': [Symbol('x'), /Cannot save value: a symbol/],
    'an object of a class': [{ when: new Date() }, /Cannot save value.when: an object of the class Date; PyTorch has none such/],
    'a foreign object': [new ForeignObject(Object.create(ForeignObject.prototype) as ForeignObject), /object of the class ForeignObject/],
    'a typed array': [{ a: new Float32Array(3) }, /Cannot save value.a: an object of the class Float32Array/],
    'half a character': [{ a: '\ud800' }, /Cannot save value.a: a text with half a character/],
    'a Map by objects': [new Map([[{}, 1]]), /a Map with a key that is neither text nor number/],
    'what is too deep': [deep, /nested deeper than 500 levels/],
    'an integer that is too long': [2n ** 3000n, /an integer of 376 bytes/],
    'a sparse tensor': [{ s: torch.eye(3).toSparse() }, /Cannot save value.s: a tensor that is not dense; toDense\(\) it before/],
    'a tensor without data': [torch.empty([2], { device: 'meta' }), /a tensor on the device meta/],
    'one memory of two types': [
      [x, torch.call(torch.operator('aten::view', 'dtype'), x, 'int32')],
      /Cannot save value\[1\]: a view as int32 of what another tensor sees as float32/
    ]
  }
  it.each(Object.entries(cases))('%s', async (_, [value, message]) => {
    const folder = await temporaryFolder()
    const path = join(folder, 'a.pth')
    await writeFile(path, 'earlier')
    const before = memory().tensors
    const error: unknown = await saveTorch(path, value).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(InputError)
    expect((error as Error).message).toMatch(message)
    expect(memory().tensors).toBeLessThanOrEqual(before)
    expect(await readFile(path, 'utf8')).toBe('earlier')
    expect(await readdir(folder)).toEqual(['a.pth'])
  })

  it('a tensor that was disposed of, and a path that is none', async () => {
    const gone = torch.ones([1])
    gone.dispose()
    const folder = await temporaryFolder()
    await expect(saveTorch(join(folder, 'a.pth'), { gone })).rejects.toThrow(torch.TorchError)
    await expect(saveTorch(7 as never, {})).rejects.toThrow(/a path for the file, received 7/)
    expect(await readdir(folder)).toEqual([])
  })

  it.each([0, 1, 5])('a disk that is full after %i writes: the file is as it was', async (writes) => {
    const folder = await temporaryFolder()
    const path = join(folder, 'a.pth')
    await writeFile(path, 'earlier')
    const before = memory().tensors
    fillDisk(writes)
    await expect(saveTorch(path, { x: torch.ones([2]), y: torch.ones([5_000_000]), z: torch.ones([2]) })).rejects.toThrow(/ENOSPC/)
    vi.restoreAllMocks()
    expect(memory().tensors).toBeLessThanOrEqual(before + 3)
    expect(await readFile(path, 'utf8')).toBe('earlier')
    expect(await readdir(folder)).toEqual(['a.pth'])
  })

  it('a tensor that is disposed of while it is being written is written all the same', async () => {
    const path = join(await temporaryFolder(), 'a.pth')
    const x = torch.ones([3_000_000])
    const saved = saveTorch(path, { x })
    x.dispose()
    await saved
    expect((await loadTorch<{ x: Tensor }>(path)).x.sum().item()).toBe(3_000_000)
  })
})

describe('Python finds what was saved:', () => {
  it('every dtype', async () => {
    // libtorch converts nothing to its four-bit dtype: its bytes are given.
    const made = (dtype: DType) =>
      dtype === 'float4_e2m1fn_x2' ? torch.fromTypedArray(Uint8Array.of(1, 22, 250, 0, 7, 99), [2, 3], { dtype }) : numbers(2, 3).to(dtype)
    const tensors = dtypes.map((dtype) => [dtype, made(dtype)] as const)
    const read = await expectRoundTrip(Object.fromEntries(tensors))
    expect(read.offsets).toHaveLength(dtypes.length)
    for (const offset of read.offsets) expect(offset % 64).toBe(0)
  })

  it('special and extreme values', async () => {
    await expectRoundTrip({
      floats: torch.tensor([NaN, Infinity, -Infinity, -0, 1e-45]), long: torch.tensor([2n ** 63n - 1n, -(2n ** 63n)]),
      unsigned: torch.tensor([2n ** 64n - 1n], { dtype: 'uint64' }), complex: torch.tensor([{ re: 1, im: -2 }])
    })
  })

  it('strides, offsets, and tensors of one memory, which is written once', async () => {
    const x = numbers(3, 4, 5)
    const views = {
      x, again: x, transposed: x.transpose(0, 2), part: x.narrow(1, 1, 2), expanded: x.narrow(0, 0, 1).expand([7, 4, 5]),
      single: x.select(0, 1).select(0, 2), empty: torch.empty([0]), empty2: torch.zeros([3, 0, 2]), scalar: torch.tensor(2.5),
      conjugate: torch.tensor([{ re: 1, im: 2 }]).conj(), other: torch.randn([3, 3]).t()
    }
    const { offsets, kinds } = await expectRoundTrip({ views, state: { x } })
    expect(offsets).toHaveLength(6)
    expect(kinds).toEqual({ views: 'OrderedDict', state: 'OrderedDict' })
  })

  it('nested data of every kind', async () => {
    const shared = [1, 'twice']
    const value = {
      integers: [0, 255, 256, 65535, 65536, -1, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, 2 ** 53 - 1, -(2 ** 53 - 1)],
      long: [2n ** 70n, -(2n ** 63n), -(2n ** 70n)], floats: [0.5, -0, NaN, Infinity, -Infinity, 1e300, 2 ** 60 + 0.5, 5e-324],
      flags: [true, false, null], text: 'naïve ☃ 🦉', '': '',
      bytes: new Uint8Array([0, 127, 128, 255]), noBytes: new Uint8Array(), set: new Set(['b', 1]), complex: { re: 1, im: -2.5 },
      map: new Map<unknown, unknown>([[0, { a: torch.ones([2]) }], ['1', 'text'], [null, 2]]), empty: {}, list: [], none: new Map(),
      shared: [shared, shared], many: Array.from({ length: 2500 }, (_, i) => i), null: null, constructor: 'a', hasOwnProperty: 1
    }
    // Python has one empty dict.
    const alone = [null, 3, 'text', [1, 2], torch.ones([2, 2]), {}]
    const [{ kinds }] = (await expectRoundTrips([{ ...value, none: {} }, ...alone])) as [Read]
    expect(kinds).toMatchObject({ map: 'dict', list: 'list', set: 'set', bytes: 'bytes', complex: 'complex', many: 'list', '': 'str' })
  })

  it('a list that holds itself, and an object without a prototype', async () => {
    const path = join(await temporaryFolder(), 'a.pth')
    const list: unknown[] = [1]
    list.push(list)
    await saveTorch(path, Object.assign(Object.create(null) as object, { list }))
    const { list: loaded } = await loadTorch<{ list: unknown[] }>(path)
    expect([loaded[0], loaded[1] === loaded]).toEqual([1, true])
    expect(await runPython('-c', `import torch; x = torch.load('${path}')['list']; print(x[1] is x)`)).toBe('True\n')
  })

  it('parameters as the values of a state dict, other tensors with what they require', async () => {
    const leaf = torch.ones([2], { requiresGrad: true })
    const parameter = new Parameter(torch.ones([3]))
    const path = join(await temporaryFolder(), 'a.pth')
    await saveTorch(path, { leaf, parameter, more: 1 })
    const loaded = await loadTorch<Record<string, Tensor>>(path)
    expect([loaded['leaf']!.requiresGrad, loaded['parameter']!.requiresGrad]).toEqual([true, false])
    const [read] = await torchFiles<[Read]>('read', path)
    expect(read.found['plain']).toMatchObject({ dict: [['leaf', { grad: true }], ['parameter', { grad: false }], ['more', 1]] })
  })

  it('memory of several chunks, to the byte', async () => {
    const path = join(await temporaryFolder(), 'a.pth')
    const big = torch.arange(3_000_001, { dtype: 'float64' })
    await saveTorch(path, { big, small: torch.ones([3]) })
    expect(await runPython('-c', [
      'import torch, zipfile', `x = torch.load('${path}', mmap=True)`,
      'print(torch.equal(x["big"], torch.arange(3000001, dtype=torch.float64)), x["small"].tolist())',
      `print(zipfile.ZipFile('${path}').testzip())`
    ].join('\n'))).toBe('True [1.0, 1.0, 1.0]\nNone\n')
    const loaded = await loadTorch<{ big: Tensor }>(path)
    expect(torch.equal(loaded.big, big)).toBe(true)
  })
})

describe('a module and its optimizer', () => {
  const make = () => new Sequential(new Linear(3, 4), new Linear(4, 2))
  const goOn = (path: string) => `file = torch.load('${path}', weights_only=True)
net.load_state_dict(file["model"])
optimizer.load_state_dict(file["optimizer"])
step()`
  const python = (path: string, out: string) => `
import torch
net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
groups = [{"params": [net[0].weight, net[1].weight]}, {"params": [net[0].bias, net[1].bias], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=0.3)
x = torch.arange(15.).reshape(5, 3).sin()
def step():
    optimizer.zero_grad()
    net(x).square().sum().backward()
    optimizer.step()
${path ? goOn(path) : 'torch.manual_seed(3)\nstep()\nstep()'}
torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, '${out}')
`
  const groups = (net: Sequential) => {
    const [w0, b0, w1, b1] = net.parameters()
    return [{ parameters: [w0!, w1!] }, { parameters: [b0!, b1!], weightDecay: 0 }]
  }
  const step = (net: Sequential, optimizer: AdamW) => {
    const x = torch.arange(15, { dtype: 'float32' }).reshape([5, 3]).sin()
    optimizer.zeroGrad()
    net.call(x).square().sum().backward()
    optimizer.step()
  }
  interface File {
    readonly model: Record<string, Tensor>
    readonly optimizer: AdamWStateDict
  }
  const run = async (path: string) => {
    const out = join(await temporaryFolder(), 'python.pth')
    await runPython('-c', python(path, out))
    return loadTorch<File>(out)
  }

  it("of Python's come over, and the next step is Python's", async () => {
    const folder = await temporaryFolder()
    const first = await run('')
    const net = make()
    const optimizer = new AdamW(groups(net))
    net.loadStateDict(first.model)
    optimizer.loadStateDict(first.optimizer)
    expect(optimizer.groups.map(({ lr, weightDecay }) => [lr, weightDecay])).toEqual([[0.3, 0.01], [0.3, 0]])
    // Python goes on from what we have written of what it wrote.
    const path = join(folder, 'ours.pth')
    await saveTorch(path, { model: net.stateDict(), optimizer: optimizer.stateDict() })
    const wanted = await run(path)
    step(net, optimizer)
    for (const [name, tensor] of Object.entries(net.stateDict())) expectNear(tensor.detach(), wanted.model[name], name)
    for (const [number, state] of optimizer.stateDict().state) {
      const other = wanted.optimizer.state.get(number)!
      expect([state.step.item(), other.step.item()]).toEqual([3, 3])
      expectNear(state.exp_avg, other.exp_avg, `exp_avg of ${number}`)
      expectNear(state.exp_avg_sq, other.exp_avg_sq, `exp_avg_sq of ${number}`)
    }
    expect(optimizer.stateDict().state.size).toBe(4)
  })

  it('of ours go to Python, and the next step is ours', async () => {
    torch.manualSeed(5)
    const net = make()
    const optimizer = new AdamW(groups(net), { lr: 0.3 })
    for (let i = 0; i < 2; i++) step(net, optimizer)
    const path = join(await temporaryFolder(), 'ours.pth')
    await saveTorch(path, { model: net.stateDict(), optimizer: optimizer.stateDict() })
    const wanted = await run(path)
    const before = net.stateDict()['0.weight']!.detach().clone()
    step(net, optimizer)
    expect(torch.equal(before, net.stateDict()['0.weight']!)).toBe(false)
    for (const [name, tensor] of Object.entries(net.stateDict())) expectNear(tensor.detach(), wanted.model[name], name)
  })
})
