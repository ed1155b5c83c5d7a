import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { measureKnn } from '../../src/evaluate/index.js'
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

describe('measureKnn', () => {
  it('measures pixels, an untrained encoder and a file of weights, and frees what it made', async () => {
    const [train, test] = [await stripes(60), await stripes(30, { seed: 1 })]
    const { tensors } = torch.memory()
    expect(await measureKnn({ subject: 'pixels', train, test, k: 5 })).toEqual({ pixels: 1 })
    const random = await measureKnn({ subject: 'random', train, test, k: 5, ...micro })
    expect(Object.keys(random)).toEqual(['cls', 'mean'])
    expect(random['mean']).toBeGreaterThan(0.4) // chance is a third
    torch.manualSeed(5)
    expect(await measureKnn({ subject: 'random', train, test, k: 5, ...micro })).toEqual(random)

    // The same weights from a file.
    torch.manualSeed(0)
    const backbone = torch.scope(() => visionTransformer('vit_micro', { imageSize: 8, patchSize: 4, channels: 1 }))
    const run = new RunFolder(await folderWith())
    await mkdir(run.exported)
    const path = await exportEncoder(run, backbone, {
      model: 'vit_micro', imageSize: [8, 8], patchSize: 4, channels: 1, mean: [0.4], std: [0.2]
    })
    backbone.dispose()
    const byFile = await measureKnn({ subject: path, train, test, k: 5 })
    expect(byFile['mean']).toBeGreaterThan(0.4)
    expect(await measureKnn({ subject: run.path, train, test, k: 5 })).toEqual(byFile)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('numbers the classes of the test images as the training images have them', async () => {
    const train = await colours(['red', 'green', 'blue'])
    expect(await measureKnn({ subject: 'pixels', train, test: await colours(['blue', 'green'], 2), k: 3 })).toEqual({ pixels: 1 })
  })

  it('takes the two splits of one folder, however it is written', async () => {
    const folder = await folderWith({ ...stripeFiles(40, 0, 'train-'), ...stripeFiles(20, 1, 't10k-', 2) })
    expect(await measureKnn({ subject: 'pixels', train: folder, test: `${folder}/.`, k: 5 })).toEqual({ pixels: 1 })
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
      [train, train, /another folder than --train, or one with IDX files of two splits, for --test/],
      [train, `${train}/`, /another folder than --train/],
      [photos, join(photos, '../', photos.split('/').at(-1)!), /another folder than --train/],
      [onlyTrain, onlyTrain, /IDX files of the split 'test'/],
      [train, join(train, 'nowhere'), /a folder that exists/]
    ]
    for (const [trainFolder, test, message] of cases) {
      await expect(measureKnn({ subject: 'pixels', train: trainFolder, test })).rejects.toThrow(message)
    }
    const test = await stripes(6, { seed: 1 })
    await expect(measureKnn({ subject: 'nowhere', train, test })).rejects.toThrow(/'pixels' for what to measure, received 'nowhere'/)
    await expect(measureKnn({ subject: train, train, test })).rejects.toThrow(/has no weights/)
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
