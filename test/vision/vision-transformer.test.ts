import { describe, expect, it } from 'vitest'

import { GroupMaskedModel } from '../../src/gmml/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory } from '../../src/torch/index.js'
import { patchify, unpatchify, visionTransformer, VisionTransformer, visionTransformers } from '../../src/vision/index.js'

const small = { imageSize: [8, 12] as const, patchSize: 4, channels: 2, embedDim: 16, depth: 3, numHeads: 2 }

describe('a vision transformer refuses', () => {
  const image = torch.zeros([1, 2, 8, 12])
  const vit = new VisionTransformer(small)
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'an unknown name': [
      () => visionTransformer('vit_huge' as never),
      /one of vit_micro, vit_tiny, vit_small, vit_base, vit_large for the model, received 'vit_huge'/
    ],
    'a name of every object': [() => visionTransformer('constructor' as never), /received 'constructor'/],
    'a patch that does not divide the image': [
      () => visionTransformer('vit_tiny', { imageSize: 30 }),
      /divisor of the image size 30 x 30 for patchSize, received 16/
    ],
    'a patch that divides one side alone': [
      () => new VisionTransformer({ ...small, imageSize: [8, 10] }),
      /8 x 10 for patchSize, received 4/
    ],
    'an image smaller than a patch': [() => new VisionTransformer({ ...small, imageSize: 2 }), /image size 2 x 2/],
    'no image': [() => new VisionTransformer({ ...small, imageSize: 0 }), /positive integer for imageSize, received 0/],
    'a fraction of a patch': [() => new VisionTransformer({ ...small, patchSize: 0.5 }), /patchSize, received 0.5/],
    'no channels': [() => new VisionTransformer({ ...small, channels: 0 }), /channels, received 0/],
    'no blocks': [() => new VisionTransformer({ ...small, depth: 0 }), /depth, received 0/],
    'no heads': [() => new VisionTransformer({ ...small, numHeads: 0 }), /numHeads, received 0/],
    'heads that do not divide the width': [
      () => new VisionTransformer({ ...small, numHeads: 3 }),
      /divisor of the width 16 for numHeads, received 3/
    ],
    'a drop path of 2': [() => new VisionTransformer({ ...small, dropPath: 2 }), /probability between 0 and 1 for dropPath, received 2/],
    'a drop path below 0 of one block': [() => new VisionTransformer({ ...small, depth: 1, dropPath: -1 }), /dropPath, received -1/],
    'an MLP without width': [() => new VisionTransformer({ ...small, mlpRatio: 0 }), /a number above 0 for mlpRatio, received 0/],
    'an MLP of no number': [() => new VisionTransformer({ ...small, mlpRatio: NaN }), /mlpRatio, received NaN/],
    'half a register': [
      () => new VisionTransformer({ ...small, registerTokens: 0.5 }),
      /integer of at least 0 for registerTokens, received 0.5/
    ],
    'fewer than no classes': [
      () => new VisionTransformer({ ...small, numClasses: -1 }),
      /integer of at least 0 for numClasses, received -1/
    ],
    'a CLS token by number': [() => new VisionTransformer({ ...small, classToken: 1 as never }), /a boolean for classToken, received 1/],
    'a layer scale of 0': [
      () => new VisionTransformer({ ...small, initValues: 0 }),
      /a number other than 0, or null, for initValues, received 0/
    ],
    'pooling by a name that it does not know': [
      () => new VisionTransformer({ ...small, pool: 'max' as never }),
      /'token' or 'avg' for pool, received 'max'/
    ],
    'pooling of a CLS token that is not there': [
      () => new VisionTransformer({ ...small, classToken: false, pool: 'token' }),
      /'avg' \(there is no CLS token\) for pool, received 'token'/
    ],
    'sides beyond two': [() => new VisionTransformer({ ...small, imageSize: [8, 8, 8] as never }), /imageSize, received \[ 8, 8, 8 \]/],
    'tokens of another number, in pool': [
      () => vit.pool(torch.zeros([1, 6, 16])),
      /tokens \[B, 7, 16\] for tokens, received 'shape \[1, 6, 16\]'/
    ],
    'a CLS token of a model without one, in pool': [
      () => new VisionTransformer({ ...small, classToken: false }).pool(torch.zeros([1, 6, 16]), 'token'),
      /'avg' for pool, received 'token'/
    ],
    'classes of a model without a classifier': [() => vit.logits(image), /a model with a classifier \(numClasses above 0\) for logits\(\)/],
    'an image of another size': [
      () => vit.call(torch.zeros([1, 2, 12, 8])),
      /\[B, 2, 8, 12\] for images, received 'shape \[1, 2, 12, 8\]'/
    ],
    'an image of other channels': [() => vit.call(torch.zeros([1, 3, 8, 12])), /received 'shape \[1, 3, 8, 12\]'/],
    'one image without a batch': [() => vit.call(torch.zeros([2, 8, 12])), /received 'shape \[2, 8, 12\]'/],
    'no blocks to average': [() => vit.call(image, []), /different blocks between 1 and 3 for blocks, received \[\]/],
    'a block that it does not have': [() => vit.call(image, [1, 4]), /blocks between 1 and 3 for blocks, received \[ 1, 4 \]/],
    'block 0': [() => vit.call(image, [0, 3]), /received \[ 0, 3 \]/],
    'a block twice': [() => vit.call(image, [2, 2]), /received \[ 2, 2 \]/],
    'a patch that does not divide, in patchify': [() => patchify(image, 5), /divisor of the image size 8 x 12 for patchSize, received 5/],
    'no patch, in patchify': [() => patchify(image, 0), /patchSize, received 0/],
    'one image, in patchify': [() => patchify(torch.zeros([2, 8, 12]), 4), /batch of images/],
    'patches of another image, in unpatchify': [
      () => unpatchify(torch.zeros([1, 6, 32]), 4, 8, 8),
      /image of 8 x 8, p = 4 for patches, received 'shape \[1, 6, 32\]'/
    ],
    'patches of another size, in unpatchify': [() => unpatchify(torch.zeros([1, 6, 30]), 4, 8, 12), /shape \[1, 6, 30\]/]
  }
  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(InputError)
    expect(call).toThrow(message)
  })
})

describe('the state dict', () => {
  // timm's list for vit_tiny_patch16_224 without its classifier, in its order.
  function timm(depth: number): string[] {
    const block = ['norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2']
    const withBias = (name: string) => [`${name}.weight`, `${name}.bias`]
    return [
      'cls_token',
      'pos_embed',
      ...withBias('patch_embed.proj'),
      ...Array.from({ length: depth }, (_, i) => block.flatMap((name) => withBias(`blocks.${i}.${name}`))).flat(),
      ...withBias('norm')
    ]
  }

  it.each(Object.entries(visionTransformers))('of %s has the keys and shapes of timm, in its order', (name, { embedDim: dim, depth }) => {
    if (name === 'vit_base' || name === 'vit_large') return // 344 MB and 1.2 GB of weights for no other rule
    const vit = visionTransformer(name as 'vit_tiny')
    const state = vit.stateDict()
    expect(Object.keys(state)).toEqual(timm(depth))
    const shapes = Object.fromEntries(Object.entries(state).map(([key, tensor]) => [key, tensor.shape]))
    expect(shapes).toMatchObject({
      cls_token: [1, 1, dim],
      pos_embed: [1, 197, dim],
      'patch_embed.proj.weight': [dim, 3, 16, 16],
      'patch_embed.proj.bias': [dim],
      'blocks.0.attn.qkv.weight': [3 * dim, dim],
      'blocks.0.attn.qkv.bias': [3 * dim],
      'blocks.0.attn.proj.weight': [dim, dim],
      'blocks.0.mlp.fc1.weight': [4 * dim, dim],
      'blocks.0.mlp.fc2.weight': [dim, 4 * dim],
      'norm.weight': [dim]
    })
    vit.dispose()
  })

  it('of vit_tiny counts 5,524,416 parameters', () => {
    // timm's 5,717,416 without the classifier's 193,000.
    const vit = visionTransformer('vit_tiny')
    expect(vit.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)).toBe(5_717_416 - 193_000)
    vit.dispose()
  })

  it("of the whole model has the authors' prefixes", () => {
    const keys = Object.keys(new GroupMaskedModel(new VisionTransformer(small)).stateDict())
    const head = [0, 2, 4].flatMap((i) => [`head_recons.mlp.${i}.weight`, `head_recons.mlp.${i}.bias`])
    expect([...keys].sort()).toEqual(
      [...timm(3).map((key) => `backbone.${key}`), ...head, 'head_recons.convTrans.weight', 'head_recons.convTrans.bias'].sort()
    )
    expect(keys.filter((key) => key.startsWith('backbone.')).map((key) => key.slice(9))).toEqual(timm(3))
  })

  it('without a bias of query, key and value', () => {
    const keys = Object.keys(new VisionTransformer({ ...small, qkvBias: false }).stateDict())
    expect(keys).toEqual(timm(3).filter((key) => !key.endsWith('qkv.bias')))
  })
})

describe('tokens before those of the patches', () => {
  it('are CLS, then registers, which are drawn like CLS', () => {
    torch.manualSeed(3)
    const vit = new VisionTransformer({ ...small, embedDim: 64, registerTokens: 40 })
    expect(vit.numPrefixTokens).toBe(41)
    expect(vit.reg_token!.std().item()).toBeCloseTo(0.02, 2)
    torch.noGrad(() => {
      vit.cls_token!.fill_(1)
      vit.reg_token!.fill_(2)
      vit.pos_embed.zero_()
    })
    const embedded = vit.embed(torch.randn([2, 2, 8, 12]))
    expect(embedded.shape).toEqual([2, 47, 64])
    expect(embedded.select(1, 0).eq(1).all().item()).toBe(true)
    expect(embedded.narrow(1, 1, 40).eq(2).all().item()).toBe(true)
    expect(vit.patchTokens(embedded).equal(embedded.narrow(1, 41, 6))).toBe(true)
  })

  it('leave options with their defaults filled in', () => {
    expect(new VisionTransformer(small).options).toMatchObject({
      ...small, mlpRatio: 4, qkvBias: true, dropPath: 0, classToken: true, registerTokens: 0, noEmbedClass: false, initValues: null,
      normEps: 1e-6, pool: 'token', fcNorm: false, numClasses: 0
    })
    const { imageSize, pool, fcNorm } = new VisionTransformer({ ...small, imageSize: 16, classToken: false }).options
    expect([imageSize, pool, fcNorm]).toEqual([[16, 16], 'avg', true])
  })

  it('take part in pooling only as CLS', () => {
    const vit = new VisionTransformer({ ...small, registerTokens: 2 })
    const tokens = vit.call(torch.randn([2, 2, 8, 12]))
    expect(vit.pool(tokens).equal(tokens.select(1, 0))).toBe(true)
    expect(vit.pool(tokens, 'avg').allclose(tokens.narrow(1, 3, 6).mean(1), { atol: 1e-6 })).toBe(true)
  })

  it('leave nothing behind but results', () => {
    const vit = new VisionTransformer({ ...small, registerTokens: 2, noEmbedClass: true, initValues: 0.1, pool: 'avg', numClasses: 3 })
    torch.scope(() => {
      const image = torch.randn([2, 2, 8, 12])
      const before = memory().tensors
      const results = torch.noGrad(() => [vit.embed(image), vit.features(image), vit.logits(image)])
      expect(memory().tensors).toBeLessThanOrEqual(before + results.length)
      expect(results.map((result) => result.shape)).toEqual([[2, 9, 16], [2, 16], [2, 3]])
    })
  })
})

describe('initialisation', () => {
  it('is truncated normal of 0.02 for linear layers, position embedding and CLS, zero for biases', () => {
    torch.manualSeed(1)
    const vit = visionTransformer('vit_micro', { imageSize: 64, patchSize: 4, depth: 1 })
    for (const [name, parameter] of vit.namedParameters()) {
      if (name.startsWith('patch_embed')) continue
      if (/norm.*weight/.test(name)) expect(parameter.eq(1).all().item(), name).toBe(true)
      else if (name.endsWith('bias')) expect(parameter.eq(0).all().item(), name).toBe(true)
      else if (name !== 'cls_token') expect(parameter.std().item(), name).toBeCloseTo(0.02, 3)
      else expect(parameter.std().item(), name).toBeCloseTo(0.02, 2)
    }
  })

  it('is decided by the seed', () => {
    const make = () => {
      torch.manualSeed(5)
      return new VisionTransformer(small).call(torch.ones([1, 2, 8, 12])).toArray()
    }
    expect(make()).toEqual(make())
  })
})

describe('forward', () => {
  it('gives the CLS token and one for each patch', () => {
    const vit = new VisionTransformer(small)
    expect(vit.numPatches).toBe(6)
    expect(vit.call(torch.randn([5, 2, 8, 12])).shape).toEqual([5, 7, 16])
    expect(vit.call(torch.randn([0, 2, 8, 12])).shape).toEqual([0, 7, 16])
  })

  it('averages the token maps of blocks before the norm', () => {
    const vit = new VisionTransformer(small)
    const image = torch.randn([2, 2, 8, 12])
    // The norm shows the average alone, so it is undone: with its weight 1 and bias 0 the sum of two maps is told from one.
    const [first, last, both] = [[1], [3], [1, 3]].map((blocks) => vit.call(image, blocks))
    expect(vit.call(image).equal(last!)).toBe(true)
    expect(first!.allclose(last!)).toBe(false)
    expect(both!.allclose(last!)).toBe(false)
    expect(vit.call(image, [3, 1]).equal(both!)).toBe(true)
  })

  it('drops paths that rise linearly over the blocks', () => {
    const rates = (depth: number) => [...new VisionTransformer({ ...small, depth, dropPath: 0.2 }).blocks].map((block) => block.dropPath.p)
    expect(rates(3)).toEqual([0, 0.1, 0.2])
    expect(rates(1)).toEqual([0])
    const vit = new VisionTransformer({ ...small, dropPath: 0.9 })
    const image = torch.randn([2, 2, 8, 12])
    expect(vit.call(image).equal(vit.call(image))).toBe(false)
    vit.eval()
    expect(vit.call(image).equal(vit.call(image))).toBe(true)
  })

  it('leaves nothing but its result', () => {
    const vit = new VisionTransformer(small)
    torch.scope(() => {
      const image = torch.randn([2, 2, 8, 12])
      const before = memory().tensors
      vit.call(image, [1, 2, 3])
      expect(memory().tensors).toBeLessThanOrEqual(before + 1)
    })
  })
})

describe('patchify', () => {
  it('orders patches row by row, a patch as channel, row, column', () => {
    const images = torch
      .arange(2 * 4 * 6)
      .reshape([1, 2, 4, 6])
      .to('float32')
    const patches = patchify(images, 2)
    expect(patches.shape).toEqual([1, 6, 8])
    expect((patches.toArray() as number[][][])[0]![1]).toEqual([2, 3, 8, 9, 26, 27, 32, 33])
    expect((patches.toArray() as number[][][])[0]![3]).toEqual([12, 13, 18, 19, 36, 37, 42, 43])
  })

  it.each([
    [[3, 2, 8, 12], 4],
    [[1, 1, 6, 6], 1],
    [[2, 3, 5, 5], 5],
    [[0, 3, 4, 4], 2]
  ])('is undone by unpatchify: %o in patches of %d', (shape, size) => {
    const images = torch.randn(shape)
    for (const given of [images, images.transpose(0, -1).contiguous().transpose(0, -1)]) {
      const patches = patchify(given, size)
      expect(unpatchify(patches, size, shape[2]!, shape[3]!).equal(given)).toBe(true)
      expect(patchify(unpatchify(patches, size, shape[2]!, shape[3]!), size).equal(patches)).toBe(true)
    }
  })
})
