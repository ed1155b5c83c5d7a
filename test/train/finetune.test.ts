import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'

import { measureKnn, readResults } from '../../src/evaluate/index.js'
import * as torch from '../../src/torch/index.js'
import {
  exportBackbone, finetune, loadEncoder, pretrain, RunFolder, type FinetuneConfigInput, type PretrainHooks
} from '../../src/train/index.js'
import { folderWith } from '../data/support.js'
import { stripeFiles, stripes } from '../evaluate/support.js'
import { metricsOf, newestCheckpoint, photos, reproducible } from './support.js'

torch.setNumThreads(1)

const quick = {
  model: 'vit_micro', patchSize: 4, batchSize: 8, epochs: 3, lr: 0.03, layerDecay: 1, amp: 'off', threads: 1, logEvery: 1, device: 'cpu'
} as const
// Stripes that are cropped, mixed or mirrored upside down are other stripes.
const plain = { mixup: 0, cutmix: 0, erasing: 0, randAugment: 0, cropScale: [1, 1], labelSmoothing: 0, dropPath: 0 } satisfies Partial<FinetuneConfigInput>

let train: string
let test: string
let folder: string
let count = 0
const out = () => join(folder, `run-${count++}`)

beforeEach(async () => {
  ;[train, test, folder] = [await stripes(48), await stripes(30, { seed: 1 }), await folderWith()]
})

const settings = (changes: Partial<FinetuneConfigInput> = {}): FinetuneConfigInput =>
  ({ ...quick, from: 'random', train, test, out: out(), ...changes })

async function interruptedAt(step: number, config: FinetuneConfigInput, hooks: PretrainHooks = {}) {
  const controller = new AbortController()
  return finetune(config, { ...hooks, signal: controller.signal, onStep: (report) => void (report.step >= step && controller.abort()) })
}

describe('finetune', () => {
  it('learns from scratch, measures once, and leaves a run behind', async () => {
    const config = settings({ ...plain, train: await stripes(120), epochs: 20, lr: 0.05 })
    const { tensors } = torch.memory()
    const { status, steps, results, exported } = await finetune(config)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect([status, steps]).toEqual(['done', 300])
    expect(results!.scores['classifier']).toMatchObject({ images: 30, top5: null, classes: ['0', '1', '2'] })
    expect(results!.scores['classifier']!.accuracy).toBeGreaterThan(0.9)
    expect(results).toMatchObject({ command: 'finetune', subject: 'random', train: { images: 120 }, measuredOn: { split: 'test' } })
    expect(await readResults(config.out)).toEqual(JSON.parse(JSON.stringify(results)))
    expect(await readdir(config.out)).toEqual(['checkpoints', 'config.json', 'confusion.png', 'exported', 'metrics.jsonl', 'results.json'])

    // The file is a classifier by itself, and an encoder for whoever wants one.
    const { backbone, encoder } = await loadEncoder(exported!)
    expect(encoder).toMatchObject({ classes: ['0', '1', '2'], pool: 'avg', imageSize: [8, 8], patchSize: 4 })
    expect(torch.scope(() => backbone.logits(torch.zeros([2, 1, 8, 8])).shape)).toEqual([2, 3])
    backbone.dispose()
    expect((await measureKnn({ subject: config.out, train, test, k: 5 })).scores['mean']!.accuracy).toBeGreaterThan(0.9)
    const { path } = await exportBackbone(config.out, { to: 'timm' })
    expect(JSON.parse(await readFile(join(path, 'config.json'), 'utf8'))).toMatchObject({ num_classes: 3 })
  })

  it('starts from a run, a checkpoint, exported weights, and a classifier of other classes', async () => {
    const run = out()
    await pretrain({ images: train, out: run, ...{ model: 'vit_micro', patchSize: 4, batchSize: 16, epochs: 1, amp: 'off', threads: 1 } })
    const checkpoint = (await new RunFolder(run).listCheckpoints())[0]!
    const { backbone } = await loadEncoder(checkpoint)
    const weight = torch.keep([...backbone.blocks][1]!.mlp.fc1.weight.detach().clone())
    backbone.dispose()
    const sources = [run, checkpoint, join(run, 'exported/backbone.safetensors')]
    for (const from of sources) {
      // So small a learning rate changes nothing that can be seen.
      const { exported } = await finetune(settings({ from, epochs: 1, lr: 1e-20, weightDecay: 0 }))
      const { backbone: classifier } = await loadEncoder(exported!)
      expect(torch.equal([...classifier.blocks][1]!.mlp.fc1.weight, weight)).toBe(true)
      classifier.dispose()
    }
    const four = await stripes(24, { classes: 4 })
    const first = await finetune(settings({ from: run, train: four, test: undefined, epochs: 1, validation: 0.25 }))
    const second = await finetune(settings({ from: first.out, epochs: 1 }))
    expect((await loadEncoder(second.exported!)).encoder.classes).toHaveLength(3)
  })

  it('takes weights to images of another size', async () => {
    const first = await finetune(settings({ epochs: 1 }))
    const second = await finetune(settings({ from: first.out, imageSize: 16, epochs: 1 }))
    expect((await loadEncoder(second.exported!)).encoder.imageSize).toEqual([16, 16])
  })

  it('learns from the labels that it may use, the same ones with the same seed', async () => {
    const seen: number[] = []
    for (const labels of ['25%', '25%', '3/class']) {
      await finetune(settings({ labels, epochs: 1 }), { onStart: ({ images }) => void seen.push(images) })
    }
    expect(seen).toEqual([12, 12, 9])
  })

  it('holds out images where it is told to or has no others, and can end with the best epoch', async () => {
    const config = settings({ ...plain, test: undefined, validation: 0.25, selectBest: true, epochs: 4, checkpointEvery: 9, keepLast: 1 })
    const { results } = await finetune(config)
    expect(results!.measuredOn).toEqual({ path: train, split: 'validation', images: 12 })
    const accuracies = (await metricsOf(config.out)).flatMap((line) => (line['accuracy'] === undefined ? [] : [line['accuracy']]))
    expect(accuracies).toHaveLength(4)
    expect(results!.scores['classifier']!.accuracy).toBe(Math.max(...accuracies))
    const without = await finetune(settings({ test: undefined, epochs: 1 }))
    expect(without.results!.measuredOn).toMatchObject({ split: 'validation', images: 5 })
    await expect(finetune(settings({ selectBest: true }))).rejects.toThrow(/images that are held out \(validation above 0\) for selectBest/)
  })

  it('can end with any epoch that was measured, also where checkpoints are rarer', async () => {
    const config = settings({ test: undefined, validation: 0.25, validateEvery: 2, selectBest: true, epochs: 6, checkpointEvery: 5, keepLast: 9 })
    await finetune(config)
    // 36 images are four whole steps of 8.
    expect(await readdir(new RunFolder(config.out).checkpoints)).toEqual([8, 16, 20, 24].map((step) => `step-${String(step).padStart(8, '0')}.safetensors`))
  })

  it('trains on photographs, in parts, with a running mean, with recomputed blocks, in bfloat16', async () => {
    const images = await photos()
    const config = settings({
      train: images, test: undefined, validation: 0.34, imageSize: 16, batchSize: 4, accumulate: 3, ema: 0.9, gradCheckpointing: true, amp: 'bf16', clip: 1
    })
    const { results } = await finetune(config)
    expect(results!.scores['classifier']!.classes).toEqual(['even', 'odd'])
  })
})

// RandAugment would round the values of both to the same bytes.
it('learns from images that are held decoded nearly as from their files, and measures as ever', async () => {
  const losses: number[] = []
  for (const hold of [0, 0.01]) {
    const notices: string[] = []
    const { loss, results } = await finetune(settings({ train: await photos(), test: await photos(), imageSize: 16, batchSize: 4, hold, randAugment: 0 }), {
      onNotice: (message) => notices.push(message)
    })
    losses.push(loss)
    expect(notices).toEqual(hold ? ['Decoding 6 images to hold them on cpu, 0.0081 MB'] : [])
    expect(results!.scores['classifier']!.images).toBe(6)
  }
  expect(losses[1]).not.toBe(losses[0])
  expect(losses[1]).toBeCloseTo(losses[0]!, 1)
})

describe('broken images', () => {
  it('stop a finetuning where they are more than maxBroken, those to learn from and those to measure on', async () => {
    const sick = async () => {
      const images = await photos()
      for (const name of ['even/x.png', 'odd/y.png']) await writeFile(join(images, name), 'no image')
      return images
    }
    const small = { imageSize: 16, batchSize: 4, epochs: 1 }
    const many = /^2 of 8 images are broken, and at most 1 may be \(maxBroken\)/
    await expect(finetune(settings({ ...small, train: await sick(), test: await photos() }))).rejects.toThrow(many)
    await expect(finetune(settings({ ...small, train: await photos(), test: await sick() }))).rejects.toThrow(many)
    const { results } = await finetune(settings({ ...small, train: await sick(), test: await sick(), maxBroken: 0.25 }))
    expect(results!.scores['classifier']!.images).toBe(6)
  })
})

describe('a finetuning that was interrupted and resumed equals one that was not, bit for bit', () => {
  const cases: readonly [name: string, step: number, changes: Partial<FinetuneConfigInput>][] = [
    ['in the first epoch', 2, {}],
    ["at an epoch's end", 6, { validation: 0.1 }],
    ['with a running mean, in float16', 7, { ema: 0.9, amp: 'fp16' }],
    ['with padded crops and the best epoch', 8, { cropPadding: 2, validation: 0.25, selectBest: true }]
  ]
  it.each(cases)('%s', async (_, step, changes) => {
    const config = settings({ batchSize: 6, ...changes })
    const whole = await finetune({ ...config, out: out() })
    expect(await interruptedAt(step, config)).toMatchObject({ status: 'interrupted', steps: step, results: null, exported: null })
    const resumed = await finetune({ from: 'random', train, test, out: config.out, resume: true })
    expect(resumed.results!.scores).toEqual(whole.results!.scores)
    expect(await newestCheckpoint(config.out)).toEqual(await newestCheckpoint(whole.out))
    const figures = async (run: string) => [await reproducible(run), (await metricsOf(run)).map((line) => line['accuracy'])]
    expect(await figures(config.out)).toEqual(await figures(whole.out))
  })

  it('also where what it started from is gone', async () => {
    const from = out()
    await pretrain({ images: train, out: from, model: 'vit_micro', patchSize: 4, epochs: 1, batchSize: 8, amp: 'off', device: 'cpu', threads: 1 })
    const config = settings({ from, epochs: 1 })
    const whole = await finetune({ ...config, out: out() })
    await interruptedAt(2, config)
    await rm(from, { recursive: true })
    expect((await finetune({ ...config, resume: true })).results!.scores).toEqual(whole.results!.scores)
    // Before its first checkpoint a run has no weights of its own.
    await expect(finetune(settings({ from }))).rejects.toThrow(/a run's folder, a file of weights or 'random' for from/)
  })

  it('and, once done, is not asked again', async () => {
    const config = settings()
    await finetune(config)
    const path = join(config.out, 'results.json')
    const before = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>
    await writeFile(path, JSON.stringify({ ...before, seconds: -1 }))
    expect((await finetune({ ...config, resume: true })).results!.seconds).toBe(-1)
  })

  it('and asked for other test images, measures on them', async () => {
    const config = settings()
    const first = await finetune(config)
    const others = await stripes(21, { seed: 5 })
    const { results } = await finetune({ ...config, test: others, resume: true })
    expect(results!.measuredOn).toEqual({ path: others, split: 'test', images: 21 })
    expect(JSON.parse(await readFile(join(config.out, 'results.json'), 'utf8'))).toEqual(results)
    expect(first.results!.measuredOn.path).toBe(test)
  })

  it('refuses other settings and other images', async () => {
    const config = settings()
    await interruptedAt(2, config)
    await expect(finetune({ ...config, resume: true, mixup: 0 })).rejects.toThrow(/other settings: mixup \(the run has 0.8, given is 0\)/)
    await expect(finetune({ ...config, resume: true, labels: '50%', override: true })).rejects.toThrow(/cannot go on with other settings of labels/)
    await expect(finetune({ ...config, resume: true, train: await stripes(60) })).rejects.toThrow(/the 48 images that the run began with for train/)
    await expect(finetune(config)).rejects.toThrow(/already holds a run/)
  })
})

describe('refusals come before the run folder is made', () => {
  it.each<[Partial<FinetuneConfigInput>, RegExp]>([
    [{ from: 'nowhere' }, /a run's folder, a file of weights or 'random' for from, received 'nowhere'/],
    [{ labels: '0%' }, /a part like '1%' or a number like '25\/class' for labels, received '0%'/],
    [{ labelSmoothing: 1 }, /a number below 1 for labelSmoothing, received 1/],
    [{ patchSize: 3 }, /a divisor of the image size 8 x 8 for patchSize, received 3/],
    [{ test: 'nowhere' }, /a folder that exists/],
    [{ device: 'cuda:7' }, /for device, received 'cuda:7'/],
    [{ mixup: -1 }, /a number of at least 0 for mixup, received -1/]
  ])('%o', async (changes, message) => {
    const config = settings(changes)
    const { tensors } = torch.memory()
    await expect(finetune(config)).rejects.toThrow(message)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    await expect(readdir(config.out)).rejects.toThrow(/ENOENT/)
  })

  it('for images that do not go together, or have no classes', async () => {
    const unlabelled = await stripes(9)
    await rm(join(unlabelled, 'labels-idx1-ubyte'))
    await expect(finetune(settings({ train: unlabelled }))).rejects.toThrow(/images with classes .* for --train/)
    await expect(finetune(settings({ test: train }))).rejects.toThrow(/another folder than --train/)
    const grey = await finetune(settings({ epochs: 1 }))
    await expect(finetune(settings({ from: grey.out, train: await photos(), test: undefined, validation: 0.4 }))).rejects.toThrow(
      /has images of 3 channels, the encoder takes 1/
    )
    const both = await folderWith({ ...stripeFiles(12, 0, 'train-'), ...stripeFiles(6, 1, 't10k-') })
    expect((await finetune(settings({ train: both, test: both, epochs: 1 }))).results!.measuredOn.images).toBe(6)
  })
})
