import { describe, expect, it } from 'vitest'

import { randomFor } from '../../src/data/random.js'
import { corrupt, type Corrupted, type CorruptionOptions, type Fill } from '../../src/gmml/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'

/** Every pixel of every image and channel another number, from 1. */
const numbered = (batch: number, channels: number, height: number, width: number): Tensor =>
  torch
    .arange(1, batch * channels * height * width + 1)
    .reshape([batch, channels, height, width])
    .to('float32')

/** Where each corrupted number comes from; image -1 for what is no number of the batch. */
function origins({ corrupted, mask }: Corrupted) {
  const [batch, channels, height, width] = corrupted.shape as [number, number, number, number]
  const pixels = height * width
  const covered = mask.expand([batch, channels, height, width]).contiguous().toTypedArray()
  return Array.from(corrupted.toTypedArray() as Float32Array, (value, place) => {
    const from = value - 1
    return {
      covered: covered[place] === 1,
      value,
      image: Math.floor(place / channels / pixels),
      channel: Math.floor(place / pixels) % channels,
      pixel: place % pixels,
      fromImage: Math.floor(from / channels / pixels),
      fromChannel: Math.floor(from / pixels) % channels,
      fromPixel: from % pixels
    }
  })
}

/** Which views are alien, told by the absence of what `zeros` leaves. */
const alienViews = (corrupted: Tensor) => corrupted.flatten({ startDim: 1 }).ne(0).all(1).toArray() as boolean[]

describe('corrupt refuses', () => {
  const clean = torch.randn([2, 3, 28, 28])
  const misuse: Record<string, readonly [Tensor, CorruptionOptions, RegExp]> = {
    'one image without a batch': [torch.randn([3, 28, 28]), {}, /batch of images \[B, C, H, W\] for clean, received 'shape \[3, 28, 28\]'/],
    'pixels that are integers': [
      torch.zeros([1, 1, 8, 8], { dtype: 'uint8' }),
      { fill: 'zeros' },
      /floating-point pixels for clean, received 'uint8'/
    ],
    'an unknown fill': [clean, { fill: 'blur' as Fill }, /one or more of noise, zeros, shuffle for fill, received 'blur'/],
    'no fill': [clean, { fill: [] }, /for fill, received \[\]/],
    'an unknown fill among others': [clean, { fill: ['zeros', 'blur'] as never }, /for fill/],
    'a budget of 0': [clean, { budget: 0 }, /for budget, received 0/],
    'a budget above 1': [clean, { budget: 75 }, /for budget, received 75/],
    'a negative alien budget': [clean, { alien: -0.1 }, /between 0 and 1 for alien, received -0.1/],
    'a string for the alien budget': [clean, { alien: '0.3' as never }, /for alien, received '0.3'/],
    'an alien budget of NaN': [clean, { alien: NaN }, /for alien, received NaN/],
    'no alignment': [clean, { align: 0 }, /for align, received 0/],
    'an alignment larger than the image': [clean, { align: 32 }, /at most the image's side 28 for align, received 32/]
  }
  it.each(Object.entries(misuse))('%s', (_, [images, options, message]) => {
    expect(() => corrupt(images, options)).toThrow(InputError)
    expect(() => corrupt(images, options)).toThrow(message)
  })
})

describe('a corrupted batch', () => {
  it.each([
    [{}, 3],
    [{ fill: 'zeros' }, 1],
    [{ fill: 'shuffle', align: 4 }, 3],
    [{ fill: ['noise', 'zeros', 'shuffle'] }, 3],
    [{ alien: 0 }, 2]
  ] as [CorruptionOptions, number][])('by %o is the clean one where the mask is false, and leaves that as it is', (options, channels) => {
    torch.manualSeed(1)
    const clean = torch.randn([8, channels, 20, 28])
    const before = clean.clone()
    const { corrupted, mask } = corrupt(clean, options)
    expect(clean.equal(before)).toBe(true)
    expect([corrupted.shape, corrupted.dtype]).toEqual([clean.shape, 'float32'])
    expect([mask.shape, mask.dtype]).toEqual([[8, 1, 20, 28], 'bool'])
    expect(torch.where(mask, clean, corrupted).equal(clean)).toBe(true)
    const changed = corrupted.ne(clean).any(1, { keepdim: true }).to('float32').sum().div(mask.sum()).item()
    expect(changed, 'of what is masked').toBeGreaterThan(0.85)
  })

  it('leaves nothing behind and is unseen by autograd', () => {
    torch.scope(() => {
      const clean = torch.randn([4, 3, 28, 28], { requiresGrad: true })
      const before = memory().tensors
      const { corrupted } = corrupt(clean, { fill: ['noise', 'zeros', 'shuffle'] })
      expect(memory().tensors).toBeLessThanOrEqual(before + 2)
      expect(corrupted.requiresGrad).toBe(false)
    })
  })

  it.each(['bfloat16', 'float16', 'float64'] as const)('of %s, of other memory order, and of no images at all', (dtype) => {
    const clean = torch.randn([3, 16, 16, 2]).to(dtype).permute([0, 3, 1, 2])
    expect(clean.isContiguous).toBe(false)
    for (const fill of ['noise', 'zeros', 'shuffle'] as const) {
      const { corrupted, mask } = corrupt(clean, { fill })
      expect(corrupted.dtype).toBe(dtype)
      expect(torch.where(mask, clean, corrupted).equal(clean)).toBe(true)
    }
    const empty = corrupt(clean.narrow(0, 0, 0))
    expect([empty.corrupted.shape, empty.mask.shape]).toEqual([
      [0, 2, 16, 16],
      [0, 1, 16, 16]
    ])
  })
})

describe('the fill', () => {
  it('noise is N(0, 1), of its own for each channel', () => {
    torch.manualSeed(2)
    const { corrupted, mask } = corrupt(torch.full([32, 2, 64, 64], 100, { dtype: 'float32' }), { alien: 0 })
    const noise = corrupted.maskedSelect(mask)
    expect(noise.mean().item()).toBeCloseTo(0, 1)
    expect(noise.std().item()).toBeCloseTo(1, 1)
    expect(Math.abs(noise.pow(4).mean().item() - 3)).toBeLessThan(0.1)
    const [first, second] = corrupted.unbind({ dim: 1 }).map((channel) => channel.maskedSelect(mask.squeeze(1))) as [Tensor, Tensor]
    expect(first.mul(second).mean().item()).toBeCloseTo(0, 1)
  })

  it('zeros is zero', () => {
    const { corrupted, mask } = corrupt(numbered(4, 2, 28, 28), { fill: 'zeros', alien: 0 })
    expect(corrupted.eq(0).equal(mask.expand([4, 2, 28, 28]))).toBe(true)
  })

  it('shuffle is another region of the same image, the same for all channels', () => {
    torch.manualSeed(3)
    const places = origins(corrupt(numbered(6, 3, 28, 28), { fill: 'shuffle', alien: 0 }))
    const sources = new Map<string, Set<number>>()
    for (const { covered, image, channel, pixel, fromImage, fromChannel, fromPixel } of places) {
      if (!covered) continue
      if (image !== fromImage || channel !== fromChannel)
        throw new Error(`pixel ${pixel} is from image ${fromImage}, channel ${fromChannel}`)
      const key = `${image}/${pixel}`
      sources.set(key, (sources.get(key) ?? new Set()).add(fromPixel))
    }
    expect([...sources.values()].every((found) => found.size === 1)).toBe(true)
    // Regions, not pixels: most neighbours come from neighbours.
    const keys = [...sources].map(([key, found]) => [key.split('/').map(Number) as [number, number], [...found][0]!] as const)
    const next = keys.filter(([[image, pixel], from]) => sources.get(`${image}/${pixel + 1}`)?.has(from + 1)).length
    expect(next / keys.length).toBeGreaterThan(0.6)
    expect(keys.filter(([[, pixel], from]) => pixel === from).length / keys.length).toBeLessThan(0.2)
  })

  it('is one of several by equal chance, for a whole view', () => {
    torch.manualSeed(4)
    const { corrupted, mask } = corrupt(torch.ones([600, 1, 28, 28]), { fill: ['zeros', 'noise'], alien: 0 })
    const zeros = corrupted.mul(mask).flatten({ startDim: 1 }).eq(0).all(1).toArray() as boolean[]
    expect(zeros.filter(Boolean).length / 600).toBeCloseTo(0.5, 1)
    expect(Math.abs(zeros.filter(Boolean).length / 600 - 0.5)).toBeLessThan(0.07)
  })
})

describe('alien corruption', () => {
  it.each([
    ['zeros', 1 / 2],
    [['zeros'], 1 / 2],
    [['zeros', 'zeros'], 1 / 3],
    [['zeros', 'zeros', 'zeros'], 1 / 4]
  ] as [Fill | Fill[], number][])('takes the place of %o with probability %d', (fill, probability) => {
    torch.manualSeed(5)
    const views = 1200
    const alien = alienViews(corrupt(numbered(views, 1, 28, 28), { fill }).corrupted)
    const found = alien.filter(Boolean).length / views
    // Four deviations.
    expect(Math.abs(found - probability)).toBeLessThan(4 * Math.sqrt((probability * (1 - probability)) / views))
  })

  it('is off at 0', () => {
    expect(alienViews(corrupt(numbered(200, 1, 28, 28), { fill: 'zeros', alien: 0 }).corrupted)).not.toContain(true)
  })

  it('shows the same place of images of the batch, one image for a rectangle', () => {
    torch.manualSeed(6)
    const batch = 40
    const result = corrupt(numbered(batch, 3, 28, 28), { fill: 'zeros' })
    const alien = alienViews(result.corrupted)
    const places = origins(result).filter(({ image, covered }) => alien[image] && covered)
    expect(places.length).toBeGreaterThan(1000)
    for (const { channel, fromChannel, pixel, fromPixel, fromImage } of places) {
      if (channel !== fromChannel || pixel !== fromPixel || fromImage < 0 || fromImage >= batch)
        throw new Error(`pixel ${pixel} is from ${fromImage}/${fromPixel}`)
    }
    // The channels of a pixel come from one image, neighbours mostly too, and every image of the batch lends some.
    const byPixel = new Map<string, Set<number>>()
    for (const { image, pixel, fromImage } of places) {
      const key = `${image}/${pixel}`
      byPixel.set(key, (byPixel.get(key) ?? new Set()).add(fromImage))
    }
    expect([...byPixel.values()].every((images) => images.size === 1)).toBe(true)
    expect(new Set(places.map(({ fromImage }) => fromImage)).size).toBeGreaterThan(batch * 0.9)
  })

  it('covers 0.314 of the image, the other kind 0.637', () => {
    torch.manualSeed(7)
    const { corrupted, mask } = corrupt(numbered(1200, 1, 28, 28), { fill: 'zeros' })
    const alien = alienViews(corrupted)
    const shares = mask.to('float32').mean([1, 2, 3]).toArray() as number[]
    const mean = (wanted: boolean) => {
      const chosen = shares.filter((_, i) => alien[i] === wanted)
      return chosen.reduce((sum, share) => sum + share, 0) / chosen.length
    }
    expect(Math.abs(mean(true) - 0.32)).toBeLessThan(0.012)
    expect(Math.abs(mean(false) - 0.637)).toBeLessThan(0.01)
  })

  it('of one image shows that image', () => {
    torch.manualSeed(8)
    for (let i = 0; i < 20; i++) {
      const clean = numbered(1, 1, 28, 28)
      const { corrupted, mask } = corrupt(clean, { fill: 'zeros' })
      if (!alienViews(corrupted)[0]) continue
      expect(corrupted.equal(clean)).toBe(true)
      expect(mask.any().item()).toBe(true)
    }
  })
})

describe('randomness', () => {
  const draw = (options: CorruptionOptions = {}) => {
    const { corrupted, mask } = corrupt(numbered(6, 1, 28, 28), { fill: ['noise', 'shuffle'], ...options })
    return [corrupted.toArray(), mask.toArray()]
  }

  it('is decided by manualSeed', () => {
    torch.manualSeed(1)
    const first = draw()
    const second = draw()
    torch.manualSeed(1)
    expect(draw()).toEqual(first)
    expect(draw()).toEqual(second)
    expect(second).not.toEqual(first)
    torch.manualSeed(2)
    expect(draw()).not.toEqual(first)
  })

  it('is decided by random, view by view, where given', () => {
    const random = (view: number) => randomFor(9, view)
    const first = draw({ random, fill: 'shuffle' })
    torch.manualSeed(123)
    expect(draw({ random, fill: 'shuffle' })).toEqual(first)
    expect(draw({ random: (view) => randomFor(10, view), fill: 'shuffle' })).not.toEqual(first)
    const same = corrupt(numbered(3, 1, 28, 28), { random: () => randomFor(9), fill: 'zeros', alien: 0 })
    const [a, b, c] = same.mask.unbind() as [Tensor, Tensor, Tensor]
    expect(a.equal(b) && b.equal(c)).toBe(true)
  })

  it('gives each view its own mask', () => {
    torch.manualSeed(1)
    const masks = corrupt(numbered(6, 1, 28, 28))
      .mask.flatten({ startDim: 1 })
      .toArray() as boolean[][]
    expect(new Set(masks.map(String)).size).toBe(6)
  })

  it('of whole patches is whole patches', () => {
    const { mask } = corrupt(numbered(20, 1, 28, 28), { align: 4 })
    const cells = mask.to('float32').reshape([20, 7, 4, 7, 4]).mean([2, 4])
    expect(cells.eq(0).logicalOr(cells.eq(1)).all().item()).toBe(true)
  })
})
