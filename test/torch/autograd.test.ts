import { afterEach, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import {
  InputError, TorchError, autocast, enableGrad, grad, isGradEnabled, keep, memory, noGrad, scope, tensor, type Tensor
} from '../../src/torch/index.js'

const leaf = (values: number | number[]) => tensor(values, { requiresGrad: true })

afterEach(() => expect(isGradEnabled()).toBe(true))

describe('misuse', () => {
  it('backward of what has several elements, no graph, or a graph that is spent', () => {
    const x = leaf([1, 2])
    expect(() => x.mul(2).backward()).toThrow(/^backward: grad can be implicitly created only for scalar outputs.*float32 \[2\] cpu$/)
    expect(() => tensor(1).backward()).toThrow(/^backward: .*does not require grad/)
    const loss = x.square().sum()
    loss.backward()
    expect(() => loss.backward()).toThrow(/^backward: Trying to backward through the graph a second time/)
    expect(() => x.mul(2).backward(tensor([1]))).toThrow(TorchError)
    expect(() => x.mul(2).backward('x' as unknown as Tensor)).toThrow(TorchError)
    expect(() => torch.backward([])).toThrow(InputError)
    expect(() => torch.backward([x.sum(), x.sum()], [null])).toThrow(TorchError)
  })

  it('grad of unused, no or foreign inputs', () => {
    const [x, y] = [leaf(1), leaf(2)]
    expect(() => grad(x.mul(2), [x, y])).toThrow(/^grad: .*differentiated.*Arguments: .*float32 \[\] cpu/)
    expect(() => grad(x.mul(2), [])).toThrow(InputError)
    expect(() => grad(x.mul(2), tensor(1))).toThrow(TorchError)
    expect(() => grad([], x)).toThrow(InputError)
    expect(() => grad(x.mul(2), x, { gradOutputs: 3 as unknown as Tensor[] })).toThrow(InputError)
  })

  it('requiresGrad where it makes no sense', () => {
    expect(() => tensor([1n]).requiresGrad_()).toThrow(/^setRequiresGrad: .*int64 \[1\] cpu$/)
    expect(() => torch.zeros([2], { dtype: 'bool', requiresGrad: true })).toThrow(TorchError)
    const computed = leaf(1).mul(2)
    expect(() => (computed.requiresGrad = false)).toThrow(/only a leaf.*detach\(\)/)
    expect(() => (leaf(1).requiresGrad = 'yes' as unknown as boolean)).toThrow(/expected a boolean, received string 'yes'/)
    expect(() => tensor(1).retainGrad()).toThrow(TorchError)
  })

  it('a gradient that is not like its tensor', () => {
    const x = leaf([1, 2])
    expect(() => (x.grad = tensor([1]))).toThrow(
      /^setGradient: expected a gradient like its tensor \(float32 \[2\] cpu\), received float32 \[1\] cpu/
    )
    expect(() => (x.grad = tensor([1, 2], { dtype: 'float64' }))).toThrow(TorchError)
    expect(() => (x.grad = x)).toThrow(/its own gradient/)
    expect(() => (x.grad = x.detach().to('meta'))).toThrow(TorchError)
    expect(() => (x.grad = undefined as unknown as null)).toThrow(TorchError)
    expect(x.grad).toBe(null)
  })

  it('writing in place to a leaf that requires grad, or to what backward needs', () => {
    const x = leaf([1, 2])
    expect(() => x.add_(1)).toThrow(/^aten::add_\.Scalar: a leaf Variable that requires grad is being used in an in-place operation/)
    const y = x.exp()
    const z = y.mul(2).sum()
    y.add_(1)
    expect(() => z.backward()).toThrow(/modified by an inplace operation/)
  })

  it('an async callback', () => {
    for (const region of [noGrad, enableGrad] as unknown as ((callback: () => Promise<void>) => void)[]) {
      expect(() => region(async () => {})).toThrow(InputError)
    }
    const cast = autocast as unknown as (device: string, dtype: string, callback: () => Promise<void>) => void
    expect(() => cast('cpu', 'bfloat16', async () => {})).toThrow(InputError)
    expect(() => cast('gpu', 'bfloat16', async () => {})).toThrow(/'cpu' or 'cuda'/)
    expect(() => cast('cpu', 'float32', async () => {})).toThrow(/'bfloat16', 'float16' or null/)
  })
})

describe('backward', () => {
  it('accumulates, and starts anew after null', () => {
    const x = leaf([1, 2, 3])
    x.square().sum().backward()
    x.mul(10).backward(tensor([1, 0, 1]))
    expect(x.grad!.toArray()).toEqual([12, 4, 16])
    x.grad = null
    expect(x.grad).toBe(null)
    torch.backward([x.sum(), x.mul(2)], [null, tensor([1, 1, 0])])
    expect(x.grad!.toArray()).toEqual([3, 3, 1])
    x.grad = tensor([5, 5, 5])
    expect(x.grad.toArray()).toEqual([5, 5, 5])
  })

  it('keeps the graph when asked', () => {
    const x = leaf(3)
    const y = x.square()
    y.backward(undefined, { retainGraph: true })
    y.backward()
    expect(x.grad!.item()).toBe(12)
  })

  it('of a gradient is the second derivative', () => {
    const x = leaf(2)
    const y = x.pow(3)
    y.backward(undefined, { createGraph: true })
    const first = x.grad!
    expect([first.item(), first.requiresGrad]).toEqual([12, true])
    const [second] = grad(first, x)
    expect(second.item()).toBe(12)
    // The gradient holds its own graph: a cycle that PyTorch warns of.
    x.grad = null
    const [dx] = grad(x.pow(4), x, { createGraph: true })
    const [ddx] = grad(dx, x, { createGraph: true })
    const [dddx] = grad(ddx, x)
    expect([dx.item(), ddx.item(), dddx.item()]).toEqual([32, 48, 48])
  })

  it('gives a tensor that is no leaf its gradient only when asked', () => {
    const x = leaf([1, 2])
    const [y, z] = [x.mul(3), x.mul(4)]
    y.retainGrad()
    y.add(z).sum().backward()
    expect(y.grad!.toArray()).toEqual([1, 1])
    expect(z.grad).toBe(null)
    expect(x.grad!.toArray()).toEqual([7, 7])
    expect([x.isLeaf, y.isLeaf, y.detach().isLeaf, tensor(1).isLeaf]).toEqual([true, false, true, true])
  })

  it('leaves nothing behind', () => {
    const x = keep(leaf([1, 2]))
    scope(() => x.exp().sum().backward())
    const before = memory().tensors
    for (let i = 0; i < 20; i++) scope(() => x.exp().sum().backward())
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })
})

describe('grad', () => {
  it('does not touch .grad', () => {
    const [x, y] = [leaf([1, 2]), leaf([3, 4])]
    const gradients = grad(x.mul(y).sum(), [x, y])
    expect(gradients.map((gradient) => gradient.toArray())).toEqual([[3, 4], [1, 2]])
    expect([x.grad, y.grad]).toEqual([null, null])
  })

  it('is null for what is not used, if allowed', () => {
    const [x, y] = [leaf(1), leaf(2)]
    const [dx, dy] = grad(x.mul(2), [x, y], { allowUnused: true })
    expect([dx!.item(), dy]).toEqual([2, null])
  })

  it('takes output gradients', () => {
    const x = leaf([1, 2])
    const [dx] = grad([x.mul(2), x.sum()], x, { gradOutputs: [tensor([1, 10]), null] })
    expect(dx.toArray()).toEqual([3, 21])
  })
})

describe('grad mode', () => {
  it('nests and comes back after an exception', () => {
    const x = leaf(1)
    const seen = noGrad(() => [isGradEnabled(), enableGrad(() => [isGradEnabled(), noGrad(() => isGradEnabled())]), isGradEnabled()])
    expect(seen).toEqual([false, [true, false], false])
    expect(() => noGrad(() => enableGrad(() => noGrad(() => { throw new Error('inside') })))).toThrow('inside')
    expect(isGradEnabled()).toBe(true)
    const results = [noGrad(() => x.mul(2)), noGrad(() => enableGrad(() => x.mul(2))), x.mul(2)]
    expect(results.map((result) => result.requiresGrad)).toEqual([false, true, true])
  })

  it('lets a leaf be written in place', () => {
    const x = leaf([1, 2])
    noGrad(() => { x.add_(1) })
    expect([x.toArray(), x.requiresGrad]).toEqual([[2, 3], true])
    x.requiresGrad = false
    expect(x.mul(2).requiresGrad).toBe(false)
    x.setData(tensor([[7]]))
    expect(x.toArray()).toEqual([[7]])
  })
})

describe('autocast', () => {
  const [a, b] = [torch.ones([4, 4]), torch.ones([4, 4])]
  const dtypeOf = () => scope(() => a.matmul(b).dtype)

  it('nests, by dtype and off, and ends with its callback', () => {
    const seen = autocast('cpu', 'bfloat16', () => [
      dtypeOf(), autocast('cpu', 'float16', () => [dtypeOf(), autocast('cpu', null, dtypeOf)]), dtypeOf(), a.softmax(0).dtype
    ])
    expect(seen).toEqual(['bfloat16', ['float16', 'float32'], 'bfloat16', 'float32'])
    expect(dtypeOf()).toBe('float32')
  })

  it('ends with an exception', () => {
    expect(() => autocast('cpu', 'bfloat16', () => autocast('cpu', 'float16', () => a.matmul(torch.ones([3]))))).toThrow(TorchError)
    expect(dtypeOf()).toBe('float32')
  })

  it('caches the cast of a weight within the outermost region, and no longer', () => {
    const weight = keep(torch.ones([4, 4], { requiresGrad: true }))
    const product = () => scope(() => a.matmul(weight).to('float32').sum().item())
    const [first, changed] = autocast('cpu', 'bfloat16', () => {
      const before = autocast('cpu', 'bfloat16', product)
      noGrad(() => { weight.mul_(2) })
      return [before, product()]
    })
    // The cast of the weight outlives the inner region: PyTorch does the same.
    expect([first, changed, autocast('cpu', 'bfloat16', product)]).toEqual([64, 64, 128])
  })

  it('gradients are of the weight’s dtype', () => {
    const weight = keep(torch.ones([4, 4], { requiresGrad: true }))
    scope(() => autocast('cpu', 'bfloat16', () => a.matmul(weight).sum()).backward())
    expect([weight.grad!.dtype, weight.grad!.sum().item()]).toEqual(['float32', 64])
  })
})
