import { beforeAll, describe, expect, it } from 'vitest'

import { corrupt, GroupMaskedModel } from '../../src/gmml/index.js'
import { AdamW, clipGradNorm, cosineSchedule } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { unpatchify, VisionTransformer, type VisionTransformerOptions } from '../../src/vision/index.js'
import { expectAllNear, expectNear, perturb, references, report, type Task, type Tensors, weights } from './python.js'

interface Size extends VisionTransformerOptions {
  readonly imageSize: readonly [number, number]
  readonly patchSize: number
  readonly channels: number
}

const sizes: Record<string, Size> = {
  'tiny 224/16': { imageSize: [224, 224], patchSize: 16, channels: 3, embedDim: 192, depth: 12, numHeads: 3 },
  'micro 28/4, one channel': { imageSize: [28, 28], patchSize: 4, channels: 1, embedDim: 128, depth: 4, numHeads: 4 },
  '24 x 40, MLP ratio 2': { imageSize: [24, 40], patchSize: 8, channels: 2, embedDim: 32, depth: 3, numHeads: 2, mlpRatio: 2 },
  'one block, one patch': { imageSize: [8, 8], patchSize: 8, channels: 3, embedDim: 16, depth: 1, numHeads: 1 }
}

const configOf = ({ imageSize, patchSize, channels, embedDim, depth, numHeads, mlpRatio = 4 }: Size) => ({
  model: { dim: embedDim, depth, heads: numHeads, mlp_ratio: mlpRatio },
  image_size: imageSize,
  patch_size: patchSize,
  channels
})

const detached = (entries: Iterable<readonly [string, Tensor]>): Tensors =>
  Object.fromEntries(Array.from(entries, ([name, tensor]) => [name, tensor.detach().clone()]))

interface Case {
  readonly size: Size
  readonly model: GroupMaskedModel
  readonly views: { corrupted: Tensor; clean: Tensor; mask: Tensor }
}

function makeCase(size: Size, batch: number): Case {
  const clean = torch.randn([batch, size.channels, ...size.imageSize])
  const model = perturb(new GroupMaskedModel(new VisionTransformer(size)))
  return { size, model, views: { clean, ...corrupt(clean, { alien: 0.3 }) } }
}

/** Loss, prediction as an image, and every gradient. */
function step({ model, views, size }: Case): Tensors {
  model.zeroGrad()
  return torch.scope(() => {
    const { corrupted, clean, mask } = views
    const prediction = unpatchify(model.call(corrupted), size.patchSize, ...size.imageSize)
    const loss = model.loss(corrupted, clean, mask)
    loss.backward()
    const gradients = Array.from(model.namedParameters(), ([name, parameter]) => [`grad.${name}`, parameter.grad!] as const)
    return { loss: loss.detach(), prediction: prediction.detach(), ...Object.fromEntries(gradients) }
  })
}

torch.manualSeed(7)
const cases = Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, makeCase(size, name.startsWith('tiny') ? 2 : 5)]))
const micro = cases['micro 28/4, one channel']!

// Learning rate and weight decay as a run has them, the clip at a norm that some gradients are above and some below.
const lr = [0, 1, 2].map(cosineSchedule({ base: 1e-3, final: 1e-6, steps: 3, warmupSteps: 2, start: 1e-4 }))
const weightDecay = [0, 1, 2].map(cosineSchedule({ base: 0.04, final: 0.4, steps: 3 }))
const clips = { tensor: 0.01, global: 0.1, none: 0 }
const initial = detached(Object.entries(micro.model.stateDict()))

const tasks: Record<string, Task> = {}
for (const [name, { model, views, size }] of Object.entries(cases)) {
  const config = configOf(size)
  tasks[`forward ${name}`] = { task: 'vit_forward', tensors: { ...weights(model.backbone.stateDict()), image: views.clean }, config }
  tasks[`step ${name}`] = { task: 'gmml_step', tensors: { ...weights(model.stateDict()), ...views }, config }
}
tasks['autocast'] = {
  task: 'gmml_step',
  tensors: { ...weights(initial), ...micro.views },
  config: { ...configOf(micro.size), autocast: 'bfloat16' }
}
for (const fused of [false, true]) {
  for (const [mode, clip] of Object.entries(clips)) {
    tasks[`adamw ${mode}${fused ? ' fused' : ''}`] = {
      task: 'adamw_steps',
      tensors: { ...weights(initial), ...micro.views },
      config: { ...configOf(micro.size), lr, weight_decay: weightDecay, clip, clip_mode: mode, betas: [0.9, 0.95], eps: 1e-8, fused }
    }
  }
}

const reference: Record<string, Tensors> = {}

beforeAll(async () => {
  const results = await references(Object.values(tasks))
  Object.keys(tasks).forEach((name, i) => (reference[name] = results[i]!))
})

describe.each(Object.entries(cases))('parity with PyTorch: %s', (name, tested) => {
  it('forward', () => {
    const { backbone, blocks } = tested.model
    const { clean } = tested.views
    const averaged = torch.noGrad(() => backbone.call(clean, blocks))
    const received = {
      tokens: torch.noGrad(() => backbone.call(clean)),
      reconstruction_input: averaged.narrow(1, 1, averaged.shape[1]! - 1)
    }
    expect(received.tokens.shape).toEqual([clean.shape[0], 1 + backbone.numPatches, backbone.embedDim])
    report(`forward ${name}`, expectAllNear(received, reference[`forward ${name}`]!))
  })

  it('loss, prediction and the gradient of every parameter', () => {
    const received = step(tested)
    const parameters = [...tested.model.namedParameters()]
    expect(Object.keys(received)).toHaveLength(2 + parameters.length)
    const wanted = reference[`step ${name}`]!
    // Of one block, one patch and one CLS token nothing is without a gradient; in every other case neither.
    for (const [key] of parameters) expect(wanted[`grad.${key}`]!.abs().max().item(), `gradient of ${key}`).toBeGreaterThan(0)
    report(`GMML step ${name}`, expectAllNear(received, wanted))
  })
})

describe.each([
  ['loop', ''],
  ['fused', ' fused']
])('three AdamW steps like PyTorch, which runs its own as a %s', (_, suffix) => {
  it.each(Object.entries(clips))('clip %s (%d)', (mode, clip) => {
    const { model, views } = micro
    model.loadStateDict(initial)
    const named = [...model.namedParameters()]
    const [decayed, plain] = [true, false].map((wanted) =>
      named.filter(([, { ndim }]) => ndim > 1 === wanted).map(([, parameter]) => parameter)
    )
    const optimizer = new AdamW([{ parameters: decayed! }, { parameters: plain!, weightDecay: 0 }], { betas: [0.9, 0.95], eps: 1e-8 })
    const order = [...decayed!, ...plain!]
    const received: Tensors = {}
    let clipped = 0
    for (const [i, rate] of lr.entries()) {
      optimizer.zeroGrad()
      const loss = model.loss(views.corrupted, views.clean, views.mask)
      loss.backward()
      received[`step.${i}.loss`] = loss.detach()
      if (mode === 'global') received[`step.${i}.norm`] = clipGradNorm(order, clip)
      if (mode === 'tensor') {
        for (const [name, parameter] of named) {
          const norm = parameter.grad!.norm()
          received[`step.${i}.norm.${name}`] = norm
          clipped += Number(norm.item() > clip)
        }
        clipGradNorm(order, clip, { perTensor: true })
      }
      for (const group of optimizer.groups) group.lr = rate
      optimizer.groups[0]!.weightDecay = weightDecay[i]!
      optimizer.step()
      const { state } = optimizer.stateDict()
      for (const [name, parameter] of named) {
        const { step, exp_avg, exp_avg_sq } = state.get(order.indexOf(parameter))!
        expect(step.item()).toBe(i + 1)
        received[`step.${i}.param.${name}`] = parameter.detach().clone()
        received[`step.${i}.exp_avg.${name}`] = exp_avg.clone()
        received[`step.${i}.exp_avg_sq.${name}`] = exp_avg_sq.clone()
      }
    }
    const wanted = reference[`adamw ${mode}${suffix}`]!
    if (mode === 'tensor') {
      expect(clipped, 'gradients above the clip').toBeGreaterThan(10)
      expect(clipped, 'gradients above the clip').toBeLessThan(3 * named.length - 10)
    }
    if (mode === 'global') expect(wanted['step.0.norm']!.item()).toBeGreaterThan(clip)
    const difference = expectAllNear(received, wanted)
    report(`AdamW ${mode}${suffix}`, difference)
    optimizer.dispose()
  })
})

describe('autocast to bfloat16 on the CPU', () => {
  it('gives the loss and the gradients that Python gives', () => {
    const { model, views } = micro
    model.loadStateDict(initial)
    model.zeroGrad()
    const precise = reference['step micro 28/4, one channel']!
    const wanted = reference['autocast']!
    const loss = torch.autocast('cpu', 'bfloat16', () => model.loss(views.corrupted, views.clean, views.mask))
    loss.backward()
    expect(loss.dtype).toBe('float32')
    report('autocast loss', expectNear(loss.detach(), wanted['loss'], 'loss', { absolute: 2e-3, relative: 2e-3 }))
    for (const [name, parameter] of model.namedParameters()) {
      // As near to Python's autocast as rounding to eight bits lets two orders of summation be.
      expectNear(parameter.grad!, wanted[`grad.${name}`], name, { absolute: 1e-3, relative: 0.05 })
    }
    // And it was really in force.
    const prediction = torch.autocast('cpu', 'bfloat16', () => model.call(views.corrupted))
    expect(prediction.dtype).toBe('bfloat16')
    expect(loss.item()).not.toBe(precise['loss']!.item())
  })
})
