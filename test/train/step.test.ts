import { describe, expect, it, vi } from 'vitest'

import { randomFor } from '../../src/data/index.js'
import { GroupMaskedModel } from '../../src/gmml/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { parseConfig, type PretrainConfigInput } from '../../src/train/index.js'
import { PretrainStep } from '../../src/train/pretrain-step.js'
import { VisionTransformer } from '../../src/vision/index.js'

torch.setNumThreads(1)

const size = { imageSize: [16, 24] as const, patchSize: 8, channels: 2, embedDim: 32, depth: 3, numHeads: 2 }

torch.manualSeed(1)
const clean = torch.keep(torch.randn([10, 2, 16, 24]))
// At random initialisation the gradients of the first blocks are so small that equality would say little.
const initial = torch.noGrad(() =>
  Object.fromEntries(Object.entries(new GroupMaskedModel(new VisionTransformer(size)).stateDict()).map(([name, tensor]) =>
    [name, torch.keep(tensor.add(torch.randnLike(tensor).mul(0.1)))]
  ))
)

/** What a step from the same weights gives: loss, gradients, weights. */
function stepOf(options: Partial<PretrainConfigInput>, precision: 'float32' | 'bfloat16' | 'float16' = 'float32') {
  const config = parseConfig({ images: 'images', out: 'out', dropPath: 0, clip: 0, ...options })
  const model = new GroupMaskedModel(new VisionTransformer(size), { maskedOnly: !config.allPixels })
  model.loadStateDict(initial)
  const step = new PretrainStep(model, config, 10, 'cpu', precision)
  const gradients: Record<string, Tensor> = {}
  const apply = step.optimizer.step.bind(step.optimizer)
  vi.spyOn(step.optimizer, 'step').mockImplementation((given) => {
    for (const [name, parameter] of model.namedParameters()) gradients[name] = torch.keep(parameter.grad!.clone())
    apply(given)
  })
  const [loss, finite] = step.run(clean, 3, (view) => randomFor(7, view)).toArray() as [number, number]
  expect(finite).toBe(1)
  return { loss, gradients, step, model }
}

describe('accumulation', () => {
  const cases: readonly [name: string, options: Partial<PretrainConfigInput>, parts: number][] = [
    ['two parts', {}, 2],
    ['parts of different sizes', {}, 4],
    ['an image each', { fill: 'zeros' }, 10],
    ['more parts than images', {}, 99],
    ['with the loss over all pixels', { allPixels: true }, 3],
    ['with hardly any corruption, none in some images', { maskBudget: 0.02 }, 5]
  ]
  it.each(cases)('%s: loss and gradients of the whole batch', (_, options, parts) => {
    const whole = stepOf(options)
    const accumulated = stepOf({ ...options, accumulate: parts })
    expect(accumulated.loss).toBeCloseTo(whole.loss, 6)
    for (const [name, gradient] of Object.entries(whole.gradients)) {
      const distance = accumulated.gradients[name]!.sub(gradient).abs().max().item()
      expect(distance, name).toBeLessThanOrEqual(1e-9 + 2e-5 * gradient.abs().max().item())
    }
    expect(whole.gradients['backbone.pos_embed']!.abs().max().item()).toBeGreaterThan(1e-6)
  })

  it('works with a loss scaler, and in bfloat16', () => {
    const whole = stepOf({ clip: 1 })
    for (const precision of ['float16', 'bfloat16'] as const) {
      const accumulated = stepOf({ clip: 1, accumulate: 5 }, precision)
      expect(Math.abs(accumulated.loss / whole.loss - 1)).toBeLessThan(0.02)
      for (const [name, gradient] of Object.entries(whole.gradients)) {
        const cosine = torch.cosineSimilarity(accumulated.gradients[name]!.flatten(), gradient.flatten(), { dim: 0 }).item()
        expect(cosine, `${precision} ${name}`).toBeGreaterThan(0.98)
      }
    }
  })
})

describe('the running mean of the weights', () => {
  it('follows the steps, and costs nothing where it is not wanted', () => {
    expect(stepOf({}).step.ema).toBeNull()
    const { step, model } = stepOf({ ema: 0.75, lr: 0.1, warmupEpochs: 0 })
    const parameters = Array.from(model.namedParameters())
    let moved = 0
    for (const [i, [name, parameter]] of parameters.entries()) {
      const wanted = initial[name]!.mul(0.75).add(parameter.detach().mul(0.25))
      expect(step.ema!.means[i]!.sub(wanted).abs().max().item(), name).toBeLessThan(1e-6)
      moved += parameter.detach().sub(initial[name]!).abs().max().item()
    }
    expect(moved).toBeGreaterThan(0.01)
    // A step that is skipped does not move it either.
    const before = step.ema!.means.map((mean) => mean.clone())
    expect(step.run(clean.mul(NaN), 4, (view) => randomFor(7, view)).toArray()).toEqual([NaN, 0])
    expect(step.ema!.means.every((mean, i) => torch.equal(mean, before[i]!))).toBe(true)
  })
})
