import { describe, expect, it } from 'vitest'
import { applyErasing, drawErasing, type Erasing, randomFor } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { distance, reference, scripted } from './augmentation.js'

describe('drawErasing', () => {
  const entries = reference.erasing.map((entry, i) => [i, entry] as const)
  it.each(entries)("erases timm's rectangle with timm's random numbers (%i)", (_, entry) => {
    const { height, width, wide, drawn, rectangle } = entry
    const settings = { probability: 0.7, mode: 'const' as const, ...(wide && { area: [0.5, 1.4] as const, aspect: [0.2, 9] as const }) }
    expect(drawErasing(scripted(drawn), height, width, settings)).toEqual(rectangle && { ...rectangle, noise: null })
  })

  it('the reference erases, does not, and gives up', () => {
    const found = (keep: (entry: (typeof reference.erasing)[number]) => boolean) => reference.erasing.filter(keep).length
    expect(found(({ rectangle }) => rectangle !== null)).toBeGreaterThan(20)
    expect(found(({ drawn }) => drawn.length === 1)).toBeGreaterThan(5)
    expect(found(({ drawn, rectangle }) => drawn.length > 5 && rectangle !== null)).toBeGreaterThan(3)
  })

  it('erases a quarter of the images, 2 to 33 % of each, anywhere, with noise of its own', () => {
    const DRAWS = 20_000
    const all = Array.from({ length: DRAWS }, (_, i) => drawErasing(randomFor(1, i, 'erasing'), 200, 100))
    const erased = all.flatMap((erasing) => erasing ?? [])
    expect(erased.length / DRAWS).toBeCloseTo(0.25, 1.9)
    const areas = erased.map(({ width, height }) => (width * height) / 20_000)
    expect(Math.min(...areas)).toBeGreaterThan(0.018)
    expect(Math.max(...areas)).toBeLessThan(0.345)
    for (const { left, top, width, height } of erased) {
      expect(left >= 0 && top >= 0 && left + width <= 100 && top + height <= 200).toBe(true)
      expect(height / width).toBeGreaterThan(0.27)
      expect(height / width).toBeLessThan(3.7)
    }
    expect(new Set(erased.map(({ noise }) => noise)).size).toBeGreaterThan(0.99 * erased.length)
    expect(erased.every(({ noise }) => noise !== null)).toBe(true)
  })

  it('refuses settings that are none', () => {
    const draw = (settings: object) => () => drawErasing(randomFor(1), 10, 10, settings)
    expect(draw({ probability: 1.1 })).toThrow(/from 0 to 1 for probability of erasing/)
    expect(draw({ area: [0, 1] })).toThrow(/for area of erasing/)
    expect(draw({ aspect: [3, 0.3] })).toThrow(/for aspect of erasing/)
    expect(draw({ mode: 'rand' })).toThrow(/'pixel' or 'const' for mode of erasing/)
    expect(() => drawErasing(randomFor(1), 0, 10)).toThrow(/at least 1 pixel/)
  })
})

describe('applyErasing', () => {
  const images = torch.randn([4, 3, 40, 50]).add(5)
  const area = { left: 4, top: 7, width: 30, height: 20 }
  const inside = (batch: torch.Tensor, row: number) => batch.select(0, row).narrow(1, 7, 20).narrow(2, 4, 30)
  const erasings: (Erasing | null)[] = [{ ...area, noise: 1 }, null, { ...area, noise: null }, { ...area, noise: 1 }]

  it('puts noise of mean 0 and deviation 1 or zeros into the rectangle, and leaves all else', () => {
    const result = applyErasing(images, erasings)
    expect(distance(result.select(0, 1), images.select(0, 1))).toBe(0)
    expect(inside(result, 2).abs().max().item()).toBe(0)
    expect(Math.abs(inside(result, 0).mean().item())).toBeLessThan(0.1)
    expect(inside(result, 0).std().item()).toBeCloseTo(1, 1)
    const changed = result.ne(images).sum([1, 2, 3])
    expect(Array.from(changed.toTypedArray(), Number)).toEqual([1800, 0, 1800, 1800])
  })

  it('the noise depends on its seed alone', () => {
    torch.manualSeed(1)
    const first = applyErasing(images, erasings)
    torch.manualSeed(2)
    const second = applyErasing(images.mul(2), erasings)
    expect(distance(inside(first, 0), inside(second, 3))).toBe(0)
    const other = applyErasing(images, erasings.map((erasing) => erasing && { ...erasing, noise: 2 ** 47 + 2 }))
    expect(distance(inside(first, 0), inside(other, 0))).toBeGreaterThan(1)
    const state = torch.getRngState()
    applyErasing(images, erasings)
    expect(torch.getRngState()).toEqual(state)
  })

  it('leaves its input as it was and nothing behind', () => {
    const before = images.clone()
    const { tensors } = torch.memory()
    applyErasing(images, erasings).dispose()
    expect(applyErasing(images, [null, null, null, null])).toBe(images)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(distance(images, before)).toBe(0)
    expect(() => applyErasing(images, [null])).toThrow(/one for each image, for erasings/)
  })
})
