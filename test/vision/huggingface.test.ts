import { spawnSync } from 'node:child_process'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { InputError } from '../../src/errors.js'
import { loadSafetensors, saveSafetensors } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import { memory, type Tensor } from '../../src/torch/index.js'
import {
  fromHuggingFace, loadHuggingFace, saveHuggingFace, saveTimm, timmArguments, toHuggingFace, VisionTransformer,
  type VisionTransformerOptions
} from '../../src/vision/index.js'
import { difference, perturb, python, runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

const fixtures = join(import.meta.dirname, '../fixtures/huggingface')
const script = join(import.meta.dirname, '../fixtures/make-huggingface.py')
const small = { imageSize: [8, 12] as const, patchSize: 4, channels: 2, embedDim: 16, depth: 2, numHeads: 2 }

const json = async (...path: string[]) => JSON.parse(await readFile(join(...path), 'utf8')) as Record<string, unknown>
const bytes = (tensor: Tensor) => Buffer.from(tensor.toTypedArray().buffer)

describe('a ViTModel is refused', () => {
  const config = {
    model_type: 'vit', hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64, image_size: 8, patch_size: 4
  }
  const { state } = toHuggingFace(new VisionTransformer({ imageSize: 8, patchSize: 4, embedDim: 16, depth: 1, numHeads: 2 }))
  const without = (name: string) => Object.fromEntries(Object.entries(state).filter(([key]) => key !== name))
  const query = 'encoder.layer.0.attention.attention.query.weight'
  const misuse: Record<string, readonly [unknown, unknown, RegExp]> = {
    'without a config': [null, state, /an object for the config, received null/],
    'of another model': [{ ...config, model_type: 'deit' }, state, /'vit' for model_type of the config, received 'deit'/],
    'without a type': [{ ...config, model_type: undefined }, state, /model_type of the config, received undefined/],
    'with another activation': [
      { ...config, hidden_act: 'gelu_new' }, state,
      /'gelu', the exact one, for hidden_act of the config, received 'gelu_new'/
    ],
    'with patches that are not square': [
      { ...config, patch_size: [4, 2] }, state,
      /square patch for patch_size of the config, received \[ 4, 2 \]/
    ],
    'with half a layer': [{ ...config, num_hidden_layers: 0.5 }, state, /positive integer for num_hidden_layers of the config/],
    'with a text for a size': [{ ...config, image_size: '8' }, state, /one or two positive integers for image_size of the config/],
    'with a million layers': [
      { ...config, num_hidden_layers: 1e6 }, state,
      /about 4192 elements, as many as its tensors have for the config, received 'one of 3072000\d+'/
    ],
    'with a width that no memory has': [{ ...config, hidden_size: 2 ** 40, num_attention_heads: 1 }, state, /about 4192 elements/],
    'for an image that no memory has': [{ ...config, image_size: 2 ** 30 }, state, /about 4192 elements/],
    'with an epsilon below 0': [{ ...config, layer_norm_eps: -1 }, state, /layer_norm_eps/],
    'without tensors': [config, null, /tensors by name for the state dict, received null/],
    'with an array for a tensor': [config, { ...state, 'classifier.weight': [1] }, /a Tensor for 'classifier.weight'/],
    'that lacks a tensor': [config, without(query), /does not fit ViTModel. missing: encoder.layer.0.attention.attention.query.weight$/],
    'that has one too many': [
      config, { ...state, 'encoder.layer.1.output.dense.bias': torch.zeros([16]) },
      /unexpected: encoder.layer.1.output.dense.bias$/
    ],
    // Query, key and value together would have the right size.
    'whose query has rows of the key': [
      config, { ...state, [query]: torch.zeros([24, 16]), [query.replace('query', 'key')]: torch.zeros([8, 16]) },
      /query.weight \(expected \[16, 16\], received \[24, 16\]\), .*key.weight/
    ]
  }
  it.each(Object.entries(misuse))('%s', (_, [config, state, message]) => {
    const before = memory().tensors
    const attempt = () => fromHuggingFace(config, state as never)
    expect(attempt).toThrow(InputError)
    expect(attempt).toThrow(message)
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  it('that is none of ours', async () => {
    expect(() => toHuggingFace({} as never)).toThrow(/a VisionTransformer for the model, received {}/)
    await expect(saveHuggingFace('nowhere', null as never)).rejects.toThrow(/a VisionTransformer for the model, received null/)
  })

  it('with heads that do not divide the width', () => {
    expect(() => fromHuggingFace({ ...config, num_attention_heads: 3 }, state)).toThrow(/divisor of the width 16 for numHeads, received 3/)
  })
})

describe('what a ViTModel cannot be is refused before anything is written', () => {
  const misuse: Record<string, readonly [Partial<VisionTransformerOptions>, RegExp]> = {
    'registers': [{ registerTokens: 4 }, /no register tokens for a ViTModel of Hugging Face's transformers, received '4'/],
    'no CLS token': [{ classToken: false }, /a CLS token for a ViTModel/],
    'layer scale': [{ initValues: 1e-5 }, /no layer scale for a ViTModel/],
    'average pooling': [{ pool: 'avg' }, /pooling by 'token' for a ViTModel.*received 'avg'/],
    'a norm after pooling': [{ fcNorm: true }, /the final norm before pooling for a ViTModel/],
    'no position of the CLS token': [{ noEmbedClass: true }, /position embedding of the CLS token/]
  }
  it.each(Object.entries(misuse))('%s', async (_, [options, message]) => {
    const folder = join(await temporaryFolder(), 'model')
    const attempt = saveHuggingFace(folder, new VisionTransformer({ ...small, ...options }))
    await expect(attempt).rejects.toThrow(InputError)
    await expect(attempt).rejects.toThrow(message)
    await expect(readdir(folder)).rejects.toThrow(/ENOENT/)
  })

  it('statistics of other channels', async () => {
    const folder = join(await temporaryFolder(), 'model')
    const model = new VisionTransformer(small)
    await expect(saveHuggingFace(folder, model, { mean: [0.5], std: [1, 1] })).rejects.toThrow(
      /2 numbers, one for each channel, for mean, received \[ 0.5 \]/
    )
    await expect(saveHuggingFace(folder, model, { mean: [0.5, 0.5] })).rejects.toThrow(/for std, received undefined/)
    await expect(readdir(folder)).rejects.toThrow(/ENOENT/)
  })
})

describe('a folder is refused', () => {
  it('without its files, and with others', async () => {
    const folder = await temporaryFolder()
    await expect(loadHuggingFace(folder)).rejects.toThrow(/there is no config.json in it/)
    await writeFile(join(folder, 'config.json'), '{')
    await expect(loadHuggingFace(folder)).rejects.toThrow(/there is no model.safetensors in it/)
    await saveSafetensors(join(folder, 'model.safetensors'), {})
    await expect(loadHuggingFace(folder)).rejects.toThrow(/config.json' is no JSON/)
    await writeFile(join(folder, 'config.json'), '[]')
    await expect(loadHuggingFace(folder)).rejects.toThrow(/'vit' for model_type of the config, received undefined/)
  })
})

describe("models of Hugging Face's transformers", () => {
  it.each(['encoder', 'classifier', 'modern'])('%s: gives the same tokens and logits, and is written back as it was', async (name) => {
    const before = memory().tensors
    const { model } = await loadHuggingFace(join(fixtures, name))
    model.eval()
    const expected = (await loadSafetensors(join(fixtures, name, 'expected.safetensors'))).tensors
    torch.noGrad(() =>
      torch.scope(() => {
        expect(difference(model.call(expected['images']!), expected['tokens']!).absolute).toBeLessThanOrEqual(1e-5)
        expect(model.head !== null).toBe('logits' in expected)
        if (model.head) expect(difference(model.logits(expected['images']!), expected['logits']!).absolute).toBeLessThanOrEqual(1e-5)
      })
    )

    const folder = join(await temporaryFolder(), 'model')
    await saveHuggingFace(folder, model)
    const own = await json(folder, 'config.json')
    // The version, the pooler's size and the like are all that is not in it.
    const ignored = ['transformers_version', 'pooler_act', 'pooler_output_size', 'encoder_stride', 'initializer_range']
    const theirs = Object.entries(await json(fixtures, name, 'config.json')).filter(([key]) => !ignored.includes(key))
    expect(own).toEqual(Object.fromEntries(theirs))
    const load = (path: string) => loadSafetensors(join(path, 'model.safetensors'))
    const [written, original] = [await load(folder), await load(join(fixtures, name))]
    expect(written.metadata).toEqual(original.metadata)
    if (name !== 'modern') {
      const kept = Object.keys(original.tensors).filter((key) => !key.startsWith('pooler.'))
      expect(Object.keys(written.tensors).sort()).toEqual(kept.sort())
    }
    // The file of version 5's names in version 4's.
    const v4 = (key: string) =>
      key.replace(/^layers/, 'encoder.layer').replace('mlp.fc1', 'intermediate.dense').replace('mlp.fc2', 'output.dense')
        .replace('attention.q_proj', 'attention.attention.query').replace('attention.k_proj', 'attention.attention.key')
        .replace('attention.v_proj', 'attention.attention.value').replace('attention.o_proj', 'attention.output.dense')
    for (const [key, tensor] of Object.entries(original.tensors)) {
      if (!key.startsWith('pooler.')) expect(bytes(written.tensors[v4(key)]!).equals(bytes(tensor)), key).toBe(true)
    }
    for (const { tensors } of [written, original]) for (const tensor of Object.values(tensors)) tensor.dispose()
    for (const tensor of Object.values(expected)) tensor.dispose()
    model.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  it('have epsilons of their own', async () => {
    expect((await loadHuggingFace(join(fixtures, 'encoder'))).model.options.normEps).toBe(1e-12)
    expect((await loadHuggingFace(join(fixtures, 'modern'))).model.options.normEps).toBe(1e-6)
    for (const normEps of [-1e-6, NaN, Infinity, '1e-6' as never]) {
      expect(() => new VisionTransformer({ ...small, normEps })).toThrow(/a number of at least 0 for normEps/)
    }
    const other = new VisionTransformer({ ...small, normEps: 1e-12 })
    expect(() => timmArguments(other)).toThrow(/0.000001, timm's, for normEps, received 1e-12/)
    const folder = join(await temporaryFolder(), 'timm')
    await expect(saveTimm(folder, other)).rejects.toThrow(/normEps/)
    await expect(readdir(folder)).rejects.toThrow(/ENOENT/)
  })
})

describe('a round trip', () => {
  const variants: Record<string, Partial<VisionTransformerOptions>> = {
    'an encoder': {}, 'a classifier': { numClasses: 3 }, 'a square image': { imageSize: 8 },
    'no bias of query, key and value': { qkvBias: false },
    // Ratios that are no exact fractions: widths of 1 and 49.
    'a narrow MLP': { embedDim: 18, mlpRatio: 1.1 / 18 }, 'an odd MLP': { embedDim: 18, mlpRatio: 49.5 / 18 }
  }
  it.each(Object.entries(variants))('gives back %s, with its statistics', async (_, options) => {
    const folder = await temporaryFolder()
    const model = perturb(new VisionTransformer({ ...small, ...options })).eval()
    await saveHuggingFace(folder, model, { mean: [0.4, 0.5], std: [0.2, 0.25] })
    const loaded = await loadHuggingFace(folder)
    expect(loaded).toMatchObject({ mean: [0.4, 0.5], std: [0.2, 0.25] })
    expect({ ...loaded.model.options, mlpRatio: 0 }).toEqual({ ...model.options, mlpRatio: 0 })
    const state = loaded.model.stateDict()
    expect(Object.keys(state)).toEqual(Object.keys(model.stateDict()))
    for (const [name, tensor] of Object.entries(model.stateDict())) expect(state[name]!.equal(tensor), name).toBe(true)
  })

  it('of half precision is loaded as float32', async () => {
    const folder = await temporaryFolder()
    const model = new VisionTransformer(small).to('bfloat16')
    await saveHuggingFace(folder, model)
    expect((await json(folder, 'config.json'))['dtype']).toBe('bfloat16')
    const loaded = (await loadHuggingFace(folder)).model
    expect(loaded.pos_embed.dtype).toBe('float32')
    expect(loaded.pos_embed.equal(model.pos_embed.to('float32'))).toBe(true)
  })

  it('in shards is loaded as in one file', async () => {
    const folder = await temporaryFolder()
    const model = new VisionTransformer(small)
    await saveHuggingFace(folder, model)
    const file = join(folder, 'model.safetensors')
    const { tensors } = await loadSafetensors(file)
    await rm(file)
    await saveSafetensors(file, tensors, { format: 'pt' }, { maxShardBytes: 4000 })
    expect((await readdir(folder)).filter((name) => name.startsWith('model-')).length).toBeGreaterThan(2)
    const loaded = (await loadHuggingFace(folder)).model.stateDict()
    for (const [name, tensor] of Object.entries(model.stateDict())) expect(loaded[name]!.equal(tensor), name).toBe(true)
  })

  it('of views shares memory with the model and nothing outlives it', () => {
    const model = new VisionTransformer(small)
    const before = memory().tensors
    const { state } = toHuggingFace(model)
    torch.noGrad(() => torch.scope(() => {
      ;[...model.blocks][1]!.attn.qkv.weight.fill_(7)
      expect(state['encoder.layer.1.attention.attention.value.weight']!.eq(7).all().item()).toBe(true)
    }))
    for (const tensor of Object.values(state)) tensor.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })
})

// The package is too heavy to be required: the fixtures above are what it writes and computes.
const found = spawnSync(python.python, ['-c', 'import transformers'], { env: python.env }).status === 0
if (found) {
  describe('transformers itself', () => {
    it('loads what is written, with no key too many or too few, and computes the same', async () => {
      const folder = await temporaryFolder()
      const cases: Record<string, Partial<VisionTransformerOptions>> = {
        encoder: {}, classifier: { numClasses: 5 }, rgb: { channels: 3, imageSize: 16 }, plain: { qkvBias: false, normEps: 1e-12 }
      }
      for (const [name, options] of Object.entries(cases)) {
        const model = perturb(new VisionTransformer({ ...small, ...options }), 0.2).eval()
        const path = join(folder, name)
        const statistics = model.channels === 3 ? { mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3] } : {}
        await saveHuggingFace(path, model, statistics)
        const images = torch.randn([3, model.channels, ...model.imageSize])
        const outputs = torch.noGrad(() => ({ images, tokens: model.call(images), ...(model.head && { logits: model.logits(images) }) }))
        await saveSafetensors(join(path, 'expected.safetensors'), outputs)
      }
      const output = await runPython(script, 'check', ...Object.keys(cases).map((name) => join(folder, name)))
      const report = JSON.parse(output.trim().split('\n').at(-1)!) as { transformers: string; folders: Record<string, number>[] }
      if (process.env['GMML_MEASURED']) console.log(JSON.stringify(report))
      expect(report.folders).toHaveLength(4)
      expect(report.folders[2]).toHaveProperty('normalised')
      for (const differences of report.folders) for (const value of Object.values(differences)) expect(value).toBeLessThanOrEqual(1e-5)
    })
  })
}
