import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { InputError } from '../../src/errors.js'
import { saveOnnx, type OnnxModel } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import { memory, type Tensor } from '../../src/torch/index.js'
import {
  exportOnnx, visionTransformer, VisionTransformer, type OnnxOptions, type VisionTransformerOptions
} from '../../src/vision/index.js'
import { difference, perturb, runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

// The part of onnxruntime-node that is used here.
interface Runtime {
  readonly InferenceSession: {
    create(path: string, options: object): Promise<{
      readonly inputNames: readonly string[]
      readonly outputNames: readonly string[]
      run(feeds: object): Promise<Record<string, { readonly data: Float32Array; readonly dims: readonly number[] }>>
      release(): Promise<void>
    }>
  }
  readonly Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => object
}

const scripts: unknown = await import(new URL('../../scripts/onnxruntime.mjs', import.meta.url).href)
const { default: runtime } = (await import((scripts as { readonly onnxRuntime: () => string }).onnxRuntime())) as { default: Runtime }

const small = { imageSize: [8, 12] as const, patchSize: 4, channels: 2, embedDim: 16, depth: 2, numHeads: 2 }

interface Checked {
  readonly opset: Record<string, number>
  readonly producer: readonly string[]
  readonly metadata: Record<string, string>
  readonly inputs: Record<string, unknown>
  readonly outputs: Record<string, unknown>
  readonly initializers: Record<string, number[]>
  readonly nodes: readonly (readonly [string, string])[]
  readonly unknown: readonly string[]
}

const check = async (...paths: string[]): Promise<Checked[]> =>
  JSON.parse(await runPython(join(import.meta.dirname, 'check-onnx.py'), ...paths)) as Checked[]

/** What ONNX Runtime computes, batch by batch. */
async function compute(path: string, batches: readonly Tensor[]): Promise<Record<string, Tensor>[]> {
  const options = { intraOpNumThreads: 1, interOpNumThreads: 1 }
  const session = await runtime.InferenceSession.create(path, options)
  try {
    expect(session.inputNames).toEqual(['images'])
    const results: Record<string, Tensor>[] = []
    for (const images of batches) {
      const outputs = await session.run({ images: new runtime.Tensor('float32', images.toTypedArray() as Float32Array, images.shape) })
      results.push(Object.fromEntries(Object.entries(outputs).map(([name, { data, dims }]) => [name, torch.fromTypedArray(data, dims)])))
    }
    return results
  } finally {
    await session.release()
  }
}

/** Largest difference between ONNX Runtime and the model itself over batches of 1, 2 and 5 images. */
async function largestDifference(path: string, model: VisionTransformer): Promise<number> {
  const { channels, imageSize } = model
  model.eval()
  const batches = [1, 2, 5].map((batch) => torch.randn([batch, channels, ...imageSize]))
  const results = await compute(path, batches)
  return Math.max(
    ...batches.flatMap((images, i) =>
      torch.noGrad(() => {
        const own = {
          tokens: model.call(images), pooled: model.features(images), ...(model.head && { logits: model.logits(images) })
        }
        expect(Object.keys(results[i]!)).toEqual(Object.keys(own))
        return Object.entries(own).map(([name, tensor]) => difference(results[i]![name]!, tensor.to('float32'), name).absolute)
      })
    )
  )
}

const variants: Record<string, Partial<VisionTransformerOptions>> = {
  'CLS token': {},
  'a classifier': { numClasses: 5 },
  'registers': { registerTokens: 3 },
  'registers and positions of the patches alone': { registerTokens: 2, noEmbedClass: true, numClasses: 3 },
  'no CLS token': { classToken: false, numClasses: 4 },
  'registers and no CLS token': { classToken: false, registerTokens: 2, noEmbedClass: true },
  'the mean of the patch tokens': { pool: 'avg', numClasses: 2 },
  'the mean, normalised before': { pool: 'avg', fcNorm: false },
  'the CLS token, normalised after pooling': { fcNorm: true },
  'layer scale': { initValues: 0.3 },
  'no bias of query, key and value': { qkvBias: false },
  'one channel and a square image': { channels: 1, imageSize: 8, patchSize: 2 },
  'twelve channels, three heads, a narrow MLP': { channels: 12, embedDim: 18, numHeads: 3, mlpRatio: 1.5 },
  'one patch': { imageSize: 4, depth: 1 },
  'another epsilon': { normEps: 0.1 },
  'dropped paths': { dropPath: 0.5 }
}

describe('exportOnnx', () => {
  it('refuses what it cannot write, and touches nothing', async () => {
    const folder = await temporaryFolder()
    const path = join(folder, 'model.onnx')
    const model = new VisionTransformer(small)
    const before = memory().tensors
    const misuse: [OnnxOptions, RegExp][] = [
      [{ opset: 16 }, /one of 17, 18, 19, 20 for opset, received 16/],
      [{ opset: 17.5 }, /for opset, received 17.5/],
      [{ opset: '17' as never }, /for opset/],
      [{ mean: [0.5], std: [1, 1] }, /2 numbers, one for each channel, for mean, received \[ 0.5 \]/],
      [{ mean: [0.5, 0.5], std: [1, NaN] }, /for std, received \[ 1, NaN \]/],
      [{ mean: [0.5, 0.5] }, /for std, received undefined/]
    ]
    for (const [options, message] of misuse) {
      const attempt = exportOnnx(path, model, options)
      await expect(attempt).rejects.toThrow(InputError)
      await expect(attempt).rejects.toThrow(message)
    }
    await expect(exportOnnx(path, { options: {} } as never)).rejects.toThrow(/a VisionTransformer for the model/)
    await expect(exportOnnx(join(folder, 'none/model.onnx'), model)).rejects.toThrow(/ENOENT/)
    expect(await readdir(folder)).toEqual([])
    expect(memory().tensors).toBeLessThanOrEqual(before)
    model.dispose()
    await expect(exportOnnx(path, model)).rejects.toThrow(/disposed/)
  })

  it.each([17, 18, 19, 20])('at opset %d passes the checker and gives the same as the model, all variants', async (opset) => {
    const folder = await temporaryFolder()
    const cases = Object.entries(variants).map(([name, options], i) => {
      torch.manualSeed(i)
      return { name, path: join(folder, `${i}.onnx`), model: perturb(new VisionTransformer({ ...small, ...options }), 0.2) }
    })
    for (const { path, model } of cases) await exportOnnx(path, model, { opset })
    const checked = await check(...cases.map(({ path }) => path))
    for (const [i, { name, path, model }] of cases.entries()) {
      expect(await largestDifference(path, model), name).toBeLessThanOrEqual(1e-5)
      const { unknown, nodes, ...file } = checked[i]!
      expect(unknown, name).toEqual([])
      expect(file.opset).toEqual({ '': opset })
      expect(nodes.some(([operator]) => operator === (opset < 20 ? 'Erf' : 'Gelu')), name).toBe(true)
      // Every weight of the model is in the file, once, under its own name.
      for (const [key, { shape }] of Object.entries(model.stateDict())) {
        const linear = /^(blocks|head).*weight$/.test(key) && shape.length === 2
        expect(file.initializers[key], `${name}: ${key}`).toEqual(linear ? [...shape].reverse() : shape)
      }
      model.dispose()
    }
  })

  it('says what goes in and what comes out', async () => {
    const path = join(await temporaryFolder(), 'model.onnx')
    const model = new VisionTransformer({ ...small, numClasses: 5 })
    const before = memory().tensors
    await exportOnnx(path, model, { mean: [0.4, 0.5], std: [0.2, 0.25] })
    expect(memory().tensors).toBeLessThanOrEqual(before)
    const [file] = await check(path)
    const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
    expect(file).toMatchObject({
      opset: { '': 17 },
      producer: ['gmml', version],
      metadata: { image_size: '[8,12]', patch_size: '4', channels: '2', mean: '[0.4,0.5]', std: '[0.2,0.25]' },
      inputs: { images: ['FLOAT', ['batch', 2, 8, 12]] },
      outputs: { tokens: ['FLOAT', ['batch', 7, 16]], pooled: ['FLOAT', ['batch', 16]], logits: ['FLOAT', ['batch', 5]] }
    })
    expect(file!.nodes.map(([, name]) => name)).toContain('blocks.1.attn.qkv.matmul')
    // The protobuf file written twice is the same.
    const bytes = await readFile(path)
    await exportOnnx(path, model, { mean: [0.4, 0.5], std: [0.2, 0.25] })
    expect((await readFile(path)).equals(bytes)).toBe(true)
  })

  it('takes an empty batch, and weights in half precision as float32', async () => {
    const path = join(await temporaryFolder(), 'model.onnx')
    const model = perturb(new VisionTransformer(small))
    const rounded = model.to('bfloat16')
    await exportOnnx(path, rounded)
    const [file] = await check(path)
    expect(file!.outputs['tokens']).toEqual(['FLOAT', ['batch', 7, 16]])
    expect(await largestDifference(path, rounded.to('float32'))).toBeLessThanOrEqual(1e-5)
    const [empty] = await compute(path, [torch.zeros([0, 2, 8, 12])])
    expect(empty!['tokens']!.shape).toEqual([0, 7, 16])
  })

  it('agrees on a model of the zoo', async () => {
    const path = join(await temporaryFolder(), 'model.onnx')
    torch.manualSeed(0)
    const model = perturb(visionTransformer('vit_tiny', { imageSize: 96 }), 0.02)
    await exportOnnx(path, model)
    expect(await largestDifference(path, model)).toBeLessThanOrEqual(1e-4)
    model.dispose()
  })
})

describe('saveOnnx', () => {
  const model = (initializers: Record<string, Tensor>): OnnxModel => ({
    name: 'test', opset: 17, irVersion: 8, producer: { name: 'gmml', version: '0' }, initializers, inputs: [],
    outputs: [], nodes: []
  })

  it('refuses dtypes that the format lacks and files that no reader takes, and leaves what is there', async () => {
    const path = join(await temporaryFolder(), 'model.onnx')
    await writeFile(path, 'mine')
    const complex = torch.zeros([1], { dtype: 'complex64' })
    await expect(saveOnnx(path, model({ x: complex }))).rejects.toThrow(/dtype that ONNX has for 'x', received 'complex64'/)
    // Half a gigabyte of one number, as often as needed: nothing of it is in memory.
    const large = torch.zeros([1]).expand([2 ** 29])
    await expect(saveOnnx(path, model({ large }))).rejects.toThrow(/would have 2147\d+ bytes, and an ONNX file holds at most 2147483647/)
    expect(await readFile(path, 'utf8')).toBe('mine')
  })

  it('writes every dtype, scalars and empty tensors', async () => {
    const path = join(await temporaryFolder(), 'model.onnx')
    const dtypes = ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool'] as const
    const tensors = Object.fromEntries(dtypes.map((dtype) => [dtype, torch.tensor([0, 1, 1]).to(dtype)]))
    const strided = torch.arange(6, { dtype: 'int32' }).reshape([2, 3]).t()
    await saveOnnx(path, model({ ...tensors, scalar: torch.tensor(7), empty: torch.zeros([0, 3]), strided }))
    const text = await runPython('-c', `
import onnx, sys
from onnx import numpy_helper
for t in onnx.load(sys.argv[1]).graph.initializer:
    print(t.name, onnx.TensorProto.DataType.Name(t.data_type), list(t.dims), numpy_helper.to_array(t).astype('float64').flatten().tolist())
`, path)
    const names = { float64: 'DOUBLE', float32: 'FLOAT' } as Record<string, string>
    expect(text.trim().split('\n')).toEqual([
      ...dtypes.map((dtype) => `${dtype} ${names[dtype] ?? dtype.toUpperCase()} [3] [0.0, 1.0, 1.0]`),
      'scalar FLOAT [] [7.0]', 'empty FLOAT [0, 3] []', 'strided INT32 [3, 2] [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]'
    ])
  })
})
