import { rm, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

import { describe, expect, it } from 'vitest'

import { GroupMaskedModel } from '../../src/gmml/index.js'
import { loadTorch, saveSafetensors, saveTorch } from '../../src/io/index.js'
import { loadModel, pretrain, RunFolder, type PretrainConfigInput } from '../../src/train/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, scope, type Tensor } from '../../src/torch/index.js'
import { loadTimm, VisionTransformer, visionTransformer, visionTransformers } from '../../src/vision/index.js'
import { runPython } from '../parity/python.js'
import { interrupted, metricsOf, newestCheckpoint, reproducible, small } from './support.js'

torch.setNumThreads(1)

/** The model of the small runs, with weights of its own. */
const newModel = (seed: number, channels = 1) => {
  torch.manualSeed(seed)
  return scope(() => new GroupMaskedModel(visionTransformer('vit_micro', { imageSize: 8, patchSize: 4, channels })))
}

const prefixed = (prefix: string, state: Record<string, Tensor>) =>
  Object.fromEntries(Object.entries(state).map(([name, tensor]) => [prefix + name, tensor]))

/** What a run starts from: its checkpoint before the first step, without the optimizer and the rest. */
async function startOf(config: PretrainConfigInput): Promise<Record<string, Tensor>> {
  await interrupted(config, 0)
  const { model } = await loadModel((await new RunFolder(config.out).listCheckpoints()).at(-1)!)
  return model.stateDict()
}

const different = (a: Record<string, Tensor>, b: Record<string, Tensor>, part = '') =>
  Object.keys(a).filter((name) => name.startsWith(part) && !torch.equal(a[name]!, b[name]!))

describe('a run starts from the weights of', () => {
  const model = newModel(77)
  const state = model.stateDict()
  const backbone = model.backbone.stateDict()
  const head = { 'head.weight': torch.ones([10, 128]), 'head.bias': torch.ones([10]) }
  const both: Readonly<Record<string, unknown>> = {
    "the authors' checkpoint": { SiT_model: prefixed('module.', state), epoch: 3, optimizer: { state: new Map(), param_groups: [] } },
    'a state dict': state,
    'a state dict of a parallel model in a file of a training': { model: state, epoch: 1 }
  }
  const encoder: Readonly<Record<string, unknown>> = {
    "timm's encoder with its classifier": { ...backbone, ...head },
    "timm's encoder in a file of a training": { state_dict: backbone },
    'an encoder by the names of the whole': prefixed('backbone.', backbone)
  }

  it.each(Object.entries(both))('%s: encoder and head', async (_, content) => {
    const { images, out, settings } = await small()
    const init = out('start.pth')
    await saveTorch(init, content)
    expect(different(await startOf({ ...settings, images, out: out('a'), init }), state)).toEqual([])
  })

  it.each(Object.entries(encoder))('%s: the encoder', async (_, content) => {
    const { images, out, settings } = await small()
    const init = out('start.pth')
    await saveTorch(init, content)
    const start = await startOf({ ...settings, images, out: out('a'), init })
    expect(different(start, state, 'backbone.')).toEqual([])
    expect(different(start, await startOf({ ...settings, images, out: out('b') }), 'head_recons.')).toEqual([])
  })

  it('an encoder of RGB images of another size and patch size is adapted as timm does it', async () => {
    const { images, out, settings } = await small()
    const options = { ...visionTransformers.vit_micro, imageSize: 24, patchSize: 8, channels: 3 }
    const weights = new VisionTransformer(options).stateDict()
    await saveTorch(out('rgb.pth'), { state_dict: { ...weights, ...head } })
    const wanted = new VisionTransformer({ ...options, imageSize: 8, patchSize: 4, channels: 1 })
    loadTimm(wanted, weights)
    const start = await startOf({ ...settings, images, out: out('a'), init: out('rgb.pth') })
    expect(different(start, prefixed('backbone.', wanted.stateDict()), 'backbone.')).toEqual([])
    expect(start['backbone.pos_embed']!.shape).toEqual([1, 5, 128])
  })

  it('safetensors, a checkpoint and a run of ours', async () => {
    const { images, out, settings } = await small()
    await saveSafetensors(out('encoder.safetensors'), backbone)
    const { tensors } = memory()
    const first = await pretrain({ ...settings, images, out: out('first'), init: out('encoder.safetensors'), epochs: 1 })
    expect(memory().tensors).toBeLessThanOrEqual(tensors)
    const checkpoint = (await new RunFolder(out('first')).listCheckpoints()).at(-1)!
    const trained = (await loadModel(checkpoint)).model.stateDict()
    for (const [i, init] of [checkpoint, out('first')].entries()) {
      expect(different(await startOf({ ...settings, images, out: out(`from-${i}`), init }), trained)).toEqual([])
    }
    // The exported encoder has no head.
    const exported = await startOf({ ...settings, images, out: out('exported'), init: first.exported! })
    expect(different(exported, trained, 'backbone.')).toEqual([])
    expect(different(exported, trained, 'head_recons.').length).toBeGreaterThan(0)
    await rm(new RunFolder(out('first')).checkpoints, { recursive: true })
    const left = await startOf({ ...settings, images, out: out('left'), init: out('first') })
    expect(different(left, trained, 'backbone.')).toEqual([])
  })
})

describe('pretraining goes on', () => {
  it("from an authors' checkpoint that Python wrote: with its weights, and the loss falls", async () => {
    const { images, out, settings } = await small()
    const config = { model: { dim: 128, depth: 4, heads: 4, mlp_ratio: 4 }, image_size: [8, 8], patch_size: 4, channels: 1 }
    const script = join(import.meta.dirname, '../gmml/make-authors-checkpoint.py')
    await runPython(script, out('authors.pth'), out('expected.pth'), JSON.stringify(config))
    const run = { ...settings, images, out: out('a'), init: out('authors.pth'), epochs: 6, warmupEpochs: 0 }
    const start = await startOf(run)
    const file = await loadTorch<{ SiT_model: Record<string, Tensor> }>(out('authors.pth'))
    expect(different(prefixed('module.', start), file.SiT_model)).toEqual([])
    await pretrain({ images, out: out('a'), resume: true })
    const ends = (await metricsOf(out('a'))).filter((line) => 'epochLoss' in line).map((line) => line['epochLoss']!)
    expect(ends).toHaveLength(6)
    expect(ends.at(-1)!).toBeLessThan(0.97 * ends[0]!)
  })

  it('from its own first weights in the layout of the authors: the same run, bit for bit', async () => {
    const { images, out, settings } = await small()
    const own = { ...settings, images, epochs: 1 }
    const weights = await startOf({ ...own, out: out('start') })
    await saveTorch(out('own.pth'), { SiT_model: prefixed('module.', weights) })
    await pretrain({ ...own, out: out('a') })
    await pretrain({ ...own, out: out('b'), init: out('own.pth') })
    expect(await reproducible(out('b'))).toEqual(await reproducible(out('a')))
    expect(await newestCheckpoint(out('b'))).toEqual(await newestCheckpoint(out('a')))
  })

  it('after an interruption from its checkpoint: the file is not needed any more, and another is refused', async () => {
    const { images, out, settings } = await small()
    const init = out('start.pth')
    await saveTorch(init, newModel(5).stateDict())
    await pretrain({ ...settings, images, out: out('whole'), init })
    await interrupted({ ...settings, images, out: out('halves'), init }, 2)
    expect((await new RunFolder(out('halves')).readConfig())['init']).toBe(init)
    await rm(init)
    await expect(pretrain({ images, out: out('halves'), resume: true, init: 'other.pth' })).rejects.toThrow(
      /other settings: init \(the run has ".*start.pth", given is "other.pth"\)/
    )
    await pretrain({ images, out: out('halves'), resume: true })
    expect(await newestCheckpoint(out('halves'))).toEqual(await newestCheckpoint(out('whole')))
  })

  it('without a checkpoint from the file again', async () => {
    const { images, out, settings } = await small()
    const init = out('start.pth')
    await saveTorch(init, newModel(5).stateDict())
    const wanted = await startOf({ ...settings, images, out: out('a'), init })
    await rm(new RunFolder(out('a')).checkpoints, { recursive: true })
    expect(different(await startOf({ images, out: out('a'), resume: true }), wanted)).toEqual([])
  })
})

describe('weights that cannot be used are refused before the run folder is made', () => {
  const write = async (path: string, content: unknown) => (content instanceof Buffer ? writeFile(path, content) : saveTorch(path, content))
  const x = torch.ones([1])
  const cases: readonly [what: string, content: unknown, message: RegExp][] = [
    ['no tensors', { epoch: 3 }, /start.pth' holds no weights: expected tensors by name, or such in model, state_dict or SiT_model/],
    ['a number', 3, /holds no weights/],
    ['one tensor', x, /holds no weights/],
    ['a checkpoint of the authors without weights', { SiT_model: {} }, /there are no weights in it/],
    [
      'another network', { 'conv1.weight': x },
      /init '.*start.pth': The state dict does not fit VisionTransformer. missing: cls_token, pos_embed/
    ],
    [
      'another number of channels', newModel(1, 3).stateDict(),
      /backbone.patch_embed.proj.weight \(expected \[128, 1, 4, 4\], received \[128, 3, 4, 4\]\)/
    ],
    [
      'a head alone', { 'head_recons.mlp.0.weight': x },
      /init '.*': The state dict does not fit GroupMaskedModel. missing: backbone.cls_token/
    ],
    ['no file of weights', Buffer.from('a letter'), /Cannot read '.*start.pth': it is no file of torch.save/]
  ]
  it.each(cases)('%s', async (_, content, message) => {
    const { images, out, settings } = await small()
    const init = out('start.pth')
    await write(init, content)
    const { tensors } = memory()
    const error: unknown = await pretrain({ ...settings, images, out: out('a'), init }).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(InputError)
    expect((error as Error).message).toMatch(message)
    expect(memory().tensors).toBeLessThanOrEqual(tensors)
    expect(existsSync(out('a'))).toBe(false)
  })

  it('a file that is not there, a folder without a run, a text that is empty', async () => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, out: out('a') }
    await expect(pretrain({ ...config, init: out('none.pth') })).rejects.toThrow(
      /a file of weights or the folder of a run for init, received '.*none.pth'/
    )
    await expect(pretrain({ ...config, init: images })).rejects.toThrow(/has no weights: neither/)
    await expect(pretrain({ ...config, init: '' })).rejects.toThrow(/a text that is not empty for init/)
    expect(existsSync(out('a'))).toBe(false)
  })
})
