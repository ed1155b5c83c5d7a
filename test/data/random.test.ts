import { describe, expect, it } from 'vitest'
import { permutation, randomFor, sample } from '../../src/data/index.js'
import { InputError } from '../../src/errors.js'

const draws = (count: number, draw: () => number): number[] => Array.from({ length: count }, draw)
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

function correlation(a: readonly number[], b: readonly number[]): number {
  const [meanA, meanB] = [mean(a), mean(b)]
  const covariance = mean(a.map((value, index) => (value - meanA) * (b[index]! - meanB)))
  return covariance / Math.sqrt(mean(a.map((value) => (value - meanA) ** 2)) * mean(b.map((value) => (value - meanB) ** 2)))
}

/** Pearson's statistic of counts that should be equal. */
const chiSquare = (counts: readonly number[]): number => {
  const each = mean(counts)
  return counts.reduce((sum, count) => sum + (count - each) ** 2 / each, 0)
}

describe('randomFor', () => {
  it('gives the same numbers for the same keys, for ever', () => {
    const first = randomFor(7, 3, 12, 'crop')
    const again = randomFor(7, 3, 12, 'crop')
    expect(draws(5, () => first.uniform())).toEqual(draws(5, () => again.uniform()))
    // Recorded values: runs of earlier versions must stay reproducible.
    const recorded = randomFor(0, 1, 2, 0, 'crop')
    expect(draws(3, () => recorded.uniform())).toEqual([0.9363634761655604, 0.32582252494558706, 0.4436891179037519])
  })

  it('gives other numbers for every other list of keys', () => {
    const lists: (readonly (number | string)[])[] = [
      [], [0], [1], [-1], [0, 0], [0, 1], [1, 0], [2 ** 32], [2 ** 32 + 1], [-(2 ** 32)], [2 ** 53 - 1], [''], ['', ''], ['a'], ['b'],
      ['ab'], ['a', 'b'], ['a', ''], ['', 'a'], [97], ['1'], ['a', 1], [1, 'a']
    ]
    const firsts = [0, 1].flatMap((seed) => lists.map((keys) => randomFor(seed, ...keys).uniform()))
    expect(new Set(firsts).size).toBe(firsts.length)
  })

  it('has no collision among neighbours', () => {
    const firsts = new Set<number>()
    for (let seed = 0; seed < 10; seed++) {
      for (let epoch = 0; epoch < 10; epoch++) {
        for (let index = 0; index < 500; index++) {
          for (let view = 0; view < 2; view++) firsts.add(randomFor(seed, epoch, index, view).uniform())
        }
      }
    }
    expect(firsts.size).toBe(100_000)
  })

  it('makes streams of neighbouring keys unrelated', () => {
    const count = 20_000
    const first = (offset: number, key: string) =>
      Array.from({ length: count }, (_, index) => randomFor(5, index + offset, key).uniform())
    const base = first(0, 'x')
    // Four standard deviations of a correlation of independent numbers.
    const bound = 4 / Math.sqrt(count)
    expect(Math.abs(correlation(base, first(1, 'x')))).toBeLessThan(bound)
    expect(Math.abs(correlation(base, first(1000, 'x')))).toBeLessThan(bound)
    expect(Math.abs(correlation(base, first(0, 'y')))).toBeLessThan(bound)
    const seconds = base.map((_, index) => {
      const random = randomFor(5, index, 'x')
      random.uniform()
      return random.uniform()
    })
    expect(Math.abs(correlation(base, seconds))).toBeLessThan(bound)
    // The first numbers of consecutive keys fill 100 boxes evenly: 99 degrees of freedom, 1 in 100,000 beyond 167.
    const boxes = new Array<number>(100).fill(0)
    for (const value of base) boxes[Math.floor(value * 100)]!++
    expect(chiSquare(boxes)).toBeLessThan(167)
    expect(chiSquare(boxes)).toBeGreaterThan(50)
  })

  it('changes half of the bits with any bit of a key', () => {
    const bits = (index: number): number => Math.floor(randomFor(1, index).uniform() * 2 ** 32)
    for (const bit of [0, 1, 7, 15, 16, 31, 40]) {
      const flips = mean(draws(2000, () => 0).map((_, index) => {
        const base = index * 3
        const other = Math.floor(base / 2 ** bit) % 2 === 0 ? base + 2 ** bit : base - 2 ** bit
        let difference = (bits(base) ^ bits(other)) >>> 0
        let ones = 0
        for (; difference > 0; difference >>>= 1) ones += difference & 1
        return ones
      }))
      expect(flips).toBeGreaterThan(15.6)
      expect(flips).toBeLessThan(16.4)
    }
  })

  it('draws uniform numbers, integers and chances', () => {
    const random = randomFor(11)
    const uniforms = draws(20_000, () => random.uniform())
    expect(Math.min(...uniforms)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...uniforms)).toBeLessThan(1)
    expect(mean(uniforms)).toBeCloseTo(0.5, 1.7)
    // More than 32 bits: hardly any of them is a multiple of 2^-32.
    expect(uniforms.filter((value) => Number.isInteger(value * 2 ** 32)).length).toBe(0)
    const within = draws(20_000, () => random.uniform(-2, 4))
    expect(Math.min(...within)).toBeGreaterThanOrEqual(-2)
    expect(Math.max(...within)).toBeLessThan(4)
    expect(mean(within)).toBeCloseTo(1, 1)
    const counts = new Array<number>(6).fill(0)
    for (const value of draws(60_000, () => random.integer(-2, 4))) counts[value + 2]!++
    // Five degrees of freedom: 1 in 100,000 beyond 30.9.
    expect(chiSquare(counts)).toBeLessThan(30.9)
    expect(random.integer(3, 4)).toBe(3)
    expect(mean(draws(20_000, () => Number(random.chance(0.3))))).toBeCloseTo(0.3, 1.7)
    expect(draws(100, () => Number(random.chance(0)))).toEqual(draws(100, () => 0))
    expect(draws(100, () => Number(random.chance(1)))).toEqual(draws(100, () => 1))
  })

  it('can be handed on without its object', () => {
    const { uniform } = randomFor(1)
    expect(draws(2, uniform)).toHaveLength(2)
  })

  it('refuses keys that are not integers', () => {
    for (const key of [0.5, NaN, Infinity, 2 ** 53]) expect(() => randomFor(0, key)).toThrow(InputError)
    expect(() => randomFor(0.1)).toThrow(/received 0\.1/)
  })
})

describe('permutation and sample', () => {
  it('permutes', () => {
    const order = permutation(1000, randomFor(1, 'order'))
    expect([...order].sort((a, b) => a - b)).toEqual(draws(1000, () => 0).map((_, index) => index))
    expect(order).toEqual(permutation(1000, randomFor(1, 'order')))
    expect(order).not.toEqual(permutation(1000, randomFor(2, 'order')))
    expect(permutation(0, randomFor(1))).toHaveLength(0)
    expect(permutation(1, randomFor(1))).toEqual(Uint32Array.of(0))
    expect(() => permutation(-1, randomFor(1))).toThrow(/length, received -1/)
    expect(() => permutation(1.5, randomFor(1))).toThrow(InputError)
  })

  it('gives each order equally often', () => {
    const counts = new Map<string, number>()
    for (let epoch = 0; epoch < 24_000; epoch++) {
      const order = permutation(4, randomFor(3, epoch)).join('')
      counts.set(order, (counts.get(order) ?? 0) + 1)
    }
    expect(counts.size).toBe(24)
    // 23 degrees of freedom: 1 in 100,000 beyond 64.
    expect(chiSquare([...counts.values()])).toBeLessThan(64)
  })

  it('samples ascending without repetition, the smaller sample inside the larger', () => {
    const large = sample(500, 60, randomFor(2))
    expect(new Set(large).size).toBe(60)
    expect([...large]).toEqual([...large].sort((a, b) => a - b))
    expect([...large]).toEqual(expect.arrayContaining([...sample(500, 20, randomFor(2))]))
    expect(sample(5, 9, randomFor(2))).toEqual(Uint32Array.of(0, 1, 2, 3, 4))
  })
})
