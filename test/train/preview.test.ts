import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'

import { defaultStatistics, denormalise, gmmlAugmentation, Loader, openImages, randomFor } from '../../src/data/index.js'
import { InputError, SettingsError } from '../../src/errors.js'
import { corrupt } from '../../src/gmml/index.js'
import * as torch from '../../src/torch/index.js'
import { previewImages, type PreviewRequest } from '../../src/train/index.js'
import { folderWith, idx, paint, ramp } from '../data/support.js'

torch.setNumThreads(1)

const GAP = 4
const SIDE = 128

/** The pixels of a cell of the preview, [3, height, width]. */
async function cells(file: string) {
  const { data, info } = await sharp(file).raw().toBuffer({ resolveWithObject: true })
  const pixel = (x: number, y: number) => [...data.subarray(3 * (y * info.width + x), 3 * (y * info.width + x) + 3)]
  const at = (column: number, row: number, x: number, y: number, side: number) => pixel(GAP + column * (side + GAP) + x, GAP + row * (side + GAP) + y)
  return { ...info, at }
}

async function colours(): Promise<string> {
  const files: Record<string, Uint8Array> = {}
  for (let i = 0; i < 5; i++) {
    files[`${i}.png`] = await paint(i % 2 ? 200 : 100, 100, (x, y) => [x, 2 * y, 40 * i]).png().toBuffer()
  }
  return folderWith(files)
}

/** What the first step of a run with these settings sees. */
async function firstStep(images: string, settings: Partial<PreviewRequest>) {
  const source = await openImages(images)
  const { seed = 0, cropScale = [0.05, 1], maskBudget: budget = 0.75, alien = 0.3, align = 1, fill = 'noise' } = settings
  const loader = new Loader(source, { size: { height: SIDE, width: SIDE }, device: 'cpu' })
  const augmentation = { ...gmmlAugmentation, cropScale }
  for await (const { indices, images: clean } of loader.epoch({ seed, epoch: 0, batchSize: source.length, views: 2, augmentation })) {
    const random = (view: number) => randomFor(seed, 0, indices[view % indices.length]!, Math.floor(view / indices.length), 'mask')
    const { corrupted, mask } = corrupt(clean, { budget, alien, align, fill, random })
    const { mean, std } = defaultStatistics(source)
    const bytes = [clean, corrupted].map((views) => denormalise(views, mean, std).clamp({ min: 0, max: 1 }).mul(255).round().toArray() as number[][][][])
    return { indices, clean: bytes[0]!, corrupted: bytes[1]!, mask: mask.toArray() as boolean[][][][] }
  }
  throw new Error('No step')
}

describe('previewImages', () => {
  it('shows whole images, the views of the first step of a run, and what is corrupted in them', async () => {
    const images = await colours()
    const out = join(await folderWith(), 'below/preview.png')
    const settings: Partial<PreviewRequest> = { imageSize: SIDE, seed: 3, fill: 'zeros', cropScale: [0.5, 1], align: 8, maskBudget: 0.5 }
    const { tensors } = torch.memory()
    const picture = await previewImages({ images, out, ...settings })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(picture.png).toEqual(await readFile(out))
    const { width, height, channels, at } = await cells(out)
    expect([width, height, channels]).toEqual([5 * (SIDE + GAP) + GAP, 5 * (SIDE + GAP) + GAP, 3])
    expect([picture.width, picture.height]).toEqual([width, height])

    const { indices, clean, corrupted } = await firstStep(images, settings)
    const places = [[0, 0], [127, 127], [64, 64], [17, 90], [101, 33]] as const
    for (const [row, index] of indices.entries()) {
      // Wide images have white above and below, square ones fill their cell.
      const top = index % 2 ? 32 : 0
      if (top > 0) for (const y of [0, top - 1, SIDE - top, SIDE - 1]) expect(at(0, row, 64, y, SIDE), `row ${row}, ${y}`).toEqual([255, 255, 255])
      for (const y of [top, SIDE - top - 1]) expect(at(0, row, 64, y, SIDE)[2]).toBe(40 * index)
      const [x0, x1] = [at(0, row, 4, 64, SIDE)[0]!, at(0, row, 120, 64, SIDE)[0]!]
      expect(x1 - x0).toBeGreaterThan(80)
      for (const [column, views, view] of [[1, clean, 0], [2, corrupted, 0], [3, clean, 1], [4, corrupted, 1]] as const) {
        const image = views[view * indices.length + row]!
        for (const [x, y] of places) {
          expect(at(column, row, x, y, SIDE), `row ${row}, column ${column}, ${x}, ${y}`).toEqual(image.map((channel) => channel[y]![x]!))
        }
      }
    }
  })

  it('corrupts as it is told, noise the same each time', async () => {
    const images = await colours()
    const out = join(await folderWith(), 'p.png')
    const draw = async (settings: Partial<PreviewRequest>) => Buffer.from((await previewImages({ images, out, imageSize: 32, ...settings })).png)
    const usual = await draw({})
    expect((await draw({})).equals(usual)).toBe(true)
    const others: Partial<PreviewRequest>[] = [
      { flip: 1 }, { solarize: 1 }, { jitter: 1 }, { maskBudget: 0.2 }, { align: 8 }, { overhang: true }, { fill: 'shuffle' }, { seed: 1 }, { cropScale: [0.9, 1] }, { alien: 0 }
    ]
    for (const other of others) {
      expect((await draw(other)).equals(usual), JSON.stringify(other)).toBe(false)
    }
    expect((await draw({ imageSize: 48 })).equals(usual)).toBe(false)
  })

  it('shows grey arrays, whatever their shape, enlarged by whole pixels, and eight at most', async () => {
    const folder = await folderWith({ 'images-idx3-ubyte': idx([11, 4, 8], ramp(11 * 32)) })
    const out = join(folder, 'p.png')
    expect(await previewImages({ images: folder, out })).toMatchObject({ width: 5 * (8 * 28 + GAP) + GAP, height: 8 * (4 * 28 + GAP) + GAP })
    await previewImages({ images: folder, out, imageSize: 8 })
    const { width, at } = await cells(out)
    expect(width).toBe(5 * (8 * 14 + GAP) + GAP)
    const source = await openImages(folder)
    const loader = new Loader(source, { size: { height: 8, width: 8 }, device: 'cpu' })
    for await (const { indices } of loader.epoch({ seed: 0, epoch: 0, batchSize: 8, views: 2, augmentation: gmmlAugmentation })) {
      for (const [row, index] of indices.entries()) {
        const value = (x: number, y: number) => (32 * index + 8 * y + x) % 256
        for (const [x, y] of [[0, 0], [7, 3], [3, 1]] as const) {
          expect(at(0, row, 14 * x + 13, 14 * (y + 2), 112)).toEqual(Array(3).fill(value(x, y)))
        }
        for (const y of [0, 1, 6, 7]) expect(at(0, row, 50, 14 * y, 112)).toEqual([255, 255, 255])
      }
      break
    }
  })

  it('shows each image once where broken ones are replaced', async () => {
    const image = await paint(20, 20, (x, y) => [x, y, 9]).png().toBuffer()
    const images = await folderWith({ 'a.png': image, 'b.png': image, 'c.png': '', 'd.png': 'words' })
    expect(await previewImages({ images, out: join(images, 'p.png'), imageSize: SIDE })).toMatchObject({ height: 2 * (SIDE + GAP) + GAP })
  })

  it('refuses what cannot be shown', async () => {
    const images = await colours()
    const out = join(images, 'p.png')
    for (const wrong of [{ maskBudget: 2 }, { alien: -1 }, { fill: 'rain' }, { rows: 3 }, { out: '' }]) {
      await expect(previewImages({ images, out, ...wrong } as PreviewRequest), JSON.stringify(wrong)).rejects.toThrow(SettingsError)
    }
    await expect(previewImages({ images, out, imageSize: 16, align: 17 })).rejects.toThrow(/at most the image size 16 for align, received 17/)
    await expect(previewImages({ images, out: join(images, '0.png/p.png') })).rejects.toThrow(/^Cannot write '.*0\.png\/p\.png': E(EXIST|NOTDIR)/)
    const broken = await folderWith({ 'a.jpg': '', 'b.jpg': 'words' })
    await expect(previewImages({ images: broken, out })).rejects.toThrow(InputError)
    expect((await sharp(join(images, '0.png')).metadata()).width).toBe(100)
  })
})
