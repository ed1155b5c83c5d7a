import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, vi } from 'vitest'

import type { ImageSource } from '../../src/data/index.js'
import { openLabelled, openTest, openTraining, type Classified } from '../../src/evaluate/index.js'
import * as torch from '../../src/torch/index.js'
import { folderWith } from '../data/support.js'
import { stripeFiles, stripes } from './support.js'

/** Says that every image is of the first class. */
const first = (images: ImageSource): Promise<Classified> => {
  const indices = Array.from({ length: images.length }, (_, i) => i)
  const scores = torch.tensor(indices.map(() => [1, 0, 0]))
  return Promise.resolve({ indices, scores: { first: scores } })
}

describe('test images', () => {
  it('are asked once, and whoever classifies them does not see their classes', async () => {
    const train = await openTraining(await stripes(30))
    const test = await openTest(train, await stripes(9, { seed: 1 }))
    const classify = vi.fn(first)
    const { tensors } = torch.memory()
    expect((await test.measure(classify))['first']).toMatchObject({ images: 9, accuracy: 1 / 3, top5: null })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(classify.mock.calls[0]![0]).toMatchObject({ classes: null, labels: null, length: 9 })
    await expect(test.measure(classify)).rejects.toThrow(/asked before, and are asked once: choose by validation images/)
    expect(classify).toHaveBeenCalledTimes(1)
    expect([test.split, test.length]).toEqual(['test', 9])
  })

  it('may lack images that could not be decoded', async () => {
    const train = await openTraining(await stripes(30))
    const test = await openTest(train, await stripes(9, { seed: 1 }))
    // Images 3, 4 and 8 are of the classes 0, 1 and 2.
    const { odd } = await test.measure(() => Promise.resolve({ indices: [3, 4, 8], scores: { odd: torch.eye(3) } }))
    expect(odd).toMatchObject({ images: 3, accuracy: 1 })
  })
})

describe('validation images', () => {
  it('are held out of the training images, class by class, and asked as often as one likes', async () => {
    const folder = await stripes(60)
    const { train, evaluation } = await openLabelled({ train: folder })
    expect([train.length, evaluation.length, evaluation.split]).toEqual([54, 6, 'validation'])
    expect([0, 1, 2].map((label) => train.labels.filter((other) => other === label).length)).toEqual([18, 18, 18])
    for (let i = 0; i < 2; i++) expect((await evaluation.measure(first))['first']!.accuracy).toBeCloseTo(1 / 3)
    const names = (source: ImageSource) => Array.from({ length: source.length }, (_, i) => source.name(i))
    const seen = await new Promise<string[]>((resolve) => void evaluation.measure((images) => (resolve(names(images)), first(images))))
    expect(new Set([...seen, ...names(train)]).size).toBe(60)
    const other = await openLabelled({ train: folder, seed: 1, validation: 0.5 })
    expect([other.train.length, other.evaluation.length]).toEqual([30, 30])
  })

  it('are not needed where there are test images', async () => {
    const folder = await folderWith({ ...stripeFiles(12, 0, 'train-'), ...stripeFiles(6, 1, 't10k-') })
    const { train, evaluation } = await openLabelled({ train: folder, test: folder })
    expect([train.length, evaluation.length, evaluation.split]).toEqual([12, 6, 'test'])
  })

  it('may be the other split of a folder of Parquet files, and not the same one', async () => {
    const part = (name: string) => readFile(fileURLToPath(new URL(`../fixtures/parquet/split-${name}.parquet`, import.meta.url)))
    const [whole, test] = [await part('train-00000-of-00002'), await part('test-00000-of-00001')]
    const folder = await folderWith({ 'train-00000-of-00001.parquet': whole, 'test-00000-of-00001.parquet': test })
    const { train, evaluation } = await openLabelled({ train: folder, test: folder })
    expect([train.length, evaluation.length, evaluation.split]).toEqual([7, 2, 'test'])
    const one = await folderWith({ 'part-0.parquet': whole })
    await expect(openLabelled({ train: one, test: one })).rejects.toThrow(/another folder than --train, .* files of two splits/)
  })
})
