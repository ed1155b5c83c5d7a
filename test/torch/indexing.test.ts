import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, ellipsis, slice, tensor, type Index } from '../../src/torch/index.js'

torch.setNumThreads(1)
const x = torch.arange(24, { dtype: 'float32' }).reshape([2, 3, 4])
const cyclic: unknown[] = [0]
cyclic.push(cyclic)
const endless: unknown[] = []
endless.push(endless)
const mask = tensor([[true, false, true], [false, true, true]])

describe('what is no index is refused', () => {
  it.each<[string, unknown[], RegExp]>([
    ['a position beyond the end', [0, 3], /an integer from -3 to 2, as dimension 1 has size 3 for index 1 of at\(\), received 3/],
    ['one before the start', [ellipsis, -5], /an integer from -4 to 3, as dimension 2 has size 4 for index 1 of at\(\), received -5/],
    ['a fraction', [0.5], /an integer for index 0 of at\(\), received 0.5/], ['NaN', [NaN], /received NaN/],
    ['infinity', [Infinity], /an integer/],
    ['a bigint', [1n], /an integer, slice\(\), null, ellipsis, .*received 1n/],
    ['a string', ['0'], /received '0'/], ['undefined', [undefined], /received undefined/], ['an object', [{ start: 0 }], /index 0/],
    ['a hole', [[0, , 1]], /integers only for index 0 of at\(\), received undefined/],
    ['too many', [0, 0, 0, 0], /indices for at most 3 dimensions for at\(\) on a tensor of shape \[2, 3, 4\], received 'indices for 4'/],
    ['too many by a mask', [mask, 0, 0], /at most 3 dimensions/], ['two ellipses', [ellipsis, 0, ellipsis], /at most one ellipsis/],
    ['a mask of another shape', [0, [true, false]], /a mask of shape \[3\], the size of dimension 1 for index 1 of at\(\)/],
    ['a matrix as mask', [ellipsis, mask], /a mask of shape \[3, 4\], the size of dimensions 1 to 2 for index 1 .* shape \[2, 3\]/],
    ['floats', [tensor([1])], /bool, int64 or int32 for index 0 of at\(\), received 'a tensor of dtype float32'/],
    ['bytes as mask', [tensor([1], { dtype: 'uint8' })], /uint8/], ['fractions in an array', [[0.5]], /integers only .* received 0.5/],
    ['booleans among integers', [[0, true]], /integers only .* received true/],
    ['integers among booleans', [[true, 0]], /booleans only .* received 0/],
    ['an array that holds itself', [cyclic], /nested arrays of one shape/], ['one that is only itself', [endless], /at most 64 dimensions/],
    ['ragged arrays', [[[0], [0, 1]]], /nested arrays of one shape/], ['a typed array', [new Int32Array(1)], /index 0/]
  ])('%s', (_, indices, message) => {
    const before = torch.memory().tensors
    expect(() => x.at(...(indices as Index[]))).toThrow(InputError)
    expect(() => x.at(...(indices as Index[]))).toThrow(message)
    expect(() => x.setAt(indices as Index[], 0)).toThrow(InputError)
    expect(torch.memory().tensors).toBeLessThanOrEqual(before)
  })

  it('also on tensors without elements or dimensions', () => {
    expect(() => torch.zeros([0]).at(0)).toThrow(/no index, as dimension 0 has size 0/)
    expect(() => tensor(1).at(0)).toThrow(/at most 0 dimensions/)
    expect(() => tensor(1).at(slice())).toThrow(InputError)
    expect(() => x.at([9])).toThrow(TorchError) // libtorch looks at positions itself
    const dead = tensor([1])
    dead.dispose()
    expect(() => dead.at(0)).toThrow(TorchError)
    expect(() => x.at(dead)).toThrow(TorchError)
  })

  it('and slices that are none', () => {
    for (const wrong of [0.5, NaN, '1', 1n, {}, true]) {
      expect(() => slice(wrong as number)).toThrow(/an integer or null for start of slice\(\)/)
      expect(() => slice(0, wrong as number)).toThrow(/an integer or null for stop of slice\(\)/)
      expect(() => slice(0, 1, wrong as number)).toThrow(/an integer of at least 1 for step of slice\(\)/)
    }
    for (const step of [0, -1]) expect(() => slice(null, null, step)).toThrow(InputError)
  })
})

describe('at()', () => {
  it('takes positions, ranges, new dimensions and an ellipsis', () => {
    expect(x.at(1, 2, 3).item()).toBe(23)
    expect(x.at(-1, slice(1), slice(null, null, 2)).toArray()).toEqual([[16, 18], [20, 22]])
    expect(x.at(ellipsis, slice(-2)).shape).toEqual([2, 3, 2])
    expect(x.at(null, 0, ellipsis, null).shape).toEqual([1, 3, 4, 1])
    expect(x.at(slice(1, 100), slice(2, 1)).shape).toEqual([1, 0, 4])
    expect(x.at().shape).toEqual([2, 3, 4])
  })

  it('takes masks, index tensors and arrays', () => {
    expect(x.at(mask, 0).toArray()).toEqual([0, 8, 16, 20])
    expect(x.at(0, [true, false, true]).shape).toEqual([2, 4])
    expect(x.at([0, -1], slice(), [1, 2]).toArray()).toEqual([[1, 5, 9], [14, 18, 22]])
    expect(x.at(0, [[0, 1], [2, 2n]], -1).toArray()).toEqual([[3, 7], [11, 11]])
    expect(x.at(tensor(1n)).shape).toEqual([3, 4])
    expect(x.at([]).shape).toEqual([0, 3, 4])
    expect(x.at(true, 0).shape).toEqual([1, 3, 4])
  })

  it('gives views where it can', () => {
    const y = x.clone()
    y.at(0, slice(1), null).fill_(-1)
    expect(y.at(0).toArray()).toEqual([[0, 1, 2, 3], [-1, -1, -1, -1], [-1, -1, -1, -1]])
    y.at().zero_()
    expect(y.sum().item()).toBe(0)
    y.at([0]).fill_(1)
    expect(y.sum().item()).toBe(0)
  })

  it('leaves nothing behind but the result, in the scope of its caller', () => {
    const before = torch.memory().tensors
    const part = x.at(0, slice(1, 3), null, [0, 1])
    expect(torch.memory().tensors).toBeLessThanOrEqual(before + 1)
    part.dispose()
    const kept = torch.scope(() => [x.at(0, 1), x.at(1)][0]!)
    expect(kept.toArray()).toEqual([4, 5, 6, 7])
    expect(torch.memory().tensors).toBeLessThanOrEqual(before + 1)
  })
})

describe('setAt()', () => {
  it('refuses what it cannot write', () => {
    const y = x.clone()
    expect(() => y.setAt(0 as never, 1)).toThrow(/an array of indices for setAt\(\), received 0/)
    for (const value of [null, undefined]) expect(() => y.setAt([0], value as never)).toThrow(/a tensor, a number or nested arrays/)
    expect(() => y.setAt([0], 'one' as never)).toThrow(InputError)
    expect(() => y.setAt([0], torch.ones([5]))).toThrow(TorchError)
    expect(() => y.setAt([mask], torch.ones([5]))).toThrow(TorchError)
    expect(() => y.setAt([0], tensor([{ re: 1, im: 2 }]))).toThrow(/real values for a tensor of float32/)
    expect(() => tensor([1], { requiresGrad: true }).setAt([0], 1)).toThrow(TorchError)
    expect(y.equal(x)).toBe(true)
  })

  it('writes numbers, arrays and tensors, which broadcast', () => {
    const y = torch.zeros([2, 3], { dtype: 'int64' })
    expect(y.setAt([0, slice(1)], 5)).toBe(y)
    expect(y.toArray()).toEqual([[0, 5, 5], [0, 0, 0]])
    y.setAt([ellipsis, 0], [7, 2n ** 60n])
    expect(y.toArray()).toEqual([[7, 5, 5], [2n ** 60n, 0, 0]])
    y.setAt([mask], tensor([9.7], { dtype: 'float64' }))
    expect(y.toArray()).toEqual([[9, 5, 9], [2n ** 60n, 9, 9]])
    y.setAt([[0, 1], [1, 0]], new Float32Array([1, 2]))
    expect(y.toArray()).toEqual([[9, 1, 9], [2, 9, 9]])
    y.setAt([], torch.ones([1, 1, 2, 3]))
    expect(y.toArray()).toEqual([[1, 1, 1], [1, 1, 1]])
    y.setAt([slice(1)], true).setAt([mask, null], 2.9)
    expect(y.toArray()).toEqual([[2, 1, 2], [1, 2, 2]])
  })

  it('is recorded', () => {
    const [a, b] = [torch.ones([3], { requiresGrad: true }), torch.ones([2], { dtype: 'float64', requiresGrad: true })]
    a.mul(2).setAt([[0, 2]], b).mul(tensor([1, 10, 100])).sum().backward()
    expect([a.grad!.toArray(), b.grad!.toArray(), b.grad!.dtype]).toEqual([[0, 20, 0], [1, 100], 'float64'])
  })

  it('leaves nothing behind', () => {
    const y = x.clone()
    const before = torch.memory().tensors
    y.setAt([0, [0, 2]], [1, 2, 3, 4]).setAt([mask], 3).setAt([slice(1), null], 2)
    expect(torch.memory().tensors).toBeLessThanOrEqual(before)
  })
})

describe('iteration', () => {
  it('is refused for a tensor of no dimensions', () => {
    expect(() => [...tensor(1)]).toThrow(InputError)
    expect(() => [...tensor(1)]).toThrow(/a tensor of at least one dimension for iteration/)
  })

  it('gives the rows as views', () => {
    const y = x.clone()
    for (const row of y.at(0)) row.mul_(-1)
    expect(y.at(0).toArray()).toEqual([[-0, -1, -2, -3], [-4, -5, -6, -7], [-8, -9, -10, -11]])
    const [first, , third] = y.at(1)
    expect([first!.toArray(), third!.toArray()]).toEqual([[12, 13, 14, 15], [20, 21, 22, 23]])
    expect([...torch.zeros([0, 3])]).toEqual([])
    expect(Array.from(tensor([1, 2]), (element) => element.item())).toEqual([1, 2])
  })

  it('makes them in the current scope', () => {
    const before = torch.memory().tensors
    torch.scope(() => {
      for (const row of x) expect(row.shape).toEqual([3, 4])
      expect(torch.memory().tensors).toBeLessThanOrEqual(before + 2)
    })
    expect(torch.memory().tensors).toBeLessThanOrEqual(before)
  })

  it('is recorded', () => {
    const a = tensor([[1, 2], [3, 4]], { requiresGrad: true })
    const [first, second] = a
    first!.mul(second!).sum().backward()
    expect(a.grad!.toArray()).toEqual([[3, 4], [1, 2]])
  })
})

describe('using', () => {
  it('disposes of a tensor at the end of its block', () => {
    const before = torch.memory().tensors
    {
      using part = x.at(0)
      using other = part.at(1)
      expect(other.toArray()).toEqual([4, 5, 6, 7])
      expect(torch.memory().tensors).toBeLessThanOrEqual(before + 2)
    }
    expect(torch.memory().tensors).toBeLessThanOrEqual(before)
  })
})

describe('names that PyTorch has', () => {
  it('sizes and dtypes', () => {
    expect([x.size(), x.size(0), x.size(-1), x.dim(), x.ndim, x.numel()]).toEqual([[2, 3, 4], 2, 4, 3, 3, 24])
    for (const dim of [3, -4, 0.5, NaN, '0', null]) expect(() => x.size(dim as number)).toThrow(InputError)
    expect([x.elementSize(), x.nbytes, x.half().nbytes, x.expand(3, 2, 3, 4).nbytes]).toEqual([4, 96, 48, 288])
    expect(torch.zeros([0]).elementSize()).toBe(4)
    expect([x.isCuda, x.layout, x.toSparse().layout]).toEqual([false, 'strided', 'sparse_coo'])
    expect([x.isFloatingPoint(), x.isContiguous]).toEqual([true, true])
    const cast = [x.float(), x.double(), x.half(), x.bfloat16(), x.long(), x.int(), x.short(), x.char(), x.byte(), x.bool()]
    expect(cast.map(({ dtype }) => dtype)).toEqual(
      ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool'])
  })

  it('sizes one by one, as in an array', () => {
    expect(x.view(4, 6).shape).toEqual([4, 6])
    expect(x.view(-1).shape).toEqual(x.view([24]).shape)
    expect(x.view('int32').dtype).toBe('int32')
    expect(x.permute(2, 0, 1).shape).toEqual([4, 2, 3])
    expect(x.reshape(2, -1).shape).toEqual(x.reshape([2, 12]).shape)
    expect([x.at(0, 0).expand(5, -1).shape, x.repeat(1, 2, 1).shape, x.flip(0).at(0, 0, 0).item()]).toEqual([[5, 4], [2, 6, 4], 12])
    expect(x.newZeros(2, 2).toArray()).toEqual([[0, 0], [0, 0]])
    expect(x.split(2, { dim: 1 }).length).toBe(2)
  })

  it('different elements', () => {
    const y = tensor([[3, 1, 3], [1, 2, 1], [3, 1, 3]])
    expect(y.unique()[0].toArray()).toEqual([1, 2, 3])
    const [values, inverse, counts] = torch.unique(y, { dim: 0, returnInverse: true, returnCounts: true })
    expect([values.toArray(), inverse.toArray(), counts.toArray()]).toEqual([[[1, 2, 1], [3, 1, 3]], [1, 0, 1], [1, 2]])
    expect(() => y.unique({ return_counts: true } as object)).toThrow(InputError)
    expect(() => torch.unique(y, null as never)).toThrow(InputError)
    expect(() => y.unique({ dim: 5 })).toThrow(TorchError)
  })

  it('transposes', () => {
    expect([x.T.shape, x.mT.shape]).toEqual([[4, 3, 2], [2, 4, 3]])
    const z = tensor([[{ re: 1, im: 2 }, { re: 3, im: 4 }]])
    expect(z.H.toArray()).toEqual([[{ re: 1, im: -2 }], [{ re: 3, im: -4 }]])
    expect(z.mH.toArray()).toEqual(z.H.toArray())
    expect(() => tensor([1]).mT).toThrow(TorchError)
  })
})
