import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import {
  type Augmentation, type Batch, type BrokenImageError, defaultStatistics, denormalise, drawColour, drawCrop, type EpochOptions,
  gmmlAugmentation, type ImageSource,
  imagenetStatistics, Loader, type LoaderOptions, openImages, permutation, type Random, randomFor, type Size
} from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { cifar, folderWith, idx, noise, paint } from './support.js'

torch.setNumThreads(1)

const SIZE: Size = { height: 12, width: 12 }
const never = { probability: 0 }
const plain: Augmentation = {
  ...gmmlAugmentation, jitter: { ...gmmlAugmentation.jitter, ...never }, blur: { ...gmmlAugmentation.blur, ...never }
}
const epochOf = (options: Partial<EpochOptions> = {}): EpochOptions =>
  ({ seed: 3, epoch: 0, batchSize: 4, views: 2, augmentation: gmmlAugmentation, ...options })

const pixelsOf = (seed: number, width: number, height: number): Uint8Array => {
  const random = randomFor(seed, 'pixels')
  const [a, b, c] = [random.uniform(3, 9), random.uniform(3, 9), random.uniform(0, 6)]
  // Smooth, so that two resizing filters may be compared.
  const value = (x: number, y: number) => 128 + 60 * Math.sin(x / a + c) + 60 * Math.cos(y / b)
  return Uint8Array.from({ length: width * height }, (_, i) => Math.round(value(i % width, Math.floor(i / width))))
}

/** IDX images of smooth waves. */
async function idxFolder(count = 14, width = 20, height = 16): Promise<string> {
  const images = Array.from({ length: count }, (_, i) => [...pixelsOf(i, width, height)]).flat()
  return folderWith({ 'images-idx3-ubyte': idx([count, height, width], images) })
}

/** CIFAR-10 images of smooth waves, each channel its own. */
async function cifarFolder(count = 14): Promise<string> {
  const planes = Array.from({ length: 3 * count }, (_, i) => pixelsOf(i, 32, 32))
  const labels = Array.from({ length: count }, (_, i) => [i % 10])
  return folderWith({ 'data_batch_1.bin': cifar(labels, (i, c, y, x) => planes[3 * i + c]![32 * y + x]!) })
}

/** Colour photographs of several sizes, so small that they decode at once. */
async function photoFolder(count = 14, broken: readonly number[] = []): Promise<string> {
  const files: Record<string, Uint8Array | string> = {}
  for (let i = 0; i < count; i++) {
    const name = `class-${i % 2}/image-${String(i).padStart(2, '0')}.png`
    files[name] = broken.includes(i) ? 'no image' : await noise(18 + i, 16 + (i % 5)).png().toBuffer()
  }
  return folderWith(files)
}

async function collect(source: ImageSource, options: Partial<EpochOptions> = {}, own: Partial<LoaderOptions> = {}): Promise<Batch[]> {
  const loader = new Loader(source, { size: SIZE, device: 'cpu', ...own })
  const batches: Batch[] = []
  for await (const batch of loader.epoch(epochOf(options))) batches.push(batch)
  loader.dispose()
  return batches
}

function expectSame(received: readonly Batch[], wanted: readonly Batch[]): void {
  expect(received.map(({ indices }) => indices)).toEqual(wanted.map(({ indices }) => indices))
  for (const [i, { images }] of received.entries()) {
    expect(torch.equal(images, wanted[i]!.images)).toBe(true)
  }
}

const largest = (a: Tensor, b: Tensor): number => {
  expect(a.shape).toEqual(b.shape)
  return a.sub(b).abs().max().item()
}

const folders = [['IDX files', idxFolder], ['CIFAR files', cifarFolder], ['image files', photoFolder]] as const
describe.each(folders)('an epoch of %s', (_, make) => {
  it('depends on seed, epoch and index alone: not on workers, first step, nor what ran before', async () => {
    const source = await openImages(await make())
    const batches = await collect(source)
    expect(batches.map(({ images }) => images.shape)).toEqual(Array(3).fill([8, source.channels, 12, 12]))
    expectSame(await collect(source, {}, { workers: 1 }), batches)
    expectSame(await collect(source, { firstStep: 1 }, { workers: 9 }), batches.slice(1))
    expectSame(await collect(source, { firstStep: 3 }), [])

    const loader = new Loader(source, { size: SIZE, device: 'cpu' })
    for await (const { images } of loader.epoch(epochOf({ epoch: 5, batchSize: 3 }))) images.dispose()
    for await (const { images } of loader.all(5)) images.dispose()
    torch.manualSeed(99)
    const again: Batch[] = []
    for await (const batch of loader.epoch(epochOf())) again.push(batch)
    expectSame(again, batches)
    for (const other of [{ seed: 4 }, { epoch: 1 }]) {
      const [first] = await collect(source, other)
      expect(first!.indices).not.toEqual(batches[0]!.indices)
    }
  })

  it("an image's views are its own, whichever batch it is in", async () => {
    const source = await openImages(await make())
    const whole = await collect(source, { batchSize: source.length })
    const single = await collect(source, { batchSize: 1 })
    const [batch] = whole as [Batch]
    for (const [i, { indices, images }] of single.entries()) {
      expect(indices).toEqual([batch.indices[i]])
      for (const view of [0, 1]) {
        expect(largest(images.narrow(0, view, 1), batch.images.narrow(0, view * source.length + i, 1))).toBeLessThan(1e-5)
      }
    }
  })

  it('has every image once, a last batch that is not full left out, and two views that differ', async () => {
    const source = await openImages(await make())
    const batches = await collect(source, { batchSize: 4 })
    const seen = batches.flatMap(({ indices }) => [...indices])
    expect(seen).toEqual([...permutation(14, randomFor(3, 0, 'order'))].slice(0, 12))
    expect(new Set(seen).size).toBe(12)
    for (const { images } of batches) {
      for (let i = 0; i < 4; i++) expect(largest(images.narrow(0, i, 1), images.narrow(0, 4 + i, 1))).toBeGreaterThan(0.05)
    }
    expect(batches).toHaveLength(3)
  })

  it('that is left early frees what was prepared ahead', async () => {
    const source = await openImages(await make())
    const loader = new Loader(source, { size: SIZE, device: 'cpu' })
    const { tensors } = torch.memory()
    const counts: number[] = []
    for (let round = 0; round < 3; round++) {
      for await (const { images } of loader.epoch(epochOf({ batchSize: 2 }))) {
        images.dispose()
        break
      }
      counts.push(torch.memory().tensors)
    }
    const failing = async () => {
      for await (const { images } of loader.epoch(epochOf())) {
        images.dispose()
        throw new Error('in the loop')
      }
    }
    await expect(failing()).rejects.toThrow('in the loop')
    counts.push(torch.memory().tensors)
    // Fewer where what earlier tests left was collected meanwhile.
    expect(Math.max(...counts)).toBeLessThanOrEqual(tensors)
    loader.dispose()
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors - (source.kind === 'memory' ? 1 : 0))
  })

  it('refuses a batch that is larger than the images, or no number', async () => {
    const loader = new Loader(await openImages(await make()), { size: SIZE, device: 'cpu' })
    expect(loader.steps(14)).toBe(1)
    expect(loader.steps(4)).toBe(3)
    for (const batchSize of [15, 0, 1.5]) {
      await expect(loader.epoch(epochOf({ batchSize })).next()).rejects.toThrow(/for batchSize, received/)
    }
    await expect(loader.all(0).next()).rejects.toThrow(/at least 1 for batchSize, received 0/)
  })
})

describe('the same pixels as IDX and as files', () => {
  const [width, height] = [20, 16]

  async function both(statistics = { mean: [0.4], std: [0.3] }, size = SIZE) {
    const idxSource = await openImages(await idxFolder(14, width, height))
    const files: Record<string, Uint8Array> = {}
    for (let i = 0; i < 14; i++) {
      const pixels = pixelsOf(i, width, height)
      const picture = paint(width, height, (x, y) => Array<number>(3).fill(pixels[y * width + x]!))
      files[`${String(i).padStart(2, '0')}.png`] = await picture.png().toBuffer()
    }
    const three = { mean: Array<number>(3).fill(statistics.mean[0]!), std: Array<number>(3).fill(statistics.std[0]!) }
    return [
      new Loader(idxSource, { size, device: 'cpu', statistics }),
      new Loader(await openImages(await folderWith(files)), { size, device: 'cpu', statistics: three })
    ] as const
  }

  /** Of pixels from 0 to 1. Bytes are rounded on one way and not on the other, and the filters differ where they are cut off. */
  const TOLERANCE = { mean: 0.006, max: 0.06 }

  function expectNear(images: Tensor, colour: Tensor): void {
    const scaled = (tensor: Tensor) => tensor.mul(0.3)
    const difference = scaled(images.expand(colour.shape)).sub(scaled(colour)).abs()
    expect(difference.mean().item()).toBeLessThan(TOLERANCE.mean)
    expect(difference.max().item()).toBeLessThan(TOLERANCE.max)
  }

  it('give the same views', async () => {
    const [resident, folder] = await both()
    const files = folder.epoch(epochOf({ augmentation: plain }))
    for await (const { indices, images } of resident.epoch(epochOf({ augmentation: plain }))) {
      const other = (await files.next()).value as Batch
      expect(other.indices).toEqual(indices)
      expectNear(images, other.images)
    }
  })

  const sizes = [SIZE, { height: 16, width: 20 }, { height: 9, width: 21 }, { height: 24, width: 10 }]
  it.each(sizes)('and the same whole images (%o)', async (size) => {
    const [resident, folder] = await both(undefined, size)
    const files = folder.all(5)
    const seen: number[] = []
    for await (const { indices, images } of resident.all(5)) {
      const other = (await files.next()).value as Batch
      expect(other.indices).toEqual(indices)
      expect(images.shape.slice(2)).toEqual([size.height, size.width])
      expectNear(images, other.images)
      seen.push(...indices)
    }
    expect(seen).toEqual([...Array(14).keys()])
  })
})

describe('all', () => {
  it('shows whole images as they are where nothing is to be resized', async () => {
    const source = await openImages(await idxFolder(3, 12, 12))
    const loader = new Loader(source, { size: SIZE, device: 'cpu' })
    const { value } = (await loader.all(8).next()) as { value: Batch }
    const pixels = denormalise(value.images, loader.statistics.mean, loader.statistics.std).mul(255).round()
    expect(Array.from(pixels.toTypedArray(), Number)).toEqual([0, 1, 2].flatMap((i) => [...pixelsOf(i, 12, 12)]))
  })

  it('keeps colours and places of files', async () => {
    const colours = [[250, 10, 60], [20, 200, 90]] as const
    const files: Record<string, Uint8Array> = {}
    for (const [i, colour] of colours.entries()) {
      files[`${i}.png`] = await paint(12, 12, (x, y) => (x < 6 && y < 6 ? [255, 255, 255] : colour)).png().toBuffer()
    }
    const loader = new Loader(await openImages(await folderWith(files)), { size: SIZE, device: 'cpu' })
    const { value } = (await loader.all(2).next()) as { value: Batch }
    const pixels = denormalise(value.images, imagenetStatistics.mean, imagenetStatistics.std).mul(255).round().toArray() as number[][][][]
    for (const [i, colour] of colours.entries()) {
      expect([0, 1, 2].map((channel) => pixels[i]![channel]![9]![9])).toEqual([...colour])
      expect([0, 1, 2].map((channel) => pixels[i]![channel]![2]![3])).toEqual([255, 255, 255])
      expect([0, 1, 2].map((channel) => pixels[i]![channel]![3]![9])).toEqual([...colour])
    }
  })

  it('keeps the order, also of a last batch that is not full, and leaves broken images out', async () => {
    const source = await openImages(await photoFolder(11, [0, 4]))
    const loader = new Loader(source, { size: SIZE, device: 'cpu', maxBroken: 0.5 })
    const seen: (readonly number[])[] = []
    for await (const { indices, images } of loader.all(4)) {
      expect(images.shape).toEqual([indices.length, 3, 12, 12])
      seen.push(indices)
      images.dispose()
    }
    // Even numbers are in the first class: images 0 and 4 are the files 0 and 2.
    expect(seen).toEqual([[1, 3], [4, 5, 6, 7], [8, 9, 10]])
    expect(loader.broken.map(({ file }) => file.slice(-6))).toEqual(['00.png', '04.png'])
  })

  it('resizes a strip to a view of another shape without a hole', async () => {
    const [standing, lying] = [await noise(1, 100).png().toBuffer(), await noise(100, 1).png().toBuffer()]
    const folder = await folderWith({ 'standing.png': standing, 'lying.png': lying })
    const loader = new Loader(await openImages(folder), { size: { height: 10, width: 28 }, device: 'cpu' })
    for await (const { images } of loader.all(2)) expect(images.isfinite().all().item()).toBe(true)
    const idxStrip = await folderWith({ 'images-idx3-ubyte': idx([1, 100, 1], Array<number>(100).fill(7)) })
    const resident = new Loader(await openImages(idxStrip), { size: { height: 10, width: 28 }, device: 'cpu' })
    for await (const { images } of resident.all(2)) expect(images.isfinite().all().item()).toBe(true)
  })
})

describe('broken images', () => {
  it('are replaced by the next in the order, with its index and the views of the place, and reported once', async () => {
    const folder = await photoFolder(10)
    const sound = await collect(await openImages(folder), { batchSize: 5 })
    const order = [...permutation(10, randomFor(3, 0, 'order'))]
    const source = await openImages(folder)
    const [first, second, next] = [order[1]!, order[2]!, order[3]!]
    for (const index of [first, second]) await writeFile(join(folder, source.name(index)), 'no image any more')
    const reported: BrokenImageError[] = []
    const loader = new Loader(source, { size: SIZE, device: 'cpu', maxBroken: 0.2, onBroken: (error) => reported.push(error) })
    for (let round = 0; round < 2; round++) {
      const batches: Batch[] = []
      for await (const batch of loader.epoch(epochOf({ batchSize: 5 }))) batches.push(batch)
      expect(batches[0]!.indices).toEqual([order[0], next, next, next, order[4]])
      const view = (batch: Batch, i: number) => batch.images.narrow(0, i, 1)
      for (const i of [0, 3, 4, 5, 8, 9]) expect(largest(view(batches[0]!, i), view(sound[0]!, i))).toBeLessThan(1e-5)
      // Three times the same image: its own views, and two others.
      expect(largest(view(batches[0]!, 1), view(batches[0]!, 3))).toBeGreaterThan(0.05)
      expect(largest(view(batches[0]!, 1), view(batches[0]!, 2))).toBeGreaterThan(0.05)
      expectSame(batches.slice(1), sound.slice(1))
    }
    expect(reported.map(({ file }) => file).sort()).toEqual([first, second].map((index) => join(folder, source.name(index))).sort())
    expect(loader.broken).toHaveLength(2)
  })

  it('stop the loading with their list where there are too many, and nothing leaks', async () => {
    const source = await openImages(await photoFolder(12, [1, 4, 7]))
    const { tensors } = torch.memory()
    const loader = new Loader(source, { size: SIZE, device: 'cpu', maxBroken: 0.17 })
    const run = async () => {
      for await (const { images } of loader.epoch(epochOf({ batchSize: 3 }))) images.dispose()
    }
    const error = await run().then(() => undefined, (reason: Error) => reason)
    expect(error?.message).toMatch(/^3 of 12 images are broken, and at most 2 may be \(maxBroken\)\. Mend or remove them:\n/)
    for (const name of ['class-0/image-04.png', 'class-1/image-01.png', 'class-1/image-07.png']) {
      expect(error?.message).toContain(`${name}: the content is not an image of a known format`)
    }
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('may be none at all where maxBroken is 0, which must be a part', async () => {
    const source = await openImages(await photoFolder(5, [3]))
    const strict = new Loader(source, { size: SIZE, device: 'cpu', maxBroken: 0 })
    await expect(strict.all(5).next()).rejects.toThrow(/^1 of 5 images are broken, and at most 0 may be \(maxBroken\)/)
    for (const maxBroken of [-0.1, 1.1, NaN]) {
      expect(() => new Loader(source, { size: SIZE, device: 'cpu', maxBroken })).toThrow(/a number from 0 to 1 for maxBroken/)
    }
  })

  it('one may be broken in any set; none that can be decoded is an error', async () => {
    const one = new Loader(await openImages(await photoFolder(1, [0])), { size: SIZE, device: 'cpu' })
    await expect(one.epoch(epochOf({ batchSize: 1 })).next()).rejects.toThrow(/None of the 1 images in .* can be decoded/)
    expect(await one.all(1).next()).toEqual({ value: undefined, done: true })
  })
})

describe('statistics', () => {
  it('are mean and deviation of all pixels, from 0 to 1', async () => {
    const source = await openImages(await idxFolder(5))
    const pixels = Array.from({ length: 5 }, (_, i) => [...pixelsOf(i, 20, 16)]).flat().map((value) => value / 255)
    const mean = pixels.reduce((sum, value) => sum + value, 0) / pixels.length
    const std = Math.sqrt(pixels.reduce((sum, value) => sum + (value - mean) ** 2, 0) / pixels.length)
    const received = defaultStatistics(source)
    expect(received.mean[0]).toBeCloseTo(mean, 12)
    expect(received.std[0]).toBeCloseTo(std, 12)
    const loader = new Loader(source, { size: { height: 16, width: 20 }, device: 'cpu' })
    const { value } = (await loader.all(5).next()) as { value: Batch }
    expect(value.images.mean().item()).toBeCloseTo(0, 5)
    expect(value.images.std({ correction: 0 }).item()).toBeCloseTo(1, 5)
  })

  it('of one flat colour have no deviation to divide by', async () => {
    for (const value of [0, 77, 201, 255]) {
      const folder = await folderWith({ 'images-idx3-ubyte': idx([7, 9, 11], Array<number>(7 * 9 * 11).fill(value)) })
      expect(defaultStatistics(await openImages(folder))).toEqual({ mean: [value / 255], std: [1] })
    }
  })

  it("are ImageNet's for files", async () => {
    expect(defaultStatistics(await openImages(await photoFolder(1)))).toEqual(imagenetStatistics)
  })
})

describe('what is drawn for a view', () => {
  const DRAWS = 20_000
  const draws = <T>(draw: (random: Random) => T): T[] => Array.from({ length: DRAWS }, (_, i) => draw(randomFor(1, i, 'view')))
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

  it('colour: three in ten are jittered, one in ten blurred, independently, uniformly in the stated ranges', () => {
    const colours = draws((random) => drawColour(random, gmmlAugmentation))
    const jittered = colours.flatMap(({ jitter }) => jitter ?? [])
    const blurred = colours.flatMap(({ blur }) => blur ?? [])
    expect(jittered.length / DRAWS).toBeCloseTo(0.3, 1.9)
    expect(blurred.length / DRAWS).toBeCloseTo(0.1, 1.9)
    expect(colours.filter(({ jitter, blur }) => jitter && blur !== null).length / DRAWS).toBeCloseTo(0.03, 1.9)
    const ranges = { brightness: [0.9, 1.1], contrast: [0.9, 1.1], saturation: [0.9, 1.1], hue: [-0.01, 0.01] } as const
    const uniform = (values: readonly number[], [low, high]: readonly [number, number]) => {
      expect(Math.min(...values)).toBeGreaterThanOrEqual(low)
      expect(Math.max(...values)).toBeLessThan(high)
      const scaled = values.map((value) => (value - low) / (high - low))
      expect(mean(scaled)).toBeCloseTo(1 / 2, 1.5)
      expect(mean(scaled.map((value) => value ** 2))).toBeCloseTo(1 / 3, 1.5)
    }
    for (const [name, range] of Object.entries(ranges)) uniform(jittered.map((jitter) => jitter[name as keyof typeof ranges]), range)
    uniform(blurred, [0.1, 2])
    // No factor below 0, however strong.
    const strong = { ...gmmlAugmentation, jitter: { probability: 1, brightness: 3, contrast: 0, saturation: 0, hue: 0 } }
    uniform(draws((random) => drawColour(random, strong).jitter!.brightness), [0, 4])
  })

  it('colour: solarizing is drawn after the rest, whose numbers it leaves as they are', () => {
    const augmentation = { ...gmmlAugmentation, solarize: { probability: 0.2, threshold: 0.6 } }
    const both = draws((random) => drawColour(random, augmentation))
    const without = draws((random) => drawColour(random, gmmlAugmentation))
    expect(both.map(({ jitter, blur }) => ({ jitter, blur }))).toEqual(without.map(({ jitter, blur }) => ({ jitter, blur })))
    expect(new Set(without.map(({ solarize }) => solarize))).toEqual(new Set([null]))
    expect(new Set(both.map(({ solarize }) => solarize))).toEqual(new Set([null, 0.6]))
    expect(both.filter(({ solarize }) => solarize !== null).length / DRAWS).toBeCloseTo(0.2, 1.9)
    expect(both.filter(({ solarize, blur }) => solarize !== null && blur !== null).length / DRAWS).toBeCloseTo(0.02, 1.9)
  })

  it('crop: half are mirrored, the area is uniform in its range, the crop inside the image', () => {
    const crops = draws((random) => drawCrop(random, 400, 400, gmmlAugmentation))
    expect(crops.filter(({ flip }) => flip).length / DRAWS).toBeCloseTo(0.5, 1.7)
    for (const { left, top, width, height } of crops) {
      expect(left >= 0 && top >= 0 && left + width <= 400 && top + height <= 400).toBe(true)
      expect(width / height).toBeGreaterThan(0.74)
      expect(width / height).toBeLessThan(1.35)
    }
    const areas = crops.map(({ width, height }) => (width * height) / 400 ** 2)
    expect(Math.min(...areas)).toBeGreaterThan(0.049)
    expect(Math.min(...areas)).toBeLessThan(0.055)
    // Large crops of an extreme aspect do not fit and are drawn again: fewer of them than of small ones.
    const below = areas.filter((area) => area < 0.525).length / DRAWS
    expect(below).toBeGreaterThan(0.5)
    expect(below).toBeLessThan(0.6)
    expect(draws((random) => drawCrop(random, 40, 30, { ...gmmlAugmentation, flip: 0 }).flip)).not.toContain(true)
  })
})
