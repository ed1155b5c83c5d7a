import { readdir, readFile, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterEach, describe, expect, it, vi } from 'vitest'

import {
  loadEncoder, loadModel, pretrain, RunFolder, type EpochReport, type PretrainConfigInput, type PretrainHooks, type RunStart,
  type StepReport
} from '../../src/train/index.js'
import * as torch from '../../src/torch/index.js'
import { measureKnn } from '../../src/evaluate/index.js'
import { GroupMaskedModel } from '../../src/gmml/index.js'
import { loadSafetensors } from '../../src/io/index.js'
import { Block } from '../../src/vision/index.js'
import { folderWith, idx } from '../data/support.js'
import { stripes } from '../evaluate/support.js'
import { fillDisk, metricsOf, newestCheckpoint, photos, small } from './support.js'

torch.setNumThreads(1)

afterEach(() => void vi.restoreAllMocks())

/** By the paper: linear from 0 to the base over the warm-up, then half a cosine. */
const cosine = (base: number, final: number, part: number) => final + ((base - final) * (1 + Math.cos(Math.PI * part))) / 2

describe('pretrain', () => {
  it('reconstructs from the blocks it is told to, and a checkpoint says which', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('run'), epochs: 1, featureBlocks: [1, 4], overhang: true })
    const { model } = await loadModel((await new RunFolder(out('run')).listCheckpoints())[0]!)
    expect(model.blocks).toEqual([1, 4])
    model.dispose()
    await expect(pretrain({ ...settings, images, out: out('none'), featureBlocks: [5] })).rejects.toThrow(/different blocks between 1 and 4 for blocks/)
    expect(new RunFolder(out('none')).exists).toBe(false)
  })

  it('leaves config, metrics, checkpoints, reconstructions and an encoder, tells what it does, and frees every tensor', async () => {
    const { images, out, settings } = await small()
    const { tensors } = torch.memory()
    const starts: RunStart[] = []
    const steps: StepReport[] = []
    const epochs: EpochReport[] = []
    const hooks: PretrainHooks = {
      onStart: (start) => starts.push(start), onStep: (report) => steps.push(report), onEpoch: (report) => epochs.push(report)
    }
    const run = new RunFolder(out('a'))
    const result = await pretrain({ ...settings, images, out: run.path, epochs: 3, knnEvery: 2 }, hooks)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    const exported = join(run.exported, 'backbone.safetensors')
    expect(result).toEqual({ status: 'done', out: run.path, steps: 9, loss: epochs.at(-1)!.loss, exported })

    expect(starts).toMatchObject([{ images: 24, classes: 3, device: 'cpu', precision: 'float32', threads: 1, resumedFrom: null }])
    const { backbone, encoder } = await loadEncoder(exported)
    const { model } = await loadModel((await run.listCheckpoints()).at(-1)!)
    expect(starts[0]!.parameters).toBe(model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0))
    expect(torch.equal(backbone.pos_embed, model.backbone.pos_embed)).toBe(true)
    for (const module of [backbone, model]) module.dispose()
    expect(encoder).toMatchObject({ model: 'vit_micro', imageSize: [8, 8], patchSize: 4, channels: 1 })

    const lines = await metricsOf(run.path)
    const logged = lines.filter((line) => 'loss' in line)
    expect(logged.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(logged.map((line) => line['tensors'])).toEqual(logged.map(() => logged.at(-1)!['tensors']))
    for (const line of logged) expect(line['imagesPerSecond']! > 0 && line['dataShare']! > 0 && line['dataShare']! < 1).toBe(true)
    const told = steps.map(({ step, epoch, loss }) => [step, epoch, loss])
    expect(told).toEqual(logged.map((line) => [line['step'], Math.ceil(line['step']! / 3), line['loss']]))
    const ends = lines.filter((line) => 'epochLoss' in line)
    expect(ends.map(({ step, epoch }) => [step, epoch])).toEqual([[3, 1], [6, 2], [9, 3]])
    for (const [i, end] of ends.entries()) {
      const losses = logged.slice(3 * i, 3 * i + 3).map((line) => line['loss']!)
      expect(end['epochLoss']).toBeCloseTo((losses[0]! + losses[1]! + losses[2]!) / 3, 12)
    }
    expect(ends.map((end) => 'knn' in end)).toEqual([false, true, false])
    expect(epochs.map(({ epoch, accuracy }) => [epoch, accuracy])).toEqual([[1, null], [2, ends[1]!['knn']], [3, null]])

    expect(await readdir(run.checkpoints)).toEqual(['step-00000006.safetensors', 'step-00000009.safetensors'])
    expect(await readdir(run.reconstructions)).toEqual(['epoch-0001.png', 'epoch-0002.png', 'epoch-0003.png'])
    expect(await run.readConfig()).toMatchObject({ epochs: 3, lr: 0.01, minLr: 1e-6, precision: 'float32', imageCount: 24, encoder })
    expect((await readdir(run.path)).sort()).toEqual(['checkpoints', 'config.json', 'exported', 'metrics.jsonl', 'reconstructions'])
  })

  it('schedules learning rate and weight decay as stated', async () => {
    const { images, out, settings } = await small()
    const rates = { warmupEpochs: 1, lr: 0.32, minLr: 0.001, weightDecay: 0.1, weightDecayEnd: 0.3 }
    await pretrain({ ...settings, ...rates, images, out: out('a'), epochs: 10, checkpointEvery: 10 })
    const logged = (await metricsOf(out('a'))).filter((line) => 'loss' in line)
    const base = (0.32 * 8) / 256
    for (const [i, line] of logged.entries()) {
      const lr = i < 3 ? (base * i) / 2 : cosine(base, 0.001, (i - 3) / 27)
      expect(line['lr'], `step ${i + 1}`).toBeCloseTo(lr, 14)
      expect(line['weightDecay']).toBeCloseTo(cosine(0.1, 0.3, i / 30), 14)
    }
    expect(logged).toHaveLength(30)
    expect(await readdir(new RunFolder(out('a')).checkpoints)).toEqual(['step-00000030.safetensors'])
    // The optimizer has them too: the last step's, and no decay of what has one dimension.
    const groups = JSON.parse((await newestCheckpoint(out('a')))['param_groups']!) as { lr: number; weight_decay: number }[]
    const { lr, weightDecay } = logged.at(-1)!
    // As float32.
    const stored = [lr, weightDecay].map((rate) => Math.fround(rate!))
    expect(groups).toMatchObject([{ lr: stored[0], weight_decay: stored[1] }, { lr: stored[0], weight_decay: 0 }])
  })

  it('shortens the warm-up of a short run, and logs its last step in any case', async () => {
    const { images, out, settings } = await small()
    const reports: StepReport[] = []
    await pretrain({ ...settings, images, out: out('a'), epochs: 1, logEvery: 2 }, { onStep: (report) => reports.push(report) })
    expect(reports.map(({ step }) => step)).toEqual([2, 3])
    await pretrain({ ...settings, images, out: out('b'), epochs: 1, logEvery: 50 }, { onStep: (report) => reports.push(report) })
    expect(reports.at(-1)).toMatchObject({ step: 3, steps: 3, epoch: 1, epochs: 1 })
    expect((await metricsOf(out('b'))).map((line) => line['step'])).toEqual([3, 3])
    expect((await metricsOf(out('a')))[0]!['lr']).toBeGreaterThan(0)
  })

  it('learns', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('a'), epochs: 40, lr: 0.05, checkpointEvery: 40, dropPath: 0 })
    const losses = (await metricsOf(out('a'))).flatMap((line) => line['epochLoss'] ?? [])
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    expect(mean(losses.slice(-5))).toBeLessThan(0.8 * mean(losses.slice(0, 3)))
  })

  it.each<[Partial<PretrainConfigInput>, object, string[]]>([
    [{ registerTokens: 2 }, { registerTokens: 2 }, ['cls', 'mean']],
    [{ classToken: false }, { classToken: false }, ['mean']],
    [{ registerTokens: 3, classToken: false }, { registerTokens: 3, classToken: false }, ['mean']],
    [{ registerTokens: 0, classToken: true }, {}, ['cls', 'mean']]
  ])('with %o, which its files know', async (tokens, described, features) => {
    const { images, out, settings } = await small()
    const { tensors } = torch.memory()
    const run = out('a')
    await pretrain({ ...settings, ...tokens, images, out: run, knnEvery: 1 })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    const { encoder, backbone } = await loadEncoder(join(run, 'exported/backbone.safetensors'))
    const { mean, std } = encoder
    expect(encoder).toEqual({ model: 'vit_micro', imageSize: [8, 8], patchSize: 4, channels: 1, ...described, mean, std })
    const { registerTokens = 0, classToken = true } = tokens
    expect(backbone.numPrefixTokens).toBe(registerTokens + Number(classToken))
    expect(Object.keys(backbone.stateDict()).slice(0, 3).includes('cls_token')).toBe(classToken)
    // The norm is one that pretraining has trained.
    expect(backbone.stateDict()['norm.weight']!.eq(1).all().item()).toBe(false)
    backbone.dispose()
    expect(Object.keys((await measureKnn({ subject: run, train: images, test: await stripes(12), k: 3 })).scores)).toEqual(features)
    expect((await pretrain({ images, out: run, resume: true, epochs: 3 })).status).toBe('done')
    await expect(pretrain({ images, out: run, resume: true, registerTokens: 5 })).rejects.toThrow(/other settings of registerTokens/)
  })

  it.each(['bf16', 'fp16', 'auto'] as const)('runs with --amp %s, and frees every tensor', async (amp) => {
    const { images, out, settings } = await small()
    const { tensors } = torch.memory()
    const precisions: string[] = []
    await pretrain({ ...settings, images, out: out('a'), amp }, { onStart: ({ precision }) => void precisions.push(precision) })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(precisions[0]).toMatch({ bf16: /^bfloat16$/, fp16: /^float16$/, auto: /^(float32|bfloat16)$/ }[amp])
    const losses = (await metricsOf(out('a'))).flatMap((line) => line['loss'] ?? [])
    expect(losses).toHaveLength(6)
    for (const loss of losses) expect(Number.isFinite(loss) && loss > 0).toBe(true)
    const scaler = JSON.parse((await newestCheckpoint(out('a')))['scaler']!) as { _growth_tracker: number } | null
    expect(scaler?._growth_tracker ?? null).toBe(amp === 'fp16' ? 6 : null)
  })

  it('stops at more broken images than maxBroken, and goes on with more of them allowed', async () => {
    const { out, settings } = await small()
    const images = await photos()
    for (const name of ['even/x.png', 'odd/y.png']) await writeFile(join(images, name), 'no image')
    const config = { ...settings, images, out: out('a'), batchSize: 4, imageSize: 16, align: 4, epochs: 1 }
    await expect(pretrain(config)).rejects.toThrow(/^2 of 8 images are broken, and at most 1 may be \(maxBroken\)/)
    const broken: string[] = []
    const onBroken = ({ file }: { readonly file: string }) => broken.push(file)
    const result = await pretrain({ ...config, resume: true, maxBroken: 0.25 }, { onBroken })
    expect(result).toMatchObject({ status: 'done', steps: 2 })
    expect(broken.sort()).toEqual(['even/x.png', 'odd/y.png'].map((name) => join(images, name)))
  })

  it.each<Parameters<typeof pretrain>[0]['fill']>(['zeros', 'shuffle'])('fills with %s, on colour images in files', async (fill) => {
    const { out, settings } = await small()
    const { tensors } = torch.memory()
    const config = { ...settings, images: await photos(), out: out('a'), batchSize: 3, imageSize: 16, align: 4, workers: 2, fill }
    const result = await pretrain({ ...config, knnEvery: 1 })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(result).toMatchObject({ status: 'done', steps: 4 })
    expect(Number.isFinite(result.loss)).toBe(true)
    const { encoder, backbone } = await loadEncoder(result.exported!)
    backbone.dispose()
    expect(encoder).toMatchObject({ imageSize: [16, 16], channels: 3, mean: [0.485, 0.456, 0.406] })
    const grid = sharp(join(new RunFolder(out('a')).reconstructions, 'epoch-0001.png'))
    expect(await grid.metadata()).toMatchObject({ width: 4 * 116 + 4, height: 6 * 116 + 4, channels: 3 })
    const other = await pretrain({ ...config, out: out('b'), fill: 'noise' })
    expect(other.loss).not.toBe(result.loss)
  })

  const single: Partial<PretrainConfigInput>[] = [
    { seed: 1 }, { maskBudget: 0.3 }, { alien: 0 }, { allPixels: true }, { clip: 0.001 }, { dropPath: 0 }, { cropScale: [0.9, 1] },
    { flip: 1 }, { jitter: 1, jitterStrength: [0.9, 0, 0, 0] }, { blur: 1, blurSigma: [2, 3] }, { solarize: 1, solarizeThreshold: 0.2 }
  ]
  it.each(single)(
    'the setting %o matters, and the same settings give the same', async (setting) => {
      const { images, out, settings } = await small()
      // No warm-up: the first steps must count.
      const config = { ...settings, images, epochs: 1, warmupEpochs: 0, lr: 0.3 }
      const plain = await pretrain({ ...config, out: out('a') })
      const again = await pretrain({ ...config, out: out('b') })
      const other = await pretrain({ ...config, out: out('c'), ...setting })
      expect(again.loss).toBe(plain.loss)
      expect(await newestCheckpoint(out('b'))).toEqual(await newestCheckpoint(out('a')))
      if ('clip' in setting) expect(await newestCheckpoint(out('c'))).not.toEqual(await newestCheckpoint(out('a')))
      else expect(other.loss).not.toBe(plain.loss)
    }
  )
})

it.each(['off', 'bf16'] as const)('computes the same with blocks computed again in backward, amp %s', async (amp) => {
  const { images, out, settings } = await small()
  const config = { ...settings, images, amp, dropPath: 0.3 }
  const plain = await pretrain({ ...config, out: out('plain') })
  const again = vi.spyOn(Block.prototype, 'forward')
  expect((await pretrain({ ...config, out: out('again'), gradCheckpointing: true })).loss).toBe(plain.loss)
  // Four blocks, six steps, twice; and once for the picture after each of two epochs.
  expect(again).toHaveBeenCalledTimes(4 * (6 * 2 + 2))
  expect(await newestCheckpoint(out('again'))).toEqual(await newestCheckpoint(out('plain')))
})

it('exports the running mean of the weights where there is one, and goes on from the weights themselves', async () => {
  const { images, out, settings } = await small()
  const plain = await pretrain({ ...settings, images, out: out('plain') })
  const { loss, exported } = await pretrain({ ...settings, images, out: out('mean'), ema: 0.5 })
  expect(loss).toBe(plain.loss)
  const { tensors: encoder } = await loadSafetensors(exported!)
  const { tensors: last } = await loadSafetensors((await new RunFolder(out('mean')).listCheckpoints()).at(-1)!)
  for (const [name, tensor] of Object.entries(encoder)) {
    expect(torch.equal(tensor, last[`ema.backbone.${name}`]!), name).toBe(true)
  }
  expect(torch.equal(encoder['pos_embed']!, last['model.backbone.pos_embed']!)).toBe(false)
  expect(await newestCheckpoint(out('plain'))).toMatchObject({ 'model.backbone.pos_embed': (await newestCheckpoint(out('mean')))['model.backbone.pos_embed'] })
})

describe('pretrain stops', () => {
  it('where the loss is not finite for some steps, with the place and a remedy, and without saving what is spoilt', async () => {
    const { images, out, settings } = await small()
    const { tensors } = torch.memory()
    const reports: StepReport[] = []
    const config = { ...settings, images, out: out('a'), epochs: 4, lr: 1e30, warmupEpochs: 0, clip: 0, maxSkipped: 4 }
    await expect(pretrain(config, { onStep: (report) => reports.push(report) })).rejects.toThrow(
      /^The loss is (NaN|-?Infinity): 4 steps without success in a row \(maxSkipped\), the last is step \d+ \(lr \d\.\d+e\+28, images .*\)\. .* not written yet; a smaller --lr/
    )
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(reports.at(-1)).toMatchObject({ loss: NaN, skipped: 3 })
    expect((await metricsOf(out('a'))).at(-1)).toMatchObject({ loss: null, skipped: 3 })
    expect(await readdir(new RunFolder(out('a')).checkpoints)).toEqual([])
  })

  it('where no step of a short training has success', async () => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, out: out('a'), epochs: 1, lr: 1e30, warmupEpochs: 0, clip: 0 }
    const spoil = vi.spyOn(GroupMaskedModel.prototype, 'loss').mockImplementation(function (this: GroupMaskedModel) {
      return this.backbone.pos_embed.sum().mul(NaN)
    })
    await expect(pretrain(config)).rejects.toThrow(/^The loss is NaN: 3 steps without success in a row \(maxSkipped\), the last is step 3/)
    spoil.mockRestore()
    expect(await readdir(new RunFolder(out('a')).checkpoints)).toEqual([])
  })

  it('not for a single step without a finite loss: that one changes nothing, and is counted', async () => {
    const { images, out, settings } = await small()
    const original: (...given: Parameters<GroupMaskedModel['loss']>) => torch.Tensor = Reflect.get(GroupMaskedModel.prototype, 'loss')
    const weights: number[] = []
    let calls = 0
    const spoil = vi.spyOn(GroupMaskedModel.prototype, 'loss').mockImplementation(function (this: GroupMaskedModel, ...given) {
      weights.push(this.backbone.pos_embed.sum().item())
      // The gradients of the third step are infinite, the loss of the fourth is NaN.
      const spoilt = [Infinity, NaN][calls++ - 2]
      const loss = original.apply(this, given)
      return spoilt === Infinity ? loss.add(loss.sub(loss.detach()).mul(Infinity)) : loss.mul(spoilt ?? 1)
    })
    const losses: number[] = []
    const run = await pretrain({ ...settings, images, out: out('a'), epochs: 3 }, { onStep: ({ loss }) => losses.push(loss) })
    spoil.mockRestore()
    expect(run.status).toBe('done')
    expect(losses.map(Number.isNaN)).toEqual([false, false, true, true, false, false, false, false, false])
    expect(weights.map((sum, i) => sum === weights[i - 1])).toEqual([false, false, false, true, true, false, false, false, false])
    expect(new Set((await metricsOf(out('a'))).flatMap((line) => line['skipped'] ?? []))).toEqual(new Set([1, 2]))
    // No checkpoint at the end of the first epoch, whose last step was skipped.
    expect(await readdir(new RunFolder(out('a')).checkpoints)).toEqual(['step-00000006.safetensors', 'step-00000009.safetensors'])
  })

  it('where the disk is full, with the earlier checkpoint and metrics intact, and goes on when there is room', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('whole'), epochs: 3 })
    const { tensors } = torch.memory()
    const run = new RunFolder(out('full'))
    const onEpoch = ({ epoch }: EpochReport) => void (epoch === 1 && fillDisk(3))
    const attempt = pretrain({ ...settings, images, out: run.path, epochs: 3 }, { onEpoch })
    await expect(attempt).rejects.toThrow(/^Cannot write the checkpoint '.*step-00000006.safetensors': ENOSPC: no space left on device/)
    vi.restoreAllMocks()
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(await readdir(run.checkpoints)).toEqual(['step-00000003.safetensors'])
    expect((await metricsOf(run.path)).map((line) => line['step'])).toEqual([1, 2, 3, 3, 4, 5, 6, 6])
    await pretrain({ images, out: run.path, resume: true })
    expect(await newestCheckpoint(run.path)).toEqual(await newestCheckpoint(out('whole')))
  })

  it('before anything is written where a setting does not go with the images, and frees what it had made', async () => {
    const { images, out, settings } = await small()
    const flat = await folderWith({ 'images-idx3-ubyte': idx([1, 8, 8], Array<number>(64).fill(1)), 'labels-idx1-ubyte': idx([1], [0]) })
    const { tensors } = torch.memory()
    const cases: readonly [Partial<Parameters<typeof pretrain>[0]>, RegExp][] = [
      [{ batchSize: 25 }, /at most the number of images, 24, for batchSize, received 25/],
      [{ align: 9 }, /at most the image size 8 for align, received 9/],
      [{ patchSize: 3 }, /a divisor of the image size 8 x 8 for patchSize/],
      [{ imageSize: 2 }, /at least the patch size, 4, for imageSize/],
      [{ images: flat, batchSize: 1, knnEvery: 1 }, /at least two images, with classes .* for knnEvery/],
      [{ device: 'cuda:63' }, /libtorch sees .*for device/],
      [{ out: join(images, 'labels-idx1-ubyte', 'run') }, /^Cannot write the run folder/]
    ]
    for (const [setting, message] of cases) {
      await expect(pretrain({ ...settings, images, out: out('a'), ...setting })).rejects.toThrow(message)
    }
    await expect(pretrain(undefined as never)).rejects.toThrow(/an object for the settings/)
    expect(existsSync(out('a'))).toBe(false)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('where a run is there already, which it leaves alone', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('a'), epochs: 1 })
    const config = await readFile(new RunFolder(out('a')).config)
    await expect(pretrain({ ...settings, images, out: out('a'), epochs: 5 })).rejects.toThrow(/already holds a run/)
    expect(await readFile(new RunFolder(out('a')).config)).toEqual(config)
  })

  it('where a hook throws, and frees every tensor', async () => {
    const { images, out, settings } = await small()
    const { tensors } = torch.memory()
    for (const name of ['onStart', 'onStep', 'onEpoch'] as const) {
      const hook = () => {
        throw new Error(`in ${name}`)
      }
      await expect(pretrain({ ...settings, images, out: out(name) }, { [name]: hook })).rejects.toThrow(`in ${name}`)
    }
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })
})
