import { describe, expect, it } from 'vitest'
import { drawMixing, mixImages, mixTargets, type Mixing, randomFor } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { distance, reference, scripted, tensorOf } from './augmentation.js'

const SIZE = { height: 32, width: 32 }
const images = tensorOf('mixing.images')
const labels = tensorOf('mixing.labels')
const CLASSES = 5

describe('mixed batches', () => {
  it.each(reference.mixing.map((entry, i) => [i, JSON.stringify(entry.mixing).slice(0, 60), entry] as const))(
    "equal timm's (%i: %s)", (i, _, { mixing, smoothing }) => {
      const before = images.clone()
      expect(distance(mixImages(images, mixing), tensorOf(`mixing.${i}.images`))).toBeLessThan(1e-6)
      const targets = mixTargets(labels, CLASSES, mixing, smoothing)
      expect(distance(targets, tensorOf(`mixing.${i}.targets`))).toBeLessThan(1e-6)
      expect(distance(targets.sum(1), torch.ones([6]))).toBeLessThan(1e-6)
      expect(distance(images, before)).toBe(0)
    }
  )

  it('a batch mixed image by image with one mixing is the batch mixed with it', () => {
    for (const { mixing } of reference.mixing.filter((entry) => !Array.isArray(entry.mixing))) {
      const each = Array<Mixing | null>(6).fill(mixing as Mixing | null)
      expect(distance(mixImages(images, each), mixImages(images, mixing))).toBeLessThan(1e-6)
      expect(distance(mixTargets(labels, CLASSES, each, 0.1), mixTargets(labels, CLASSES, mixing, 0.1))).toBeLessThan(1e-6)
    }
  })

  it('in an odd batch the middle one is its own partner', () => {
    const odd = images.narrow(0, 0, 5)
    const cut: Mixing = { kind: 'cutmix', lambda: 0.5, box: { left: 1, top: 2, width: 3, height: 4 } }
    for (const mixing of [{ kind: 'mixup', lambda: 0.3 } as const, cut]) {
      expect(distance(mixImages(odd, mixing).select(0, 2), odd.select(0, 2))).toBeLessThan(1e-6)
      expect(distance(mixImages(odd, mixing), odd)).toBeGreaterThan(0.1)
    }
  })

  it('leave nothing behind, and unmixed ones are the images themselves', () => {
    const { tensors } = torch.memory()
    const list: (Mixing | null)[] = [{ kind: 'mixup', lambda: 0.3 }, null, null, null, null, null]
    for (const mixing of [list, list[0]!]) {
      mixImages(images, mixing).dispose()
      mixTargets(labels, CLASSES, mixing, 0.1).dispose()
    }
    expect(mixImages(images, null)).toBe(images)
    expect(mixImages(images, Array<null>(6).fill(null))).toBe(images)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('refuse what does not fit', () => {
    expect(() => mixImages(images, [null])).toThrow(/6 elements, one for each image, for mixing/)
    expect(() => mixTargets(labels, CLASSES, [null])).toThrow(/one for each image, for mixing/)
    expect(() => mixTargets(labels, CLASSES, null, 1.5)).toThrow(/from 0 to 1 for labelSmoothing/)
    expect(() => mixTargets(labels, 0, null)).toThrow(/at least 1 for classes/)
  })
})

describe('drawMixing', () => {
  const DRAWS = 20_000
  const draws = (settings: object) => Array.from({ length: DRAWS }, (_, i) => drawMixing(randomFor(7, i, 'mixing'), SIZE, settings))
  const share = <T>(list: readonly T[], keep: (element: T) => boolean) => list.filter(keep).length / list.length

  it.each(Object.entries(reference.betaQuantiles))("mixup's lambda is distributed as scipy's Beta(%s)", (name, quantiles) => {
    const alpha = Number(name)
    const lambdas = draws({ mixup: alpha }).map((mixing) => mixing!.lambda).sort((a, b) => a - b)
    const mean = lambdas.reduce((sum, value) => sum + value, 0) / DRAWS
    const variance = lambdas.reduce((sum, value) => sum + (value - mean) ** 2, 0) / DRAWS
    expect(Math.abs(mean - 0.5)).toBeLessThan(5 * Math.sqrt(0.25 / DRAWS))
    expect(Math.abs(variance * 4 * (2 * alpha + 1) - 1)).toBeLessThan(0.05)
    // Kolmogorov-Smirnov at the quantiles: a distance beyond 1.95 / sqrt(n) happens by chance once in a thousand.
    let below = 0
    const distances = quantiles.map((quantile, i) => {
      while (below < DRAWS && lambdas[below]! <= quantile) below++
      return Math.abs(below / DRAWS - reference.betaProbabilities[i]!)
    })
    expect(Math.max(...distances)).toBeLessThan(1.95 / Math.sqrt(DRAWS))
  })

  it.each(reference.boxes.map((entry, i) => [i, entry] as const))("cuts timm's box for timm's centre and lambda (%i)", (_, entry) => {
    // Beta(1, 1) of two exponential variables: x / (x + y) with x = -ln(1 - u).
    const [x, y] = [entry.given, 1 - entry.given].map((value) => 1 - Math.exp(-value)) as [number, number]
    const received = drawMixing(scripted([0, x, y, ...entry.centre]), entry, { cutmix: 1 })
    expect(received).toEqual({ kind: 'cutmix', lambda: expect.closeTo(entry.lambda, 12) as number, box: entry.box })
  })

  it('mixes as often as it is told, and switches between the two', () => {
    const both = draws({ mixup: 0.8, cutmix: 1, probability: 0.6, switchProbability: 0.25 })
    expect(share(both, (mixing) => mixing !== null)).toBeCloseTo(0.6, 1.7)
    expect(share(both.filter((mixing) => mixing !== null), ({ kind }) => kind === 'cutmix')).toBeCloseTo(0.25, 1.7)
    expect(share(draws({ mixup: 1 }), (mixing) => mixing?.kind === 'mixup')).toBe(1)
    expect(share(draws({ cutmix: 1 }), (mixing) => mixing?.kind === 'cutmix')).toBe(1)
    expect(share(draws({}), (mixing) => mixing === null)).toBe(1)
  })

  it("CutMix's lambda is the part that is left, and half of it on average at alpha 1 but for what is cut off", () => {
    const all = draws({ cutmix: 1 })
    for (const mixing of all) {
      if (mixing?.kind !== 'cutmix') throw new Error('no CutMix')
      const { left, top, width, height } = mixing.box
      expect(left >= 0 && top >= 0 && left + width <= 32 && top + height <= 32).toBe(true)
      expect(mixing.lambda).toBeCloseTo(1 - (width * height) / 1024, 12)
    }
    const mean = all.reduce((sum, mixing) => sum + mixing!.lambda, 0) / DRAWS
    expect(mean).toBeGreaterThan(0.6)
    expect(mean).toBeLessThan(0.75)
  })

  it('refuses settings that are none', () => {
    const draw = (settings: object) => () => drawMixing(randomFor(1), SIZE, settings)
    expect(draw({ mixup: -1 })).toThrow(/at least 0 for mixup/)
    expect(draw({ cutmix: NaN })).toThrow(/at least 0 for cutmix/)
    expect(draw({ mixup: 1, probability: 2 })).toThrow(/from 0 to 1 for probability of mixing/)
    expect(draw({ mixup: 1, switchProbability: -1 })).toThrow(/for switchProbability of mixing/)
    expect(() => drawMixing(randomFor(1), { height: 0, width: 3 }, { mixup: 1 })).toThrow(/at least 1 pixel/)
  })
})
