import { describe, expect, it } from 'vitest'
import {
  adjustSharpness, affine, applyErasing, applyRandAugment, type Augmentation, autocontrast, type Batch, denormalise, drawCrop, drawErasing,
  drawRandAugment, type EpochOptions, equalize, type ImageSource, imagenetStatistics, Loader, mixImages, mixTargets, normalise, openImages,
  posterize, randomFor, type Size, solarize, supervisedAugmentation
} from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { distance } from './augmentation.js'
import { folderWith, idx, paint } from './support.js'

const [WIDTH, HEIGHT] = [20, 16]
const WHOLE: Size = { height: HEIGHT, width: WIDTH }
const COUNT = 10
const plain = { cropScale: [1, 1], cropRatio: [WIDTH / HEIGHT, WIDTH / HEIGHT], flip: 0 } as const satisfies Augmentation
const everything: Augmentation = { ...supervisedAugmentation, erasing: { probability: 0.7 } }
const epochOf = (augmentation: Augmentation): EpochOptions => ({ seed: 3, epoch: 1, batchSize: 5, views: 2, augmentation })

async function idxFolder(): Promise<string> {
  const random = randomFor(1)
  const pixels = Array.from({ length: COUNT * HEIGHT * WIDTH }, () => random.integer(0, 256))
  return folderWith({ 'images-idx3-ubyte': idx([COUNT, HEIGHT, WIDTH], pixels) })
}

async function photoFolder(): Promise<string> {
  const files: Record<string, Uint8Array> = {}
  for (let i = 0; i < COUNT; i++) {
    const random = randomFor(i)
    files[`${i}.png`] = await paint(WIDTH, HEIGHT, () => [1, 2, 3].map(() => random.integer(0, 256))).png().toBuffer()
  }
  return folderWith(files)
}

async function collect(source: ImageSource, augmentation: Augmentation, size = WHOLE, workers = 4): Promise<Batch[]> {
  const loader = new Loader(source, { size, device: 'cpu', workers, statistics: statisticsOf(source) })
  const batches: Batch[] = []
  for await (const batch of loader.epoch(epochOf(augmentation))) batches.push(batch)
  loader.dispose()
  return batches
}

const statisticsOf = (source: ImageSource) => (source.kind === 'memory' ? { mean: [0.3], std: [0.25] } : imagenetStatistics)
const viewsOf = ({ indices }: Batch) => [0, 1].flatMap((view) => indices.map((index) => [3, 1, index, view] as const))
/** All images, whole, in a batch's order: first view 0 of each, then view 1. */
async function wholeViews(source: ImageSource, batch: Batch): Promise<Tensor> {
  const loader = new Loader(source, { size: WHOLE, device: 'cpu', statistics: statisticsOf(source) })
  const { value } = (await loader.all(COUNT).next()) as { value: Batch }
  loader.dispose()
  const { mean, std } = statisticsOf(source)
  const images = denormalise(value.images, mean, std).mul(255).round().div(255)
  return images.indexSelect(0, torch.tensor([...batch.indices, ...batch.indices], { dtype: 'int64' }))
}

describe.each([['IDX files', idxFolder], ['image files', photoFolder]] as const)('views for supervised training of %s', (_, make) => {
  it('depend on seed, epoch, index and view alone', async () => {
    const source = await openImages(await make())
    torch.manualSeed(1)
    const first = await collect(source, everything, { height: 12, width: 12 })
    torch.manualSeed(2)
    const second = await collect(source, everything, { height: 12, width: 12 }, 1)
    for (const [i, { images }] of first.entries()) expect(torch.equal(images, second[i]!.images)).toBe(true)
  })

  it('are put through RandAugment before they are normalised, the mean outside', async () => {
    const source = await openImages(await make())
    const { mean, std } = statisticsOf(source)
    const randAugment = { ops: 2, magnitude: 20 }
    for (const batch of await collect(source, { ...plain, randAugment })) {
      const plans = viewsOf(batch).map((key) => drawRandAugment(randomFor(...key, 'randAugment'), randAugment))
      const wanted = normalise(applyRandAugment(await wholeViews(source, batch), plans, { fill: mean }), mean, std)
      expect(distance(batch.images, wanted)).toBeLessThan(2e-5)
    }
  })

  it('are erased after they were normalised', async () => {
    const source = await openImages(await make())
    const { mean, std } = statisticsOf(source)
    const erasing = { probability: 0.5 }
    const erased: boolean[] = []
    for (const batch of await collect(source, { ...plain, erasing })) {
      const erasings = viewsOf(batch).map((key) => drawErasing(randomFor(...key, 'erasing'), HEIGHT, WIDTH, erasing))
      erased.push(...erasings.map((rectangle) => rectangle !== null))
      const wanted = applyErasing(normalise(await wholeViews(source, batch), mean, std), erasings)
      expect(distance(batch.images, wanted)).toBeLessThan(2e-5)
    }
    expect(new Set(erased).size).toBe(2)
  })

  it('keep their crops and colours when RandAugment and erasing are added', async () => {
    const source = await openImages(await make())
    const jitter = { probability: 0.5, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 }
    const base: Augmentation = { cropScale: [0.2, 1], cropRatio: [0.75, 1.3], flip: 0.5, jitter, blur: { probability: 0.5, sigma: [0.1, 2] } }
    const before = await collect(source, base)
    const erased = await collect(source, { ...base, randAugment: null, erasing: { probability: 1, mode: 'const' } })
    for (const [i, batch] of erased.entries()) {
      const kept = batch.images.ne(0)
      expect(kept.to('float32').mean().item()).toBeGreaterThan(0.6)
      expect(kept.to('float32').mean().item()).toBeLessThan(0.98)
      expect(distance(batch.images, before[i]!.images.mul(kept))).toBe(0)
    }
    const none = await collect(source, { ...base, randAugment: { ops: 0 }, erasing: { probability: 0 }, cropPadding: null })
    for (const [i, { images }] of none.entries()) expect(distance(images, before[i]!.images)).toBe(0)
  })

  it('with padding are parts of the padded image at its own scale', async () => {
    const source = await openImages(await make())
    const { mean, std } = statisticsOf(source)
    const augmentation: Augmentation = { ...plain, flip: 0.5, cropPadding: 4 }
    const seen = new Set<string>()
    for (const batch of await collect(source, augmentation)) {
      const whole = await wholeViews(source, batch)
      const means = torch.tensor([...mean]).reshape([1, mean.length, 1, 1])
      const padded = whole.sub(means).constantPadNd([4, 4, 4, 4]).add(means)
      for (const [row, key] of viewsOf(batch).entries()) {
        // Of the numbers drawn, the first two are top and left of the part, and the third is the flip.
        const random = randomFor(...key, 'crop')
        const [top, left, flip] = [random.integer(0, 9), random.integer(0, 9), random.chance(0.5)]
        const part = padded.narrow(0, row, 1).narrow(2, top, HEIGHT).narrow(3, left, WIDTH)
        const wanted = normalise(flip ? part.flip([3]) : part, mean, std)
        expect(distance(batch.images.narrow(0, row, 1), wanted), `${top} ${left} ${flip}`).toBeLessThan(2e-5)
        seen.add(`${Math.sign(left - 4)} ${flip}`)
      }
    }
    expect(seen.size).toBeGreaterThan(4)
  })

  it('leave nothing behind', async () => {
    const source = await openImages(await make())
    const loader = new Loader(source, { size: { height: 12, width: 12 }, device: 'cpu' })
    const { tensors } = torch.memory()
    for await (const { images } of loader.epoch(epochOf({ ...everything, cropPadding: 2 }))) images.dispose()
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    loader.dispose()
  })

  it('refuse settings that are none', async () => {
    const source = await openImages(await make())
    for (const [wrong, message] of [
      [{ cropPadding: -1 }, /at least 0 for cropPadding/],
      [{ cropPadding: 1.5 }, /at least 0 for cropPadding/],
      [{ randAugment: { magnitude: 99 } }, /from 0 to 30 for magnitude of RandAugment/],
      [{ erasing: { probability: -1 } }, /for probability of erasing/]
    ] as const) {
      const loader = new Loader(source, { size: WHOLE, device: 'cpu' })
      await expect(loader.epoch(epochOf({ ...plain, ...wrong })).next()).rejects.toThrow(message)
      loader.dispose()
    }
  })
})

describe('crops with padding', () => {
  const DRAWS = 5000
  const draw = (width: number, height: number, size: Size, cropPadding: number) =>
    Array.from({ length: DRAWS }, (_, i) => drawCrop(randomFor(1, i), width, height, { ...plain, cropPadding }, size))

  it('lie uniformly in the padded image', () => {
    const counts = new Map<string, number>()
    for (const { left, top, width, height, shift } of draw(32, 32, { height: 32, width: 32 }, 2)) {
      expect([left, top, width, height]).toEqual([0, 0, 32, 32])
      const place = shift!.join()
      counts.set(place, (counts.get(place) ?? 0) + 1)
    }
    expect(counts.size).toBe(25)
    for (const count of counts.values()) expect(Math.abs(count - DRAWS / 25)).toBeLessThan(5 * Math.sqrt(DRAWS / 25))
  })

  it('of a large image are as wide as its shorter side, and show what lies beside them before any padding', () => {
    const crops = draw(300, 100, { height: 50, width: 50 }, 3)
    for (const { left, top, width, height, shift } of crops) {
      expect([width, height, top]).toEqual([100, 100, 0])
      expect(left >= 0 && left <= 200).toBe(true)
      if (shift![0] !== 0) expect(left).toBe(shift![0] > 0 ? 0 : 200)
      expect(Math.abs(shift![0]) <= 3 && Math.abs(shift![1]) <= 3).toBe(true)
    }
    expect(crops.some(({ left }) => left > 0 && left < 200)).toBe(true)
    expect(crops.filter(({ shift }) => shift![0] > 0).length / DRAWS).toBeCloseTo(3 / 107, 1.9)
  })

  it('stay inside images of every shape', () => {
    for (const [width, height] of [[1, 1], [1, 90], [7, 5], [333, 17], [224, 225]] as const) {
      for (const size of [{ height: 8, width: 8 }, { height: 3, width: 40 }]) {
        for (const crop of draw(width, height, size, 4).slice(0, 200)) {
          expect(Object.values(crop).filter((value) => typeof value === 'number').every(Number.isInteger)).toBe(true)
          expect(Math.min(crop.left, crop.top)).toBeGreaterThanOrEqual(0)
          expect(Math.min(crop.width, crop.height)).toBeGreaterThanOrEqual(1)
          expect(crop.left + crop.width).toBeLessThanOrEqual(width)
          expect(crop.top + crop.height).toBeLessThanOrEqual(height)
        }
      }
    }
  })
})

it('an empty batch stays one', () => {
  const empty = torch.zeros([0, 3, 8, 9])
  const results = [
    affine(empty, []), affine(empty, [], { fill: 0.5 }), adjustSharpness(empty, []), solarize(empty, []), posterize(empty, []),
    autocontrast(empty), equalize(empty), applyRandAugment(empty, []), applyErasing(empty, []), mixImages(empty, { kind: 'mixup', lambda: 0.3 })
  ]
  for (const { shape } of results) expect(shape).toEqual([0, 3, 8, 9])
  expect(mixTargets(torch.zeros([0], { dtype: 'int64' }), 4, null).shape).toEqual([0, 4])
})
