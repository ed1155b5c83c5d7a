import { readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { afterEach, describe, expect, it, vi } from 'vitest'

import { randomFor } from '../../src/data/index.js'
import { GroupMaskedModel } from '../../src/gmml/index.js'
import { loadSafetensors, saveSafetensors } from '../../src/io/index.js'
import { AdamW, ExponentialMovingAverage, GradScaler } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import {
  DamagedCheckpointError, exportEncoder, loadCheckpoint, loadNewestCheckpoint, removeSuperfluous, saveCheckpoint, type Progress,
  type TrainingState
} from '../../src/train/checkpoint.js'
import { buildEncoder, loadEncoder, loadModel, newestWeights, RunFolder, type EncoderDescription } from '../../src/train/index.js'
import { readInitialWeights } from '../../src/train/initial-weights.js'
import { folderWith } from '../data/support.js'
import { fillDisk } from './support.js'

torch.setNumThreads(1)

afterEach(() => void vi.restoreAllMocks())

const encoder: EncoderDescription = { model: 'vit_micro', imageSize: [8, 12], patchSize: 4, channels: 1, mean: [0.1 + 0.2], std: [0.25] }

interface State extends TrainingState {
  readonly model: GroupMaskedModel
}

function newState(withScaler = true, withMean = false): State {
  const model = torch.scope(() => new GroupMaskedModel(buildEncoder(encoder)))
  const parameters = model.parameters()
  const optimizer = new AdamW([{ parameters: parameters.slice(0, 5) }, { parameters: parameters.slice(5), weightDecay: 0 }], { lr: 0.01 })
  return { model, optimizer, scaler: withScaler ? new GradScaler('cpu') : null, ema: withMean ? new ExponentialMovingAverage(parameters, 0.9) : null }
}

function dispose({ model, optimizer, scaler, ema }: State): void {
  for (const part of [model, optimizer, scaler, ema]) part?.dispose()
}

const at = (step: number): Progress =>
  ({ step, epoch: 0, losses: { sum: 0, count: 0 }, skipped: { total: 0, inRow: 0 }, epochEnd: false, accuracy: null })

const images = torch.keep(torch.randn([2, 1, 8, 12]))
const mask = torch.keep(torch.ones([2, 1, 8, 12], { dtype: 'bool' }))

/** One step, which ends in an overflow if `overflow`. */
function train({ model, optimizer, scaler, ema }: State, overflow = false): number {
  return torch.scope(() => {
    const loss = model.loss(images, images, mask)
    ;(scaler?.scale(loss) ?? loss).mul(overflow ? Infinity : 1).backward()
    scaler?.unscale(model.parameters())
    const group = optimizer.groups[0]!
    group.lr = Number(group.lr) * 0.9
    optimizer.step({ foundInf: scaler?.foundInf })
    scaler?.update()
    ema?.update()
    optimizer.zeroGrad()
    return loss.item()
  })
}

const newRun = async (): Promise<RunFolder> => {
  const run = new RunFolder(await folderWith())
  await run.create({})
  return run
}

function all({ model, optimizer, ema }: State): Record<string, Tensor> {
  const moments = [...optimizer.stateDict().state].flatMap(([number, tensors]) =>
    Object.entries(tensors).map(([name, tensor]) => [`${number}.${name}`, tensor as Tensor] as const)
  )
  return { ...model.stateDict(), ...Object.fromEntries(moments), ...Object.fromEntries((ema?.means ?? []).map((mean, i) => [`mean.${i}`, mean])) }
}

describe('a checkpoint', () => {
  it('brings model, optimizer, scaler and running mean back, so that the next steps are the same', async () => {
    const run = await newRun()
    const before = newState(true, true)
    train(before)
    train(before, true) // the scale halves, nothing else changes
    train(before)
    const progress: Progress = { ...at(3), epoch: 1, losses: { sum: 0.1 + 0.2, count: 2 }, skipped: { total: 7, inRow: 1 }, epochEnd: true, accuracy: 0.5 }
    const path = await saveCheckpoint(run, before, progress, encoder)
    expect(path).toBe(run.checkpoint(3))

    const { tensors } = torch.memory()
    const after = newState(true, true)
    train(after) // has a state of its own, which must not survive
    expect(await loadCheckpoint(path, after)).toEqual(progress)
    expect(after.scaler!.stateDict()).toMatchObject({ scale: 32768, _growth_tracker: 1 })
    expect(after.optimizer.groups.map(({ lr, weightDecay }) => [lr, weightDecay])).toEqual([[0.01 * 0.9 * 0.9 * 0.9, 0.01], [0.01, 0]])
    for (let i = 0; i < 2; i++) expect(train(after)).toBe(train(before))
    const wanted = all(before)
    const received = all(after)
    expect(Object.keys(received)).toEqual(Object.keys(wanted))
    for (const [name, tensor] of Object.entries(received)) expect(torch.equal(tensor, wanted[name]!), name).toBe(true)
    dispose(after)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    dispose(before)
  })

  it('of a run that has not made a step brings back a fresh optimizer', async () => {
    const run = await newRun()
    const before = newState(false)
    const path = await saveCheckpoint(run, before, at(0), encoder)
    const after = newState(false)
    train(after)
    expect(await loadCheckpoint(path, after)).toEqual(at(0))
    expect(after.optimizer.stateDict().state.size).toBe(0)
    expect(train(after)).toBe(train(before))
  })

  it('is kept by the rule: the newest, those of every so many epochs, the best', async () => {
    const run = await newRun()
    const state = newState()
    const kept = async () => (await run.listCheckpoints()).map((path) => Number(/step-(\d+)/.exec(path)![1]))
    const rule = { keepLast: 2, keepEvery: 2, keepBest: true }
    const losses = [0.9, 0.5, 0.7, 0.6, 0.8, 0.7]
    for (const [i, loss] of losses.entries()) {
      const epoch = i + 1
      await saveCheckpoint(run, state, { ...at(10 * epoch - 5), epoch: i, losses: { sum: 0.1, count: 1 } }, encoder)
      await removeSuperfluous(run, rule)
      await saveCheckpoint(run, state, { ...at(10 * epoch), epoch, losses: { sum: 2 * loss, count: 2 }, epochEnd: true }, encoder)
      await removeSuperfluous(run, rule)
      expect(await kept()).toContain(10 * epoch)
    }
    expect(await kept()).toEqual([20, 40, 55, 60])
    await removeSuperfluous(run, { ...rule, keepEvery: 0 })
    expect(await kept()).toEqual([20, 55, 60])
    await removeSuperfluous(run, { keepLast: 1, keepEvery: 0, keepBest: false })
    expect(await kept()).toEqual([60])
    // One that cannot be read takes no part.
    await writeFile(run.checkpoint(70), 'half a checkpoint')
    await removeSuperfluous(run, { keepLast: 1, keepEvery: 0, keepBest: false })
    expect(await kept()).toEqual([60, 70])
  })

  it('that is damaged anywhere is recognised', async () => {
    const run = await newRun()
    const state = newState()
    train(state)
    const path = await saveCheckpoint(run, state, at(1), encoder)
    const whole = await readFile(path)
    const { tensors } = torch.memory()
    const random = randomFor(1, 'damage')
    const placeOf = (text: string) => whole.indexOf(text) + text.length
    const places = [
      ...Array.from({ length: 12 }, () => random.integer(0, whole.length - 1)), 3, whole.length - 1, placeOf('"progress":"{\\"step'),
      placeOf('"sha256":"'), placeOf('"scaler":"')
    ]
    for (const place of places) {
      const damaged = Buffer.from(whole)
      damaged[place]! ^= 1 << random.integer(0, 6)
      await writeFile(path, damaged)
      await expect(loadCheckpoint(path, state), `byte ${place}`).rejects.toThrow(DamagedCheckpointError)
    }
    for (const length of [0, 7, 100, whole.length - 1]) {
      await writeFile(path, whole.subarray(0, length))
      await expect(loadCheckpoint(path, state), `${length} bytes`).rejects.toThrow(DamagedCheckpointError)
    }
    await writeFile(path, whole)
    expect(await loadCheckpoint(path, state)).toEqual(at(1))
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('falls back to the one before where the newest are damaged', async () => {
    const run = await newRun()
    const state = newState()
    expect(await loadNewestCheckpoint(run, state)).toBeNull()
    for (const step of [1, 2, 3]) {
      train(state)
      await saveCheckpoint(run, state, at(step), encoder)
    }
    const whole = await readFile(run.checkpoint(2))
    await truncate(run.checkpoint(3), 1000)
    const flipped = Buffer.from(whole)
    flipped[whole.length - 9]! ^= 4
    await writeFile(run.checkpoint(2), flipped)
    const told: string[] = []
    expect(await loadNewestCheckpoint(run, state, ({ message }) => told.push(message))).toEqual(at(1))
    expect(told).toEqual([
      expect.stringMatching(/step-00000003.safetensors' is damaged: .* is no legal safetensors file/),
      expect.stringMatching(/step-00000002.safetensors' is damaged: its content does not fit its checksum/)
    ])
    const names = ['step-00000001.safetensors', 'step-00000002.safetensors.damaged', 'step-00000003.safetensors.damaged']
    expect(await readdir(run.checkpoints)).toEqual(names)
    await writeFile(run.checkpoint(1), 'x')
    await expect(loadNewestCheckpoint(run, state)).rejects.toThrow(/^No checkpoint of '.*' can be used. Remove them to begin anew:\n.*00000001/)
    expect(await readdir(run.checkpoints)).toEqual(names)
  })

  it.each([0, 1, 5])('that finds the disk full after %i writes leaves the earlier ones, and nothing of its own', async (writes) => {
    const run = await newRun()
    const state = newState()
    const paths: string[] = []
    for (const step of [1, 2]) paths.push(await saveCheckpoint(run, state, at(step), encoder))
    const before = await Promise.all(paths.map((path) => readFile(path)))
    train(state)
    fillDisk(writes)
    // Also one that would replace an earlier one of the same step.
    for (const step of [2, 3]) {
      await expect(saveCheckpoint(run, state, at(step), encoder)).rejects.toThrow(
        /^Cannot write the checkpoint '.*step-0000000\d.safetensors': ENOSPC: no space left on device, write\. Checkpoints .* are intact/
      )
    }
    const exporting = exportEncoder(run, state.model.backbone, encoder)
    await expect(exporting).rejects.toThrow(/^Cannot write the encoder '.*backbone.safetensors': ENOSPC/)
    expect(await readdir(run.checkpoints)).toEqual(['step-00000001.safetensors', 'step-00000002.safetensors'])
    for (const [i, path] of paths.entries()) expect(before[i]!.equals(await readFile(path))).toBe(true)
    expect(await readdir(run.exported)).toEqual([])
  })

  it('of another kind is refused', async () => {
    const run = await newRun()
    const state = newState()
    const exported = await exportEncoder(run, state.model.backbone, encoder)
    await expect(loadCheckpoint(exported, state)).rejects.toThrow(/is no checkpoint of a run/)
    const path = await saveCheckpoint(run, state, at(1), encoder)
    const other = torch.scope(() => new GroupMaskedModel(buildEncoder({ ...encoder, imageSize: [16, 16] })))
    const { tensors } = torch.memory()
    await expect(loadCheckpoint(path, { ...state, model: other })).rejects.toThrow(/backbone.pos_embed \(expected \[1, 17, 128\]/)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })
})

describe('weights', () => {
  it('of an encoder come from a checkpoint or an exported file, with what it needs', async () => {
    const run = await newRun()
    const state = newState()
    train(state)
    await expect(newestWeights(run)).rejects.toThrow(/has no weights/)
    const checkpoint = await saveCheckpoint(run, state, at(1), encoder)
    expect(await newestWeights(run)).toBe(checkpoint)
    const exported = await exportEncoder(run, state.model.backbone, encoder)
    expect(await newestWeights(run)).toBe(exported)
    expect(Object.keys((await loadSafetensors(exported)).tensors)).toContain('blocks.3.attn.qkv.weight')
    const { tensors } = torch.memory()
    for (const path of [checkpoint, exported]) {
      const loaded = await loadEncoder(path)
      expect(loaded.encoder).toEqual(encoder)
      const weights = loaded.backbone.stateDict()
      const wanted = Object.entries(state.model.backbone.stateDict())
      for (const [name, tensor] of wanted) expect(torch.equal(weights[name]!, tensor), name).toBe(true)
      loaded.backbone.dispose()
    }
    const whole = await loadModel(checkpoint)
    expect(whole.model.loss(images, images, mask).item()).toBe(state.model.loss(images, images, mask).item())
    whole.model.dispose()
    await expect(loadModel(exported)).rejects.toThrow(/is no checkpoint: it holds the encoder alone/)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors + 2) // the two losses
  })

  it('of a foreign, a damaged or a missing file are refused', async () => {
    const folder = await folderWith({ 'text.safetensors': 'these are no tensors' })
    const described = JSON.stringify(encoder)
    const files: readonly [name: string, metadata: Record<string, string>, message: RegExp][] = [
      ['plain', {}, /was not written by gmml: its header does not describe an encoder/],
      ['foreign', { encoder: 'resnet50' }, /was not written by gmml/],
      ['other', { encoder: described.replace('"patchSize":4', '"patchSize":0') }, /was not written by gmml/],
      ['empty', { encoder: described }, /The state dict does not fit VisionTransformer. missing: cls_token, .*unexpected: weight/]
    ]
    const weight = torch.keep(torch.ones([2]))
    const state = newState()
    const { tensors } = torch.memory()
    for (const [name, metadata, message] of files) {
      const path = `${folder}/${name}.safetensors`
      await saveSafetensors(path, { weight }, metadata)
      await expect(loadEncoder(path), name).rejects.toThrow(message)
    }
    // A bit of a weight is another one: whoever measures, exports or starts from it would not notice.
    const checkpoint = await saveCheckpoint(await newRun(), state, at(1), encoder)
    const bytes = await readFile(checkpoint)
    bytes[bytes.length - 5]! ^= 1
    await writeFile(checkpoint, bytes)
    for (const load of [loadEncoder, loadModel, readInitialWeights]) {
      await expect(load(checkpoint)).rejects.toThrow(`'${checkpoint}' is damaged: its content does not fit its checksum`)
    }
    await expect(loadEncoder(`${folder}/text.safetensors`)).rejects.toThrow(/no legal safetensors file/)
    await expect(loadEncoder(`${folder}/none.safetensors`)).rejects.toThrow(/ENOENT.*none.safetensors/)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })
})
