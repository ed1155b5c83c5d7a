import { readFile, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { imagenetStatistics } from '../../src/data/index.js'
import { InputError, SettingsError } from '../../src/errors.js'
import * as torch from '../../src/torch/index.js'
import { describeImages, type ImageReport, type ImageReportRequest } from '../../src/train/index.js'
import { summariseAspects, summariseSizes } from '../../src/train/image-sizes.js'
import { folderWith, idx, paint, ramp } from '../data/support.js'

torch.setNumThreads(1)

const flat = (width: number, height: number, colour: readonly number[]) => paint(width, height, () => colour)

/** Files of many formats, some of them broken, in two classes. */
async function mixed(): Promise<string> {
  const photo = await paint(40, 30, (x, y) => [6 * x, 8 * y, (x * y) % 256]).jpeg().toBuffer()
  return folderWith({
    'cats/a.jpg': photo,
    'cats/b.png': await flat(10, 50, [0, 100, 200]).png().toBuffer(),
    'cats/turned.jpg': await flat(60, 20, [9, 9, 9]).jpeg().withMetadata({ orientation: 6 }).toBuffer(),
    'dogs/c.webp': await flat(33, 33, [1, 2, 3]).webp().toBuffer(),
    'dogs/d.avif': await flat(20, 16, [1, 2, 3]).avif().toBuffer(),
    'dogs/e.tif': await flat(100, 40, [1, 2, 3]).tiff().toBuffer(),
    'dogs/f.gif': await flat(8, 8, [1, 2, 3]).gif().toBuffer(),
    'dogs/png-in-truth.jpg': await flat(12, 12, [4, 5, 6]).png().toBuffer(),
    'dogs/cut.jpg': photo.subarray(0, photo.length / 2),
    'dogs/empty.jpg': '',
    'dogs/words.jpg': 'no image at all'
  })
}

const look = (images: string, settings: Partial<ImageReportRequest> = {}) =>
  describeImages({ images, imageSize: 16, batchSize: 4, device: 'cpu', threads: 1, ...settings })

describe('describeImages of files', () => {
  it('counts images, classes, formats by content, sizes, aspects and broken files', async () => {
    const folder = await mixed()
    await symlink(join(folder, 'nowhere'), join(folder, 'cats/link.jpg'))
    const { tensors } = torch.memory()
    const report = await look(folder)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)

    const classes = [{ name: 'cats', images: 3 }, { name: 'dogs', images: 8 }]
    expect(report).toMatchObject({ path: folder, kind: 'encoded', images: 11, examined: 11, decoded: 11, classes, outsideClasses: 0 })
    expect(report.formats).toEqual({ jpeg: 2, png: 2, webp: 1, avif: 1, tiff: 1, gif: 1 })
    expect(Object.keys(report.formats).slice(0, 2).sort()).toEqual(['jpeg', 'png'])
    // 10 x 50 and 12 x 12 and 8 x 8 have a side under 16; of these sides 12, 10, 8, two are at least 10: 8 is what patches of 4 divide.
    expect(report.sizes).toEqual({
      smallest: { width: 8, height: 8 }, median: { width: 33, height: 33 }, largest: { width: 100, height: 40 }, smallerThanViews: 3, fittingImageSize: 8
    })
    // The turned one is upright: 20 x 60.
    expect(report.aspects).toEqual({ least: 0.2, median: 1, most: 2.5, portrait: 2, square: 3, landscape: 3 })
    expect(report.broken).toMatchObject({ count: 3, expected: 3, allowed: 1, stops: true })
    expect(report.broken.files.map(({ file }) => file)).toEqual(['dogs/cut.jpg', 'dogs/empty.jpg', 'dogs/words.jpg'])
    expect(report.broken.files.map(({ reason }) => reason)).toEqual([
      expect.stringMatching(/damaged or cut short/), 'the file is empty', 'the content is not an image of a known format'
    ])
    expect(report.unreadable).toEqual(['cats/link.jpg'])
    expect(report.advice).toEqual([
      '3 files are broken; a run takes at most 1 and would stop: mend or remove them',
      '1 entry leads nowhere or cannot be read and is passed over: cats/link.jpg',
      '3 images are smaller than the 16 pixel views and are enlarged: --image-size 8 fits at least half of them'
    ])
  })

  it('describes several sources as one', async () => {
    const [one, two] = await Promise.all([flat(20, 20, [0, 100, 255]), flat(9, 20, [9, 9, 9])].map(async (image) =>
      folderWith({ 'class/a.png': await image.png().toBuffer() })))
    const report = await describeImages({ images: [one!, { path: two!, weight: 2 }], imageSize: 16, batchSize: 1, workers: 1, device: 'cpu' })
    expect(report).toMatchObject({ path: `${one!}, ${two!}`, images: 2, examined: 2, decoded: 2, outsideClasses: null })
    expect(report.classes).toEqual([{ name: 'class', images: 2 }])
  })

  it('adds up the bytes of all files, however many are read at a time', async () => {
    const names = Array.from({ length: 40 }, (_, i) => `${i}.png`)
    const contents = await Promise.all(names.map((_, i) => flat(4 + i, 4, [i, i, i]).png().toBuffer()))
    const folder = await folderWith(Object.fromEntries(names.map((name, i) => [name, contents[i]!])))
    const total = contents.reduce((sum, { length }) => sum + length, 0)
    expect((await look(folder, { workers: 8 })).bytes).toEqual({ examined: total, total })
    expect((await stat(join(folder, '0.png'))).size).toBe(contents[0]!.length)
  })

  it('measures the colours of the images, and loading with the settings of the run', async () => {
    const folder = await folderWith({
      'a.png': await flat(20, 20, [0, 100, 255]).png().toBuffer(),
      'b.png': await flat(30, 20, [200, 100, 255]).png().toBuffer(),
      'c.png': await flat(20, 40, [100, 100, 255]).png().toBuffer(),
      'd.png': await flat(20, 40, [100, 100, 255]).png().toBuffer()
    })
    const progress: string[] = []
    const { statistics, loading, settings, advice } = await describeImages(
      { images: folder, imageSize: 16, batchSize: 3, workers: 2, threads: 1, device: 'cpu' },
      { onProgress: ({ stage, done, total }) => progress.push(`${stage} ${done}/${total}`) }
    )
    expect(statistics.used).toEqual(imagenetStatistics)
    const wanted = { mean: [100 / 255, 100 / 255, 1], std: [Math.sqrt(5000) / 255, 0, 0] }
    for (const name of ['mean', 'std'] as const) {
      statistics.own![name].forEach((value, channel) => expect(value).toBeCloseTo(wanted[name][channel]!, 6))
    }
    expect(loading).toMatchObject({ images: 3, workers: 2, batchSize: 3, device: 'cpu' })
    expect(loading!.imagesPerSecond).toBeGreaterThan(0.1)
    expect(loading!.memory.peak).toBeGreaterThan(2e7)
    expect(loading!.memory.added).toBeLessThan(loading!.memory.peak)
    expect(progress).toEqual([1, 2, 3, 4].map((done) => `examining ${done}/4`).concat('loading 3/3'))
    expect(settings).toMatchObject({ cropScale: [0.05, 1], seed: 0, full: false })
    expect(advice).toEqual(['no classes: all files lie directly in the folder; put each class into a sub-folder to measure accuracy'])
  })

  it('reads only headers but for a sample, and expects of all what it finds there; --full decodes all', async () => {
    const good = await flat(6, 5, [50, 60, 70]).png().toBuffer()
    const noisy = await paint(30, 30, (x, y) => [x * y, x * 7 + y, y * 13].map((value) => value % 256)).jpeg().toBuffer()
    const files: Record<string, Uint8Array> = {}
    for (let i = 0; i < 300; i++) files[`${i}.png`] = good
    for (let i = 0; i < 30; i++) files[`cut-${i}.jpg`] = noisy.subarray(0, noisy.length / 2)
    const folder = await folderWith(files)
    const byHeader = await look(folder)
    expect(byHeader).toMatchObject({ images: 330, examined: 330, decoded: 256 })
    const { count, expected } = byHeader.broken
    expect(count).toBeGreaterThan(9)
    expect(count).toBeLessThan(30)
    expect(expected).toBe(Math.round((330 * count) / 256))
    expect(byHeader.advice[0]).toContain(`of all files probably ${expected}; a run takes at most 3 and would stop: mend or remove them (--full finds every one)`)
    expect(await look(folder, { full: true })).toMatchObject({ examined: 330, decoded: 330, broken: { count: 30, expected: 30 } })
  })

  it('examines a random sample, the same with the same seed, and extrapolates', async () => {
    const files: Record<string, Uint8Array> = {}
    for (let i = 0; i < 30; i++) files[`${i % 3}/${i}.png`] = await flat(20 + i, 20, [i, i, i]).png().toBuffer()
    const folder = await folderWith(files)
    const timeless = ({ loading: _, ...report }: ImageReport) => report
    const [first, again, other] = [await look(folder, { limit: 10 }), await look(folder, { limit: 10 }), await look(folder, { limit: 10, seed: 1 })]
    expect(first).toMatchObject({ images: 30, examined: 10, decoded: 10, formats: { png: 10 } })
    expect(first.classes).toEqual(['0', '1', '2'].map((name) => ({ name, images: 10 })))
    expect(first.bytes.total).toBe(Math.round(3 * first.bytes.examined))
    expect(timeless(again)).toEqual(timeless(first))
    expect(other.statistics.own).not.toEqual(first.statistics.own)
    expect(await look(folder, { limit: 99 })).toMatchObject({ examined: 30 })
  })

  it('tells of a folder without a single good image, of one class, of loose files and of few images', async () => {
    const bad = await look(await folderWith({ 'x/a.jpg': '', 'x/b.jpg': 'words' }))
    expect(bad).toMatchObject({ sizes: null, aspects: null, loading: null, formats: {}, statistics: { own: null }, broken: { count: 2, stops: true } })
    expect(bad.advice.slice(1)).toEqual([
      '2 images are less than a batch of 4: --batch-size 2 at most',
      "one class, 'x', leaves nothing to tell apart: put each class into a sub-folder to measure accuracy"
    ])
    const image = await flat(20, 20, [1, 2, 3]).png().toBuffer()
    const loose = await look(await folderWith({ 'x/a.png': image, 'b.png': image, 'y/c.png': image, 'y/d.png': '' }), { batchSize: 2 })
    expect(loose).toMatchObject({ classes: null, outsideClasses: 1, broken: { count: 1, allowed: 1, stops: false } })
    expect(loose.advice).toEqual([
      '1 file is broken; a run takes at most 1, leaves it out and goes on',
      'no classes: 1 file lies directly in the folder; put each class into a sub-folder to measure accuracy'
    ])
  })
})

describe('describeImages of arrays', () => {
  it('has one size, no broken images, and the colours that a run normalises with', async () => {
    const folder = await folderWith({ 'images-idx3-ubyte': idx([6, 5, 8], ramp(240)), 'labels-idx1-ubyte': idx([6], [0, 1, 2, 2, 2, 0]) })
    const report = await describeImages({ images: folder, device: 'cpu', batchSize: 2, threads: 1 })
    expect(report).toMatchObject({
      images: 6, examined: 6, decoded: 6, outsideClasses: null, formats: { idx: 6 }, bytes: { examined: 240, total: 240 }, views: { width: 8, height: 5 },
      classes: [{ name: '0', images: 2 }, { name: '1', images: 1 }, { name: '2', images: 3 }],
      sizes: { smallest: { width: 8, height: 5 }, largest: { width: 8, height: 5 }, smallerThanViews: 0 },
      aspects: { least: 1.6, most: 1.6, landscape: 6 }, broken: { count: 0, stops: false }, loading: { images: 6 }, decodedBytes: null, advice: []
    })
    expect(report.statistics.own!.mean[0]).toBeCloseTo(239 / 2 / 255, 6)
    expect(report.statistics.own).toEqual(report.statistics.used)
    const plain = await describeImages({ images: await folderWith({ 'images-idx3-ubyte': idx([6, 5, 8], ramp(240)) }), imageSize: 32, batchSize: 2, device: 'cpu' })
    expect(plain).toMatchObject({ classes: null, sizes: { smallerThanViews: 6, fittingImageSize: 4 } })
    expect(plain.advice).toEqual([
      '6 images are smaller than the 32 pixel views and are enlarged: --image-size 4 fits at least half of them',
      'no classes: there is no file of labels beside the images'
    ])
  })
})

describe('bad requests', () => {
  it('are refused before any work', async () => {
    const images = await folderWith({ 'a.png': await flat(4, 4, [1, 2, 3]).png().toBuffer() })
    for (const wrong of [{ limit: 0 }, { workers: -1 }, { imageSize: 1.5 }, { cropScale: [1, 0.5] }, { threads: -1 }, { out: 'x' }, { images: '' }]) {
      await expect(describeImages({ images, ...wrong } as ImageReportRequest), JSON.stringify(wrong)).rejects.toThrow(SettingsError)
    }
    await expect(look(join(images, 'absent'))).rejects.toThrow(/folder that exists for images/)
    await expect(look(images, { device: 'cuda:99' })).rejects.toThrow(InputError)
    expect(await readFile(join(images, 'a.png'))).toBeTruthy()
  })
})

describe('summaries', () => {
  it('choose views that the usual patches divide and that half of the small images fill', () => {
    const squares = (...sides: number[]) => sides.map((side) => ({ width: side, height: side + 5 }))
    const fitting = (...sides: number[]) => summariseSizes(squares(...sides), { width: 224, height: 224 }).fittingImageSize
    expect(fitting(300, 400)).toBeNull()
    expect(fitting(300, 100)).toBe(96)
    expect(fitting(223, 100, 70, 30)).toBe(96)
    expect(fitting(223, 70, 63)).toBe(64)
    expect(fitting(67, 67, 20)).toBe(64)
    expect(fitting(3)).toBeNull()
    expect(fitting(65, 64, 63, 63, 1)).toBe(60)
  })

  it('count shapes', () => {
    expect(summariseAspects([{ width: 3, height: 2 }, { width: 2, height: 4 }, { width: 5, height: 5 }])).toEqual({
      least: 0.5, median: 1, most: 1.5, portrait: 1, square: 1, landscape: 1
    })
  })
})
