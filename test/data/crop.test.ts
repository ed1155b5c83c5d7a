import { describe, expect, it } from 'vitest'
import { centreCrop, type Rectangle, randomFor, randomResizedCrop, type RandomResizedCropOptions } from '../../src/data/index.js'
import { InputError } from '../../src/errors.js'

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
const variance = (values: readonly number[]): number => mean(values.map((value) => value * value)) - mean(values) ** 2

/** Numbers in turn; more than these is an error. */
function script(...numbers: number[]): () => number {
  return () => {
    if (numbers.length === 0) throw new Error('One number too many was drawn')
    return numbers.shift()!
  }
}

function crops(count: number, width: number, height: number, options?: RandomResizedCropOptions): Rectangle[] {
  return Array.from({ length: count }, (_, index) => randomResizedCrop(randomFor(1, index).uniform, width, height, options))
}

describe('randomResizedCrop', () => {
  it('draws area, aspect, top and left in this order', () => {
    // Area 0.25 + 0.5 * (0.81 - 0.25) = 0.53 of 20,000; aspect exp(0) = 1 in the middle of the logarithms: a side of 102.96.
    expect(randomResizedCrop(script(0.5, 0.5, 0.99, 0), 200, 100, { scale: [0.05, 0.41], ratio: [1 / 2, 2] })).toEqual({
      width: 68, height: 68, top: 32, left: 0
    })
    // The highest aspect: width = sqrt(4600 * 2), height = sqrt(4600 / 2).
    expect(randomResizedCrop(script(0.5, 1 - 2 ** -53, 0, 0.5), 200, 100, { scale: [0.05, 0.41], ratio: [1 / 2, 2] })).toEqual({
      width: 96, height: 48, top: 0, left: 52
    })
  })

  it('tries again what does not fit, ten times', () => {
    const misfit = [1, 0.5]
    const nine = Array.from({ length: 9 }, () => misfit).flat()
    // A square of the whole area does not fit into 200 x 100; the tenth try does.
    expect(randomResizedCrop(script(...nine, 0, 0.5, 0, 0), 200, 100)).toEqual({ width: 32, height: 32, top: 0, left: 0 })
    expect(randomResizedCrop(script(...nine, ...misfit), 200, 100)).toEqual({ width: 133, height: 100, top: 0, left: 33 })
    expect(randomResizedCrop(script(...nine, ...misfit), 100, 201)).toEqual({ width: 100, height: 133, top: 34, left: 0 })
    expect(randomResizedCrop(script(...Array.from({ length: 20 }, () => 0)), 101, 100, { scale: [2, 2] })).toEqual({
      width: 101, height: 100, top: 0, left: 0
    })
  })

  it('rounds halves to even, as Python does', () => {
    const options: RandomResizedCropOptions = { scale: [0.25, 0.25], ratio: [1, 1] }
    expect(randomResizedCrop(() => 0, 5, 5, options)).toMatchObject({ width: 2, height: 2 })
    expect(randomResizedCrop(() => 0, 7, 7, options)).toMatchObject({ width: 4, height: 4 })
  })

  it('has the expected area, aspect and place where every try fits', () => {
    const [low, high] = [0.05, 0.5]
    const all = crops(20_000, 1000, 1000, { scale: [low, high] })
    const areas = all.map(({ width, height }) => (width * height) / 1e6)
    expect(Math.abs(mean(areas) - (low + high) / 2)).toBeLessThan(0.004)
    expect(Math.abs(variance(areas) / ((high - low) ** 2 / 12) - 1)).toBeLessThan(0.04)
    expect(Math.min(...areas)).toBeLessThan(0.051)
    expect(Math.max(...areas)).toBeGreaterThan(0.499)
    const aspects = all.map(({ width, height }) => Math.log(width / height))
    expect(Math.abs(mean(aspects))).toBeLessThan(0.005)
    expect(Math.abs(variance(aspects) / ((2 * Math.log(4 / 3)) ** 2 / 12) - 1)).toBeLessThan(0.04)
    // The place is uniform over what is left over, from the first to the last pixel.
    const lefts = all.map(({ left, width }) => left / (1000 - width))
    const tops = all.map(({ top, height }) => top / (1000 - height))
    for (const places of [lefts, tops]) {
      expect(Math.abs(mean(places) - 0.5)).toBeLessThan(0.01)
      expect(Math.abs(variance(places) * 12 - 1)).toBeLessThan(0.04)
      expect(Math.min(...places)).toBe(0)
      expect(Math.max(...places)).toBe(1)
    }
  })

  it('has the expected mean area with the default scale, whose large crops may not fit', () => {
    // A try of area s and log-aspect u on a square fits if s <= exp(-|u|). With |u| uniform in [0, L], L = ln(4/3):
    // P(fits) = (E[exp(-u)] - 0.05) / 0.95, E[s; fits] = (E[exp(-2u)] - 0.05^2) / 1.9.
    const limit = Math.log(4 / 3)
    const first = (1 - Math.exp(-limit)) / limit
    const second = (1 - Math.exp(-2 * limit)) / (2 * limit)
    const expectedArea = (second - 0.05 ** 2) / 1.9 / ((first - 0.05) / 0.95)
    const areas = crops(20_000, 2000, 2000).map(({ width, height }) => (width * height) / 4e6)
    // Five standard errors.
    expect(Math.abs(mean(areas) - expectedArea)).toBeLessThan(0.009)
  })

  it('stays inside images of every shape', () => {
    for (const [width, height] of [[1, 1], [1, 500], [500, 1], [2, 3], [28, 28], [640, 480], [3, 1000]] as const) {
      for (const crop of crops(300, width, height)) {
        expect(Object.values(crop).every(Number.isInteger)).toBe(true)
        expect(Math.min(crop.left, crop.top)).toBeGreaterThanOrEqual(0)
        expect(Math.min(crop.width, crop.height)).toBeGreaterThanOrEqual(1)
        expect(crop.left + crop.width).toBeLessThanOrEqual(width)
        expect(crop.top + crop.height).toBeLessThanOrEqual(height)
      }
    }
    expect(randomResizedCrop(() => 0.5, 1, 1, { ratio: [4, 5] })).toEqual({ left: 0, top: 0, width: 1, height: 1 })
  })

  it('refuses impossible arguments', () => {
    const draw = (width: number, height: number, options?: RandomResizedCropOptions) => () =>
      randomResizedCrop(() => 0, width, height, options)
    expect(draw(0, 5)).toThrow(/at least 1 pixel.*height: 5, width: 0/)
    expect(draw(5, 2.5)).toThrow(InputError)
    expect(draw(5, 5, { scale: [0, 1] })).toThrow(/for scale, received \[ 0, 1 \]/)
    expect(draw(5, 5, { ratio: [2, 1] })).toThrow(/for ratio, received \[ 2, 1 \]/)
    expect(draw(5, 5, { ratio: [NaN, 1] })).toThrow(InputError)
  })
})

describe('centreCrop', () => {
  it('follows torchvision', () => {
    const crop = { height: 224, width: 224 }
    expect(centreCrop(500, 375, 256, crop)).toEqual({ resized: { width: 341, height: 256 }, crop: { left: 58, top: 16, ...crop } })
    expect(centreCrop(375, 500, 256, crop)).toEqual({ resized: { width: 256, height: 341 }, crop: { left: 16, top: 58, ...crop } })
    expect(centreCrop(10, 10, 224, crop)).toEqual({ resized: crop, crop: { left: 0, top: 0, ...crop } })
    // (5 - 2) / 2 = 1.5 and (3 - 2) / 2 = 0.5: halves to even.
    expect(centreCrop(5, 3, 3, { height: 2, width: 2 }).crop).toEqual({ left: 2, top: 0, height: 2, width: 2 })
  })

  it('refuses a crop that the resized image may not cover', () => {
    expect(() => centreCrop(500, 375, 200, { height: 224, width: 192 })).toThrow(/at least the crop's 224 pixels for resize, received 200/)
    expect(() => centreCrop(500, 375, 256, { height: 0, width: 192 })).toThrow(/for crop/)
    expect(() => centreCrop(500, 375, 256.5, { height: 9, width: 9 })).toThrow(InputError)
  })
})
