import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { openCifar } from '../../src/data/cifar.js'
import { defaultStatistics, Loader, openImages, selectImages } from '../../src/data/index.js'
import { InputError } from '../../src/errors.js'
import * as torch from '../../src/torch/index.js'
import { describeEncoder } from '../../src/train/encoder.js'
import { cifar, folderWith, paint } from './support.js'

torch.setNumThreads(1)

/** Every image, channel and place has another value, as far as 256 go. */
const pixel = (image: number, c: number, y: number, x: number): number => (37 * image + 91 * c + 7 * y + 3 * x) & 255
const one = (label: number) => cifar([[label]], pixel)
const names10 = 'airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n'

describe('openCifar', () => {
  it('opens CIFAR-10: batches by their number, images as they are in the records, classes by name', async () => {
    const files: Record<string, Uint8Array | string> = { 'batches.meta.txt': names10, 'readme.html': '<html>', 'test_batch.bin': one(9) }
    for (let batch = 1; batch <= 11; batch++) {
      files[`data_batch_${batch}.bin`] = cifar([[batch % 10], [3]], (image, c, y, x) => pixel(2 * batch + image, c, y, x))
    }
    const folder = await folderWith(files)
    const source = (await openCifar(folder))!
    expect(source).toMatchObject({ kind: 'memory', path: folder, length: 22, channels: 3, height: 32, width: 32 })
    expect(source.classes).toEqual(names10.trim().split('\n'))
    expect([...source.labels!]).toEqual(Array.from({ length: 11 }, (_, i) => [(i + 1) % 10, 3]).flat())
    expect(source.images).toHaveLength(22 * 3072)
    for (const [image, c, y, x] of [[0, 0, 0, 0], [0, 2, 31, 31], [7, 1, 5, 19], [21, 2, 30, 1], [21, 0, 0, 31]] as const) {
      expect(source.images[((image * 3 + c) * 32 + y) * 32 + x]).toBe(pixel(image + 2, c, y, x))
    }
    expect([0, 1, 2, 21].map((index) => source.name(index))).toEqual(
      ['data_batch_1.bin#0', 'data_batch_1.bin#1', 'data_batch_2.bin#0', 'data_batch_11.bin#1'])
    for (const wrong of [22, -1, 0.5]) expect(() => source.name(wrong)).toThrow(/from 0 to 21 for index/)
  })

  it('opens CIFAR-100: the fine label is the class', async () => {
    const train = cifar([[4, 72], [19, 99]], pixel)
    const folder = await folderWith({ 'train.bin': train, 'test.bin': cifar([[0, 5]], pixel) })
    const source = (await openCifar(folder))!
    expect([...source.labels!]).toEqual([72, 99])
    expect(source.classes).toHaveLength(100)
    expect([...source.images.subarray(3072)]).toEqual([...train.subarray(3074 + 2)])
    const names = Array.from({ length: 100 }, (_, i) => `fine_${i}`)
    const named = await folderWith({ 'train.bin': train, 'fine_label_names.txt': names.join('\r\n'), 'coarse_label_names.txt': 'fish' })
    expect((await openCifar(named))!.classes).toEqual(names)
    expect((await openCifar(folder, { split: 'test' }))!.labels).toEqual(Int32Array.of(5))
  })

  it('takes the training images of two splits, the test images if asked, and none for the other', async () => {
    const both = await folderWith({ 'data_batch_1.bin': cifar([[1], [2]], pixel), 'test_batch.bin': one(7) })
    expect((await openCifar(both))!.length).toBe(2)
    expect((await openCifar(both, { split: 'test' }))!.name(0)).toBe('test_batch.bin#0')
    const test = await folderWith({ 'test_batch.bin': one(7) })
    expect((await openCifar(test))!.labels).toEqual(Int32Array.of(7))
    await expect(openCifar(test, { split: 'train' })).rejects.toThrow(/CIFAR-10 or CIFAR-100 files of the split 'train'.*test_batch/)
  })

  it('is null where there are no such files', async () => {
    const others = { 'data_batch_0.bin': '', 'data_batch.bin': '', 'batches.meta.txt': '', 'xtrain.bin': '' }
    expect(await openCifar(await folderWith(others))).toBeNull()
  })

  it.each<[string, Record<string, Uint8Array | string>, RegExp]>([
    ['a file cut short', { 'data_batch_1.bin': one(1).subarray(0, 3000) }, /a multiple of 3073 bytes.*CIFAR-10 file '.*_1\.bin', received 3000$/],
    ['the other layout', { 'train.bin': one(1) }, /a multiple of 3074 bytes.*the CIFAR-100 file '.*train\.bin', received 3073$/],
    ['an empty file', { 'test_batch.bin': '' }, /received 0$/],
    ['a label too high', { 'data_batch_1.bin': cifar([[0], [10]], pixel) }, /a label below 10, .* record 1 of .*_1\.bin', received 10$/],
    ['a label without a name', { 'data_batch_1.bin': one(2), 'batches.meta.txt': 'cat\ndog' }, /a label below 2, .*received 2$/],
    ['a name twice', { 'data_batch_1.bin': one(0), 'batches.meta.txt': 'cat\ndog\ncat' }, /a name for each class.*received 'cat twice'$/],
    ['a gap', { 'data_batch_1.bin': one(0), 'data_batch_3.bin': one(0) }, /data_batch_2\.bin beside data_batch_3\.bin/],
    ['both data sets', { 'data_batch_1.bin': one(0), 'train.bin': one(0) }, /CIFAR-10 or of CIFAR-100.*train\.bin/]
  ])('refuses %s', async (_, files, message) => {
    const refused = openImages(await folderWith(files))
    await expect(refused).rejects.toThrow(InputError)
    await expect(refused).rejects.toThrow(message)
  })

  it('refuses a folder by the name of a file', async () => {
    const folder = await folderWith()
    await mkdir(join(folder, 'train.bin'))
    await expect(openCifar(folder)).rejects.toThrow(/readable file.*train\.bin.*EISDIR/)
  })
})

describe('images of CIFAR', () => {
  const folderOf = (count: number) =>
    folderWith({ 'data_batch_1.bin': cifar(Array.from({ length: count }, (_, i) => [i % 10]), pixel) })

  it('are found by openImages, also a folder above them', async () => {
    const cover = await paint(1, 1, () => [0, 0, 0]).png().toBuffer()
    const folder = await folderWith({ 'set/data_batch_1.bin': one(1), 'set/cover.png': cover })
    expect(await openImages(join(folder, 'set'))).toMatchObject({ kind: 'memory', length: 1 })
    const above = await folderWith({ 'cifar-10-batches-bin/data_batch_1.bin': one(1) })
    await expect(openImages(above)).rejects.toThrow(/received 'none; there are CIFAR files in its sub-folder cifar-10-batches-bin'$/)
  })

  it('keep images, labels and names together in a choice', async () => {
    const whole = await openImages(await folderOf(30), { limit: 8 })
    const some = selectImages(whole, [5, 0])
    if (whole.kind !== 'memory' || some.kind !== 'memory') throw new Error('not in memory')
    expect(whole).toMatchObject({ length: 8 })
    const from = Number(/\d+$/.exec(whole.name(5))![0])
    expect(some.name(0)).toBe(`data_batch_1.bin#${from}`)
    expect(some.labels![0]).toBe(from % 10)
    expect(some.images).toHaveLength(2 * 3072)
    expect([...some.images.subarray(0, 3072)]).toEqual([...cifar([[0]], (_, c, y, x) => pixel(from, c, y, x)).subarray(1)])
  })

  it('have statistics by channel', async () => {
    const values = [10, 100, 200]
    const folder = await folderWith({ 'train.bin': cifar([[0, 0], [0, 1]], (image, c) => values[c]! + (c === 2 ? 0 : image ? 6 : -6)) })
    const { mean, std } = defaultStatistics(await openImages(folder))
    for (const [c, value] of values.entries()) expect(mean[c]).toBeCloseTo(value / 255, 12)
    expect(std[0]).toBeCloseTo(6 / 255, 12)
    expect(std[1]).toBeCloseTo(6 / 255, 12)
    // One flat colour: there is nothing to divide by.
    expect(std[2]).toBe(1)
  })

  it('come to the network as they are, in the right channels and places', async () => {
    const source = await openImages(await folderOf(5))
    if (source.kind !== 'memory') throw new Error('not in memory')
    const { mean, std } = defaultStatistics(source)
    const loader = new Loader(source, { size: { height: 32, width: 32 }, device: 'cpu' })
    for await (const { indices, images } of loader.all(2)) {
      expect(images.shape).toEqual([indices.length, 3, 32, 32])
      const values = images.toTypedArray() as Float32Array
      for (let i = 0; i < values.length; i += 13) {
        const c = Math.floor(i / 1024) % 3
        expect(values[i]).toBeCloseTo((source.images[indices[0]! * 3072 + i]! / 255 - mean[c]!) / std[c]!, 3)
      }
      images.dispose()
    }
    loader.dispose()
    const encoder = describeEncoder({ model: 'vit_tiny' }, source, { mean, std })
    expect(encoder).toMatchObject({ imageSize: [32, 32], patchSize: 4, channels: 3, mean, std })
  })
})
