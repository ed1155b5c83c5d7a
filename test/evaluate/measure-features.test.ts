import { mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it, vi } from 'vitest'

import { measureKnn, measureProbe, readResults, type KnnRequest } from '../../src/evaluate/index.js'
import * as torch from '../../src/torch/index.js'
import { exportEncoder } from '../../src/train/checkpoint.js'
import { RunFolder } from '../../src/train/index.js'
import { visionTransformer } from '../../src/vision/index.js'
import { folderWith, idx, noise, paint } from '../data/support.js'
import { stripeFiles, stripes } from './support.js'

torch.setNumThreads(1)

const micro = { model: 'vit_micro', patchSize: 4 } as const

/** Red, green and blue pictures in a sub-folder each. */
async function colours(classes: readonly ('red' | 'green' | 'blue')[], count = 4): Promise<string> {
  const files: Record<string, Uint8Array> = {}
  for (const [i, name] of classes.entries()) {
    for (let n = 0; n < count; n++) {
      const colour = ['red', 'green', 'blue'].map((other) => (other === name ? 180 + 10 * n : 30 + 5 * n))
      files[`${name}/${i}-${n}.png`] = await paint(12, 10 + n, () => colour).png().toBuffer()
    }
  }
  return folderWith(files)
}

/** Accuracies by features. */
async function knn(request: KnnRequest): Promise<Record<string, number>> {
  const { scores } = await measureKnn(request)
  return Object.fromEntries(Object.entries(scores).map(([name, { accuracy }]) => [name, accuracy]))
}

describe('measureKnn', () => {
  it('measures pixels, an untrained encoder and a file of weights, and frees what it made', async () => {
    const [train, test] = [await stripes(60), await stripes(30, { seed: 1 })]
    const { tensors } = torch.memory()
    expect(await knn({ subject: 'pixels', train, test, k: 5 })).toEqual({ pixels: 1 })
    const random = await knn({ subject: 'random', train, test, k: 5, ...micro })
    expect(Object.keys(random)).toEqual(['cls', 'mean'])
    expect(random['mean']).toBeGreaterThan(0.4) // chance is a third
    torch.manualSeed(5)
    expect(await knn({ subject: 'random', train, test, k: 5, ...micro })).toEqual(random)

    // The same weights from a file.
    torch.manualSeed(0)
    const backbone = torch.scope(() => visionTransformer('vit_micro', { imageSize: 8, patchSize: 4, channels: 1 }))
    const run = new RunFolder(await folderWith())
    await mkdir(run.exported)
    const path = await exportEncoder(run, backbone, {
      model: 'vit_micro', imageSize: [8, 8], patchSize: 4, channels: 1, mean: [0.4], std: [0.2]
    })
    backbone.dispose()
    const byFile = await knn({ subject: path, train, test, k: 5 })
    expect(byFile['mean']).toBeGreaterThan(0.4)
    expect(await knn({ subject: run.path, train, test, k: 5 })).toEqual(byFile)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('numbers the classes of the test images as the training images have them', async () => {
    const train = await colours(['red', 'green', 'blue'])
    expect(await knn({ subject: 'pixels', train, test: await colours(['blue', 'green'], 2), k: 3 })).toEqual({ pixels: 1 })
  })

  it('takes the two splits of one folder, however it is written', async () => {
    const folder = await folderWith({ ...stripeFiles(40, 0, 'train-'), ...stripeFiles(20, 1, 't10k-', 2) })
    expect(await knn({ subject: 'pixels', train: folder, test: `${folder}/.`, k: 5 })).toEqual({ pixels: 1 })
  })

  it('refuses what would not be a measurement', async () => {
    const { tensors } = torch.memory()
    const train = await stripes(12)
    const unlabelled = await folderWith({ 'images-idx3-ubyte': idx([2, 8, 8], Array<number>(128).fill(1)) })
    const photos = await colours(['red', 'green'])
    const numbered = await folderWith({ '0/a.png': await noise(9, 9).png().toBuffer(), '1/b.png': await noise(9, 9).png().toBuffer() })
    const onlyTrain = await folderWith(stripeFiles(12, 0, 'train-'))
    const cases: readonly [train: string, test: string, message: RegExp][] = [
      [train, await stripes(12, { classes: 4 }), /classes that the training images have for --test, received 'class 3'/],
      [photos, await colours(['red', 'blue']), /received 'class blue'/],
      [train, unlabelled, /images with classes \(sub-folders or labels\) for --test/],
      [unlabelled, train, /images with classes \(sub-folders or labels\) for --train/],
      [train, numbered, /has images of 3 channels, the training images have 1/],
      [train, train, /another folder than --train, or one with IDX, CIFAR or Parquet files of two splits, for --test/],
      [train, `${train}/`, /another folder than --train/],
      [photos, join(photos, '../', photos.split('/').at(-1)!), /another folder than --train/],
      [onlyTrain, onlyTrain, /IDX files of the split 'test'/],
      [train, join(train, 'nowhere'), /a folder that exists/]
    ]
    // Some of the same files again: in a list, and behind a link.
    const [file] = await readdir(join(photos, 'red'))
    const listed = join(await folderWith({ 'test.csv': `path,label\n${join(photos, 'red', file!)},red\n` }), 'test.csv')
    const linked = await folderWith()
    await symlink(join(photos, 'red'), join(linked, 'red'))
    const among = /images that are not among those of --train for --test, received '.*red.*'/
    for (const [trainFolder, test, message] of [...cases, [photos, listed, among], [photos, linked, among]] as const) {
      await expect(measureKnn({ subject: 'pixels', train: trainFolder, test })).rejects.toThrow(message)
    }
    const test = await stripes(6, { seed: 1 })
    await expect(measureKnn({ subject: 'nowhere', train, test })).rejects.toThrow(/'pixels' for what to measure, received 'nowhere'/)
    await expect(measureKnn({ subject: train, train, test })).rejects.toThrow(/has no weights/)
    // What would have no effect.
    await expect(measureKnn({ subject: 'pixels', train, test, validation: 0.2 })).rejects.toThrow(/nothing beside test images for --validation, received 0.2/)
    for (const [name, value] of Object.entries({ model: 'vit_micro', imageSize: 8, patchSize: 4 })) {
      const useless = measureKnn({ subject: 'pixels', train, test, [name]: value })
      await expect(useless).rejects.toThrow(`nothing, as 'pixels' is no random encoder, for ${name}, received`)
    }
    await expect(measureKnn({ subject: 'pixels', train, test, k: 0 })).rejects.toThrow(/at least 1 for k/)
    const wrongPatch = measureKnn({ subject: 'random', train, test, ...micro, patchSize: 3 })
    await expect(wrongPatch).rejects.toThrow(/a divisor of the image size 8 x 8/)
    const foreign = join(await folderWith(), 'a.safetensors')
    await writeFile(foreign, 'these are no tensors')
    await expect(measureKnn({ subject: foreign, train, test })).rejects.toThrow(/no legal safetensors file/)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('refuses an encoder of another number of channels, and frees it', async () => {
    const photos = await colours(['red', 'green'])
    const run = new RunFolder(await folderWith())
    await mkdir(run.exported)
    const backbone = torch.scope(() => visionTransformer('vit_micro', { imageSize: 8, patchSize: 4, channels: 1 }))
    const path = await exportEncoder(run, backbone, {
      model: 'vit_micro', imageSize: [8, 8], patchSize: 4, channels: 1, mean: [0.4], std: [0.2]
    })
    backbone.dispose()
    const { tensors } = torch.memory()
    const attempt = measureKnn({ subject: path, train: photos, test: await colours(['red'], 2) })
    await expect(attempt).rejects.toThrow(/has images of 3 channels, the encoder takes 1/)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })
})

describe('what is measured', () => {
  it('can be the tokens of a block, CLS or mean alone, and what is held out of the training images', async () => {
    const train = await stripes(60)
    const all = await measureKnn({ subject: 'random', train, k: 5, ...micro })
    expect(all.measuredOn).toEqual({ path: train, split: 'validation', images: 6 })
    expect(all.train).toEqual({ path: train, images: 54 })
    const { scores } = await measureKnn({ subject: 'random', train, k: 5, ...micro, features: 'cls', block: 1 })
    expect(Object.keys(scores)).toEqual(['cls'])
    expect(Object.keys((await measureKnn({ subject: 'random', train, k: 5, ...micro, features: 'mean' })).scores)).toEqual(['mean'])
    await expect(measureKnn({ subject: 'random', train, ...micro, block: 5 })).rejects.toThrow(/a block from 1 to 4 for block, received 5/)
    await expect(measureKnn({ subject: 'pixels', train, block: 1 })).rejects.toThrow(/none for features and block of pixels/)
    const alone = await stripes(3)
    await expect(measureKnn({ subject: 'pixels', train: alone })).rejects.toThrow(/more images to hold out 10 % of each class/)
  })

  it('is written down, with a picture of the confusions', async () => {
    const [train, test, folder] = [await stripes(60), await stripes(30, { seed: 1 }), await folderWith()]
    const { tensors } = torch.memory()
    const results = await measureKnn({ subject: 'random', train, test, k: 5, ...micro, out: folder })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(await readResults(folder)).toEqual(JSON.parse(JSON.stringify(results)))
    expect((await readdir(folder)).sort()).toEqual(['confusion-cls.png', 'confusion-mean.png', 'results.json'])
    const { format, width } = await sharp(join(folder, 'confusion-cls.png')).metadata()
    expect([format, width > 300]).toEqual(['png', true])
    expect(results).toMatchObject({ command: 'knn', subject: 'random', measuredOn: { split: 'test', images: 30 } })
    // All that it takes to measure the same once more.
    const settings = { k: 5, temperature: 0.07, centre: false, seed: 0, device: 'cpu', precision: 'float32', features: 'both', block: 4 }
    expect(results.settings).toEqual({ ...settings, model: 'vit_micro', imageSize: [8, 8], patchSize: 4 })
    const held = await measureKnn({ subject: 'pixels', train, k: 5, validation: 0.2, seed: 3, limit: 50 })
    expect(held.settings).toEqual({ k: 5, temperature: 0.07, centre: true, seed: 3, device: 'cpu', precision: 'float32', validation: 0.2, limit: 50 })
    const sums = results.scores['mean']!.confusion.map((row) => row.reduce((sum, count) => sum + count, 0))
    expect(sums).toEqual([10, 10, 10])

    const path = join(folder, 'results.json')
    const rest = { ...results, scores: undefined }
    for (const content of ['', '{', 'null', '[]', '{}', '"x"', JSON.stringify(rest), JSON.stringify({ ...rest, scores: { mean: {} } })]) {
      await writeFile(path, content)
      await expect(readResults(folder), content).rejects.toThrow(/results.json' (is no JSON|holds no results of a measurement): remove it to measure again/)
    }
    await rm(path)
    expect(await readResults(folder)).toBeNull()
  })
})

it('says before it reads an image that results cannot be written', async () => {
  const [train, folder] = [await colours(['red', 'green'], 6), await folderWith({ file: 'no folder' })]
  await writeFile(join(train, 'red/broken.png'), 'no image')
  const read = vi.fn()
  const request = { subject: 'pixels', train, validation: 0.5, maxBroken: 1, onBroken: read } as const
  for (const out of [join(folder, 'file'), join(folder, 'file/results')]) {
    await expect(measureKnn({ ...request, out })).rejects.toThrow(`Cannot write the results into '${out}': `)
  }
  expect(read).not.toHaveBeenCalled()
  await measureKnn({ ...request, out: join(folder, 'results') })
  expect(read).toHaveBeenCalled()
})

describe('measureProbe', () => {
  it('learns on the features, and says by what its settings were chosen', async () => {
    const [train, test] = [await stripes(90), await stripes(30, { seed: 1 })]
    const { tensors } = torch.memory()
    const results = await measureProbe({ subject: 'random', train, test, ...micro })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(results.scores['mean']!.accuracy).toBe(1)
    expect(results.settings['chosen']).toMatchObject({ mean: { weightDecay: expect.any(Number) as number, heldOut: { images: 9 } } })
    const pixels = await measureProbe({ subject: 'pixels', train, test, method: 'sgd', learningRates: [0.1], weightDecays: [0, 0.01], epochs: 5 })
    expect(pixels.scores['pixels']!.accuracy).toBe(1)
    expect(pixels.settings).toMatchObject({ method: 'sgd', epochs: 5, chosen: { pixels: { learningRate: 0.1 } } })
    await expect(measureProbe({ subject: 'pixels', train, test, epochs: 5 })).rejects.toThrow(/nothing beside method 'lbfgs' for epochs/)
  })
})
