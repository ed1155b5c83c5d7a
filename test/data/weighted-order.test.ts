import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { blocksWithin, partShares, permutation, randomFor, repetitions, type Random, weightedOrder } from '../../src/data/index.js'

const orderOf = (first: number, length: number, random: Random) => permutation(length, random).map((index) => index + first)

const someParts = fc
  .array(fc.record({ length: fc.integer({ min: 1, max: 60 }), weight: fc.double({ min: 0.01, max: 100, noNaN: true }) }), { minLength: 1, maxLength: 5 })
  .map((parts) => {
    let end = 0
    return parts.map((part) => ({ ...part, first: (end += part.length) - part.length }))
  })

const total = (parts: readonly { readonly length: number }[]) => parts.reduce((sum, { length }) => sum + length, 0)

describe('the order of weighted sources', () => {
  it('is as long as all together, each gives its share, and its images come equally often', () => {
    fc.assert(fc.property(someParts, fc.integer(), (parts, seed) => {
      const order = weightedOrder(parts, randomFor(seed), orderOf)
      expect(order.length).toBe(total(parts))
      const counts = new Uint32Array(order.length)
      for (const index of order) counts[index]! += 1
      const sum = parts.reduce((all, { weight }) => all + weight, 0)
      for (const { first, length, weight } of parts) {
        const own = counts.subarray(first, first + length)
        const share = own.reduce((a, b) => a + b, 0)
        expect(Math.abs(share - (order.length * weight) / sum)).toBeLessThan(1)
        expect(Math.max(...own) - Math.min(...own)).toBeLessThanOrEqual(1)
        expect(Math.min(...own)).toBe(Math.floor(share / length))
      }
    }))
  })

  it('is every image once where weights are the sizes', () => {
    const parts = [{ first: 0, length: 7, weight: 7 }, { first: 7, length: 30, weight: 30 }]
    expect([...weightedOrder(parts, randomFor(0), orderOf)].sort((a, b) => a - b)).toEqual(Array.from({ length: 37 }, (_, i) => i))
  })

  it('is a function of the random numbers, and leaves out others each time', () => {
    const parts = [{ first: 0, length: 100, weight: 1 }, { first: 100, length: 20, weight: 1 }]
    const order = (epoch: number) => weightedOrder(parts, randomFor(3, epoch, 'order'), orderOf)
    expect(order(0)).toEqual(order(0))
    const chosen = [0, 1].map((epoch) => new Set([...order(epoch)].filter((index) => index < 100)))
    expect(chosen.map(({ size }) => size)).toEqual([60, 60])
    expect([...chosen[0]!].some((index) => !chosen[1]!.has(index))).toBe(true)
  })

  it('mixes the sources evenly from the first to the last', () => {
    const parts = [{ first: 0, length: 3000, weight: 1 }, { first: 3000, length: 1000, weight: 3 }]
    const order = weightedOrder(parts, randomFor(1), orderOf)
    for (let first = 0; first < 4000; first += 500) {
      expect(Math.abs([...order.subarray(first, first + 500)].filter((index) => index >= 3000).length / 500 - 0.75)).toBeLessThan(0.08)
    }
  })

  it('keeps the order of each source', () => {
    const parts = [{ first: 0, length: 5, weight: 2 }, { first: 5, length: 5, weight: 1 }]
    const order = [...weightedOrder(parts, randomFor(0), (first, length) => Uint32Array.from({ length }, (_, i) => first + i))]
    expect(order.filter((index) => index < 5)).toEqual([0, 1, 2, 3, 4, 0, 1])
    expect(order.filter((index) => index >= 5)).toEqual([5, 6, 7])
  })
})

describe('the parts of it', () => {
  it('shares are whole and complete', () => {
    expect(partShares([{ weight: 1 }, { weight: 1 }, { weight: 1 }], 10)).toEqual([4, 3, 3])
    expect(partShares([{ weight: 2 }, { weight: 1 }], 9)).toEqual([6, 3])
    expect(partShares([{ weight: 1e-9 }, { weight: 1 }], 5)).toEqual([0, 5])
    fc.assert(fc.property(someParts, (parts) => partShares(parts, 997).reduce((a, b) => a + b, 0) === 997))
  })

  it('repetitions are counted', () => {
    expect([...repetitions(Uint32Array.of(3, 1, 3, 0, 3, 1))]).toEqual([0, 0, 1, 0, 2, 1])
    expect([...repetitions(new Uint32Array())]).toEqual([])
  })

  it('blocks within a part are counted from its beginning', () => {
    const blocks = Int32Array.of(0, 1, 2, 7, 12, 14)
    expect(blocksWithin(null, 3, 4)).toBeNull()
    expect([...blocksWithin(blocks, 2, 12)!]).toEqual([0, 5, 10])
    expect([...blocksWithin(blocks, 0, 2)!]).toEqual([0, 1])
    expect([...blocksWithin(blocks, 8, 3)!]).toEqual([0])
  })
})
