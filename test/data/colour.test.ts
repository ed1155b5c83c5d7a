import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import {
  adjustBrightness, adjustContrast, adjustHue, adjustSaturation, applyColour, denormalise, finishViews, gaussianBlur, normalise,
  resampleCrops, solarize, type Rectangle
} from '../../src/data/index.js'
import { loadSafetensors } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'

torch.setNumThreads(1)

// What torchvision computes, see make-torchvision.py beside it.
const { tensors, metadata } = await loadSafetensors(join(import.meta.dirname, '../fixtures/torchvision.safetensors'))

interface Parameters {
  readonly brightness: number[]
  readonly contrast: number[]
  readonly saturation: number[]
  readonly hue: number[]
  readonly sigma: number[]
  readonly mean: number[]
  readonly std: number[]
}

const parameters = JSON.parse(metadata['parameters']!) as Parameters
const reference = (name: string): Tensor => {
  const tensor = tensors[name]
  if (!tensor) throw new Error(`the fixture has no ${name}`)
  return tensor
}
const input = (name: string): Tensor => reference(`${name}.images`).to('float32').div(255)

function distance(a: Tensor, b: Tensor): number {
  expect(a.shape).toEqual(b.shape)
  expect(a.isfinite().all().item()).toBe(true)
  return a.sub(b).abs().max().item()
}

const sets = ['rgb', 'grey', 'tiny', 'tinyGrey'] as const

describe.each(sets)('torchvision gives the same colours (%s)', (set) => {
  const images = input(set)
  const channels = images.shape[1]!
  const { brightness, contrast, saturation, hue, sigma, mean, std } = parameters
  const cases: readonly [name: string, result: () => Tensor, tolerance: number][] = [
    ['brightness', () => adjustBrightness(images, brightness), 1e-6],
    ['contrast', () => adjustContrast(images, contrast), 1e-6],
    ['saturation', () => adjustSaturation(images, saturation), 1e-6],
    ['hue', () => adjustHue(images, hue), 2e-6],
    ['blur', () => gaussianBlur(images, sigma), 2e-6],
    ['normalise', () => normalise(images, mean.slice(0, channels), std.slice(0, channels)), 2e-6]
  ]
  it.each(cases)('%s', (name, result, tolerance) => {
    const wanted = reference(`${set}.${name}`)
    // What leaves the images as they are would prove nothing.
    if (channels === 3 || !['saturation', 'hue'].includes(name)) expect(distance(images, wanted)).toBeGreaterThan(0.1)
    expect(distance(result(), wanted)).toBeLessThan(tolerance)
  })
})

describe('colours', () => {
  it('are a matter of each image alone: a batch equals its images one by one', () => {
    const images = input('rgb')
    const { brightness, contrast, saturation, hue, sigma } = parameters
    const change = (batch: Tensor, rows: readonly number[]) => {
      const of = (values: readonly number[]) => rows.map((row) => values[row]!)
      const jittered = adjustSaturation(adjustContrast(adjustBrightness(batch, of(brightness)), of(contrast)), of(saturation))
      return gaussianBlur(adjustHue(jittered, of(hue)), of(sigma))
    }
    const together = change(images, [0, 1, 2])
    for (const row of [0, 1, 2]) expect(distance(change(images.narrow(0, row, 1), [row]), together.narrow(0, row, 1))).toBeLessThan(1e-6)
  })

  it('stay within 0 and 1, also at strong changes', () => {
    const images = input('rgb')
    const strong = [3, 3, 3]
    for (const result of [adjustBrightness(images, strong), adjustContrast(images, strong), adjustSaturation(images, strong)]) {
      expect(result.min().item()).toBeGreaterThanOrEqual(0)
      expect(result.max().item()).toBe(1)
    }
  })

  it('grey pixels have no hue to turn, and a whole turn changes nothing', () => {
    const flat = torch.full([1, 3, 2, 2], 0.4)
    expect(distance(adjustHue(flat, [0.3]), flat)).toBeLessThan(1e-6)
    expect(distance(adjustHue(input('rgb'), [1, -1, 0]), input('rgb'))).toBeLessThan(2e-6)
  })

  it('normalise and denormalise are inverse, and refuse another number of channels', () => {
    const { mean, std } = parameters
    const images = input('rgb')
    expect(distance(denormalise(normalise(images, mean, std), mean, std), images)).toBeLessThan(1e-6)
    expect(() => normalise(images, [0.5], [0.5])).toThrow(/3 values for mean and std, received '1 and 1'/)
    expect(() => denormalise(images, [0.5], [0.5])).toThrow(/3 values for mean and std/)
  })

  it('a blur leaves flat images flat and keeps the brightness, down to one pixel', () => {
    for (const [height, width] of [[1, 1], [1, 9], [2, 3], [40, 9]] as const) {
      const flat = torch.full([2, 3, height, width], 0.6)
      expect(distance(gaussianBlur(flat, [0.1, 7]), flat)).toBeLessThan(1e-6)
    }
  })
})

describe('applyColour', () => {
  const images = input('rgb')
  const jitter = { brightness: 1.1, contrast: 0.9, saturation: 1.1, hue: 0.01 }

  it('changes the images that are to be changed, in the order brightness, contrast, saturation, hue, blur, solarizing', () => {
    const result = applyColour(images, [{ jitter, blur: null }, { jitter: null, blur: null }, { jitter: null, blur: 1.5 }])
    const row = (batch: Tensor, i: number) => batch.narrow(0, i, 1)
    const first = adjustBrightness(row(images, 0), [jitter.brightness])
    const wanted = adjustHue(adjustSaturation(adjustContrast(first, [jitter.contrast]), [jitter.saturation]), [jitter.hue])
    expect(distance(row(result, 0), wanted)).toBeLessThan(1e-6)
    expect(distance(row(result, 1), row(images, 1))).toBe(0)
    expect(distance(row(result, 2), gaussianBlur(row(images, 2), [1.5]))).toBeLessThan(1e-6)
    const both = applyColour(row(images, 0), [{ jitter, blur: 2 }])
    expect(distance(both, gaussianBlur(wanted, [2]))).toBeLessThan(1e-6)
    const all = applyColour(images, [{ jitter, blur: 2, solarize: 0.5 }, { jitter: null, blur: null, solarize: 0.2 }, { jitter: null, blur: null }])
    expect(distance(row(all, 0), solarize(gaussianBlur(wanted, [2]), [0.5]))).toBeLessThan(1e-6)
    expect(distance(row(all, 1), solarize(row(images, 1), [0.2]))).toBe(0)
    expect(distance(row(all, 2), row(images, 2))).toBe(0)
  })

  it('leaves its input alone and nothing behind', () => {
    const before = images.clone()
    const none = { jitter: null, blur: null }
    expect(distance(applyColour(images, [none, none, none]), images)).toBe(0)
    expect(images.isLive).toBe(true)
    const { tensors: live } = torch.memory()
    finishViews(images, [{ jitter, blur: 2 }, none, none], { mean: [0, 0, 0], std: [1, 1, 1] }).dispose()
    applyColour(images, [{ jitter, blur: 2 }, none, none]).dispose()
    expect(torch.memory().tensors).toBeLessThanOrEqual(live)
    expect(distance(images, before)).toBe(0)
  })

  it('finishViews clamps what resizing overshot before it normalises', () => {
    const none = { jitter: null, blur: null }
    const result = finishViews(torch.tensor([-0.2, 0.5, 1.3]).reshape([1, 1, 1, 3]), [none], { mean: [0.5], std: [0.25] })
    expect(Array.from(result.toTypedArray(), Number)).toEqual([-2, 0, 2])
  })
})

describe('resampleCrops', () => {
  const crops = JSON.parse(metadata['crops']!) as [number, number, number, number, boolean][]
  const rectangles: Rectangle[] = crops.map(([left, top, width, height]) => ({ left, top, width, height }))
  const flips = crops.map((crop) => crop[4])
  const sizes = JSON.parse(metadata['sizes']!) as [number, number][]

  describe.each(['rgb', 'grey'])('equals crop, antialiased bicubic resize and flip of torchvision (%s)', (set) => {
    it.each(sizes.map((size, number) => [...size, number] as const))('to %i x %i', (height, width, number) => {
      const images = input(`resample.${set}`)
      const result = resampleCrops(images, rectangles, flips, { height, width })
      expect(distance(result, reference(`resample.${set}.${number}.float`))).toBeLessThan(1e-5)
      // torchvision resizes bytes in whole numbers, which may end a step apart.
      const bytes = result.clamp({ min: 0, max: 1 }).mul(255).round()
      const steps = bytes.sub(reference(`resample.${set}.${number}.uint8`).to('float32')).abs()
      expect(steps.max().item()).toBeLessThanOrEqual(1)
      expect(steps.mean().item()).toBeLessThan(0.1)
    })
  })

  it('gives the pixels themselves where nothing is resized, mirrored or not', () => {
    const images = input('resample.rgb').narrow(0, 0, 2)
    const crop = { left: 5, top: 3, width: 16, height: 9 }
    const part = images.narrow(2, 3, 9).narrow(3, 5, 16)
    const [plain, mirrored] = resampleCrops(images, [crop, crop], [false, true], crop).unbind() as [Tensor, Tensor]
    expect(distance(plain, part.select(0, 0))).toBeLessThan(1e-6)
    expect(distance(mirrored, part.select(0, 1).flip([2]))).toBeLessThan(1e-6)
  })

  it('does not lose precision far from the corner of a large image', () => {
    const strip = torch.arange(6000, { dtype: 'float32' }).mul(0.7).sin().reshape([1, 1, 1, 6000])
    const crop = (left: number) => ({ left, top: 0, width: 97, height: 1 })
    const far = resampleCrops(strip, [crop(5903)], [false], { height: 1, width: 31 })
    const near = resampleCrops(strip.narrow(3, 5903, 97), [crop(0)], [false], { height: 1, width: 31 })
    expect(distance(far, near)).toBeLessThan(1e-6)
  })
})
