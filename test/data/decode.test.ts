import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { decodeCrops, decodeResized } from '../../src/data/index.js'
import { InputError } from '../../src/errors.js'
import { blue, decoded, expectNear, folderWith, noise, paint, quarters, red } from './support.js'

describe('decodeCrops', () => {
  it('cuts planes of exactly these pixels', async () => {
    const content = await paint(8, 5, (x, y) => [x, y, 100]).png().toBuffer()
    const [crop, flipped] = await decoded(content, [
      { left: 2, top: 1, width: 3, height: 2 }, { left: 2, top: 1, width: 3, height: 2, flip: true }
    ], { width: 3, height: 2 })
    expect([...crop!]).toEqual([2, 3, 4, 2, 3, 4, 1, 1, 1, 2, 2, 2, 100, 100, 100, 100, 100, 100])
    expect([...flipped!]).toEqual([4, 3, 2, 4, 3, 2, 1, 1, 1, 2, 2, 2, 100, 100, 100, 100, 100, 100])
  })

  it('keeps a ramp in its place when it shrinks and enlarges', async () => {
    const content = await paint(256, 64, (x, y) => [x, 4 * y, 0]).png().toBuffer()
    const [small] = await decoded(content, [{ left: 64, top: 8, width: 128, height: 48 }], { width: 32, height: 24 })
    // The middle of column x of 4 pixels lies at 64 + 4 (x + 0.5) - 0.5. Away from the edges, where there is nothing to the side.
    for (let x = 2; x < 30; x++) expect(Math.abs(small![12 * 32 + x]! - (65.5 + 4 * x))).toBeLessThanOrEqual(1)
    for (let y = 2; y < 22; y++) expect(Math.abs(small![32 * 24 + y * 32 + 16]! - 4 * (8.5 + 2 * y))).toBeLessThanOrEqual(1.5)
    const [large] = await decoded(content, [{ left: 64, top: 8, width: 16, height: 16 }], { width: 64, height: 64 })
    for (let x = 8; x < 56; x++) expect(Math.abs(large![32 * 64 + x]! - (64 + (x + 0.5) / 4 - 0.5))).toBeLessThanOrEqual(1)
  })

  it('is antialiased when it shrinks', async () => {
    const checkers = await paint(64, 64, (x, y) => new Array<number>(3).fill((x + y) % 2 === 0 ? 0 : 255)).png().toBuffer()
    const [grey] = await decoded(checkers, [{ left: 0, top: 0, width: 64, height: 64 }], { width: 8, height: 8 })
    expect(Math.min(...grey!)).toBeGreaterThan(110)
    expect(Math.max(...grey!)).toBeLessThan(145)
  })

  it('agrees with the textbook when it shrinks, enlarges, or does one to the width and the other to the height', async () => {
    // Catmull-Rom, widened where it shrinks. The image is a product of two lines of noise, so each side can be looked at alone.
    const kernel = (x: number): number => (x < 1 ? 1.5 * x ** 3 - 2.5 * x ** 2 + 1 : x < 2 ? -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2 : 0)
    const line = Array.from({ length: 96 }, (_, x) => 60 + ((Math.imul(x + 1, 2654435761) >>> 24) >> 1))
    const resized = (length: number): number[] => Array.from({ length }, (_, to) => {
      const weights = line.map((_, x) => kernel(Math.abs(x + 0.5 - ((to + 0.5) * 96) / length) / Math.max(1, 96 / length)))
      return line.reduce((sum, value, x) => sum + value * weights[x]!, 0) / weights.reduce((sum, weight) => sum + weight)
    })
    const content = await paint(96, 96, (x, y) => [line[x]!, line[y]!, 0]).png().toBuffer()
    for (const [width, height] of [[64, 64], [240, 130], [240, 64], [64, 240], [97, 95], [96, 192]] as const) {
      const [planes] = await decoded(content, [{ left: 0, top: 0, width: 96, height: 96 }], { width, height })
      const [wide, high] = [resized(width), resized(height)]
      for (let y = 8; y < height - 8; y++) {
        for (let x = 8; x < width - 8; x++) {
          const index = y * width + x
          const distance = Math.max(Math.abs(planes![index]! - wide[x]!), Math.abs(planes![index + width * height]! - high[y]!))
          if (distance > 2) expect.fail(`${width} x ${height}: ${distance} off at ${x}, ${y}`)
        }
      }
    }
  })

  it('enlarges an image that is smaller than the crops', async () => {
    const dot = await paint(1, 1, () => red).png().toBuffer()
    const [crop] = await decoded(dot, [{ left: 0, top: 0, width: 1, height: 1 }], { width: 5, height: 7 })
    expect([...crop!]).toEqual([...red].flatMap((value) => new Array<number>(35).fill(value)))
  })

  it('makes any number of crops, equal each time', async () => {
    const content = await noise(50, 40).jpeg().toBuffer()
    const crops = [0, 1, 2, 3, 4, 5].map((index) => ({ left: index, top: index, width: 20 + index, height: 30, flip: index % 2 === 0 }))
    const size = { width: 16, height: 16 }
    const first = await decoded(content, crops, size)
    expect(first).toHaveLength(6)
    expect(await decoded(content, crops, size)).toEqual(first)
    expect(await decoded(content, [crops[3]!], size)).toEqual([first[3]])
    expect(await decoded(content, [], size)).toEqual([])
  })

  it('refuses a crop outside of the image and sizes that are none, as a mistake of the caller', async () => {
    const content = await quarters().png().toBuffer()
    const size = { width: 4, height: 4 }
    const inside = { left: 0, top: 0, width: 64, height: 32 }
    for (const change of [{ left: 1 }, { top: -1 }, { height: 33 }, { width: 0 }, { left: 0.5, width: 9 }]) {
      await expect(decoded(content, [{ ...inside, ...change }], size)).rejects.toThrow(InputError)
    }
    await expect(decoded(content, [{ ...inside, width: 65 }], size)).rejects.toThrow(/inside 64 x 32 for a crop, received .*width: 65/)
    await expect(decoded(content, [inside], { width: 0, height: 4 })).rejects.toThrow(/the size of the crops/)
  })
})

describe('decodeResized', () => {
  it('resizes the shorter side and takes the middle', async () => {
    const folder = await folderWith({ 'wide.png': await paint(96, 48, (x, y) => [2 * x, 4 * y, 7]).png().toBuffer() })
    const planes = await decodeResized(join(folder, 'wide.png'), { resize: 24, crop: { width: 16, height: 20 } })
    expect(planes).toHaveLength(3 * 20 * 16)
    // 96 x 48 becomes 48 x 24; the crop begins at column 16 and row 2. Each pixel is the mean of 2 x 2.
    for (const [x, y] of [[0, 0], [15, 19], [7, 11]] as const) {
      expect(Math.abs(planes[y * 16 + x]! - 2 * (2 * (16 + x) + 0.5))).toBeLessThanOrEqual(1.5)
      expect(Math.abs(planes[320 + y * 16 + x]! - 4 * (2 * (2 + y) + 0.5))).toBeLessThanOrEqual(2.5)
      expect(planes[640 + y * 16 + x]).toBe(7)
    }
  })

  it('takes the same middle of a small image that grows', async () => {
    const folder = await folderWith({ 'small.png': await noise(30, 20).png().toBuffer() })
    const file = join(folder, 'small.png')
    const planes = await decodeResized(file, { resize: 60, crop: { width: 32, height: 24 } })
    const [all] = await decodeCrops(file, [{ left: 0, top: 0, width: 30, height: 20 }], { width: 90, height: 60 })
    const middle = Array.from({ length: 24 * 32 }, (_, index) => all![(18 + Math.floor(index / 32)) * 90 + 29 + (index % 32)])
    expect([...planes.subarray(0, 24 * 32)]).toEqual(middle)
  })

  it('looks at the upright image, of any shape', async () => {
    const size = { width: 32, height: 32 }
    const upright = await quarters().withMetadata({ orientation: 6 }).jpeg({ quality: 95 }).toBuffer()
    const folder = await folderWith({ 'rotated.jpg': upright, 'thin.png': await paint(1, 3000, () => blue).png().toBuffer() })
    const planes = await decodeResized(join(folder, 'rotated.jpg'), { resize: 32, crop: size })
    // Turned by 90 degrees: blue red / white green. The middle 32 rows of 64 show half of each.
    expectNear([planes[5 * 32 + 5]!, planes[1024 + 5 * 32 + 5]!, planes[2048 + 5 * 32 + 5]!], blue, 10)
    expectNear([planes[5 * 32 + 26]!, planes[1024 + 5 * 32 + 26]!, planes[2048 + 5 * 32 + 26]!], red, 10)
    const thin = await decodeResized(join(folder, 'thin.png'), { resize: 32, crop: size })
    expect([thin[0], thin[1024], thin[3071]]).toEqual([blue[0], blue[1], blue[2]])
  })

  it('refuses a crop larger than the resized side before it opens the file', async () => {
    const options = { resize: 31, crop: { width: 32, height: 16 } }
    await expect(decodeResized('absent.png', options)).rejects.toThrow(/at least the crop's 32 pixels/)
  })
})
