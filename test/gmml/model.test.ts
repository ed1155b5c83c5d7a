import { describe, expect, it } from 'vitest'

import { corrupt, GroupMaskedModel, reconstructionBlocks } from '../../src/gmml/index.js'
import { AdamW } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'
import { VisionTransformer, type VisionTransformerOptions } from '../../src/vision/index.js'

const size = { imageSize: [8, 12] as const, patchSize: 4, channels: 2, embedDim: 16, depth: 4, numHeads: 2 }
const make = (options: ConstructorParameters<typeof GroupMaskedModel>[1] = {}) => new GroupMaskedModel(new VisionTransformer(size), options)

const clean = torch.randn([3, 2, 8, 12])
const { corrupted, mask } = corrupt(clean)

describe('a group masked model refuses', () => {
  const model = make()
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'a block that the backbone does not have': [
      () => make({ blocks: [2, 5] }),
      /different blocks between 1 and 4 for blocks, received \[ 2, 5 \]/
    ],
    'no blocks': [() => make({ blocks: [] }), /for blocks, received \[\]/],
    'a block twice': [() => make({ blocks: [4, 4] }), /for blocks, received \[ 4, 4 \]/],
    'a mask for each channel': [
      () => model.loss(corrupted, clean, mask.expand([3, 2, 8, 12])),
      /shape \[3, 1, 8, 12\] for mask, received 'shape \[3, 2, 8, 12\]'/
    ],
    'a mask of patches': [() => model.loss(corrupted, clean, torch.ones([3, 1, 2, 3])), /for mask/],
    'clean images of another batch': [
      () => model.loss(corrupted, clean.narrow(0, 0, 1), mask.narrow(0, 0, 1)),
      /\[3, 2, 8, 12\] for clean, received 'shape \[1, 2, 8, 12\]'/
    ],
    'images of another size': [() => model.reconstruct(torch.zeros([1, 2, 8, 8])), /\[B, 2, 8, 12\] for images/]
  }
  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(InputError)
    expect(call).toThrow(message)
  })
})

describe('reconstructionBlocks', () => {
  it.each([
    [12, [6, 8, 10, 12]],
    [24, [12, 16, 20, 24]],
    [4, [2, 3, 4]],
    [6, [3, 4, 5, 6]],
    [3, [2, 3]],
    [2, [1, 2]],
    [1, [1]]
  ])('of %d are %o', (depth, blocks) => {
    expect(reconstructionBlocks(depth)).toEqual(blocks)
  })

  it('are 1/2, 2/3, 5/6 and 1 of every depth, halves rounded up', () => {
    for (let depth = 1; depth <= 64; depth++) {
      const exact = [...new Set([3, 4, 5, 6].map((sixths) => Math.floor((depth * sixths + 3) / 6)))].filter(Boolean)
      expect(reconstructionBlocks(depth)).toEqual(exact)
    }
  })
})

describe('with other tokens than CLS before the patches', () => {
  const variants: Record<string, Partial<VisionTransformerOptions>> = {
    'registers': { registerTokens: 3 },
    'registers without positions': { registerTokens: 3, noEmbedClass: true },
    'none': { classToken: false },
    'registers alone, norm before pooling': { classToken: false, registerTokens: 2, fcNorm: false },
    'a classifier that takes no part': { numClasses: 3 }
  }

  it.each(Object.entries(variants))('%s: patches alone are reconstructed, and every parameter in use learns', (_, options) => {
    torch.manualSeed(4)
    const backbone = new VisionTransformer({ ...size, ...options })
    const model = new GroupMaskedModel(backbone)
    const tokens = backbone.call(corrupted, model.blocks)
    expect(tokens.shape).toEqual([3, (options.classToken === false ? 0 : 1) + (options.registerTokens ?? 0) + 6, 16])
    const ofPatches = tokens.narrow(1, tokens.shape[1]! - 6, 6)
    expect(model.call(corrupted).equal(model.head_recons.call(ofPatches))).toBe(true)
    expect(model.reconstruct(corrupted).shape).toEqual(clean.shape)

    const parameters = model.parameters()
    const optimizer = new AdamW(parameters, { lr: 3e-3 })
    const losses = Array.from({ length: 60 }, () => {
      const loss = model.loss(corrupted, clean, mask)
      optimizer.zeroGrad()
      loss.backward()
      optimizer.step()
      return loss.item()
    })
    expect(losses.at(-1)).toBeLessThan(0.9 * losses[0]!)
    // Pooling and classifier are no part of pretraining.
    const unused = backbone.options.fcNorm ? ['fc_norm.weight', 'fc_norm.bias'] : []
    if (options.numClasses) unused.push('head.weight', 'head.bias')
    const without = [...backbone.namedParameters()].filter(([, { grad }]) => !grad).map(([name]) => name)
    expect(without).toEqual(unused)
    optimizer.dispose()
    model.dispose()
  })
})

describe('the loss', () => {
  /** Mean of |a - b| over the pixels where `where` is true, in float64. */
  const meanDistance = (a: Tensor, b: Tensor, where: Tensor) => {
    const weight = where.to('float64').expand(a.shape)
    return a.sub(b).abs().to('float64').mul(weight).sum().div(weight.sum()).item()
  }

  it('is the mean distance over masked pixels, or over all', () => {
    const model = make()
    const image = model.reconstruct(corrupted)
    expect(image.shape).toEqual(clean.shape)
    expect(model.loss(corrupted, clean, mask).item()).toBeCloseTo(meanDistance(image, clean, mask), 5)
    const all = make({ maskedOnly: false })
    all.loadStateDict(model.stateDict())
    expect(all.loss(corrupted, clean, mask).item()).toBeCloseTo(meanDistance(image, clean, torch.onesLike(mask)), 5)
    expect(all.loss(corrupted, clean, mask).item()).not.toBeCloseTo(model.loss(corrupted, clean, mask).item(), 3)
  })

  it('averages over the elements of the batch, not over the means of its views', () => {
    const model = make()
    const uneven = torch.zeros([3, 1, 8, 12], { dtype: 'bool' })
    uneven.select(0, 0).fill_(true)
    uneven.select(0, 1).narrow(1, 0, 1).narrow(2, 0, 1).fill_(true)
    expect(model.loss(corrupted, clean, uneven).item()).toBeCloseTo(meanDistance(model.reconstruct(corrupted), clean, uneven), 5)
  })

  it('does not see what is not masked', () => {
    const model = make()
    const other = torch.where(mask, clean, 1e6)
    expect(model.loss(corrupted, other, mask).item()).toBe(model.loss(corrupted, clean, mask).item())
  })

  it('takes a mask of numbers as well', () => {
    const model = make()
    expect(model.loss(corrupted, clean, mask.to('float32')).item()).toBe(model.loss(corrupted, clean, mask).item())
  })

  it('of nothing masked is 0, with gradients of 0', () => {
    const model = make()
    const loss = model.loss(corrupted, clean, torch.zerosLike(mask))
    expect(loss.item()).toBe(0)
    loss.backward()
    for (const parameter of model.parameters()) expect(parameter.grad!.eq(0).all().item()).toBe(true)
  })

  it.each([
    ['float32', 'float32'],
    ['bfloat16', 'float32'],
    ['float16', 'float32'],
    ['float64', 'float64']
  ] as const)('of a %s model is %s', (dtype, result) => {
    const model = make()
    const wanted = model.loss(corrupted, clean, mask).item()
    model.to(dtype)
    const loss = model.loss(corrupted.to(dtype), clean.to(dtype), mask)
    expect(loss.dtype).toBe(result)
    expect(Math.abs(loss.item() - wanted)).toBeLessThan(dtype === 'bfloat16' ? 0.02 : 5e-3)
  })

  it('has the gradients that finite differences give', () => {
    torch.manualSeed(3)
    const model = make().to('float64')
    const views = [corrupted.to('float64'), clean.to('float64'), mask] as const
    const loss = () => torch.noGrad(() => model.loss(...views).item())
    model.loss(...views).backward()
    for (const [name, parameter] of model.namedParameters()) {
      const direction = torch.randnLike(parameter.detach())
      const shift = (by: number) => torch.noGrad(() => void parameter.add_(direction, { alpha: by }))
      const step = 1e-6
      shift(step)
      const above = loss()
      shift(-2 * step)
      const below = loss()
      shift(step)
      const slope = parameter.grad!.mul(direction).sum().item()
      expect(Math.abs((above - below) / (2 * step) - slope), name).toBeLessThan(1e-6 + 1e-4 * Math.abs(slope))
    }
  })
})

describe('training', () => {
  it('learns one batch, and keeps the number of live tensors for 300 steps', () => {
    torch.manualSeed(1)
    const model = make()
    const optimizer = new AdamW(model.parameters(), { lr: 3e-3, weightDecay: 0 })
    const images = torch.randn([8, 2, 1, 1]).expand([8, 2, 8, 12]).contiguous()
    const losses: number[] = []
    let live = 0
    for (let i = 0; i < 300; i++) {
      losses.push(
        torch.scope(() => {
          const { corrupted: input, mask: where } = corrupt(images)
          const loss = model.loss(input, images, where)
          loss.backward()
          optimizer.step()
          optimizer.zeroGrad()
          return loss.item()
        })
      )
      if (i === 0) live = memory().tensors
      expect(memory().tensors).toBeLessThanOrEqual(live)
    }
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    expect(mean(losses.slice(-10))).toBeLessThan(0.6 * mean(losses.slice(0, 10)))
  })
})
