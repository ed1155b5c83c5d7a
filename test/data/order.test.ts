import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { epochOrder, permutation, randomFor } from '../../src/data/index.js'

/** A source of shards with so many images each. */
function shards(sizes: readonly number[]) {
  let length = 0
  const blocks = Int32Array.from(sizes, (size) => (length += size) - size)
  return { length, blocks }
}

/** The shard of each image of an order. */
function shardsOf(order: Uint32Array, { blocks }: ReturnType<typeof shards>): number[] {
  return Array.from(order, (index) => blocks.findLastIndex((first) => first <= index))
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

describe('epochOrder', () => {
  it('is a permutation where any order is as good', () => {
    for (const source of [{ length: 50 }, { length: 50, blocks: null }]) {
      expect(epochOrder(source, randomFor(1, 'order'))).toEqual(permutation(50, randomFor(1, 'order')))
    }
  })

  it('gives every image once, whatever the shards and the buffer', () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 12 }), fc.integer({ min: 1, max: 600 }), fc.nat(), (sizes, buffer, seed) => {
      const source = shards(sizes)
      const order = epochOrder(source, randomFor(seed), buffer)
      expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: source.length }, (_, i) => i))
      expect(epochOrder(source, randomFor(seed), buffer)).toEqual(order)
    }))
  })

  it('is another one in another epoch', () => {
    const source = shards(Array<number>(20).fill(50))
    const orders = [0, 1, 2].map((epoch) => epochOrder(source, randomFor(3, epoch, 'order'), 100))
    for (const other of [1, 2]) expect(orders[0]!.filter((image, i) => image === orders[other]![i]).length).toBeLessThan(20)
    // Every shard is sometimes the first.
    const firsts = Array.from({ length: 400 }, (_, seed) => shardsOf(epochOrder(source, randomFor(seed), 1).subarray(0, 1), source)[0]!)
    expect(new Set(firsts).size).toBe(20)
  })

  it('asks for images of few shards at a time, and mixes those', () => {
    const source = shards(Array<number>(400).fill(1000))
    const order = epochOrder(source, randomFor(7, 0, 'order'))
    const from = shardsOf(order, source)
    const batches = Array.from({ length: 390 }, (_, i) => from.slice(1024 * i, 1024 * i + 256))
    const counts = batches.map((batch) => new Set(batch).size)
    // A permutation has 256 images from 189 of 400 shards.
    expect(mean(counts)).toBeGreaterThan(8)
    expect(Math.max(...counts)).toBeLessThan(40)
    const largest = batches.map((batch) => Math.max(...Array.from(new Set(batch), (shard) => batch.filter((other) => other === shard).length)))
    expect(mean(largest)).toBeLessThan(64)
    // Between its first and its last image a shard is in use: a small part of the epoch.
    const spans = Array.from({ length: 400 }, (_, shard) => from.lastIndexOf(shard) - from.indexOf(shard))
    expect(Math.max(...spans)).toBeLessThan(0.15 * source.length)
  })

  it('moves images far, past neighbouring shards', () => {
    const source = shards(Array<number>(100).fill(1000))
    const [read, order] = [1, 4096].map((buffer) => epochOrder(source, randomFor(7, 0, 'order'), buffer)) as [Uint32Array, Uint32Array]
    const places = new Uint32Array(source.length)
    for (const [place, image] of read.entries()) places[image] = place
    const moved = Array.from(order, (image, place) => Math.abs(places[image]! - place))
    // A delay in a buffer is distributed exponentially with the buffer's size as its mean; at the start all come early.
    expect(mean(moved)).toBeGreaterThan(2000)
    expect(mean(moved)).toBeLessThan(6000)
    // Neighbours in a shard are apart by as much.
    const at = new Uint32Array(source.length)
    for (const [place, image] of order.entries()) at[image] = place
    const apart = Array.from({ length: source.length - 1 }, (_, image) => Math.abs(at[image]! - at[image + 1]!))
    expect(mean(apart)).toBeGreaterThan(2000)
  })

  it('mixes shards that are longer than the buffer', () => {
    const source = shards(Array<number>(10).fill(20_000))
    const from = shardsOf(epochOrder(source, randomFor(2), 1000).subarray(40_000, 40_256), source)
    expect(new Set(from).size).toBeGreaterThanOrEqual(3)
  })

  it('refuses a buffer that is no number of images', () => {
    for (const buffer of [0, 1.5, NaN, -1]) expect(() => epochOrder(shards([3]), randomFor(0), buffer)).toThrow(/at least 1 for buffer/)
  })
})
