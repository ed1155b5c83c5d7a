import { describe, expect, it } from 'vitest'
import { affine, type AffineMap, rotate, type WarpOptions } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { type Case, casesOf, differing, distance, pair, reference, tensorOf, unit } from './augmentation.js'

function optionsOf({ mode, filled }: Case, channels: number): WarpOptions {
  return { interpolation: mode!, ...(filled && { fill: reference.fill[channels]! }) }
}

function expectEqual(entry: Case, apply: (options: WarpOptions) => torch.Tensor): void {
  const [images, wanted] = pair(entry)
  const result = apply(optionsOf(entry, images.shape[1]!))
  // Flat images and identities aside, the reference moves pixels.
  expect(distance(images, wanted)).toBeGreaterThan(0.2)
  if (entry.mode === 'bilinear') return expect(distance(result, wanted)).toBeLessThan(1e-5)
  // Where a place lies halfway between two pixels, the last bit of a float32 chooses.
  expect(differing(result, wanted)).toBeLessThan(0.005)
}

const label = (entry: Case) => [entry.set, entry.mode, entry.filled ? 'filled' : 'zeros', entry.result, entry] as const

describe('affine', () => {
  it.each(casesOf('affine').map(label))("equals torchvision's (%s, %s, %s, %s)", (_set, _mode, _fill, _result, entry) => {
    const [images] = pair(entry)
    const maps = (entry.parameters as AffineMap[]).map((map) => ({ ...map, ...(entry.centre && { centre: entry.centre }) }))
    expectEqual(entry, (options) => affine(images, maps, options))
  })

  it('moves by whole pixels exactly, and out of the image', () => {
    const images = unit(tensorOf('rgb.images'))
    for (const interpolation of ['bilinear', 'nearest'] as const) {
      const maps = ([[2, 3], [-2, -3], [18, 0], [0, -13]] as const).map((translate) => ({ translate }))
      const moved = affine(images, maps, { interpolation, fill: 0.5 })
      const part = (batch: torch.Tensor, row: number, top: number, left: number) =>
        batch.select(0, row).narrow(1, top, 10).narrow(2, left, 16)
      const tolerance = interpolation === 'nearest' ? Number.MIN_VALUE : 1e-5
      expect(distance(part(moved, 0, 3, 2), part(images, 0, 0, 0))).toBeLessThan(tolerance)
      expect(distance(part(moved, 1, 0, 0), part(images, 1, 3, 2))).toBeLessThan(tolerance)
      expect(distance(moved.select(0, 0).narrow(1, 0, 3), torch.full([3, 3, 18], 0.5))).toBe(0)
      expect(distance(moved.narrow(0, 2, 2), torch.full([2, 3, 13, 18], 0.5))).toBeLessThan(1e-5)
    }
  })

  it('does nothing without a map, about any centre', () => {
    const images = unit(tensorOf('rgb.images'))
    expect(distance(affine(images, [{}, { centre: [3, 4] }, { angle: 360, centre: [0, 0] }, { scale: 1 }]), images)).toBeLessThan(2e-5)
  })

  it('leaves the centre where it is', () => {
    const dot = torch.zeros([1, 1, 9, 9])
    dot.narrow(2, 2, 1).narrow(3, 6, 1).fill_(1)
    // The middle of the pixel in row 2, column 6.
    for (const map of [{ angle: 33 }, { scale: 1.7 }, { shear: [20, 10] as const }]) {
      expect(affine(dot, [{ ...map, centre: [6.5, 2.5] }]).select(2, 2).select(2, 6).item()).toBeCloseTo(1, 5)
      expect(affine(dot, [map]).select(2, 2).select(2, 6).item()).toBeLessThan(0.9)
    }
  })

  it('refuses what is no map', () => {
    const images = unit(tensorOf('grey.images'))
    const map = (bad: AffineMap) => () => affine(images, [bad, {}, {}, {}])
    expect(map({ scale: 0 })).toThrow(/the scale above 0 for a map/)
    expect(map({ scale: -1 })).toThrow(/the scale above 0 for a map/)
    expect(map({ angle: NaN })).toThrow(/finite numbers/)
    expect(map({ translate: [Infinity, 0] })).toThrow(/finite numbers/)
    expect(() => affine(images, [{}])).toThrow(/4 elements, one for each image, for maps, received '1'/)
    expect(() => affine(images, [{}, {}, {}, {}], { fill: [1, 2] })).toThrow(/1 values, one for each channel, for fill/)
    expect(() => affine(images, [{}, {}, {}, {}], { interpolation: 'bicubic' as 'nearest' })).toThrow(/'bilinear' or 'nearest'/)
  })
})

describe('rotate', () => {
  it.each(casesOf('rotate').map(label))("equals torchvision's (%s, %s, %s, %s)", (_set, _mode, _fill, _result, entry) => {
    const [images] = pair(entry)
    expectEqual(entry, (options) => rotate(images, entry.parameters as number[], options))
  })

  it('turns counter-clockwise', () => {
    const square = unit(tensorOf('rgb.images')).narrow(3, 0, 13)
    const turned = rotate(square, [90, 180, 270, -90])
    for (const [row, turns] of [1, 2, 3, 3].entries()) {
      expect(distance(turned.select(0, row), square.select(0, row).rot90({ k: turns, dims: [1, 2] }))).toBeLessThan(2e-5)
    }
  })

  it('leaves its input as it was and nothing behind', () => {
    const images = unit(tensorOf('rgb.images'))
    const before = images.clone()
    const { tensors } = torch.memory()
    rotate(images, [10, 20, 30, 40], { fill: [0.1, 0.2, 0.3] }).dispose()
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(distance(images, before)).toBe(0)
  })
})
