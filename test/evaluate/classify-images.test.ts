import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parse } from 'csv-parse/sync'
import { beforeAll, describe, expect, it } from 'vitest'

import { DivergedError } from '../../src/errors.js'
import { classifyImages, readResults, type Prediction } from '../../src/evaluate/index.js'
import { loadSafetensors, saveSafetensors } from '../../src/io/index.js'
import { finetune, pretrain } from '../../src/train/index.js'
import * as torch from '../../src/torch/index.js'
import { gmml } from '../cli/support.js'
import { folderWith, idx, paint } from '../data/support.js'
import { stripeFiles } from './support.js'

torch.setNumThreads(1)

const quick = { model: 'vit_micro', patchSize: 4, batchSize: 12, amp: 'off', device: 'cpu', threads: 1 } as const

let root: string
let run: string
let test: string
/** More than one batch. */
const COUNT = 150

async function folderOf(files: Record<string, Uint8Array>): Promise<string> {
  const folder = await mkdtemp(join(root, 'images-'))
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content)
  return folder
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'gmml-classify-'))
  ;[run, test] = [join(root, 'run'), await folderOf(stripeFiles(COUNT, 1))]
  await finetune({ ...quick, from: 'random', train: await folderOf(stripeFiles(60)), test, out: run, epochs: 3, ema: 0.5 })
  return () => rm(root, { recursive: true })
}, 60_000)

const rowsOf = async (folder: string) => parse<Record<string, string>>(await readFile(join(folder, 'predictions.csv'), 'utf8'), { columns: true })

describe('classifyImages', () => {
  it('finds what the finetuning found, and writes down each image', async () => {
    const out = await folderWith()
    const { tensors } = torch.memory()
    const told: Prediction[] = []
    const { images, counts, results } = await classifyImages({ subject: run, images: test, top: 2, out, onPrediction: (one) => void told.push(one) })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    const before = (await readResults(run))!
    expect(results!.scores).toEqual(before.scores)
    expect(await readResults(out)).toEqual(JSON.parse(JSON.stringify(results)))
    expect(results).toMatchObject({ command: 'classify', subject: run, train: null, measuredOn: { path: test, split: 'test', images: COUNT } })
    expect((await readdir(out)).sort()).toEqual(['confusion.png', 'predictions.csv', 'results.json'])
    const rows = await rowsOf(out)
    expect([images, rows.length, told.length]).toEqual([COUNT, COUNT, COUNT])
    expect(Object.keys(rows[0]!)).toEqual(['image', 'class', 'probability', 'class_2', 'probability_2', 'label'])
    expect(rows.map(({ image }) => image)).toEqual(told.map(({ image }) => image))
    const { classes, confusion } = results!.scores['classifier']!
    for (const [i, label] of classes.entries()) {
      for (const [j, name] of classes.entries()) expect(rows.filter((row) => row['label'] === label && row['class'] === name)).toHaveLength(confusion[i]![j]!)
      expect(rows.filter((row) => row['class'] === label)).toHaveLength(counts[label]!)
    }
    for (const { probability, probability_2: second } of rows) expect([Number(probability) >= Number(second), Number(probability) + Number(second) <= 1.000002]).toEqual([true, true])
  })

  it('of images without classes says what they are, and leaves no results of others behind', async () => {
    const [out, unlabelled] = [await folderWith(), await folderWith({ 'images-idx3-ubyte': stripeFiles(COUNT, 1)['images-idx3-ubyte']! })]
    const labelled = await classifyImages({ subject: run, images: test, out })
    for (const request of [{ images: unlabelled }, { images: test, unlabelled: true }]) {
      const { counts, results } = await classifyImages({ subject: join(run, 'exported/classifier.safetensors'), ...request, out, top: 99 })
      expect([results, counts]).toEqual([null, labelled.counts])
      expect(await readdir(out)).toEqual(['predictions.csv'])
      expect(Object.keys((await rowsOf(out))[0]!)).toEqual(['image', ...['', '_2', '_3'].flatMap((rank) => [`class${rank}`, `probability${rank}`])])
    }
    const some = await classifyImages({ subject: run, images: unlabelled, limit: 7 })
    expect([some.images, Object.values(some.counts).reduce((a, b) => a + b)]).toEqual([7, 7])
  })

  it('knows classes by their names', async () => {
    // The labels of the classifier's classes 2 and 1, which are 0 and 1 here.
    const grey = async (level: number) => paint(8, 8, () => [level, level, level]).png().toBuffer()
    const files = Object.fromEntries(await Promise.all([0, 1, 2, 3].map(async (i) => [`${['b', 'a'][i % 2]}/${i}.png`, await grey([40, 220][i % 2]! + i)] as const)))
    const folder = await folderWith(files)
    const out = join(await folderWith(), 'colours')
    await finetune({ ...quick, from: 'random', train: folder, validation: 0.5, imageSize: 8, batchSize: 2, epochs: 1, out })
    const { results } = await classifyImages({ subject: out, images: await folderWith({ 'b/x.png': files['b/0.png']! }) })
    expect(results!.scores['classifier']).toMatchObject({ classes: ['a', 'b'], images: 1 })
    expect(results!.scores['classifier']!.confusion[0]).toEqual([0, 0])
    const read: string[] = []
    const sick = await folderWith({ ...files, 'a/broken.png': 'none' })
    const { images } = await classifyImages({ subject: out, images: sick, maxBroken: 0.5, onBroken: (error) => void read.push(error.message) })
    expect([images, read.length]).toEqual([4, 1])
    await expect(classifyImages({ subject: out, images: sick, maxBroken: 0 })).rejects.toThrow(/broken/)
    await expect(classifyImages({ subject: out, images: await folderWith({ 'c/x.png': files['b/0.png']! }) })).rejects.toThrow(
      /classes of the classifier \(a, b; or unlabelled, so that nothing is measured\) for images '.*', received 'class c'/
    )
    await expect(classifyImages({ subject: out, images: test })).rejects.toThrow(/has images of 1 channels, the classifier takes 3/)
  })

  it('takes a checkpoint, too: the running mean of its weights, which was measured', async () => {
    const [checkpoint] = (await readdir(join(run, 'checkpoints'))).sort().reverse()
    const { results } = await classifyImages({ subject: join(run, 'checkpoints', checkpoint!), images: test })
    expect(results!.scores).toEqual((await readResults(run))!.scores)
  })

  it('leaves results of other measurements, and files that are none of its own', async () => {
    const knn = JSON.stringify({ ...(await readResults(run))!, command: 'knn' })
    for (const content of [knn, '{"of": "somebody else"}']) {
      const out = await folderWith({ 'results.json': content, 'confusion.png': 'a picture' })
      await classifyImages({ subject: run, images: test, unlabelled: true, limit: 3, out })
      expect((await readdir(out)).sort()).toEqual(['confusion.png', 'predictions.csv', 'results.json'])
      expect(await readFile(join(out, 'results.json'), 'utf8')).toBe(content)
    }
  })

  it('leaves earlier predictions where no image can be decoded, or the network gives no numbers', async () => {
    const { tensors: alive } = torch.memory()
    const out = await folderWith({ 'predictions.csv': 'of before' })
    const colours = join(await folderWith(), 'colours')
    const grey = (level: number) => paint(8, 8, () => [level, level, level]).png().toBuffer()
    const train = await folderWith(Object.fromEntries(await Promise.all([0, 1, 2, 3].map(async (i) => [`${'ab'[i % 2]}/${i}.png`, await grey(60 * i)] as const))))
    await finetune({ ...quick, from: 'random', train, validation: 0.5, imageSize: 8, batchSize: 2, epochs: 1, out: colours })
    const broken = await folderWith({ 'a/x.png': 'none' })
    await expect(classifyImages({ subject: colours, images: broken, out })).rejects.toThrow(/None of the 1 images of '.*' can be decoded/)

    const { tensors, metadata } = await loadSafetensors(join(run, 'exported/classifier.safetensors'))
    const diverged = join(await folderWith(), 'diverged.safetensors')
    tensors['head.bias']!.fill_(NaN)
    await saveSafetensors(diverged, tensors, metadata)
    for (const tensor of Object.values(tensors)) tensor.dispose()
    for (const unlabelled of [true, false]) {
      await expect(classifyImages({ subject: diverged, images: test, unlabelled, out })).rejects.toThrow(DivergedError)
    }
    expect([await readdir(out), await readFile(join(out, 'predictions.csv'), 'utf8')]).toEqual([['predictions.csv'], 'of before'])
    expect(torch.memory().tensors).toBeLessThanOrEqual(alive)
  })

  it('refuses what cannot classify, and a place that is taken', async () => {
    const { tensors } = torch.memory()
    const pretrained = join(await folderWith(), 'run')
    await pretrain({ images: test, out: pretrained, ...quick, limit: 24, epochs: 1 })
    const cases: readonly [subject: string, message: RegExp][] = [
      ['nowhere', /a finetuning's folder or a file of its weights for what classifies, received 'nowhere'/],
      [pretrained, /has no classifier: expected a finetuning that is done/],
      [join(pretrained, 'exported/backbone.safetensors'), /has no classifier: expected the weights of a finetuning/],
      [join(test, 'images-idx3-ubyte'), /no legal safetensors file|no weights/]
    ]
    for (const [subject, message] of cases) await expect(classifyImages({ subject, images: test })).rejects.toThrow(message)
    await expect(classifyImages({ subject: run, images: test, out: run })).rejects.toThrow(/a folder that is not itself a run for --out/)
    await expect(classifyImages({ subject: run, images: test, top: 0 })).rejects.toThrow(/an integer of at least 1 for top, received 0/)
    await expect(classifyImages({ subject: run, images: await folderWith({ 'images-idx3-ubyte': idx([0, 8, 8], []) }) })).rejects.toThrow(/image/)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })
})

it('gmml classify: from the run alone', async () => {
  const outcome = await gmml(['classify', run, test, '--device', 'cpu'])
  expect(outcome.code, outcome.stderr).toBe(0)
  const { accuracy } = (await readResults(run))!.scores['classifier']!
  expect(outcome.stdout).toContain(`${(100 * accuracy).toFixed(2)} % (95 %:`)
  expect(await rowsOf(join(run, 'classify', basename(test)))).toHaveLength(COUNT)
  const unlabelled = await gmml(['classify', run, test, '--unlabelled', '--out', await folderWith()])
  expect(unlabelled.stdout.trim().split('\n').reduce((sum, line) => sum + Number(line.trim().split(' ')[0]), 0)).toBe(COUNT)
})
