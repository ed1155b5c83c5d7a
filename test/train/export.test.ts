import { spawnSync } from 'node:child_process'
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { InputError, SettingsError } from '../../src/errors.js'
import { GroupMaskedModel } from '../../src/gmml/index.js'
import { loadSafetensors, loadTorch, saveSafetensors } from '../../src/io/index.js'
import { AdamW } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { memory, scope, type Tensor } from '../../src/torch/index.js'
import { buildEncoder, exportEncoder, saveCheckpoint, type EncoderDescription } from '../../src/train/checkpoint.js'
import { exportBackbone, exportFormats, loadEncoder, RunFolder, type ExportRequest } from '../../src/train/index.js'
import { loadHuggingFace, loadTimm, saveTimm, VisionTransformer } from '../../src/vision/index.js'
import { difference, perturb, python, runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

const encoder: EncoderDescription = {
  model: 'vit_micro', imageSize: [8, 12], patchSize: 4, channels: 3, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3]
}
const script = join(import.meta.dirname, 'load-exports.py')

/** A run with checkpoints after steps 3 and 5, and an exported encoder if it is done. */
async function finished(done = true, tokens: Partial<EncoderDescription> = {}): Promise<RunFolder> {
  const run = new RunFolder(join(await temporaryFolder(), 'run'))
  await run.create({})
  torch.manualSeed(1)
  const described = { ...encoder, ...tokens }
  const model = perturb(new GroupMaskedModel(buildEncoder(described)))
  const state = { model, optimizer: new AdamW(model.parameters()), scaler: null, ema: null }
  for (const step of [3, 5]) {
    torch.noGrad(() => void model.backbone.cls_token?.fill_(step))
    const progress = { step, epoch: 1, losses: { sum: 0, count: 0 }, skipped: { total: 0, inRow: 0 }, epochEnd: false, accuracy: null }
    await saveCheckpoint(run, state, progress, described)
  }
  if (done) await exportEncoder(run, model.backbone, described)
  model.dispose()
  return run
}

const firstOf = (tensor: Tensor): number => torch.scope(() => tensor.flatten().select(0, 0).item())

describe('exportBackbone refuses', () => {
  it('what is no format, no run and no encoder', async () => {
    const run = await finished()
    const file = join(run.path, 'other.safetensors')
    await saveSafetensors(file, {})
    const empty = join(run.path, 'empty')
    await mkdir(empty)
    const before = [await readdir(run.exported), memory().tensors]
    const misuse: [string, unknown, new () => Error, RegExp][] = [
      [run.path, { to: 'tensorflow' }, SettingsError, /one of timm, huggingface, onnx, pytorch for to, received 'tensorflow'/],
      [run.path, { to: 'constructor' }, SettingsError, /received 'constructor'/],
      [run.path, {}, SettingsError, /for to, received undefined/],
      [join(run.path, 'none'), { to: 'onnx' }, InputError, /a run's folder or a file of weights for what to export, received '.*none'/],
      [empty, { to: 'onnx' }, InputError, /has no weights: neither/],
      [file, { to: 'onnx' }, InputError, /was not written by gmml/],
      [run.config, { to: 'onnx' }, InputError, /no legal index of safetensors files/],
      [run.path, { to: 'onnx', checkpoint: 4 }, InputError, /one of the steps 3, 5 for the checkpoint, received 4/],
      [empty, { to: 'onnx', checkpoint: 4 }, InputError, /a run with checkpoints for the checkpoint, received 4/],
      [run.checkpoint(3), { to: 'onnx', checkpoint: 3 }, SettingsError, /'.*' is a file/],
      [run.path, { to: 'onnx', imageSize: 10 }, InputError, /divisor of the image size 10 x 10 for patchSize, received 4/],
      [run.path, { to: 'onnx', imageSize: -4 }, InputError, /positive integer for imageSize, received -4/],
      [run.path, { to: 'onnx', opset: 9 }, InputError, /one of 17, 18, 19, 20 for opset, received 9/]
    ]
    for (const [subject, request, kind, message] of misuse) {
      const attempt = exportBackbone(subject, request as ExportRequest)
      await expect(attempt, String(message)).rejects.toThrow(message)
      await expect(attempt).rejects.toThrow(kind)
    }
    expect([await readdir(run.exported), memory().tensors]).toEqual(before)
  })

  it('to write over anything, unless told so, and over a run and its own source in any case', async () => {
    const run = await finished()
    const source = join(run.exported, 'backbone.safetensors')
    const taken = join(run.path, 'mine')
    await mkdir(taken)
    await writeFile(join(taken, 'notes.txt'), 'mine')
    const attempt = (to: ExportRequest['to'], out: string, force?: boolean) => exportBackbone(run.path, { to, out, force })
    await expect(attempt('onnx', run.config)).rejects.toThrow(/is there already. Write there all the same \(force\)/)
    await expect(attempt('onnx', taken, true)).rejects.toThrow(/a file's path for out, received 'the folder /)
    await expect(attempt('timm', run.config, true)).rejects.toThrow(/a folder's path for out, received 'the file /)
    await expect(attempt('huggingface', taken)).rejects.toThrow(/is there already/)
    await expect(attempt('huggingface', run.path, true)).rejects.toThrow(/is the folder of a run/)
    await expect(attempt('pytorch', source, true)).rejects.toThrow(/is what is exported/)
    await expect(attempt('timm', '')).rejects.toThrow(/a path for out, received ''/)
    // Also by another name.
    await symlink(source, join(run.path, 'model.safetensors'))
    const linked = exportBackbone(join(run.path, 'model.safetensors'), { to: 'onnx', out: source, force: true })
    await expect(linked).rejects.toThrow(/is what is exported/)
    const folder = (await exportBackbone(run.path, { to: 'timm' })).path
    const again = exportBackbone(join(folder, 'model.safetensors'), { to: 'huggingface', out: folder, force: true })
    await expect(again).rejects.toThrow(/is what is exported/)
    expect(await readdir(taken)).toEqual(['notes.txt'])
    expect(await readFile(run.config, 'utf8')).toBe('{}\n')
    await attempt('huggingface', taken, true)
    expect((await readdir(taken)).sort()).toEqual(['config.json', 'model.safetensors', 'notes.txt', 'preprocessor_config.json'])
  })
})

describe('exportBackbone', () => {
  it('takes the newest weights, a checkpoint, or a file, and says what it wrote', async () => {
    const run = await finished(false)
    const token = async (path: string) => {
      const state = await loadTorch<Record<string, Tensor>>(path)
      const value = firstOf(state['cls_token']!)
      for (const tensor of Object.values(state)) tensor.dispose()
      return value
    }
    const newest = await exportBackbone(run.path, { to: 'pytorch' })
    expect(newest).toEqual({
      path: join(run.exported, 'backbone.pth'), weights: run.checkpoint(5),
      load: ['import torch', `state = torch.load("${join(run.exported, 'backbone.pth')}", weights_only=True)`]
    })
    expect(await token(newest.path)).toBe(5)
    const chosen = await exportBackbone(run.path, { to: 'pytorch', checkpoint: 3, out: join(run.path, 'new/folders/a.pth') })
    expect(await token(chosen.path)).toBe(3)
    const beside = await exportBackbone(run.checkpoint(3), { to: 'pytorch' })
    expect(beside.path).toBe(run.checkpoint(3).replace('.safetensors', '.pth'))
    expect(await token(beside.path)).toBe(3)
    expect(await run.listCheckpoints()).toHaveLength(2)
    await expect(exportBackbone(run.path, { to: 'pytorch' })).rejects.toThrow(/is there already/)
    await exportBackbone(run.path, { to: 'pytorch', checkpoint: 3, force: true })
    expect(await token(newest.path)).toBe(3)
  })

  it('leaves no tensors behind', async () => {
    const run = await finished()
    const before = memory().tensors
    for (const to of exportFormats) await exportBackbone(run.path, { to })
    expect(memory().tensors).toBeLessThanOrEqual(before)
    expect((await readdir(run.exported)).sort()).toEqual(
      ['backbone-huggingface', 'backbone-timm', 'backbone.onnx', 'backbone.pth', 'backbone.safetensors']
    )
  })

  it('gives PyTorch the same tokens by the timm and the pytorch export', async () => {
    const run = await finished()
    const [timm, pytorch] = [await exportBackbone(run.path, { to: 'timm' }), await exportBackbone(run.path, { to: 'pytorch' })]
    const { backbone } = await loadEncoder(run.path + '/exported/backbone.safetensors')
    const images = torch.randn([3, 3, 8, 12])
    const [given, computed] = [join(run.path, 'images.safetensors'), join(run.path, 'tokens.safetensors')]
    await saveSafetensors(given, { images })
    await runPython(script, given, computed, timm.path, pytorch.path)
    const { tensors } = await loadSafetensors(computed)
    const own = torch.noGrad(() => backbone.eval().call(images))
    expect(Object.keys(tensors).sort()).toEqual(['pytorch', 'timm'])
    for (const [name, tensor] of Object.entries(tensors)) expect(difference(own, tensor, name).absolute).toBeLessThanOrEqual(1e-5)
    // The folder says all that gmml has to know, too.
    const again = await exportBackbone(join(timm.path, 'model.safetensors'), { to: 'onnx' })
    expect(again.path).toBe(join(timm.path, 'model.onnx'))
    const config = JSON.parse(await readFile(join(timm.path, 'config.json'), 'utf8')) as { pretrained_cfg: object }
    expect(config.pretrained_cfg).toMatchObject({ mean: encoder.mean, std: encoder.std, input_size: [3, 8, 12] })
  })

  it('gives Hugging Face weights and statistics', async () => {
    const run = await finished()
    const { path, load } = await exportBackbone(run.path, { to: 'huggingface' })
    expect(load).toEqual(['from transformers import ViTModel', `model = ViTModel.from_pretrained("${path}", add_pooling_layer=False)`])
    const { model, mean, std } = await loadHuggingFace(path)
    expect({ mean, std }).toEqual({ mean: encoder.mean, std: encoder.std })
    const { backbone } = await loadEncoder(join(run.exported, 'backbone.safetensors'))
    for (const [name, tensor] of Object.entries(backbone.stateDict())) expect(model.stateDict()[name]!.equal(tensor), name).toBe(true)
  })

  it.each([
    ['registers', { registerTokens: 2 }, { reg_tokens: 2, class_token: true, global_pool: 'token' }],
    ['no CLS token', { classToken: false }, { reg_tokens: 0, class_token: false, global_pool: 'avg', fc_norm: false }]
  ] as const)('of an encoder with %s is refused by Hugging Face alone', async (_, tokens, described) => {
    const run = await finished(true, tokens)
    await expect(exportBackbone(run.path, { to: 'huggingface' })).rejects.toThrow(/for a ViTModel of Hugging Face's transformers/)
    expect(await readdir(run.exported)).toEqual(['backbone.safetensors'])
    for (const to of ['onnx', 'pytorch'] as const) await exportBackbone(run.path, { to })
    const { path } = await exportBackbone(run.path, { to: 'timm' })
    const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8')) as { model_args: object }
    expect(config.model_args).toMatchObject(described)
    const again = await loadEncoder(join(path, 'model.safetensors'))
    expect(again.encoder).toEqual({ ...encoder, ...tokens })
    const { backbone } = await loadEncoder(join(run.exported, 'backbone.safetensors'))
    const state = again.backbone.stateDict()
    for (const [name, tensor] of Object.entries(backbone.stateDict())) expect(state[name]!.equal(tensor), name).toBe(true)
  })

  it('for images of another size resamples the position embedding and nothing else', async () => {
    const run = await finished()
    const { path } = await exportBackbone(run.path, { to: 'timm', imageSize: [16, 20] })
    const other = await loadEncoder(join(path, 'model.safetensors'))
    expect(other.encoder.imageSize).toEqual([16, 20])
    const { backbone } = await loadEncoder(join(run.exported, 'backbone.safetensors'))
    const expected = scope(() => new VisionTransformer({ ...backbone.options, imageSize: [16, 20] }))
    loadTimm(expected, backbone.stateDict(), { trainedAt: [8, 12] })
    const state = other.backbone.stateDict()
    for (const [name, tensor] of Object.entries(expected.stateDict())) expect(state[name]!.equal(tensor), name).toBe(true)
    expect(other.backbone.pos_embed.shape).toEqual([1, 21, 128])
    const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8')) as { model_args: object }
    expect(config.model_args).toMatchObject({ img_size: [16, 20] })
  })

  it('writes nothing where the disk fails', async () => {
    const run = await finished()
    await rm(run.exported, { recursive: true })
    await writeFile(run.exported, 'in the way')
    for (const to of exportFormats) await expect(exportBackbone(run.path, { to })).rejects.toThrow(/EEXIST|ENOTDIR/)
    expect(await readFile(run.exported, 'utf8')).toBe('in the way')
  })
})

// The package is too heavy to be required: the model of bench/pytorch above has its keys.
if (spawnSync(python.python, ['-c', 'import timm'], { env: python.env }).status === 0) {
  describe('timm itself', () => {
    it.each([
      ['an encoder', {}],
      ['a pooling classifier with registers and layer scale', { numClasses: 4, registerTokens: 2, pool: 'avg', initValues: 0.1 }],
      ['a classifier without CLS token', { numClasses: 4, classToken: false, qkvBias: false }]
    ] as const)('loads %s by the folder alone', async (_, options) => {
      const folder = await temporaryFolder()
      const sizes = { imageSize: [8, 12], patchSize: 4, embedDim: 32, depth: 2, numHeads: 2 } as const
      const model = perturb(new VisionTransformer({ ...sizes, ...options })).eval()
      await saveTimm(join(folder, 'model'), model, encoder)
      const images = torch.randn([3, 3, 8, 12])
      const [given, computed] = [join(folder, 'images.safetensors'), join(folder, 'tokens.safetensors')]
      await saveSafetensors(given, { images })
      await runPython(script, given, computed, join(folder, 'model'))
      const { tensors } = await loadSafetensors(computed)
      torch.noGrad(() => {
        const found = [difference(model.call(images), tensors['timm']!).absolute]
        if (model.head) found.push(difference(model.logits(images), tensors['logits']!).absolute)
        if (process.env['GMML_MEASURED']) console.log('timm', found)
        for (const value of found) expect(value).toBeLessThanOrEqual(1e-5)
      })
      expect(difference(tensors['mean']!, torch.tensor([...encoder.mean])).absolute).toBeLessThan(1e-6)
    })
  })
}
