import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'

import {
  type Batch, gmmlAugmentation, type ImageSource, imagenetStatistics, Loader, type LoaderOptions, openImages, type Size
} from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { cifar, folderWith, noise, paint } from './support.js'

torch.setNumThreads(1)

const SIZE: Size = { height: 12, width: 12 }
const BUDGET = 1e6

interface Loaded {
  readonly held: boolean
  readonly batches: readonly Batch[]
  readonly notices: readonly string[]
}

async function load(source: ImageSource, budget: number | null, options: Partial<LoaderOptions> = {}): Promise<Loaded> {
  const notices: string[] = []
  const loader = new Loader(source, {
    size: SIZE, device: 'cpu', workers: 2, statistics: imagenetStatistics, onNotice: (message) => notices.push(message), ...options
  })
  const held = budget !== null && (await loader.hold(budget))
  const batches: Batch[] = []
  for await (const batch of loader.epoch({ seed: 3, epoch: 1, batchSize: 4, views: 2, augmentation: gmmlAugmentation })) batches.push(batch)
  for await (const batch of loader.all(5)) batches.push(batch)
  loader.dispose()
  return { held, batches, notices }
}

/** Of normalised values, in grey levels: mean and largest distance. */
function distance(a: Loaded, b: Loaded): { mean: number; most: number } {
  expect(a.batches.map(({ indices }) => indices)).toEqual(b.batches.map(({ indices }) => indices))
  const levels = a.batches.map(({ images }, i) => images.sub(b.batches[i]!.images).abs().mul(255 * 0.225).reshape([-1]))
  const all = torch.cat(levels)
  return { mean: all.mean().item(), most: all.max().item() }
}

const wave = (seed: number) => (x: number, y: number) =>
  [0, 1, 2].map((c) => Math.round(128 + 60 * Math.sin(x / (4 + c) + seed) + 60 * Math.cos(y / (5 + seed % 3))))

/** Smooth, so that two resizing filters may be compared; every other one is JPEG. */
async function photoFolder(count = 14, broken: readonly number[] = []): Promise<string> {
  const files: Record<string, Uint8Array | string> = {}
  for (let i = 0; i < count; i++) {
    const image = paint(18 + 3 * i, 40 - i, wave(i))
    const name = `image-${String(i).padStart(2, '0')}.${i % 2 ? 'jpg' : 'png'}`
    files[name] = broken.includes(i) ? 'no image' : await (i % 2 ? image.jpeg({ quality: 95 }) : image.png()).toBuffer()
  }
  return folderWith(files)
}

describe('Loader.hold', () => {
  it('gives what the same pixels in memory give, to the bit', async () => {
    const pixel = (i: number, c: number, y: number, x: number) => wave(i)(x, y)[c]!
    const files: Record<string, Uint8Array> = {}
    for (let i = 0; i < 14; i++) files[`${String(i).padStart(2, '0')}.png`] = await paint(32, 32, wave(i)).png().toBuffer()
    const arrays = await openImages(await folderWith({ 'data_batch_1.bin': cifar(Array.from({ length: 14 }, (_, i) => [i % 10]), pixel) }))
    const [held, wanted] = [await load(await openImages(await folderWith(files)), BUDGET), await load(arrays, BUDGET)]
    expect(held).toMatchObject({ held: true, notices: ['Decoding 14 images to hold them on cpu, 0.043 MB'] })
    expect(wanted).toMatchObject({ held: true, notices: [] })
    expect(distance(held, wanted)).toEqual({ mean: 0, most: 0 })
  })

  it('cuts the same views out of images of several sizes as decoding them does, with any number of workers', async () => {
    const source = await openImages(await photoFolder())
    const decoded = await load(source, null)
    const held = await load(source, BUDGET)
    expect(held.held).toBe(true)
    const { mean, most } = distance(held, decoded)
    expect(mean).toBeLessThan(0.5)
    expect(mean).toBeGreaterThan(0)
    expect(most).toBeLessThan(6)
    for (const workers of [0, 1, 4]) expect(distance(await load(source, BUDGET, { workers }), held)).toEqual({ mean: 0, most: 0 })
  })

  it('takes no more than it may, and says so', async () => {
    const source = await openImages(await photoFolder())
    const needed = 14 * 3 * (18 + 3 * 13) * 40
    expect(await load(source, needed)).toMatchObject({ held: true })
    const refused = await load(source, needed - 1)
    expect(refused).toMatchObject({ held: false, notices: ['The images are not held: decoded, they take more than 0.096 MB'] })
    expect(distance(refused, await load(source, null))).toEqual({ mean: 0, most: 0 })
  })

  it('puts the next image in the place of a broken one, as decoding does, and names it once', async () => {
    const source = await openImages(await photoFolder(14, [2, 7]))
    const named: string[] = []
    const options = { maxBroken: 0.2, onBroken: ({ message }: Error) => void named.push(message) }
    const held = await load(source, BUDGET, options)
    expect(named.sort()).toEqual([expect.stringContaining('image-02.png'), expect.stringContaining('image-07.jpg')])
    expect(held.held).toBe(true)
    expect(distance(held, await load(source, null, { maxBroken: 0.2 })).mean).toBeLessThan(0.5)
    expect(held.batches.slice(3).flatMap(({ indices }) => indices)).toEqual([0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13])
  })

  it('leaves out a whole batch of broken images', async () => {
    const held = await load(await openImages(await photoFolder(14, [0, 1, 2, 3, 4])), BUDGET, { maxBroken: 1 })
    expect(held.batches.slice(3).map(({ indices }) => indices)).toEqual([[5, 6, 7, 8, 9], [10, 11, 12, 13]])
  })

  it('ends with the list where too many are broken, and leaves no tensor behind', async () => {
    const source = await openImages(await photoFolder(14, [2, 7]))
    const before = torch.memory().tensors
    const loader = new Loader(source, { size: SIZE, device: 'cpu' })
    await expect(loader.hold(BUDGET)).rejects.toThrow(/2 of 14 images are broken, and at most 1 may be/)
    expect(torch.memory().tensors).toBe(before)
    await expect(loader.hold(NaN)).rejects.toThrow('Expected a number of bytes for bytes, received NaN')
  })

  it('notices a content of another size than its header had', async () => {
    const folder = await folderWith({ 'a.png': await noise(20, 20).png().toBuffer(), 'b.png': await noise(20, 20).png().toBuffer() })
    const source = await openImages(folder)
    const reads: string[] = []
    const changing: ImageSource = {
      ...source, kind: 'encoded', channels: 3, blocks: null, unreadable: [],
      async content(index) {
        const path = join(folder, source.name(index))
        // Between the header and the content.
        if (index === 1 && reads.push(path) === 2) await writeFile(path, await noise(10, 10).png().toBuffer())
        return { path } as never
      }
    }
    const broken: string[] = []
    const loader = new Loader(changing, { size: SIZE, device: 'cpu', onBroken: ({ message }) => void broken.push(message) })
    expect(await loader.hold(BUDGET)).toBe(true)
    expect(broken).toEqual([expect.stringMatching(/b\.png.*its content has 10 x 10 pixels, its header says 20 x 20/)])
    loader.dispose()
  })

  it('takes what lies on its side upright', async () => {
    const image = paint(30, 20, wave(1))
    const turned = await image.withMetadata({ orientation: 6 }).jpeg({ quality: 98 }).toBuffer()
    const source = await openImages(await folderWith({ 'a.jpg': turned, 'b.png': await sharp(turned).rotate().png().toBuffer() }))
    const loader = new Loader(source, { size: { width: 20, height: 30 }, device: 'cpu', statistics: { mean: [0, 0, 0], std: [1, 1, 1] } })
    expect(await loader.hold(2 * 3 * 20 * 30)).toBe(true)
    for await (const { images } of loader.all(2)) expect(images.select(0, 0).sub(images.select(0, 1)).abs().mean().item()).toBeLessThan(2 / 255)
    loader.dispose()
  })

  it('ends at once when it is aborted, and loads on as before', async () => {
    const source = await openImages(await photoFolder())
    const before = torch.memory().tensors
    const loader = new Loader(source, { size: SIZE, device: 'cpu', workers: 1 })
    const stop = new AbortController()
    const holding = loader.hold(BUDGET, stop.signal)
    stop.abort()
    expect(await holding).toBe(false)
    expect(await loader.hold(BUDGET, stop.signal)).toBe(false)
    expect(torch.memory().tensors).toBe(before)
    expect(await loader.hold(BUDGET)).toBe(true)
    expect(torch.memory().tensors).toBe(before + 1)
    loader.dispose()
    expect(torch.memory().tensors).toBe(before)
  })
})
