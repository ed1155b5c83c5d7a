import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import { authorsWeights, GroupMaskedModel, isAuthorsCheckpoint, loadAuthorsCheckpoint } from '../../src/gmml/index.js'
import { loadTorch, saveTorch } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, scope, type Tensor } from '../../src/torch/index.js'
import { unpatchify, visionTransformer, type VisionTransformerOptions } from '../../src/vision/index.js'
import { expectNear, runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

torch.setNumThreads(1)

const options = { imageSize: [24, 16], patchSize: 8, channels: 3, embedDim: 32, depth: 3, numHeads: 2 } as const
const newModel = (more: Partial<VisionTransformerOptions> = {}) =>
  scope(() => new GroupMaskedModel(visionTransformer('vit_micro', { ...options, ...more })))

let folder: string
const file = () => join(folder, 'checkpoint.pth')
const expectedFile = () => join(folder, 'expected.pth')

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gmml-authors-'))
  const config = { model: { dim: 32, depth: 3, heads: 2, mlp_ratio: 4 }, image_size: [24, 16], patch_size: 8, channels: 3 }
  await runPython(join(import.meta.dirname, 'make-authors-checkpoint.py'), file(), expectedFile(), JSON.stringify(config))
})

afterAll(() => rm(folder, { recursive: true, force: true }))

describe("a checkpoint of the method's authors", () => {
  it('loads with every name, and the model computes what it computed in Python', async () => {
    const { weights, epoch, settings } = await loadAuthorsCheckpoint(file())
    expect(epoch).toBe(41)
    expect(settings).toMatchObject({ model: 'vit_small', drop_perc: 0.75, use_fp16: true, global_crops_scale: [0.25, 1] })
    const model = newModel()
    expect(Object.keys(weights).sort()).toEqual(Object.keys(model.stateDict()).sort())
    expect(model.loadStateDict(weights)).toEqual({ missing: [], unexpected: [] })
    const expected = await loadTorch<Record<'clean' | 'corrupted' | 'mask' | 'loss' | 'prediction', Tensor>>(expectedFile())
    const prediction = unpatchify(model.call(expected.corrupted), options.patchSize, ...options.imageSize)
    expectNear(prediction.detach(), expected.prediction, 'the prediction')
    expectNear(model.loss(expected.corrupted, expected.clean, expected.mask).detach(), expected.loss, 'the loss')
  })

  it('says which names and shapes do not fit another model', async () => {
    const { weights } = await loadAuthorsCheckpoint(file())
    const refuse = (more: Partial<VisionTransformerOptions>, message: RegExp) => {
      expect(() => newModel(more).loadStateDict(weights)).toThrow(InputError)
      expect(() => newModel(more).loadStateDict(weights)).toThrow(message)
    }
    refuse({ depth: 4 }, /missing: backbone.blocks.3.norm1.weight, .*, \.\.\. \(12 in all\)$/)
    refuse({ depth: 2 }, /unexpected: backbone.blocks.2.norm1.weight, /)
    refuse({ imageSize: 24 }, /of another shape: backbone.pos_embed \(expected \[1, 10, 32\], received \[1, 7, 32\]\)$/)
    refuse({ embedDim: 48 }, /of another shape: backbone.cls_token \(expected \[1, 1, 48\].*\(\d+ in all\)$/)
  })

  it('is told from other files', async () => {
    const x = torch.ones([1])
    for (const other of [null, 3, [], { model: { x } }, x, new Map([['SiT_model', {}]])]) expect(isAuthorsCheckpoint(other)).toBe(false)
    for (const wrong of [null, { model: { x } }, { SiT_model: {} }, { SiT_model: null }, { SiT_model: [] }]) {
      expect(() => authorsWeights(wrong)).toThrow(/a checkpoint of the authors, .* in 'SiT_model'; there are no weights in it/)
    }
    expect(() => authorsWeights({ SiT_model: { 'module.a': x, version: 3 } })).toThrow(/'version' in it is no tensor/)
    const path = join(await temporaryFolder(), 'other.pth')
    await saveTorch(path, { model: { x } })
    await expect(loadAuthorsCheckpoint(path)).rejects.toThrow(`'${path}': Expected a checkpoint of the authors`)
    expect(Object.keys(authorsWeights({ SiT_model: { 'backbone.a': x, 'module.b': x } }))).toEqual(['backbone.a', 'b'])
  })
})
