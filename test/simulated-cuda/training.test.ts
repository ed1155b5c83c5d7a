import { counts, forbidWaiting, problems, reset, simulated } from './index.js'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'

import { randomFor } from '../../src/data/index.js'
import { measureKnn, measureProbe } from '../../src/evaluate/index.js'
import { GroupMaskedModel } from '../../src/gmml/index.js'
import * as torch from '../../src/torch/index.js'
import { finetune, pretrain, type FinetuneConfigInput, type PretrainConfigInput } from '../../src/train/index.js'
import { parseConfig } from '../../src/train/config.js'
import { PretrainStep } from '../../src/train/pretrain-step.js'
import { visionTransformer } from '../../src/vision/index.js'
import { folderWith, noise } from '../data/support.js'
import { stripeFiles } from '../evaluate/support.js'
import { reproducible, type Line } from '../train/support.js'

torch.setNumThreads(1)

beforeEach(() => {
  forbidWaiting(false)
  reset()
})

/** Equal but for rounding: a few operators are put together in other ways on a GPU. */
function expectClose(received: readonly Line[], wanted: readonly Line[]): void {
  expect(received.map((line) => Object.keys(line))).toEqual(wanted.map((line) => Object.keys(line)))
  const numbers = (lines: readonly Line[]) => lines.flatMap((line) => Object.values(line))
  for (const [i, number] of numbers(received).entries()) expect(number).toBeCloseTo(numbers(wanted)[i]!, 5)
}

/** PNG files of several sizes, in two classes. */
async function photographs(count: number): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {}
  for (let i = 0; i < count; i++) files[`${i % 2 ? 'a' : 'b'}/${i}.png`] = await noise(18 + (i % 7), 16 + (i % 9)).png().toBuffer()
  return files
}

const common = { model: 'vit_micro', patchSize: 4, epochs: 2, batchSize: 16, logEvery: 1, threads: 1 } as const

describe.skipIf(!simulated)('a training on a GPU, simulated, is the one on the CPU', () => {
  it.each<[string, Partial<PretrainConfigInput>]>([
    ['in float32, with a running mean and kNN', { amp: 'off', ema: 0.9, knnEvery: 1 }], ['in float16 with a loss scaler', { amp: 'fp16' }],
    ['in parts of a batch', { amp: 'off', accumulate: 2 }], ['with checkpointed blocks', { amp: 'off', gradCheckpointing: true }],
    ['with shuffled pixels and every colour change', { amp: 'off', fill: 'shuffle', jitter: 1, blur: 0.5, solarize: 0.5 }]
  ])('pretraining %s', async (_, changes) => {
    const images = await folderWith(stripeFiles(64))
    const folder = await folderWith()
    const notices: string[] = []
    const run = (device: 'cpu' | 'cuda') =>
      pretrain({ images, ...common, ...changes, device, out: join(folder, device) }, { onNotice: (message) => notices.push(message) })
    await run('cpu')
    expect(counts().kernels).toBe(0)
    await run('cuda')
    expect(counts().kernels).toBeGreaterThan(1000)
    // The simulation has no graphs, as an addon that was built without CUDA's headers.
    expect(notices).toEqual([expect.stringMatching(/^Steps are not replayed as a CUDA graph.*(headers|gradCheckpointing)/)])
    // Autocast has rules of its own for each kind of device.
    if (changes.amp === 'off') expectClose(await reproducible(join(folder, 'cuda')), await reproducible(join(folder, 'cpu')))
    expect(problems()).toEqual([])
  })

  it('pretraining on images that were decoded to be held', async () => {
    const folder = await folderWith()
    const images = await folderWith(await photographs(24))
    const notices: string[] = []
    for (const device of ['cpu', 'cuda'] as const) {
      const settings = { images, ...common, imageSize: 16, hold: 0.001, knnEvery: 1, amp: 'off', graph: 'off', device, out: join(folder, device) } as const
      await pretrain(settings, { onNotice: (message) => notices.push(message) })
    }
    expect(notices).toEqual(['cpu', 'cuda'].map((device) => `Decoding 24 images to hold them on ${device}, 0.041 MB`))
    expectClose(await reproducible(join(folder, 'cuda')), await reproducible(join(folder, 'cpu')))
    expect(problems()).toEqual([])
  })

  it('finetuning, kNN and linear probe', async () => {
    const folder = await folderWith(stripeFiles(48, 0, 'train-'))
    const run = (device: 'cpu' | 'cuda') => {
      const settings: FinetuneConfigInput = { from: 'random', train: folder, ...common, amp: 'off', device, mixup: 0.8, cutmix: 1, randAugment: 2, out: join(folder, device) }
      return finetune(settings)
    }
    const [cpu, cuda] = [await run('cpu'), await run('cuda')]
    expectClose(await reproducible(join(folder, 'cuda')), await reproducible(join(folder, 'cpu')))
    expect(cuda.results!.scores).toEqual(cpu.results!.scores)
    for (const measure of [measureKnn, measureProbe]) {
      const scores = async (device: 'cpu' | 'cuda') => (await measure({ subject: join(folder, 'cpu'), train: folder, device })).scores
      expect(await scores('cuda')).toEqual(await scores('cpu'))
    }
    expect(problems()).toEqual([])
  })
})

describe.skipIf(!simulated)('a step of pretraining', () => {
  it.each(['float32', 'bfloat16', 'float16'] as const)('does not wait for the device, in %s', (precision) => {
    const model = torch.scope(() => new GroupMaskedModel(visionTransformer('vit_micro', { imageSize: 16, patchSize: 4, dropPath: 0.1 })).to('cuda'))
    const config = parseConfig({ images: 'images', out: 'out', ema: 0.9, accumulate: 2, fill: 'shuffle' })
    const step = new PretrainStep(model, config, 10, 'cuda', precision)
    const images = torch.randn([8, 3, 16, 16], { device: 'cuda' })
    const run = (done: number) => torch.scope(() => void step.run(images, done, (view) => randomFor(done, view)))
    run(0) // the optimizer makes its state
    reset()
    forbidWaiting(true)
    run(1)
    expect(counts()).toMatchObject({ toHost: 0, waits: 0 })
    // What is corrupted, by which images.
    expect(counts().toDevice).toBeLessThanOrEqual(12)
    expect(problems()).toEqual([])
  })
})
