import { describe, expect, it } from 'vitest'
import { type Batch, type EncodedSource, gmmlAugmentation, Loader, openImages, permutation, randomFor } from '../../src/data/index.js'
import { placesOf } from '../../src/data/places.js'
import * as torch from '../../src/torch/index.js'
import { folderWith, noise } from './support.js'

async function photos(count: number, start: number): Promise<string> {
  const files = Array.from({ length: count }, async (_, i) => [`${i}.png`, await noise(20 + start + i, 18).png().toBuffer()] as const)
  return folderWith(Object.fromEntries(await Promise.all(files)))
}

describe('the places of an epoch', () => {
  it('are a permutation where nothing else is asked for', async () => {
    const source = await openImages(await photos(6, 0))
    expect(placesOf(source, 3, 1)).toEqual({ order: permutation(6, randomFor(3, 1, 'order')), repeats: null })
  })

  it('keep images of a block near to each other, with weights too', async () => {
    const one = (await openImages(await photos(2, 0))) as EncodedSource
    const blocks = Int32Array.from({ length: 50 }, (_, i) => 1000 * i)
    const large: EncodedSource = { ...one, length: 50_000, blocks }
    const { order } = placesOf(large, 1, 2)
    expect(new Set(order).size).toBe(50_000)
    const around = new Set([...order.subarray(20_000, 20_100)].map((index) => Math.floor(index / 1000)))
    expect(around.size).toBeLessThan(25)
    const parts = [{ first: 0, length: 40_000, weight: 1 }, { first: 40_000, length: 10_000, weight: 3 }]
    const weighted = placesOf({ ...large, parts }, 1, 2)
    const fromSecond = weighted.order.filter((index) => index >= 40_000).length
    expect(fromSecond).toBe(37_500)
    expect(Math.max(...weighted.repeats!)).toBe(3)
  })

  it('give an image that comes again other views, the same ones whatever the workers', async () => {
    const source = await openImages([{ path: await photos(3, 0), weight: 4 }, { path: await photos(9, 5), weight: 1 }])
    const collect = async (workers: number): Promise<Batch[]> => {
      const loader = new Loader(source, { size: { height: 16, width: 16 }, device: 'cpu', workers })
      const batches: Batch[] = []
      const epoch = loader.epoch({ seed: 1, epoch: 0, batchSize: 6, views: 2, augmentation: gmmlAugmentation })
      for await (const batch of epoch) batches.push(batch)
      return batches
    }
    const batches = await collect(3)
    for (const [i, other] of (await collect(0)).entries()) expect(torch.equal(other.images, batches[i]!.images)).toBe(true)
    const seen = new Map<number, Uint8Array[]>()
    for (const { indices, images, firstViews } of batches) {
      for (const [i, index] of indices.entries()) {
        const before = seen.get(index) ?? []
        expect(firstViews![i]).toBe(2 * before.length)
        const own = images.narrow(0, i, 1).contiguous().toTypedArray() as Float32Array
        const bytes = new Uint8Array(own.buffer, own.byteOffset, own.byteLength)
        for (const earlier of before) expect(Buffer.compare(earlier, bytes)).not.toBe(0)
        seen.set(index, [...before, bytes])
      }
    }
    expect([...seen].filter(([index]) => index < 3).reduce((sum, [, views]) => sum + views.length, 0)).toBe(10)
  })
})
