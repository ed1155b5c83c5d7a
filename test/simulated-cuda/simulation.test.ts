import { counts, forbidWaiting, problems, reset, simulated } from './index.js'
import { beforeEach, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'

beforeEach(() => {
  forbidWaiting(false)
  reset()
})

describe.skipIf(!simulated)('the simulated GPU', () => {
  it('is there, and has the numbers of the CPU', () => {
    expect(torch.cuda.deviceCount()).toBe(1)
    torch.manualSeed(3)
    const x = torch.randn([17, 9])
    const w = torch.randn([9, 5])
    const there = x.to('cuda')
    expect(there.device).toBe('cuda:0')
    expect(there.matmul(w.to('cuda')).gelu().cpu().toTypedArray()).toEqual(x.matmul(w).gelu().toTypedArray())
    torch.manualSeed(3)
    expect(torch.randn([17, 9], { device: 'cuda' }).cpu().toTypedArray()).toEqual(x.toTypedArray())
  })

  it('draws from a generator of its own, which goes on', () => {
    const draws = (device: 'cpu' | 'cuda') => {
      using generator = torch.generator({ device, seed: 5 })
      return [1, 2].map(() => torch.randn([6], { device, generator }).cpu().toArray())
    }
    expect(draws('cuda')).toEqual(draws('cpu'))
    expect(draws('cuda')[0]).not.toEqual(draws('cuda')[1])
  })

  it('has gradients, computed on threads of libtorch', () => {
    const gradient = (device: torch.Device) => {
      const x = torch.arange(12, { dtype: 'float32' }).reshape([3, 4]).to(device).requiresGrad_()
      x.sin().mul(x).sum().backward()
      return x.grad!
    }
    expect(gradient('cuda').device).toBe('cuda:0')
    expect(gradient('cuda').cpu().toTypedArray()).toEqual(gradient('cpu').toTypedArray())
  })

  it.each<[string, (x: torch.Tensor) => torch.Tensor]>([
    ['transposed', (x) => x.t()], ['sliced', (x) => x.narrow(1, 1, 2)], ['expanded', (x) => x.unsqueeze(0).expand([2, 3, 4])],
    ['reshaped', (x) => x.reshape([2, 6])], ['of another dtype', (x) => x.to('bfloat16')], ['empty', (x) => x.narrow(0, 0, 0)],
    ['sorted', (x) => x.sort()[0]], ['indexed', (x) => x.indexSelect(0, torch.fromTypedArray(BigInt64Array.of(2n, 0n)).to(x.device))],
    ['changed in place', (x) => x.clone().select(0, 1).fill_(7)], ['put together', (x) => torch.cat([x, x.neg()])],
    ['counted up', (x) => torch.arange(4, { device: x.device }).add(x)], ['split and stacked', (x) => torch.stack(x.unbind({ dim: 1 }))]
  ])('gives the same as the CPU, %s', (_, compute) => {
    const x = torch.arange(12, { dtype: 'float32' }).reshape([3, 4]).sin()
    const there = compute(x.to('cuda'))
    expect(there.device).toBe('cuda:0')
    expect(there.cpu().toArray()).toEqual(compute(x).toArray())
  })

  it('refuses operands on two devices, but for single numbers', () => {
    const there = torch.ones([3], { device: 'cuda' })
    expect(() => there.add(torch.ones([3]))).toThrow(/same device.*cuda:0 and cpu/)
    expect(() => torch.ones([3]).mul(there)).toThrow(/same device/)
    expect(() => there.copy_(torch.ones([3])).indexSelect(0, torch.fromTypedArray(Int32Array.of(1)))).toThrow(/same device/)
    expect(there.mul(torch.tensor(2)).cpu().toArray()).toEqual([2, 2, 2])
  })

  it('counts copies and waits, and can forbid these', () => {
    const there = torch.ones([3]).to('cuda')
    expect(counts()).toMatchObject({ toDevice: 1, toHost: 0, waits: 0 })
    there.sum().item()
    there.cpu()
    expect(counts()).toMatchObject({ toDevice: 1, toHost: 1, waits: 2 })
    forbidWaiting(true)
    expect(() => there.sum().item()).toThrow(/waits for the device/)
    expect(() => there.nonzero()).toThrow(/nonzero waits for the device/)
    expect(() => there.maskedSelect(there.gt(0))).toThrow(/waits for the device/)
    there.add(1)
  })
})

describe.skipIf(!simulated)('streams of the simulated GPU', () => {
  const { cuda } = torch

  it('find work on the same memory that nothing orders', () => {
    const [side, main] = [cuda.stream(), cuda.currentStream()]
    const x = torch.ones([4], { device: 'cuda' })
    cuda.withStream(side, () => void x.add_(1))
    expect(problems().join()).toMatch(/aten::add\S* on stream \d+ (reads|writes over) what is written on stream 0/)
    reset()
    side.waitStream(main)
    cuda.withStream(side, () => void x.add_(1))
    main.waitEvent(side.recordEvent())
    expect(x.add(0).cpu().toArray()).toEqual([3, 3, 3, 3])
    expect(problems()).toEqual([])
  })

  it('let the host order work by waiting', () => {
    const side = cuda.stream()
    const x = torch.ones([4], { device: 'cuda' })
    cuda.currentStream().synchronize()
    cuda.withStream(side, () => void x.add_(1))
    side.synchronize()
    x.add_(1)
    expect(problems()).toEqual([])
  })

  it('find memory that is freed while another stream uses it, unless the allocator is told', () => {
    const side = cuda.stream()
    const use = (told: boolean) => {
      const x = torch.ones([4], { device: 'cuda' })
      side.waitStream(cuda.currentStream())
      const sum = cuda.withStream(side, () => x.add(1))
      if (told) x.recordStream(side)
      x.dispose()
      cuda.synchronize()
      sum.dispose()
    }
    use(true)
    expect(problems()).toEqual([])
    use(false)
    expect(problems().join()).toMatch(/was freed while stream \d+ uses it/)
  })

  it('copy from pinned memory when it is asked for, and not before', () => {
    const pinned = torch.ones([3]).pinMemory()
    expect(pinned.isPinned()).toBe(true)
    const late = pinned.to({ device: 'cuda', nonBlocking: true })
    pinned.fill_(5) // too early: the copy has not been waited for
    expect(late.cpu().toArray()).toEqual([5, 5, 5])
    const done = pinned.to({ device: 'cuda', nonBlocking: true })
    cuda.currentStream().recordEvent().synchronize()
    pinned.fill_(6)
    expect(done.cpu().toArray()).toEqual([5, 5, 5])
    const ordinary = torch.ones([3])
    const taken = ordinary.to({ device: 'cuda', nonBlocking: true })
    ordinary.fill_(7)
    expect(taken.cpu().toArray()).toEqual([1, 1, 1])
  })
})
