import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'

import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import { ForeignObject, inspectTorch, loadTorch, TensorInfo } from '../../src/io/index.js'
import { Parameter } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import { memory, type Tensor } from '../../src/torch/index.js'
import { describeTree, hex, torchFiles } from './torch-support.js'

torch.setNumThreads(1)

let folder: string
let wanted: Record<string, unknown>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gmml-torch-'))
  wanted = await torchFiles('write', folder)
})

afterAll(() => rm(folder, { recursive: true, force: true }))

const file = (name: string) => join(folder, `${name}.pth`)

const kinds = ['dtypes', 'dtypes-unchecked', 'strided', 'nested', 'state', 'tied', 'tensor', 'nothing', 'empty']
const variants = ['nested', 'tied'].flatMap((name) => [1, 3, 4, 5].map((protocol) => `${name}-protocol${protocol}`))
const legacy = ['dtypes', 'strided', 'nested', 'state', 'tied', 'tensor', 'nothing', 'empty'].map((name) => `${name}-legacy`)
const legacyVariants = ['nested', 'tied'].flatMap((name) => [3, 5].map((protocol) => `${name}-legacy-protocol${protocol}`))

describe('what Python saves is read: values, strides, shared memory', () => {
  it.each([...kinds, ...variants, ...legacy, ...legacyVariants])('%s', async (name) => {
    expect(describeTree(await loadTorch(file(name)))).toEqual(wanted[name])
  })

  it.each(['', ...[0, 1, 3, 4, 5].map((protocol) => `-protocol${protocol}`), '-legacy'])('NumPy%s', async (variant) => {
    const loaded = await loadTorch<Record<string, unknown>>(file(`numpy${variant}`))
    const { dict } = wanted[`numpy${variant}`] as { dict: [string, { array: string; shape: number[]; bytes: string }][] }
    expect(Object.keys(loaded)).toEqual(dict.map(([name]) => name))
    for (const [name, value] of dict) {
      const received = loaded[name]
      if (!torch.isTensor(received)) {
        expect(describeTree(received), name).toEqual(value)
        continue
      }
      // The one that is big-endian becomes this machine's.
      const bytes = name === 'big-endian' ? Buffer.from(value.bytes, 'hex').swap32().toString('hex') : value.bytes
      expect([received.shape, hex(received), name], name).toEqual([value.shape, bytes, name])
      expect(received.dtype, name).toBe(name === 'big-endian' ? 'int32' : value.array)
    }
  })

  it('but not tensors in protocol 0, which PyTorch itself cannot read', async () => {
    await expect(loadTorch(file('tied-protocol0'))).rejects.toThrow(/tied-protocol0.pth': its tensors are in protocol 0, which PyTorch cannot read either/)
  })

  it('covers every file that was written', () => {
    const names = Object.keys(wanted).filter((name) => !name.startsWith('numpy'))
    const unreadable = ['nested-protocol0', 'tied-protocol0']
    expect(names.sort()).toEqual([...kinds, ...variants, ...legacy, ...legacyVariants, ...unreadable].sort())
  })
})

describe('tensors of one memory', () => {
  it('see what is done to each other, and free it together', async () => {
    const { tensors, bytes } = memory()
    const loaded = await loadTorch<Record<string, Tensor>>(file('strided'))
    const { all, transposed, sliced, again } = loaded as Record<'all' | 'transposed' | 'sliced' | 'again', Tensor>
    expect(again).not.toBe(undefined)
    all.fill_(3)
    expect([transposed.sum().item(), sliced.min().item()]).toEqual([180, 3])
    for (const tensor of Object.values(loaded)) tensor.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(tensors + 2)
    expect(memory().bytes['cpu'] ?? 0).toBeLessThanOrEqual((bytes['cpu'] ?? 0) + 64)
  })

  it('are leaves of their own: one can require grad and be changed', async () => {
    const { all, transposed } = await loadTorch<Record<'all' | 'transposed', Tensor>>(file('strided'))
    transposed.requiresGrad = true
    transposed.mul(2).sum().backward()
    torch.noGrad(() => transposed.sub_(1))
    expect(transposed.grad!.mean().item()).toBe(2)
    expect([transposed.isLeaf, all.requiresGrad, all.min().item()]).toEqual([true, false, -1])
  })

  it('a Parameter stays one', async () => {
    const loaded = await loadTorch<Record<string, Tensor>>(file('nested'))
    expect(loaded['parameter']).toBeInstanceOf(Parameter)
    expect([loaded['parameter']!.requiresGrad, loaded['frozen parameter']!.requiresGrad]).toEqual([true, false])
    expect(loaded['leaf']).not.toBeInstanceOf(Parameter)
  })
})

describe('JavaScript', () => {
  it('sees objects of Python as inert data, and an object in two places as one', async () => {
    const loaded = await loadTorch<{ args: ForeignObject; shared: unknown[] }>(file('nested'))
    expect(loaded.args).toBeInstanceOf(ForeignObject)
    expect(loaded.args).toMatchObject({ module: 'argparse', name: 'Namespace', args: [], state: { lr: 5e-4, model: 'vit_small' } })
    expect(inspect(loaded.args)).toMatch(/^argparse.Namespace \{\s+lr: 0.0005,[^]*nested: argparse.Namespace \{ a: 1 \}/)
    expect(loaded.shared[0]).toBe(loaded.shared[1])
  })

  it('is not changed by a key of the name __proto__', async () => {
    const loaded = await loadTorch<object>(file('nested'))
    expect(Object.getPrototypeOf(loaded)).toBe(Object.prototype)
    expect(Object.hasOwn(loaded, '__proto__')).toBe(true)
    expect('polluted' in loaded).toBe(false)
    expect('polluted' in {}).toBe(false)
  })

  it('learns what is in a file without reading the tensors', async () => {
    const { tensors } = memory()
    const found = await inspectTorch<Record<string, TensorInfo>>(file('strided'))
    expect(memory().tensors).toBe(tensors)
    expect(found['transposed']).toEqual(new TensorInfo('float32', [5, 4, 3], [1, 5, 20], 'cpu', false))
    expect(await inspectTorch(file('nested-legacy'))).toMatchObject({ parameter: { requiresGrad: true, shape: [2] }, text: 'naïve ☃ 🦉' })
    expect(await inspectTorch(file('numpy'))).toMatchObject({ matrix: { dtype: 'float32', shape: [2, 3] }, float64: 0.1 })
  })
})

describe('misuse', () => {
  it.each<[options: object, message: RegExp]>([
    [{ device: 'gpu' }, /'cpu', 'cuda' or 'cuda:N' for device, received 'gpu'/],
    [{ device: 'meta' }, /inspectTorch reads no data.* for device, received 'meta'/],
    [{ inert: 'os.system' }, /names as in the error for inert, received 'os.system'/],
    [{ inert: [3] }, /for inert, received \[ 3 \]/]
  ])('%o', async (options, message) => {
    await expect(loadTorch(file('tensor'), options)).rejects.toThrow(message)
  })

  it('a path that is none, and a file that is not there', async () => {
    await expect(loadTorch(3 as never)).rejects.toThrow(/a path for the file, received 3/)
    await expect(loadTorch(file('none'))).rejects.toThrow(/ENOENT.*none.pth/)
  })
})
