import { afterEach, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { runTorch } from '../support/python.js'

const { cuda } = torch

afterEach(() => {
  torch.setFloat32MatmulPrecision('highest')
  torch.useDeterministicAlgorithms(false)
})

describe('precision of float32 matrix products', () => {
  it('is what was set', () => {
    expect(torch.getFloat32MatmulPrecision()).toBe('highest')
    for (const precision of ['high', 'medium', 'highest'] as const) {
      torch.setFloat32MatmulPrecision(precision)
      expect(torch.getFloat32MatmulPrecision()).toBe(precision)
    }
  })

  it('refuses other names', () => {
    expect(() => torch.setFloat32MatmulPrecision('low' as never)).toThrow(/'highest', 'high' or 'medium' for precision, received 'low'/)
  })
})

describe('deterministic algorithms', () => {
  const put = () => torch.zeros([3]).put_(torch.tensor([0, 0], { dtype: 'int64' }), torch.tensor([1, 2]))

  it('refuse what has none, by name, as PyTorch does', async () => {
    put()
    torch.useDeterministicAlgorithms(true)
    expect(torch.areDeterministicAlgorithmsEnabled()).toBe(true)
    expect(put).toThrow(torch.TorchError)
    expect(put).toThrow(/put_ does not have a deterministic implementation, but you set useDeterministicAlgorithms\(true\)/)
    const printed = await runTorch(`
import json, torch
torch.use_deterministic_algorithms(True)
try:
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1., 2.]))
except RuntimeError as error:
    print(json.dumps([str(error), torch.isnan(torch.empty(3)).all().item()]))`)
    const [message, filled] = JSON.parse(printed) as [string, boolean]
    expect(message).toMatch(/put_ does not have a deterministic implementation/)
    // New memory is filled.
    expect(filled).toBe(true)
    expect(torch.empty([3]).isnan().all().item()).toBe(true)
    expect(torch.tensor([1, 2]).add(1).toArray()).toEqual([2, 3])
  })

  it('only warn where that is asked for', () => {
    torch.useDeterministicAlgorithms(true, { warnOnly: true })
    expect(torch.isDeterministicAlgorithmsWarnOnlyEnabled()).toBe(true)
    put()
    torch.useDeterministicAlgorithms(false)
    expect([torch.areDeterministicAlgorithmsEnabled(), torch.isDeterministicAlgorithmsWarnOnlyEnabled()]).toEqual([false, false])
  })

  it.each([
    [() => torch.useDeterministicAlgorithms(1 as never), /a boolean for enabled, received 1/],
    [() => torch.useDeterministicAlgorithms(true, null as never), /an object for the options/],
    [() => torch.useDeterministicAlgorithms(true, { warnOnly: 'yes' as never }), /a boolean for warnOnly/]
  ])('refuse wrong input: %s', (call, message) => {
    expect(call).toThrow(torch.InputError)
    expect(call).toThrow(message)
    expect(torch.areDeterministicAlgorithmsEnabled()).toBe(false)
  })

  it.skipIf(!cuda.isAvailable())('on CUDA', () => {
    torch.useDeterministicAlgorithms(true)
    const histogram = () => torch.ones([8], { device: 'cuda' }).histc({ bins: 4, min: 0, max: 2 })
    expect(histogram).toThrow(/deterministic/)
    torch.useDeterministicAlgorithms(false)
    expect(histogram().sum().item()).toBe(8)
  })
})

describe('switches for CUDA', () => {
  it('TF32: as matmul precision says, and the other way round', () => {
    const before = cuda.allowTF32()
    expect(before.matmul).toBe(false)
    expect(cuda.allowTF32({ matmul: true }).matmul).toBe(true)
    expect(torch.getFloat32MatmulPrecision()).toBe('high')
    torch.setFloat32MatmulPrecision('highest')
    expect(cuda.allowTF32()).toEqual(before)
    expect(cuda.allowTF32({ cudnn: !before.cudnn }).cudnn).toBe(!before.cudnn)
    expect(cuda.allowTF32(before)).toEqual(before)
  })

  it('kernels of attention', () => {
    const before = cuda.sdpBackends()
    expect(Object.keys(before)).toEqual(['flash', 'efficient', 'math', 'cudnn'])
    expect(cuda.sdpBackends({ flash: false, cudnn: false })).toEqual({ ...before, flash: false, cudnn: false })
    expect(cuda.sdpBackends(before)).toEqual(before)
  })

  it('the search of cuDNN', () => {
    const before = cuda.cudnnBenchmark()
    cuda.setCudnnBenchmark(!before)
    expect(cuda.cudnnBenchmark()).toBe(!before)
    cuda.setCudnnBenchmark(before)
  })

  it.each([
    [() => cuda.allowTF32({ all: true } as never), /matmul, cudnn for the options of allowTF32\(\), received 'all'/],
    [() => cuda.allowTF32({ matmul: 1 as never, cudnn: true }), /a boolean for matmul, received 1/],
    [() => cuda.sdpBackends(null as never), /an object for the options of sdpBackends\(\)/],
    [() => cuda.setCudnnBenchmark('on' as never), /a boolean for enabled/]
  ])('refuse wrong input: %s', (call, message) => {
    const before = [cuda.allowTF32(), cuda.sdpBackends()]
    expect(call).toThrow(torch.InputError)
    expect(call).toThrow(message)
    expect([cuda.allowTF32(), cuda.sdpBackends()]).toEqual(before)
  })

  it.skipIf(!cuda.isAvailable())('attention on CUDA runs with each kernel alone that takes it, and fails with none', () => {
    const before = cuda.sdpBackends()
    const none = { flash: false, efficient: false, math: false, cudnn: false }
    const x = torch.randn([2, 4, 64, 64], { device: 'cuda', dtype: 'bfloat16' })
    const attend = () => torch.scaledDotProductAttention(x, x, x)
    try {
      cuda.sdpBackends({ ...none, math: true })
      const reference = attend().float()
      for (const name of ['flash', 'efficient'] as const) {
        cuda.sdpBackends({ ...none, [name]: true })
        expect(attend().float().sub(reference).abs().max().item()).toBeLessThan(0.05)
      }
      cuda.sdpBackends(none)
      expect(attend).toThrow(torch.TorchError)
    } finally {
      cuda.sdpBackends(before)
    }
  })
})
