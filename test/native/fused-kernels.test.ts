// The CUDA kernels of the fused operators, run on the CPU: see emulation/launch.cc. Compared with ATen's composition in float64.
import { execFile, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import type { DType, Tensor } from '../../src/torch/index.js'
import { patchify } from '../../src/vision/index.js'

interface Build { readBuildInfo(system: string): { libtorch: { path: string } } | undefined }
const build = (await import(new URL('../../scripts/build-native.mjs', import.meta.url).href)) as Build
const run = promisify(execFile)
const compiler = process.env['CXX'] ?? 'g++'
const sources = join(import.meta.dirname, 'emulation')

let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gmml-kernels-'))
  const library = join(folder, 'libemulated.so')
  const { path } = (build.readBuildInfo('cmake') ?? build.readBuildInfo('gyp'))!.libtorch
  await run(compiler, [
    '-std=c++20', '-O0', '-shared', '-fPIC', '-Dgmml=gmml_emulated', join(sources, 'launch.cc'), '-o', library,
    `-I${path}/include`, `-I${path}/include/torch/csrc/api/include`, `-L${path}/lib`, '-ltorch_cpu', '-lc10'
  ])
  Object.assign(process.env, { GMML_EMULATION_FOLDER: folder, GMML_EMULATION_COMPILER: compiler, GMML_EMULATION_INCLUDE: sources })
  torch.loadLibrary(library)
}, 900_000)

afterAll(() => rm(folder, { recursive: true, force: true }))

/** Results and gradients of inputs, with one weight for each element of the results. */
function derive(outputs: readonly Tensor[], inputs: readonly Tensor[]): Tensor[] {
  torch.manualSeed(12)
  const weighted = outputs.map((output) => output.to('float64').mul(torch.randn(output.shape).to('bfloat16')).sum())
  return [...outputs, ...torch.grad([weighted.reduce((sum, one) => sum.add(one))], inputs)].map((tensor) => tensor.detach())
}

// Of numbers as they are stored: a result is rounded once, and a few times where it goes through another result.
const tolerances: Partial<Record<DType, number>> = { float32: 2e-6, bfloat16: 8e-3, float16: 1e-3 }

/** Compares with a reference that gets the same numbers in float64. */
function expectPrecise(inputs: readonly Tensor[], fused: (...inputs: Tensor[]) => Tensor[], reference: (...inputs: Tensor[]) => Tensor[]): void {
  const received = derive(fused(...inputs), inputs)
  const wide = inputs.map((tensor) => tensor.detach().to('float64').requiresGrad_())
  const wanted = derive(reference(...wide), wide)
  // A 16-bit sum is what is normalised, so its rounding is in all that follows.
  const tolerance = Math.max(...[...inputs, ...received].map(({ dtype }) => tolerances[dtype]!))
  for (const [i, tensor] of received.entries()) {
    const error = tensor.to('float64').sub(wanted[i]!).norm().item() / Math.max(wanted[i]!.norm().item(), 1e-12)
    expect(error, `result ${i} of ${inputs.map(({ dtype, shape }) => `${dtype} ${shape.join(' x ')}`).join(', ')}`).toBeLessThan(tolerance)
  }
}

const leaf = (tensor: Tensor, dtype: DType) => tensor.to(dtype).detach().requiresGrad_()

describe('residual + layer norm', () => {
  // Widths of one warp and of several, of every number of elements at once, and dtypes as a step in float32, under autocast and in bfloat16 has.
  const cases: readonly (readonly [shape: readonly number[], x: DType, branch: DType, weight: DType, result?: DType])[] = [
    [[2, 197, 192], 'float32', 'bfloat16', 'float32', 'bfloat16'],
    [[3, 7, 64], 'float32', 'float32', 'float32'],
    [[2, 11, 384], 'bfloat16', 'bfloat16', 'bfloat16'],
    [[2, 9, 768], 'float32', 'bfloat16', 'float32', 'bfloat16'],
    [[1, 5, 1024], 'float32', 'float16', 'float32', 'float16'],
    [[2, 3, 2048], 'float32', 'bfloat16', 'float32', 'bfloat16'],
    [[1, 2, 4096], 'float32', 'float32', 'float32'],
    [[2, 13, 33], 'float32', 'float32', 'float32'],
    [[5, 1], 'float32', 'float32', 'float32'],
    [[3, 4, 130], 'float16', 'float16', 'float32']
  ]

  for (const [shape, x, branch, weight, result] of cases) {
    it(`[${shape.join(', ')}] ${x} + ${branch}, weights ${weight}, result ${result ?? x}`, () => {
      torch.manualSeed(1)
      const row = [shape.at(-1)!]
      const single = row[0] === 1
      const inputs = [
        leaf(torch.randn(shape).add(0.5), x), leaf(torch.randn(shape), branch), leaf(torch.randn(row).add(1), weight), leaf(torch.randn(row), weight)
      ]
      for (const dropped of [false, true]) {
        const scale = dropped ? torch.arange(shape[0]!).remainder(2).mul(1.25).reshape([shape[0]!, ...shape.slice(1).map(() => 1)]) : null
        const eps = single ? 1 : 1e-6 // the variance of one element is 0
        const reference = (a: Tensor, b: Tensor, w: Tensor, c: Tensor) => {
          const sum = a.add(scale ? b.mul(scale.to('float64')) : b)
          return [sum, torch.layerNorm(sum, row, { weight: w, bias: c, eps })]
        }
        const fused = (a: Tensor, b: Tensor, w: Tensor, c: Tensor) =>
          torch.call<Tensor[]>('gmml_emulated::add_layer_norm', a, b, w, c, eps, scale?.to(branch), result)
        expectPrecise(inputs, fused, reference)
      }
    })
  }

  it('of unaligned views, of a result alone, and refuses what is too wide', () => {
    torch.manualSeed(2)
    const storage = torch.randn([2 * 5 * 64 + 1])
    const inputs = [
      leaf(storage, 'float32'), leaf(torch.randn([2, 5, 64]), 'float32'), leaf(torch.randn([65]), 'float32'), leaf(torch.randn([64]), 'float32')
    ]
    const views = (a: Tensor, w: Tensor) => [a.narrow(0, 1, 640).reshape([2, 5, 64]), w.narrow(0, 1, 64)] as const
    for (const which of [0, 1]) {
      const needed = which ? inputs : inputs.slice(0, 2)
      const all = (given: Tensor[]) => [...given, ...inputs.slice(given.length)] as [Tensor, Tensor, Tensor, Tensor]
      const fused = (...given: Tensor[]) => {
        const [a, b, w, c] = all(given)
        const [x, weight] = views(a, w)
        return [torch.call<Tensor[]>('gmml_emulated::add_layer_norm', x, b, weight, c, 1e-6)[which]!]
      }
      const reference = (...given: Tensor[]) => {
        const [a, b, w, c] = all(given)
        const [x, weight] = views(a, w)
        const sum = x.add(b)
        return [which ? torch.layerNorm(sum, [64], { weight, bias: c, eps: 1e-6 }) : sum]
      }
      expectPrecise(needed, fused, reference)
    }
    const wide = torch.ones([1, 4097])
    expect(() => torch.call('gmml_emulated::add_layer_norm', wide, wide, wide.select(0, 0), wide.select(0, 0))).toThrow(/at most 4096 elements/)
  })

  it('of an empty batch is empty, with gradients of 0', () => {
    const [x, row] = [leaf(torch.zeros([0, 3, 64]), 'float32'), leaf(torch.ones([64]), 'float32')]
    const [, normalised] = torch.call<[Tensor, Tensor]>('gmml_emulated::add_layer_norm', x, x, row, row)
    expect(normalised.shape).toEqual([0, 3, 64])
    expect(torch.grad([normalised.sum()], [row])[0]!.eq(0).all().item()).toBe(true)
  })
})

describe('bias + GELU', () => {
  const cases: readonly (readonly [shape: readonly number[], x: DType, bias: DType])[] = [
    [[2, 197, 768], 'bfloat16', 'float32'],
    [[700, 96], 'float32', 'float32'],
    [[3, 33], 'float32', 'float32'],
    [[1, 2], 'float16', 'float16'],
    [[65, 260], 'bfloat16', 'bfloat16']
  ]

  it.each(cases)('[%s] %s, bias %s', (shape, dtype, biasDtype) => {
    torch.manualSeed(3)
    const inputs = [leaf(torch.randn(shape).mul(2), dtype), leaf(torch.randn([shape.at(-1)!]), biasDtype)]
    expectPrecise(inputs, (x, bias) => [torch.call<Tensor>('gmml_emulated::bias_gelu', x, bias)], (x, bias) => [torch.gelu(x.add(bias))])
  })
})

describe('masked L1', () => {
  const cases: readonly (readonly [size: readonly number[], patch: number, prediction: DType, clean: DType, mask: DType | null])[] = [
    [[2, 3, 64, 48], 16, 'bfloat16', 'float32', 'bool'],
    [[16, 3, 32, 32], 4, 'float32', 'float32', 'bool'],
    [[1, 2, 10, 15], 5, 'float32', 'bfloat16', 'float32'],
    [[3, 1, 28, 28], 2, 'float16', 'float32', null],
    [[2, 4, 3, 3], 1, 'float32', 'float32', 'int64']
  ]

  it.each(cases)('[%s] patches of %i, %s, %s, mask %s', (size, patch, dtype, cleanDtype, maskDtype) => {
    torch.manualSeed(4)
    const clean = torch.randn(size).to(cleanDtype)
    const [batch, channels, height, width] = size as [number, number, number, number]
    const mask = maskDtype && torch.rand([batch, 1, height, width]).lt(0.6).to(maskDtype)
    const reference = (prediction: Tensor) => {
      const distance = prediction.sub(patchify(clean.to('float64'), patch)).abs()
      if (!mask) return [distance.mean()]
      const weight = patchify(mask.to('float64'), patch)
      return [distance.unflatten(-1, [channels, patch ** 2]).mul(weight.unsqueeze(2)).sum().div(weight.sum().mul(channels).clamp({ min: 1 }))]
    }
    const prediction = leaf(patchify(torch.randn(size), patch), dtype)
    expectPrecise([prediction], (x) => [torch.call<Tensor>('gmml_emulated::masked_l1', x, clean, mask, patch)], reference)
    if (!mask) return
    expectPrecise(
      [prediction], (x) => [torch.call<Tensor>('gmml_emulated::masked_l1', x, clean, torch.zerosLike(mask), patch)], (x) => [x.sum().mul(0)]
    )
  })

  it('of an empty batch is 0 where there is a mask', () => {
    const clean = torch.zeros([0, 3, 8, 8])
    const mask = torch.zeros([0, 1, 8, 8])
    expect(torch.call('gmml_emulated::masked_l1', torch.zeros([0, 4, 48]), clean, mask, 4).item()).toBe(0)
    expect(torch.call('gmml_emulated::masked_l1', torch.zeros([0, 4, 48]), clean, null, 4).item()).toBeNaN()
  })
})

const ptxas = spawnSync('nvcc', ['--version'], { encoding: 'utf8' })

describe.skipIf(ptxas.status !== 0)('with a CUDA toolkit', () => {
  it('every kernel that was run above compiles for sm_90, and keeps its numbers in registers', async () => {
    const text = await readFile(new URL('../../native/fused_kernels.h', import.meta.url), 'utf8')
    const source = join(folder, 'kernels.cu')
    const kernels = text.split('\n').slice(1).join('\n').replace(/\)CUDA"\s*$/, '')
    const options = (await readFile(join(folder, 'options'), 'utf8')).trim().split('\n')
    expect(options.length).toBeGreaterThan(20)
    const architectures = ['90'].flatMap((kind) => ['-gencode', `arch=compute_${kind},code=sm_${kind}`])
    for (const option of options) {
      // As macros of the text itself: nvcc includes headers of its own before it, which NVRTC does not, with templates of the same names.
      const macros = option.split(' ').map((word) => word.replace(/^-D([^=]+)=?/, '#define $1 '))
      await writeFile(source, [...macros, kernels].join('\n'))
      const args = ['-std=c++17', '-fatbin', ...architectures, '-Xptxas', '-v', source, '-o', join(folder, 'kernels.fatbin')]
      const { stderr, stdout } = await run('nvcc', args)
      const spills = `${stdout}${stderr}`.match(/\d+ bytes stack frame, \d+ bytes spill stores, \d+ bytes spill loads/g) ?? []
      expect(spills, option).toEqual(Array(architectures.length / 2).fill('0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads'))
    }
  }, 1_200_000)
})
