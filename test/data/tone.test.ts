import { describe, expect, it } from 'vitest'
import { adjustSharpness, autocontrast, equalize, posterize, solarize } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { casesOf, distance, pair, tensorOf, unit } from './augmentation.js'

const functions: Record<string, (images: Tensor, parameters: never) => Tensor> = {
  sharpness: adjustSharpness, solarize, posterize, autocontrast, equalize
}

// Values on steps of a 255th come out as the very step. The others are rounded differently in their last bits.
const tolerance: Record<string, number> = { sharpness: 1e-6, solarize: 1e-7, posterize: 1e-7, autocontrast: 2e-6, equalize: 1e-7 }

describe.each(Object.keys(functions))('%s', (name) => {
  const apply = functions[name]!
  const cases = casesOf(name)

  it.each(cases.map((entry) => [entry.set, entry.parameters, entry] as const))("equals torchvision's (%s, %j)", (_, parameters, entry) => {
    const [images, wanted] = pair(entry)
    expect(distance(apply(images, parameters as never), wanted)).toBeLessThan(tolerance[name]!)
  })

  it('is seen to do something by the reference, in at least two sets', () => {
    const moved = new Set(cases.filter((entry) => distance(...pair(entry)) > 0.05).map(({ set }) => set))
    expect(moved.size).toBeGreaterThanOrEqual(2)
  })

  it('is a matter of each image alone, leaves its input as it was and nothing behind', () => {
    const [images] = pair(cases[0]!)
    const parameters = cases[0]!.parameters
    const before = images.clone()
    const { tensors } = torch.memory()
    const together = apply(images, parameters as never)
    const alone = torch.scope(() =>
      torch.cat([0, 1, 2, 3].map((row) => apply(images.narrow(0, row, 1), [parameters[row]] as never)))
    )
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors + 2)
    expect(distance(together, alone)).toBeLessThan(1e-6)
    expect(distance(images, before)).toBe(0)
  })
})

describe('what bytes are made of', () => {
  // Values between the steps, as resizing leaves them.
  const between = unit(tensorOf('rgb.images')).add(0.4 / 255)

  it('posterize and equalize round to steps of a 255th', () => {
    const images = unit(tensorOf('rgb.images'))
    expect(distance(posterize(between, [8, 8, 8, 8]), images.add(0.4 / 255).clamp({ max: 1 }).mul(255).round().div(255))).toBe(0)
    expect(distance(posterize(between.clamp({ max: 1 }), [2, 3, 4, 5]), posterize(images, [2, 3, 4, 5]))).toBe(0)
    expect(distance(equalize(between.clamp({ max: 1 })), equalize(images))).toBe(0)
  })

  it('every byte, posterized to every number of bits, is the byte with its lower bits gone', () => {
    const bytes = torch.arange(256, { dtype: 'float32' }).div(255).reshape([1, 1, 16, 16])
    for (let bits = 0; bits <= 8; bits++) {
      const kept = Array.from(posterize(bytes, [bits]).mul(255).toTypedArray(), Number)
      expect(kept.map((value) => Math.round(value))).toEqual(Array.from({ length: 256 }, (_, i) => (i >> (8 - bits)) << (8 - bits)))
    }
  })

  it('equalize makes an even spread of an uneven one', () => {
    const dark = torch.arange(4096, { dtype: 'float32' }).div(4095).pow(3).reshape([1, 1, 64, 64])
    expect(dark.mean().item()).toBeLessThan(0.3)
    expect(equalize(dark).mean().item()).toBeCloseTo(0.5, 1)
  })

  it('flat images stay as they are', () => {
    const flat = torch.full([2, 3, 40, 40], 102 / 255)
    for (const result of [equalize(flat), autocontrast(flat), adjustSharpness(flat, [0, 5])]) {
      expect(distance(result, flat)).toBeLessThan(1e-6)
    }
  })
})

describe('wrong parameters', () => {
  const images = unit(tensorOf('rgb.images'))

  it('are refused before any work', () => {
    expect(() => posterize(images, [1, 2, 3, 9])).toThrow(/integers from 0 to 8 for bits/)
    expect(() => posterize(images, [1, 2, 3, 1.5])).toThrow(/integers from 0 to 8 for bits/)
    expect(() => adjustSharpness(images, [1, 2, 3, -1])).toThrow(/at least 0 for factors/)
    expect(() => adjustSharpness(images, [1, 2, 3, NaN])).toThrow(/at least 0 for factors/)
    expect(() => solarize(images, [0.5])).toThrow(/4 elements, one for each image, for the parameters, received '1'/)
    expect(() => adjustSharpness(images, [1, 2])).toThrow(/one for each image/)
  })
})
