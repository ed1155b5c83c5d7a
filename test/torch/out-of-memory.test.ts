import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'

const { cuda } = torch

function failure(call: () => unknown): unknown {
  try {
    call()
  } catch (error) {
    return error
  }
  throw new Error('expected a failure')
}

describe('memory that is not there', () => {
  it('is an error of its own, with the number of bytes', () => {
    const error = failure(() => torch.empty([2 ** 50])) as torch.OutOfMemoryError
    expect(error).toBeInstanceOf(torch.OutOfMemoryError)
    expect(error).toBeInstanceOf(torch.TorchError)
    expect(error).toMatchObject({ name: 'OutOfMemoryError', operator: 'aten::empty.memory_format', device: 'cpu', requestedBytes: 2 ** 52 })
    expect(error.message).toMatch(/^aten::empty.memory_format: DefaultCPUAllocator: .*tried to allocate 4503599627370496 bytes/)
    expect(error.freeBytes).toBeUndefined()
  })

  it('names the tensors', () => {
    const x = torch.zeros([1, 1])
    const error = failure(() => x.expand([2 ** 25, 2 ** 25]).clone()) as torch.OutOfMemoryError
    expect(error).toBeInstanceOf(torch.OutOfMemoryError)
    expect(error.requestedBytes).toBe(2 ** 52)
    expect(error.message).toMatch(/self float32 \[33554432, 33554432\] cpu/)
  })

  it('leaves all as it was', () => {
    const before = torch.memory()
    const x = torch.tensor([1, 2, 3])
    const kept = torch.scope(() => {
      const inside = x.mul(2)
      expect(() => torch.scope(() => [x.add(1), torch.empty([2 ** 50])])).toThrow(torch.OutOfMemoryError)
      expect(torch.memory()).toMatchObject({ tensors: before.tensors + 2, scopes: 1 })
      return inside
    })
    expect(kept.toArray()).toEqual([2, 4, 6])
    expect(torch.ones([1000, 1000]).sum().item()).toBe(1e6)
    kept.dispose()
    x.dispose()
  })

  it('is told from other failures', () => {
    for (const call of [() => torch.empty([2 ** 62]), () => torch.zeros([2]).add(torch.zeros([3])), () => torch.call('aten::none')]) {
      expect(failure(call)).not.toBeInstanceOf(torch.OutOfMemoryError)
      expect(failure(call)).toBeInstanceOf(torch.TorchError)
    }
  })
})

describe.skipIf(!cuda.isAvailable())('on CUDA', () => {
  it('has the figures of the GPU, and the state goes on', () => {
    const x = torch.ones([1024], { device: 'cuda' })
    const { total } = cuda.memoryInfo()
    const error = failure(() => torch.empty([total], { device: 'cuda' })) as torch.OutOfMemoryError
    expect(error).toBeInstanceOf(torch.OutOfMemoryError)
    expect(error.device).toBe('cuda:0')
    expect(error.totalBytes).toBe(total)
    expect(error.requestedBytes! / (4 * total)).toBeCloseTo(1, 2)
    expect(error.freeBytes).toBeGreaterThan(0)
    expect(error.freeBytes).toBeLessThanOrEqual(total)
    expect(error.allocatedBytes).toBe(cuda.memoryAllocated())
    expect(error.reservedBytes).toBeGreaterThanOrEqual(error.allocatedBytes!)
    expect(x.sum().item()).toBe(1024)
    expect(torch.zeros([1024, 1024], { device: 'cuda' }).add(1).sum().item()).toBe(2 ** 20)
  })

  it('a limit is kept', () => {
    const { total } = cuda.memoryInfo()
    const room = cuda.memoryReserved() + 2 ** 28
    cuda.setMemoryFraction(room / total)
    try {
      expect(() => torch.empty([2 ** 30], { device: 'cuda' })).toThrow(torch.OutOfMemoryError)
    } finally {
      cuda.setMemoryFraction(1)
    }
    torch.empty([2 ** 28], { device: 'cuda' }).dispose()
  })
})
