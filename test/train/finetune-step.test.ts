import { describe, expect, it, vi } from 'vitest'

import { drawMixing, randomFor } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { parseFinetuneConfig, type FinetuneConfigInput } from '../../src/train/index.js'
import { FinetuneStep, layerGroups } from '../../src/train/finetune-step.js'
import { VisionTransformer } from '../../src/vision/index.js'

torch.setNumThreads(1)

const size = { imageSize: 16, patchSize: 8, channels: 2, embedDim: 32, depth: 3, numHeads: 2, numClasses: 4, registerTokens: 1 } as const
const labels = [0, 3, 1, 1, 2, 0, 3]

torch.manualSeed(1)
const images = torch.keep(torch.randn([7, 2, 16, 16]))
const initial = torch.noGrad(() =>
  Object.fromEntries(Object.entries(new VisionTransformer(size).stateDict()).map(([name, tensor]) =>
    [name, torch.keep(tensor.add(torch.randnLike(tensor).mul(0.1)))]
  ))
)

/** What a step from the same weights gives. */
function stepOf(options: Partial<FinetuneConfigInput> = {}, precision: 'float32' | 'bfloat16' = 'float32') {
  const config = parseFinetuneConfig({ from: 'random', train: 'train', out: 'out', dropPath: 0, warmupEpochs: 0, ...options })
  const model = new VisionTransformer(size)
  model.loadStateDict(initial)
  const step = new FinetuneStep(model, config, labels.length, 10, 'cpu', precision)
  const gradients: Record<string, Tensor> = {}
  const apply = step.optimizer.step.bind(step.optimizer)
  vi.spyOn(step.optimizer, 'step').mockImplementation((given) => {
    for (const [name, parameter] of model.namedParameters()) gradients[name] = torch.keep(parameter.grad!.clone())
    apply(given)
  })
  const [loss, finite] = step.run(images, labels, 3).toArray() as [number, number]
  expect(finite).toBe(1)
  return { loss, gradients, step, model }
}

describe('layerGroups', () => {
  it('lets the learning rate fall with every layer away from the classifier, as BEiT does', () => {
    const model = new VisionTransformer(size)
    const groups = layerGroups(model, 0.5)
    const of = new Map(groups.flatMap(({ parameters, lrScale, decays }) => parameters.map((parameter) => [parameter, { lrScale, decays }] as const)))
    const found = Object.fromEntries(Array.from(model.namedParameters(), ([name, parameter]) => [name, of.get(parameter)]))
    expect(groups.flatMap(({ parameters }) => parameters)).toHaveLength(model.parameters().length)
    // Of three blocks the last is one layer away, the embeddings four.
    expect(found).toMatchObject({
      'head.weight': { lrScale: 1, decays: true },
      'head.bias': { lrScale: 1, decays: false },
      'norm.weight': { lrScale: 1, decays: false },
      'blocks.2.mlp.fc1.weight': { lrScale: 0.5, decays: true },
      'blocks.1.attn.qkv.bias': { lrScale: 0.25, decays: false },
      'blocks.0.attn.qkv.weight': { lrScale: 0.125, decays: true },
      'patch_embed.proj.weight': { lrScale: 0.0625, decays: true },
      cls_token: { lrScale: 0.0625, decays: false },
      reg_token: { lrScale: 0.0625, decays: false },
      pos_embed: { lrScale: 0.0625, decays: false }
    })
    expect(layerGroups(model, 1).every(({ lrScale }) => lrScale === 1)).toBe(true)
  })

  it('moves each parameter by its part of the learning rate', () => {
    // Of so few steps AdamW's first ones are as long as the learning rate.
    const { model } = stepOf({ layerDecay: 0.5, lr: 1, weightDecay: 0, minLr: 1, mixup: 0, cutmix: 0 })
    const lr = labels.length / 256
    const moved = Object.fromEntries(Object.entries(model.stateDict()).map(([name, tensor]) => [name, tensor.sub(initial[name]!).abs().median().item()]))
    expect(moved['head.weight']! / lr).toBeCloseTo(1, 1)
    expect(moved['blocks.2.mlp.fc2.weight']! / lr).toBeCloseTo(0.5, 1)
    expect(moved['blocks.0.mlp.fc2.weight']! / lr).toBeCloseTo(0.125, 2)
    expect(moved['patch_embed.proj.weight']! / lr).toBeCloseTo(0.0625, 2)
  })
})

describe('FinetuneStep', () => {
  /** Cross entropy with smoothed labels, mixed as timm's mixup does, written out. */
  function expected(lambda: number, smoothing: number, seen: Tensor): number {
    const model = new VisionTransformer(size)
    model.loadStateDict(initial)
    const logs = torch.noGrad(() => model.logits(seen).logSoftmax(1)).toArray() as number[][]
    const target = (label: number, k: number) => (label === k ? 1 - smoothing : 0) + smoothing / 4
    const losses = logs.map((row, i) =>
      -row.reduce((sum, log, k) => sum + log * (lambda * target(labels[i]!, k) + (1 - lambda) * target(labels[6 - i]!, k)), 0)
    )
    return losses.reduce((sum, loss) => sum + loss) / 7
  }

  it('has the loss of smoothed and mixed labels', () => {
    expect(stepOf({ mixup: 0, cutmix: 0, labelSmoothing: 0 }).loss).toBeCloseTo(expected(1, 0, images), 5)
    expect(stepOf({ mixup: 0, cutmix: 0, labelSmoothing: 0.2 }).loss).toBeCloseTo(expected(1, 0.2, images), 5)
    const mixing = drawMixing(randomFor(0, 3, 'mixing'), { height: 16, width: 16 }, { mixup: 0.8, cutmix: 0 })!
    expect(mixing.kind).toBe('mixup')
    const seen = images.mul(mixing.lambda).add(images.flip([0]).mul(1 - mixing.lambda))
    expect(stepOf({ mixup: 0.8, cutmix: 0, labelSmoothing: 0.1 }).loss).toBeCloseTo(expected(mixing.lambda, 0.1, seen), 5)
  })

  it.each([2, 3, 7, 99])('gives in %d parts the gradients of the whole batch', (accumulate) => {
    const whole = stepOf()
    const parts = stepOf({ accumulate })
    expect(parts.loss).toBeCloseTo(whole.loss, 5)
    for (const [name, gradient] of Object.entries(whole.gradients)) {
      const distance = parts.gradients[name]!.sub(gradient).abs().max().item()
      expect(distance, name).toBeLessThanOrEqual(1e-8 + 2e-5 * gradient.abs().max().item())
    }
    expect(whole.gradients['pos_embed']!.abs().max().item()).toBeGreaterThan(1e-5)
  })

  it('clips all gradients together', () => {
    const free = stepOf({ clip: 0 })
    const norm = Math.sqrt(Object.values(free.gradients).reduce((sum, gradient) => sum + gradient.square().sum().item(), 0))
    const clipped = stepOf({ clip: norm / 4 })
    for (const [name, gradient] of Object.entries(free.gradients)) {
      expect(torch.allclose(clipped.gradients[name]!, gradient.div(4), { rtol: 1e-4, atol: 1e-7 }), name).toBe(true)
    }
  })

  it('works in bfloat16', () => {
    expect(Math.abs(stepOf({}, 'bfloat16').loss / stepOf().loss - 1)).toBeLessThan(0.02)
  })
})
