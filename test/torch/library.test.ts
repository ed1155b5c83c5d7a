import { execFile } from 'node:child_process'
import { appendFile, copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, call, gradCheck, loadLibrary, tensor, type Tensor } from '../../src/torch/index.js'
import { clean, runChild } from '../native/support.js'

interface Build { readBuildInfo(system: string): { libtorch: { path: string } } | undefined }
const build = (await import(new URL('../../scripts/build-native.mjs', import.meta.url).href)) as Build

let folder: string
let library: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gmml-library-'))
  library = join(folder, 'liboperators.so')
  const { path } = (build.readBuildInfo('cmake') ?? build.readBuildInfo('gyp'))!.libtorch
  await promisify(execFile)(process.env['CXX'] ?? 'g++', [
    '-std=c++20', '-O1', '-shared', '-fPIC', join(import.meta.dirname, 'library/operators.cc'), '-o', library,
    `-I${path}/include`, `-I${path}/include/torch/csrc/api/include`, `-L${path}/lib`, '-ltorch_cpu', '-lc10'
  ])
}, 300_000)

afterAll(() => rm(folder, { recursive: true, force: true }))

describe('misuse', () => {
  it('what is no library', async () => {
    for (const path of [null, undefined, 3, '', {}]) expect(() => loadLibrary(path as string)).toThrow(/Expected the path of a shared library/)
    expect(() => loadLibrary(join(folder, 'none.so'))).toThrow(/Expected the file of a shared library for path, received '.*none\.so'/)
    expect(() => loadLibrary(folder)).toThrow(InputError)
    const text = join(folder, 'text.so')
    await writeFile(text, 'not a library')
    expect(() => loadLibrary(text)).toThrow(TorchError)
    expect(() => loadLibrary(text)).toThrow(/text\.so: (file too short|invalid ELF header)/)
  })

  it('what is no operator', () => {
    for (const name of ['', 'add', 'aten::', 'aten::add.', 'aten::add.Tensor.out', ' aten::add', 'aten:add', '::add']) {
      expect(() => call(name, 1), name).toThrow(/Expected an operator's name/)
    }
    for (const op of [null, undefined, 3, {}, { id: 0 }]) expect(() => call(op as string)).toThrow(InputError)
    expect(() => call('gmml_example::cube', tensor([1]))).toThrow(/^gmml_example::cube: libtorch \S+ has no such operator$/)
    expect(() => call('aten::add.Nothing')).toThrow(TorchError)
  })
})

describe('a library of the user’s own', () => {
  it('is called by name, with defaults and an overload', () => {
    loadLibrary(library)
    loadLibrary(library) // again is harmless
    expect(call('gmml_example::cube', tensor([1, 2, 3])).toArray()).toEqual([1, 8, 27])
    expect(call(torch.operator('gmml_example::cube'), tensor([1, 2]), 0.5).toArray()).toEqual([0.5, 4])
    const [name, sizes, zeros] = call<[string, number[], Tensor]>('gmml_example::describe.named', torch.ones([2, 3]), 'ab', [4, 2 ** 40], true)
    expect([name, sizes, zeros.shape]).toEqual(['abab', [4, 2 ** 40, 2], [2, 3]])
    expect(torch.listOperators().filter((schema) => schema.startsWith('gmml_example::'))).toHaveLength(2)
  })

  it('is differentiable, its errors are errors', () => {
    const x = tensor([1, 2, -3], { dtype: 'float64', requiresGrad: true })
    expect(gradCheck((z) => call('gmml_example::cube', z, 0.25), [x])).toBe(true)
    call('gmml_example::cube', x, 2).sum().backward()
    expect(x.grad!.toArray()).toEqual([6, 24, 54])
    expect(() => call('gmml_example::cube', 'x')).toThrow(/^gmml_example::cube: argument 'x': expected a Tensor, received string 'x'/)
    expect(() => call('gmml_example::describe.named', null, 'it', [])).toThrow(/^gmml_example::describe\.named: no tensor for it/)
    expect(() => call('gmml_example::describe', x, 'it', [])).toThrow(/no such operator/)
  })

  it('is loaded once, under whatever name, and not again after a change', async () => {
    const copy = join(folder, 'copy.so')
    await copyFile(library, copy)
    loadLibrary(copy)
    await appendFile(copy, 'changed')
    expect(() => loadLibrary(copy)).toThrow(/Expected a library that has not changed since it was loaded/)
    expect(call('gmml_example::cube', tensor([2])).toArray()).toEqual([8])
  })

  it('is there for threads too', () => {
    const outcome = runChild(`
      import { Worker } from 'node:worker_threads'
      torch.loadLibrary(${JSON.stringify(library)})
      const code = 'const { parentPort } = await import("node:worker_threads"); const torch = await import(' +
        JSON.stringify(${JSON.stringify(new URL('../../dist/torch/index.js', import.meta.url).href)}) + '); torch.loadLibrary(' +
        JSON.stringify(${JSON.stringify(library)}) + '); parentPort.postMessage(torch.call("gmml_example::cube", torch.tensor([3])).item())'
      const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(code)))
      print(await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject)))
      await worker.terminate()
      print(torch.call('gmml_example::cube', torch.tensor([2])).item())
    `)
    expect(outcome).toEqual(clean(27, 8))
  })
})

it('other namespaces of libtorch', () => {
  const x = torch.ones([2, 2])
  expect(call('inductor::_alloc_from_pool', torch.zeros([64], { dtype: 'uint8' }), 0, 'float32', [2, 2], [2, 1]).shape).toEqual([2, 2])
  const quantized = call('aten::quantize_per_tensor', x, 0.5, 0, 'quint8')
  expect(call('aten::dequantize.self', call('quantized::add', quantized, quantized, 0.5, 0)).toArray()).toEqual([[2, 2], [2, 2]])
  expect(() => call('quantized::linear', quantized)).toThrow(/argument 'W_prepack' is of type .*LinearPackedParamsBase, which cannot be given from JavaScript/)
  expect(() => call('quantized::linear_prepack', quantized, null)).toThrow(/a result is of type .*, which cannot be given to JavaScript/)
})
