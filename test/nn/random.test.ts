import { describe, expect, it } from 'vitest'

import { DropPath, Dropout, init, Linear } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'

const number = (tensor: torch.Tensor) => tensor.item()

describe('truncNormal_ refuses', () => {
  it.each([
    [{ std: 0 }, /above 0 for std, received 0/],
    [{ std: NaN }, /above 0 for std, received NaN/],
    [{ low: 1, high: 1 }, /above low \(1\) for high, received 1/],
    [{ low: 2, high: -2 }, /above low \(2\) for high, received -2/]
  ])('%o', (options, message) => {
    const target = torch.ones([3])
    expect(() => init.truncNormal_(target, options)).toThrow(torch.InputError)
    expect(() => init.truncNormal_(target, options)).toThrow(message)
    expect(target.toArray()).toEqual([1, 1, 1])
  })
})

describe('truncNormal_', () => {
  // Moments of the standard normal distribution cut off at -c and c.
  const cut = (c: number) => {
    const density = Math.exp((-c * c) / 2) / Math.sqrt(2 * Math.PI)
    const inside = number(torch.tensor(c / Math.SQRT2, { dtype: 'float64' }).erf())
    return {
      sd: Math.sqrt(1 - (2 * c * density) / inside),
      within: (x: number) => number(torch.tensor(x / Math.SQRT2, { dtype: 'float64' }).erf()) / inside
    }
  }

  it.each([
    [{ std: 0.02 }, 100],
    [{ std: 1 }, 2],
    [{ std: 2, mean: 1, low: -1, high: 3 }, 1]
  ] as const)('has the moments of %o', (options, c) => {
    torch.manualSeed(1)
    const { std, mean = 0, low = -2, high = 2 } = options as { std: number; mean?: number; low?: number; high?: number }
    const x = init.truncNormal_(torch.empty([1_000_000]), options).to('float64')
    const { sd, within } = cut(c)
    expect(Math.abs(number(x.mean()) - mean)).toBeLessThan(4e-3 * std)
    expect(number(x.std()) / (sd * std)).toBeCloseTo(1, 2)
    expect(number(x.min())).toBeGreaterThanOrEqual(low)
    expect(number(x.max())).toBeLessThanOrEqual(high)
    const half = number(
      x
        .sub(mean)
        .abs()
        .le(0.5 * std)
        .to('float64')
        .mean()
    )
    expect(half).toBeCloseTo(within(0.5), 2)
  })

  it('has no value at the cut where that is a hundred deviations away', () => {
    torch.manualSeed(8) // four of these draws are the end of the interval
    torch.scope(() => {
      const x = init.truncNormal_(torch.empty([2 ** 25]), { std: 0.02 })
      expect(number(x.abs().max())).toBeLessThan(0.02 * 7)
    })
  })

  it.each(['bfloat16', 'float16'] as const)('fills %s from float32', (dtype) => {
    torch.manualSeed(2)
    const target = torch.empty([200_000], { dtype })
    expect(init.truncNormal_(target, { std: 0.02 })).toBe(target)
    const x = target.to('float64')
    expect(number(x.abs().max())).toBeLessThan(0.02 * 6)
    expect(number(x.std()) / 0.02).toBeCloseTo(1, 2)
  })

  it('is decided by the seed, and unseen by autograd', () => {
    const draw = () => {
      torch.manualSeed(9)
      return init.truncNormal_(torch.empty([5], { requiresGrad: true }))
    }
    const [a, b] = [draw(), draw()]
    expect(a.toArray()).toEqual(b.toArray())
    expect(a.isLeaf && a.requiresGrad).toBe(true)
  })
})

describe('other initialisers', () => {
  it('fill', () => {
    const x = torch.empty([3])
    expect(init.ones_(x).toArray()).toEqual([1, 1, 1])
    expect(init.zeros_(x).toArray()).toEqual([0, 0, 0])
    torch.manualSeed(1)
    const y = init.normal_(torch.empty([100_000]), 2, 3)
    expect(number(y.mean())).toBeCloseTo(2, 1)
    expect(number(y.std())).toBeCloseTo(3, 1)
  })

  it('start a Linear uniformly within 1 / sqrt(fanIn)', () => {
    torch.manualSeed(1)
    const { weight, bias } = new Linear(400, 300)
    for (const x of [weight, bias!]) {
      expect(number(x.abs().max())).toBeLessThanOrEqual(1 / 20)
      expect(number(x.abs().max())).toBeGreaterThan(0.9 / 20)
    }
    expect(number(weight.std())).toBeCloseTo(1 / 20 / Math.sqrt(3), 3)
  })
})

describe('DropPath', () => {
  it.each([0.1, 0.5, 0.9])('drops whole samples with probability %d and keeps the mean', (p) => {
    torch.manualSeed(4)
    const path = new DropPath(p)
    const y = path.call(torch.ones([20_000, 3, 2]))
    const samples = y.flatten({ startDim: 1 })
    const [low, high] = [samples.amin({ dim: [1] }), samples.amax({ dim: [1] })]
    expect(low.equal(high), 'a sample is dropped or kept as a whole').toBe(true)
    const kept = low.ne(0)
    const share = number(kept.to('float64').mean())
    // Four standard deviations of a share of 20,000.
    expect(Math.abs(share - (1 - p))).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / 20_000))
    expect(number(high.max())).toBeCloseTo(1 / (1 - p), 5)
  })

  it('drops everything at 1, nothing at 0 and nothing in evaluation', () => {
    const x = torch.randn([8, 2])
    expect(new DropPath(1).call(x).eq(0).all().item()).toBe(true)
    expect(new DropPath(0).call(x)).toBe(x)
    expect(new DropPath(0.5).eval().call(x)).toBe(x)
  })

  it('lets gradients through the kept samples alone, scaled', () => {
    torch.manualSeed(4)
    const x = torch.ones([50, 2], { requiresGrad: true })
    const y = new DropPath(0.5).call(x)
    y.sum().backward()
    expect(x.grad!.toArray()).toEqual(y.toArray())
    expect(new Set((y.toArray() as number[][]).flat())).toEqual(new Set([0, 2]))
  })
})

describe('Dropout', () => {
  it('drops elements with probability p and scales the others', () => {
    torch.manualSeed(4)
    const x = new Dropout(0.25).call(torch.ones([100, 1000]))
    expect(number(x.eq(0).to('float64').mean())).toBeCloseTo(0.25, 2)
    expect(number(x.max())).toBeCloseTo(4 / 3, 5)
    const y = torch.ones([3])
    expect(new Dropout(0.25).eval().call(y)).toBe(y)
  })
})
