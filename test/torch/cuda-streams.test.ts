import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'

const { cuda } = torch

/** Work of some milliseconds at least on the current stream. */
function work(): torch.Tensor {
  return torch.scope(() => {
    let x = torch.randn([2048, 2048], { device: 'cuda' })
    for (let i = 0; i < 50; i++) x = x.matmul(x).div(x.norm())
    return x
  })
}

describe.skipIf(!cuda.isAvailable())('on CUDA', () => {
  it('the device says what it is', () => {
    const found = cuda.properties()
    expect(found.name).toMatch(/\w/)
    expect(found.computeCapability).toBe(`${found.major}.${found.minor}`)
    expect(found.totalMemory).toBe(cuda.memoryInfo().total)
    expect(found.multiprocessors).toBeGreaterThan(0)
    expect(found.warpSize).toBe(32)
    expect(cuda.unavailableReason()).toBeNull()
    expect(cuda.currentDevice()).toBe('cuda:0')
    expect(cuda.withDevice('cuda:0', () => cuda.currentDevice())).toBe('cuda:0')
    expect(() => cuda.synchronize(`cuda:${cuda.deviceCount()}`)).toThrow(/no CUDA device \d+: there are \d+/)
  })

  it('a stream is the current one inside withStream, also after an error', () => {
    const side = cuda.stream({ priority: -1 })
    const before = cuda.currentStream()
    expect(before).toBe(cuda.defaultStream())
    expect(side).not.toBe(before)
    expect(side.device).toBe('cuda:0')
    expect(cuda.withStream(side, () => cuda.currentStream())).toBe(side)
    expect(() => cuda.withStream(side, () => torch.zeros([2]).add(torch.zeros([3])))).toThrow(torch.TorchError)
    expect(cuda.currentStream()).toBe(before)
  })

  it('streams wait for each other, and events tell when', async () => {
    const side = cuda.stream()
    const start = cuda.event({ timing: true }).record()
    const made = work()
    side.waitStream(cuda.currentStream())
    const sum = cuda.withStream(side, () => made.sum())
    made.recordStream(side)
    made.dispose()
    const end = side.recordEvent(cuda.event({ timing: true }))
    await end.synchronizeAsync()
    expect(end.query()).toBe(true)
    expect(start.elapsed(end)).toBeGreaterThan(0)
    expect(Number.isFinite(sum.item())).toBe(true)
    end.wait()
    await side.synchronizeAsync()
    expect(side.query()).toBe(true)
    await cuda.synchronizeAsync()
    for (const event of [start, end]) {
      event.dispose()
      event.dispose()
      expect(event.isLive).toBe(false)
      expect(() => event.query()).toThrow(/event was disposed of/)
    }
  })

  it('the event loop goes on while the GPU works', async () => {
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    const results = Array.from({ length: 20 }, work)
    await cuda.currentStream().synchronizeAsync()
    clearInterval(timer)
    for (const result of results) result.dispose()
    expect(turns).toBeGreaterThan(0)
  })

  it('times are refused of events that have none', () => {
    const [plain, timed] = [cuda.event().record(), cuda.event({ timing: true })]
    expect(() => plain.elapsed(timed)).toThrow(/made with timing/)
    expect(() => timed.elapsed(timed)).toThrow(/that were recorded/)
    expect(timed.query()).toBe(true)
  })

  it('pinned tensors are copied without waiting', () => {
    const x = torch.arange(1000).pinMemory()
    expect(x.isPinned()).toBe(true)
    const there = x.to({ device: 'cuda', nonBlocking: true })
    const back = torch.empty([1000], { dtype: 'int64', pinMemory: true })
    back.copy_(there, { nonBlocking: true })
    cuda.currentStream().synchronize()
    expect(back.toArray()).toEqual(x.toArray())
  })

  it('shared memory is pinned in place, and copied from', async () => {
    const buffer = new SharedArrayBuffer(4 << 20)
    const values = new Float32Array(buffer).map((_, i) => i)
    new Float32Array(buffer).set(values)
    const memory = cuda.pinSharedMemory(buffer)
    expect(() => cuda.pinSharedMemory(buffer)).toThrow(torch.TorchError)
    const there = memory.toTensor(16, 'float32', [2, 500])
    expect([there.device, there.shape]).toEqual(['cuda:0', [2, 500]])
    await cuda.currentStream().synchronizeAsync()
    expect(memory.isIdle).toBe(true)
    expect(there.toTypedArray()).toEqual(values.slice(4, 1004))
    expect(() => memory.toTensor((4 << 20) - 4, 'float32', [2])).toThrow(/inside the pinned memory/)
    memory.unpin()
    memory.unpin()
    expect(() => memory.isIdle).toThrow(/pinned memory was disposed of/)
    cuda.pinSharedMemory(buffer).unpin()
  })

  it('the allocator counts', () => {
    cuda.synchronize()
    cuda.resetPeakMemoryStats()
    const before = cuda.memoryAllocated()
    const x = torch.empty([1 << 20], { device: 'cuda' })
    expect(cuda.memoryAllocated() - before).toBe(4 << 20)
    x.dispose()
    expect(cuda.memoryAllocated()).toBe(before)
    expect(cuda.maxMemoryAllocated() - before).toBe(4 << 20)
    expect(cuda.memoryReserved()).toBeGreaterThanOrEqual(cuda.memoryAllocated())
    expect(cuda.maxMemoryReserved()).toBeGreaterThanOrEqual(cuda.memoryReserved())
    const stats = cuda.memoryStats()
    expect(stats.allocatedBytes.all.current).toBe(stats.allocatedBytes.smallPool.current + stats.allocatedBytes.largePool.current)
    cuda.emptyCache()
    expect(cuda.memoryStats().segment.all.freed).toBeGreaterThanOrEqual(stats.segment.all.freed)
  })
})
