import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { crc32 } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'

import { InputError } from '../../src/errors.js'
import { loadSafetensors } from '../../src/io/index.js'
import type { StateDict } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import { memory, noGrad, scope, type DType, type Tensor } from '../../src/torch/index.js'
import {
  loadTimm, timmArguments, visionTransformer, VisionTransformer, visionTransformerFromTimm, type ImageSize, type VisionTransformerName,
  type VisionTransformerOptions
} from '../../src/vision/index.js'

interface Described {
  readonly arguments: Readonly<Record<string, unknown>>
  readonly shapes: Readonly<Record<string, number[]>>
}

interface Case extends Described {
  /** Shapes of the weights that are loaded, where they are not the model's. */
  readonly source: Readonly<Record<string, number[]>>
  readonly dtype?: DType
  readonly trainedAt?: ImageSize
}

interface Fixture {
  readonly timm: string
  readonly cases: Readonly<Record<string, Case>>
  readonly gradients: Readonly<Record<string, Described>>
}

// Made by make-timm.py with timm itself.
const file = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))
const fixture = JSON.parse(await readFile(file('timm.json'), 'utf8')) as Fixture
const values = (await loadSafetensors(file('timm.safetensors'))).tensors
const LARGEST = 1e-4 // what is promised; what is measured is reported below

torch.setNumThreads(1)

// The same numbers as in make-timm.py.
function uniform(name: string, shape: readonly number[]): Tensor {
  torch.manualSeed(crc32(name))
  return torch.rand([...shape]).mul(2).sub(1)
}

function weight(name: string, shape: readonly number[]): Tensor {
  const drawn = uniform(name, shape)
  if (name.endsWith('gamma') || (name.includes('norm') && name.endsWith('weight'))) return drawn.mul(0.3).add(1)
  if (name.endsWith('bias')) return drawn.mul(0.3)
  if (!name.endsWith('weight')) return drawn
  return drawn.mul(Math.sqrt(3 / shape.slice(1).reduce((product, length) => product * length)))
}

function stateOf(shapes: Readonly<Record<string, readonly number[]>>, dtype: DType = 'float32'): StateDict {
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, scope(() => weight(name, shape).to(dtype))]))
}

const sourceOf = ({ shapes, source, dtype }: Case) => stateOf({ ...shapes, ...source }, dtype)

function optionsOf(given: Described['arguments']): VisionTransformerOptions {
  return {
    imageSize: given['img_size'], patchSize: given['patch_size'], channels: given['in_chans'], numClasses: given['num_classes'],
    pool: given['global_pool'], embedDim: given['embed_dim'], depth: given['depth'], numHeads: given['num_heads'],
    mlpRatio: given['mlp_ratio'], qkvBias: given['qkv_bias'], initValues: given['init_values'], classToken: given['class_token'],
    noEmbedClass: given['no_embed_class'], registerTokens: given['reg_tokens'], fcNorm: given['fc_norm']
  } as unknown as VisionTransformerOptions
}

const difference = (received: Tensor, wanted: Tensor): number => {
  expect(received.shape).toEqual(wanted.shape)
  return scope(() => received.sub(wanted).abs().max().item())
}

let worst = 0
afterAll(() => console.log(`largest difference from timm ${fixture.timm}: ${worst.toExponential(1)}`))

/** Tokens, pooled features and logits against timm's. */
function compare(name: string, model: VisionTransformer): void {
  scope(() => {
    const images = uniform(name, [2, model.channels, ...model.imageSize])
    const tokens = noGrad(() => model.call(images))
    const step = Math.floor(model.embedDim / 16)
    const received = {
      tokens: tokens.slice({ dim: 2, step }),
      features: model.pool(tokens),
      logits: noGrad(() => model.logits(images))
    }
    for (const [key, tensor] of Object.entries(received)) {
      const apart = difference(tensor, values[`${name}.${key}`]!)
      expect(apart, key).toBeLessThanOrEqual(LARGEST)
      worst = Math.max(worst, apart)
    }
    expect(noGrad(() => model.features(images)).equal(received.features)).toBe(true)
  })
}

/** What load_state_dict(strict=True) looks at: names, in timm's order too, and shapes. */
function expectTimmsKeys(model: VisionTransformer, { shapes }: Described): void {
  const own = Object.entries(model.stateDict()).map(([name, tensor]) => [name, tensor.shape])
  expect(own).toEqual(Object.entries(shapes))
}

const small = { imageSize: 16, patchSize: 4, channels: 3, embedDim: 16, depth: 2, numHeads: 2 } as const
const made: { dispose(): void }[] = []
afterAll(() => made.forEach((module) => module.dispose()))
const make = (options: Partial<VisionTransformerOptions> = {}) => {
  const model = scope(() => new VisionTransformer({ ...small, ...options }))
  made.push(model)
  return model
}
const stateLike = (options: Partial<VisionTransformerOptions> = {}) => make(options).stateDict()
const filtered = (state: StateDict, wanted: (name: string) => boolean) =>
  Object.fromEntries(Object.entries(state).filter(([name]) => wanted(name)))
const without = (state: StateDict, ...names: string[]) => filtered(state, (name) => !names.includes(name))

describe('loadTimm refuses', () => {
  const classifier = { numClasses: 3 }
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'what is no model': [() => loadTimm({} as never, {}), /a VisionTransformer for the model, received \{\}/],
    'what is no state dict': [() => loadTimm(make(), null as never), /object of tensors by name for the state dict, received null/],
    'numbers instead of tensors': [
      () => loadTimm(make(), { pos_embed: 3 } as never),
      /a Tensor for 'pos_embed' of the state dict, received 3/
    ],
    'a checkpoint around the state dict': [
      () => loadTimm(make(), { epoch: torch.tensor(3), state_dict: stateLike() } as never),
      /a Tensor \(what is there holds tensors: give it alone\) for 'state_dict' of the state dict/
    ],
    'an empty state dict': [() => loadTimm(make(), {}), /missing: cls_token, pos_embed, .*blocks.0.attn.proj.bias, \.\.\. \(30 in all\)$/],
    'a prefix on all names': [
      () => loadTimm(make(), Object.fromEntries(Object.entries(stateLike()).map(([name, tensor]) => [`module.${name}`, tensor]))),
      /missing: cls_token, .*unexpected: module.cls_token, .*; the names begin with 'module\.', which this module's do not: give/
    ],
    'weights of another depth': [
      () => loadTimm(make(), stateLike({ depth: 3 })),
      /unexpected: blocks.2.norm1.weight, .*blocks.2.mlp.fc1.bias, \.\.\. \(12 in all\)$/
    ],
    'weights of another width': [
      () => loadTimm(make(), stateLike({ embedDim: 32 })),
      /of another shape: cls_token \(expected \[1, 1, 16\], received \[1, 1, 32\]\), pos_embed \(expected \[1, 17, 16\], .* \(30 in all\)$/
    ],
    'weights without the model\'s registers': [
      () => loadTimm(make({ registerTokens: 1, noEmbedClass: true }), stateLike({ noEmbedClass: true })),
      /does not fit VisionTransformer. missing: reg_token$/
    ],
    'weights with registers that the model lacks': [
      () => loadTimm(make({ noEmbedClass: true }), stateLike({ registerTokens: 2, noEmbedClass: true })),
      /VisionTransformer. unexpected: reg_token$/
    ],
    'a norm before pooling for one after it': [
      () => loadTimm(make({ pool: 'avg' }), stateLike()),
      /missing: fc_norm.weight, fc_norm.bias; unexpected: norm.weight, norm.bias$/
    ],
    'positions of no square': [
      () => loadTimm(make(), stateLike({ imageSize: [12, 20] })),
      /positions of a square of patches \(or trainedAt beside them\) for pos_embed, received '15 positions of patches'/
    ],
    'positions of CLS alone': [
      () => loadTimm(make(), { ...stateLike(), pos_embed: torch.zeros([1, 1, 16]) }),
      /for pos_embed, received '0 positions of patches'/
    ],
    'positions of another image': [
      () => loadTimm(make(), stateLike({ imageSize: [12, 20] }), { trainedAt: [12, 24] }),
      /positions of an image of 12 x 24 in patches of 4 x 4 for pos_embed, received '15 positions of patches'/
    ],
    'patches that do not divide trainedAt': [
      () => loadTimm(make(), stateLike({ imageSize: [12, 20] }), { trainedAt: [6, 40] }),
      /image of 6 x 40 in patches of 4 x 4/
    ],
    'no size for trainedAt': [
      () => loadTimm(make(), stateLike(), { trainedAt: [16] as never }),
      /positive integer for trainedAt, received \[ 16 \]/
    ],
    'channels other than RGB': [
      () => loadTimm(make(), stateLike({ channels: 4 })),
      /weights for 3 channels or for the model's own 3 for patch_embed.proj.weight, received 'weights for 4'/
    ],
    'a kernel of no pixels': [
      () => loadTimm(make(), { ...stateLike(), 'patch_embed.proj.weight': torch.zeros([16, 3, 0, 4]) }),
      /of another shape: patch_embed.proj.weight \(expected \[16, 3, 4, 4\], received \[16, 3, 0, 4\]\)$/
    ],
    'no way with a classifier': [
      () => loadTimm(make(), stateLike(), { classifier: 'drop' as never }),
      /'load' or 'ignore' for classifier, received 'drop'/
    ],
    'no classifier for one': [() => loadTimm(make(classifier), stateLike()), /VisionTransformer. missing: head.weight, head.bias$/],
    'a classifier of other classes': [
      () => loadTimm(make(classifier), stateLike({ numClasses: 4 })),
      /VisionTransformer. of another shape: head.weight \(expected \[3, 16\], received \[4, 16\]\), head.bias/
    ],
    'to load a classifier into a model without one': [
      () => loadTimm(make(), stateLike(classifier), { classifier: 'load' }),
      /VisionTransformer. unexpected: head.weight, head.bias$/
    ],
    'from shapes: an empty state dict': [
      () => visionTransformerFromTimm({}),
      /patch_embed.proj.weight with 4 dimensions for the state dict of timm's VisionTransformer, received 'none among 0 names'/
    ],
    'from shapes: patches as linear weights': [
      () => visionTransformerFromTimm({ ...stateLike(), 'patch_embed.proj.weight': torch.zeros([16, 48]) }),
      /with 4 dimensions .*, received 'patch_embed.proj.weight of shape \[16, 48\]'/
    ],
    'from shapes: oblong patches': [
      () => visionTransformerFromTimm({ ...stateLike(), 'patch_embed.proj.weight': torch.zeros([16, 3, 4, 2]) }, { numHeads: 2 }),
      /square patches for patch_embed.proj.weight, received 'shape \[16, 3, 4, 2\]'/
    ],
    'from shapes: heads that they do not say': [
      () => visionTransformerFromTimm(stateLike(), { dropPath: 0.1 }),
      /numHeads for a width of 16, no multiple of 64, for the options, received \{ dropPath: 0.1 \}/
    ],
    'from shapes: positions of no square': [
      () => visionTransformerFromTimm(stateLike({ imageSize: [12, 16] }), { numHeads: 2 }),
      /positions of a square of patches .*, received '12 positions of patches'/
    ],
    'from shapes: a gap in the blocks': [
      () => visionTransformerFromTimm(filtered(stateLike({ depth: 3 }), (name) => !/s\.1\./.test(name)), { numHeads: 2 }),
      /missing: blocks.1.norm1.weight, .*unexpected: blocks.2.norm1.weight/
    ],
    'from shapes: another number of classes': [
      () => visionTransformerFromTimm(stateLike(classifier), { numHeads: 2, numClasses: 5 }),
      /of another shape: head.weight/
    ]
  }

  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(InputError)
    expect(call).toThrow(message)
  })

  it('and then leaves model and state dict as they were, and no tensor behind', () => {
    const model = make()
    const state = stateLike({ imageSize: 8, patchSize: 2, channels: 3, depth: 3 })
    const sums = (tensors: StateDict) => Object.values(tensors).map((tensor) => scope(() => tensor.sum().item()))
    const [before, given, live] = [sums(model.stateDict()), sums(state), memory().tensors]
    expect(() => loadTimm(model, state)).toThrow(/unexpected: blocks.2/)
    expect(() => visionTransformerFromTimm(without(state, 'blocks.2.norm1.bias'), { numHeads: 2 })).toThrow(/missing: blocks.2.norm1.bias$/)
    expect([sums(model.stateDict()), sums(state)]).toEqual([before, given])
    expect(memory().tensors).toBeLessThanOrEqual(live)
  })
})

describe('a classifier', () => {
  it('is left out or kept, if it is to be ignored', () => {
    const state = stateLike({ numClasses: 4 })
    const model = make()
    loadTimm(model, state)
    expect(model.patch_embed.proj.weight.equal(state['patch_embed.proj.weight']!)).toBe(true)
    const other = make({ numClasses: 3 })
    torch.noGrad(() => other.head!.weight.fill_(0.5))
    loadTimm(other, state, { classifier: 'ignore' })
    expect(other.head!.weight.eq(0.5).all().item()).toBe(true)
    expect(other.patch_embed.proj.weight.equal(state['patch_embed.proj.weight']!)).toBe(true)
    loadTimm(other, without(state, 'head.weight', 'head.bias'), { classifier: 'ignore' })
  })

  it('is read from the shapes, left out for 0 classes, and new for another number', () => {
    const state = stateLike({ numClasses: 4 })
    const build = (options = {}) => {
      const model = visionTransformerFromTimm(state, { numHeads: 2, ...options })
      made.push(model)
      return model
    }
    expect(build().head!.weight.equal(state['head.weight']!)).toBe(true)
    expect(build({ numClasses: 0 }).head).toBe(null)
    expect(build({ numClasses: 7, classifier: 'ignore' }).head!.weight.shape).toEqual([7, 16])
  })
})

describe('options from shapes', () => {
  const options: Record<string, Partial<VisionTransformerOptions>> = {
    'the least': {},
    'registers': { registerTokens: 4 },
    'registers without positions': { registerTokens: 4, noEmbedClass: true },
    'CLS without a position': { noEmbedClass: true },
    'neither CLS nor registers': { classToken: false },
    'registers alone': { classToken: false, registerTokens: 3, noEmbedClass: true, fcNorm: false },
    'average of patches': { pool: 'avg' },
    'layer scale and no bias': { initValues: 1e-5, qkvBias: false },
    'an uneven MLP': { embedDim: 49, numHeads: 7, mlpRatio: 1.03 },
    'classes': { numClasses: 3, channels: 5, patchSize: 8 }
  }

  it.each(Object.entries(options))('%s', (_, given) => {
    const model = make(given)
    const built = visionTransformerFromTimm(model.stateDict(), { numHeads: model.options.numHeads })
    made.push(built)
    expect({ ...built.options, mlpRatio: 0 }).toEqual({ ...model.options, mlpRatio: 0 })
    expect(Math.trunc(built.embedDim * built.options.mlpRatio)).toBe(Math.trunc(model.embedDim * model.options.mlpRatio))
    for (const [name, tensor] of Object.entries(built.stateDict())) expect(tensor.equal(model.stateDict()[name]!), name).toBe(true)
  })

  it('of images that are no square, where one says so', () => {
    const model = make({ imageSize: [12, 20] })
    const state = model.stateDict()
    for (const size of [{ imageSize: [12, 20] }, { trainedAt: [12, 20] }] as const) {
      const built = visionTransformerFromTimm(state, { numHeads: 2, ...size })
      made.push(built)
      expect(built.imageSize).toEqual([12, 20])
      expect(built.pos_embed.equal(model.pos_embed)).toBe(true)
    }
    const turned = visionTransformerFromTimm(state, { numHeads: 2, imageSize: [20, 12], trainedAt: [12, 20] })
    made.push(turned)
    expect(turned.pos_embed.equal(model.pos_embed)).toBe(false)
    // CLS is no place in the image.
    expect(turned.pos_embed.narrow(1, 0, 1).equal(model.pos_embed.narrow(1, 0, 1))).toBe(true)
  })
})

const cases = Object.entries(fixture.cases)
const zoo = cases.filter(([name]) => name.startsWith('vit_'))
const others = cases.filter(([name]) => !name.startsWith('vit_'))

describe('like timm', () => {
  it.each(zoo)('%s, loaded at another image size', (name, described) => {
    const { patch_size: patchSize, img_size: imageSize } = described.arguments as { patch_size: number; img_size: [number, number] }
    const size = name.split(' ')[0] as VisionTransformerName
    const model = scope(() => visionTransformer(size, { patchSize, imageSize, numClasses: 10 }))
    try {
      scope(() => loadTimm(model, sourceOf(described)))
      expectTimmsKeys(model, described)
      expect(timmArguments(model)).toEqual(described.arguments)
      compare(name, model)
    } finally {
      model.dispose()
    }
  })

  it.each(others)('%s', (name, described) => {
    const { trainedAt } = described
    const options = optionsOf(described.arguments)
    scope(() => {
      const state = sourceOf(described)
      const model = new VisionTransformer(options)
      loadTimm(model, state, { ...(trainedAt && { trainedAt }) })
      expectTimmsKeys(model, described)
      expect(timmArguments(model)).toEqual(described.arguments)
      compare(name, model)
      model.dispose()
    })
  })

  it.each(others)('%s, built from the state dict', (name, described) => {
    const { depth, pool, ...options } = optionsOf(described.arguments)
    const { trainedAt } = described
    scope(() => {
      const { imageSize, patchSize, channels } = options as Required<VisionTransformerOptions>
      const asked = { imageSize, patchSize, channels, ...(pool && { pool }), ...(trainedAt && { trainedAt }) }
      const model = visionTransformerFromTimm(sourceOf(described), asked)
      expect(model.depth).toBe(depth)
      expectTimmsKeys(model, described)
      expect({ ...timmArguments(model), init_values: described.arguments['init_values'] }).toEqual(described.arguments)
      compare(name, model)
      model.dispose()
    })
  })

  it.each(Object.entries(fixture.gradients))('gradients of every parameter: %s', (name, described) => {
    scope(() => {
      const model = new VisionTransformer(optionsOf(described.arguments))
      loadTimm(model, stateOf(described.shapes))
      expectTimmsKeys(model, described)
      const images = uniform(name, [3, model.channels, ...model.imageSize])
      images.requiresGrad = true
      const logits = model.logits(images)
      const probe = uniform(`${name} probe`, logits.shape)
      expect(difference(logits.detach(), values[`${name}.logits`]!)).toBeLessThan(1e-5)
      logits.mul(probe).sum().backward()
      expect(difference(images.grad!, values[`${name}.images.grad`]!)).toBeLessThan(1e-5)
      for (const [key, parameter] of model.namedParameters()) {
        const wanted = values[`${name}.grad.${key}`]!
        expect(wanted.abs().max().item(), key).toBeGreaterThan(0)
        expect(difference(parameter.grad!, wanted), key).toBeLessThan(LARGEST)
      }
      model.dispose()
    })
  })
})
