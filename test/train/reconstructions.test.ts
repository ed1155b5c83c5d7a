import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'

import { normalise } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { writeReconstructions } from '../../src/train/index.js'
import { folderWith } from '../data/support.js'

torch.setNumThreads(1)

const GAP = 4

async function written(images: Parameters<typeof writeReconstructions>[1], statistics: Parameters<typeof writeReconstructions>[2]) {
  const folder = await folderWith()
  const { tensors } = torch.memory()
  await writeReconstructions(join(folder, 'a.png'), images, statistics)
  expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  expect(await readdir(folder)).toEqual(['a.png'])
  const { data, info } = await sharp(join(folder, 'a.png')).raw().toBuffer({ resolveWithObject: true })
  expect(info.channels).toBe(3)
  const pixel = (x: number, y: number) => [...data.subarray(3 * (y * info.width + x), 3 * (y * info.width + x) + 3)]
  return { width: info.width, height: info.height, pixel }
}

const bytes = (channels: number, height: number, width: number): Tensor =>
  torch.randint(256, [2, channels, height, width], { dtype: 'float32' })

describe.each([
  ['grey', 1, { mean: [0.3], std: [0.35] }, 28, 20],
  ['colour', 3, { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }, 224, 224]
] as const)('the grid of %s images', (_, channels, statistics, height, width) => {
  it('shows clean, corrupted, reconstruction and mask with the very pixels, small ones enlarged, large ones not', async () => {
    const pixels = [0, 1, 2].map(() => bytes(channels, height, width))
    const normalised = pixels.map((image) => normalise(image.div(255), statistics.mean, statistics.std))
    const [clean, corrupted, reconstruction] = normalised as [Tensor, Tensor, Tensor]
    const mask = torch.rand([2, 1, height, width]).gt(0.5)
    const { width: gridWidth, height: gridHeight, pixel } = await written({ clean, corrupted, reconstruction, mask }, statistics)
    const factor = Math.max(1, Math.ceil(112 / Math.min(height, width)))
    expect([gridWidth, gridHeight]).toEqual([4 * (width * factor + GAP) + GAP, 2 * (height * factor + GAP) + GAP])

    const wanted = [...pixels, mask.mul(255).to('float32')].map((image) => image.toArray() as number[][][][])
    for (const [column, images] of wanted.entries()) {
      for (const row of [0, 1]) {
        for (const [x, y] of [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1], [7, 11], [3, 19]] as const) {
          const values = [0, 1, 2].map((channel) => (images[row]![channel] ?? images[row]![0]!)[y]![x]!)
          // The first and the last of the enlarged pixels.
          for (const inner of [0, factor - 1]) {
            const left = GAP + column * (width * factor + GAP) + x * factor + inner
            const top = GAP + row * (height * factor + GAP) + y * factor + inner
            expect(pixel(left, top), `column ${column}, row ${row}, pixel ${x}, ${y}`).toEqual(values)
          }
        }
      }
    }
    const [right, below] = [GAP + width * factor, GAP + height * factor]
    for (const [x, y] of [[0, 0], [GAP - 1, 20], [gridWidth - 1, gridHeight - 1], [right, 20], [20, below]] as [number, number][]) {
      expect(pixel(x, y)).toEqual([255, 255, 255])
    }
  })
})

describe('the grid', () => {
  it('clamps what a reconstruction overshoots, of any precision', async () => {
    const flat = (value: number) => torch.full([1, 1, 112, 112], value)
    const statistics = { mean: [0.5], std: [0.25] }
    const reconstruction = flat(1).to('bfloat16').requiresGrad_()
    const images = { clean: flat(9), corrupted: flat(-9), reconstruction, mask: torch.zeros([1, 1, 112, 112], { dtype: 'bool' }) }
    const { pixel } = await written(images, statistics)
    expect([0, 1, 2, 3].map((column) => pixel(GAP + column * 116, GAP)[0])).toEqual([255, 0, 191, 0])
  })

  it('that cannot be written says so', async () => {
    const image = torch.zeros([1, 1, 8, 8])
    const images = { clean: image, corrupted: image, reconstruction: image, mask: image.to('bool') }
    const path = join(await folderWith({ none: 'a file' }), 'none', 'a.png')
    await expect(writeReconstructions(path, images, { mean: [0], std: [1] })).rejects.toThrow(/^Cannot write '.*a.png': E(EXIST|NOTDIR)/)
  })
})
