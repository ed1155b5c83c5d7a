import { describe, expect, it } from 'vitest'

import { randomFor } from '../../src/data/random.js'
import { drawGroupMask, type GroupMask } from '../../src/gmml/index.js'
import { InputError } from '../../src/torch/index.js'

const random = () => randomFor(1)

describe('drawGroupMask refuses', () => {
  it.each([
    [{ budget: 0 }, /above 0 and at most 1 for budget, received 0/],
    [{ budget: 1.01 }, /budget, received 1.01/],
    [{ budget: NaN }, /budget, received NaN/],
    [{ budget: '1' }, /budget, received '1'/],
    [{ align: 0 }, /integer of at least 1 for align, received 0/],
    [{ align: 1.5 }, /align, received 1.5/],
    [{ align: 29 }, /at most the image's side 28 for align, received 29/]
  ])('%o', (options, message) => {
    const { budget, align } = { budget: 0.75, align: 1, ...options }
    expect(() => drawGroupMask(random(), 28, 30, budget as number, align)).toThrow(InputError)
    expect(() => drawGroupMask(random(), 28, 30, budget as number, align)).toThrow(message)
  })
})

const share = (mask: GroupMask) => mask.covered.reduce((sum, pixel) => sum + pixel, 0) / mask.covered.length

/** Parts of the patches that are wholly covered and that are touched. */
function patches(mask: GroupMask, side: number, patch: number): readonly [whole: number, touched: number] {
  const cells = side / patch
  const counts = new Int32Array(cells * cells)
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) counts[Math.floor(y / patch) * cells + Math.floor(x / patch)]! += mask.covered[y * side + x]!
  }
  const part = (is: (count: number) => boolean) => counts.filter(is).length / counts.length
  return [part((count) => count === patch * patch), part((count) => count > 0)]
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
const deviation = (values: readonly number[]) => Math.sqrt(mean(values.map((value) => (value - mean(values)) ** 2)))

const DRAWS = 600

// Measured on 600 draws of the authors' procedure.
const table = [
  { side: 224, budget: 0.75, align: 1, patch: 16, masked: 0.631, sd: 0.072, whole: 0.35, touched: 0.861 },
  { side: 224, budget: 0.75, align: 16, patch: 16, masked: 0.647, sd: 0.071, whole: 0.647, touched: 0.647 },
  { side: 224, budget: 0.3, align: 1, patch: 16, masked: 0.314, sd: null, whole: 0.132, touched: 0.544 },
  { side: 224, budget: 0.3, align: 16, patch: 16, masked: 0.315, sd: null, whole: 0.315, touched: 0.315 },
  { side: 28, budget: 0.75, align: 1, patch: 4, masked: 0.637, sd: null, whole: 0.218, touched: 0.94 },
  { side: 28, budget: 0.75, align: 4, patch: 4, masked: 0.641, sd: null, whole: 0.641, touched: 0.641 }
]

describe(`statistics of ${DRAWS} masks`, () => {
  it.each(table)('of $side, budget $budget, alignment $align', ({ side, budget, align, patch, masked, sd, whole, touched }) => {
    const masks = Array.from({ length: DRAWS }, (_, i) => drawGroupMask(randomFor(77, i), side, side, budget, align))
    const shares = masks.map(share)
    const found = masks.map((mask) => patches(mask, side, patch))
    const measured = { masked: mean(shares), whole: mean(found.map(([part]) => part)), touched: mean(found.map(([, part]) => part)) }
    if (process.env['GMML_MEASURED']) console.log('measured', { side, budget, align }, measured, deviation(shares))
    expect(Math.abs(measured.masked - masked)).toBeLessThan(0.01)
    expect(Math.abs(measured.whole - whole)).toBeLessThan(0.01)
    expect(Math.abs(measured.touched - touched)).toBeLessThan(0.01)
    if (sd) expect(Math.abs(deviation(shares) - sd)).toBeLessThan(0.006)
    // Not less than was drawn, and more only by a part of the last rectangle.
    expect(Math.min(...shares)).toBeGreaterThanOrEqual(Math.min(0.5, budget))
    expect(Math.max(...shares)).toBeLessThan(budget + 0.09)
  })

  it('cover the border less than the centre, as the published ones do', () => {
    const rows = new Float64Array(14)
    for (let i = 0; i < DRAWS; i++) {
      const { covered } = drawGroupMask(randomFor(78, i), 224, 224, 0.75)
      for (let place = 0; place < covered.length; place++) rows[Math.floor(place / 224 / 16)]! += covered[place]! / (224 * 16 * DRAWS)
    }
    // By rows of patches.
    expect(Math.abs(rows[0]! - 0.24)).toBeLessThan(0.02)
    expect(Math.abs(mean([...rows.slice(5, 9)]) - 0.68)).toBeLessThan(0.03)
  })
})

describe('rectangles that may hang over the edges', () => {
  it.each([
    [28, 28, 1],
    [28, 28, 4],
    [30, 28, 4],
    [224, 224, 16]
  ])('cover %d x %d at alignment %d everywhere alike', (height, width, align) => {
    const draws = 2000
    const counts = new Float64Array(height * width)
    let total = 0
    for (let i = 0; i < draws; i++) {
      const { covered, rectangles } = drawGroupMask(randomFor(81, i), height, width, 0.75, align, true)
      for (let place = 0; place < covered.length; place++) counts[place]! += covered[place]! / draws
      total += mean([...covered]) / draws
      for (const { top, left, height: rows, width: columns } of rectangles) {
        expect(top >= 0 && left >= 0 && rows >= 1 && columns >= 1 && top + rows <= height && left + columns <= width).toBe(true)
        expect([top % align, left % align]).toEqual([0, 0])
      }
    }
    // Five standard deviations of a frequency.
    const tolerance = 5 * Math.sqrt((total * (1 - total)) / draws)
    expect(Math.min(...counts)).toBeGreaterThan(total - tolerance)
    expect(Math.max(...counts)).toBeLessThan(total + tolerance)
    expect(total).toBeGreaterThan(0.6)
    expect(total).toBeLessThan(0.72)
  }, 60_000)
})

describe('rectangles', () => {
  it('cover what the mask says, within the image', () => {
    for (let i = 0; i < 50; i++) {
      const { rectangles, covered } = drawGroupMask(randomFor(3, i), 40, 56, 0.75)
      const own = new Uint8Array(40 * 56)
      for (const { top, left, height, width } of rectangles) {
        expect(top >= 0 && left >= 0 && height >= 1 && width >= 1 && top + height <= 40 && left + width <= 56).toBe(true)
        // The largest side is below 0.3 of the image's.
        expect(height < 12 && width < 16).toBe(true)
        for (let y = top; y < top + height; y++) own.fill(1, y * 56 + left, y * 56 + left + width)
      }
      expect(own).toEqual(covered)
    }
  })

  it.each([
    [28, 28, 4],
    [224, 224, 16],
    [48, 96, 8],
    [32, 32, 16],
    [28, 28, 14],
    [32, 32, 32]
  ])('of %d x %d are whole patches of %d where aligned to them', (height, width, align) => {
    for (let i = 0; i < 40; i++) {
      const { rectangles, covered } = drawGroupMask(randomFor(4, i), height, width, 0.75, align)
      for (const { top, left, height: rows, width: columns } of rectangles) {
        expect([top % align, left % align, rows % align, columns % align]).toEqual([0, 0, 0, 0])
      }
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const corner = Math.floor(y / align) * align * width + Math.floor(x / align) * align
          if (covered[y * width + x] !== covered[corner]) throw new Error(`patch at ${x}, ${y} is covered in part`)
        }
      }
    }
  })

  it.each([
    [32, 16],
    [28, 14],
    [64, 32],
    [96, 32]
  ])('of an image of %d and an alignment of %d, more than 0.3 of it, are one step, anywhere', (side, align) => {
    const cells = side / align
    const counts = new Float64Array(cells * cells)
    for (let i = 0; i < 300; i++) {
      const { rectangles, covered } = drawGroupMask(randomFor(5, i), side, side, 0.75, align)
      for (const { height, width } of rectangles) expect([height, width]).toEqual([align, align])
      counts.forEach((_, cell) => (counts[cell]! += covered[Math.floor(cell / cells) * align * side + (cell % cells) * align]! / 300))
      expect(share({ rectangles, covered })).toBeGreaterThanOrEqual(0.5)
    }
    for (const count of counts) {
      expect(count).toBeGreaterThan(0.55)
      expect(count).toBeLessThan(0.9)
    }
  })

  // Some rows of these can be reached by no rectangle: what cannot be covered must not be waited for.
  it.each([
    [1, 1],
    [2, 1],
    [3, 1],
    [7, 1],
    [8, 1],
    [9, 1],
    [28, 4],
    [100, 64],
    [100, 16],
    [30, 7],
    [33, 32],
    [28, 28]
  ])('come to an end for an image of %d, alignment %d, budget 1', (side, align) => {
    for (let i = 0; i < 20; i++) {
      expect(share(drawGroupMask(randomFor(6, i), side, side, 1, align))).toBeGreaterThan(0.4)
      expect(share(drawGroupMask(randomFor(6, i), side, side + 3, 1, align))).toBeGreaterThan(0.4)
    }
  })

  it('are decided by the random numbers', () => {
    const draw = (seed: number) => drawGroupMask(randomFor(seed), 28, 28, 0.75)
    expect(draw(1)).toEqual(draw(1))
    expect(draw(1).covered).not.toEqual(draw(2).covered)
  })
})
