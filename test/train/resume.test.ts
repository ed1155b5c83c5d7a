import { readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { pretrain, RunFolder, type PretrainConfigInput, type RunStart } from '../../src/train/index.js'
import * as torch from '../../src/torch/index.js'
import { stripeFiles, stripes } from '../evaluate/support.js'
import { folderWith, paint } from '../data/support.js'
import { interrupted, newestCheckpoint, photos, reproducible, small } from './support.js'

torch.setNumThreads(1)

async function expectSameRun(received: string, wanted: string): Promise<void> {
  expect(await newestCheckpoint(received)).toEqual(await newestCheckpoint(wanted))
  expect(await reproducible(received)).toEqual(await reproducible(wanted))
  for (const folder of ['reconstructions', 'exported'] as const) {
    expect(await readdir(new RunFolder(received)[folder])).toEqual(await readdir(new RunFolder(wanted)[folder]))
  }
}

describe('a run that was interrupted and resumed equals one that was not, bit for bit', () => {
  const cases: readonly [name: string, steps: number, settings: Partial<PretrainConfigInput>][] = [
    ['before the first step', 0, {}],
    ['in the first epoch', 2, {}],
    ["exactly at an epoch's end", 3, {}],
    ['in the second epoch, with kNN', 4, { knnEvery: 1 }],
    ['in bfloat16', 4, { amp: 'bf16' }],
    ["in bfloat16 at an epoch's end", 3, { amp: 'bf16' }],
    ['in float16, with its loss scale', 2, { amp: 'fp16' }],
    ['with another corruption', 4, { fill: 'shuffle', align: 2 }],
    ['with few checkpoints', 4, { checkpointEvery: 3 }],
    ['with checkpoints by step', 4, { checkpointSteps: 1, keepLast: 9 }],
    ['with a running mean of the weights, in parts', 4, { ema: 0.9, accumulate: 3, knnEvery: 1 }],
    ['with checkpoints by time', 2, { checkpointMinutes: 1e-9 }]
  ]
  it.each(cases)('%s', async (_, steps, changes) => {
    const { images, out, settings } = await small()
    const config = { ...settings, ...changes, images }
    const { tensors } = torch.memory()
    const whole = await pretrain({ ...config, out: out('whole') })
    expect(await interrupted({ ...config, out: out('halves') }, steps)).toMatchObject({ status: 'interrupted', steps, exported: null })
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    const run = new RunFolder(out('halves'))
    expect(await run.listCheckpoints()).toContain(run.checkpoint(steps))
    const starts: RunStart[] = []
    const resumed = await pretrain({ images, out: out('halves'), resume: true }, { onStart: (start) => starts.push(start) })
    expect(starts[0]!.resumedFrom).toMatchObject({ step: steps, epoch: Math.floor(steps / 3) })
    expect(resumed).toEqual({ ...whole, out: out('halves'), exported: join(run.exported, 'backbone.safetensors') })
    await expectSameRun(out('halves'), out('whole'))
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('at every step of it, on colour images in files', async () => {
    const { out, settings } = await small()
    const config = { ...settings, images: await photos(), batchSize: 3, imageSize: 8 }
    await pretrain({ ...config, out: out('whole') })
    await interrupted({ ...config, out: out('parts') }, 1)
    for (const step of [2, 3]) await interrupted({ images: config.images, out: out('parts'), resume: true, workers: step }, step)
    await pretrain({ images: config.images, out: out('parts'), resume: true, workers: 1 })
    await expectSameRun(out('parts'), out('whole'))
  })

  it('on images that are held decoded, and not with others', async () => {
    const { out, settings } = await small()
    const config = { ...settings, images: await photos(), batchSize: 3, imageSize: 8, hold: 0.01 }
    const notices: string[] = []
    const onNotice = (message: string) => void notices.push(message)
    await pretrain({ ...config, out: out('whole') }, { onNotice })
    await interrupted({ ...config, out: out('parts') }, 3, { onNotice })
    const resume = { images: config.images, out: out('parts'), resume: true }
    await expect(pretrain({ ...resume, hold: 0 })).rejects.toThrow(/other settings: hold \(the run has 0.01, given is 0\)/)
    await pretrain(resume, { onNotice })
    await expectSameRun(out('parts'), out('whole'))
    expect(notices).toEqual(Array(3).fill('Decoding 6 images to hold them on cpu, 0.0081 MB'))
  })

  it('killed without a word: from the last checkpoint on', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('whole') })
    const run = new RunFolder(out('killed'))
    const hooks = {
      onStep: ({ step }: { step: number }) => {
        if (step === 5) throw new Error('killed')
      }
    }
    await expect(pretrain({ ...settings, images, out: run.path }, hooks)).rejects.toThrow('killed')
    expect(await run.listCheckpoints()).toEqual([run.checkpoint(3)])
    await pretrain({ images, out: run.path, resume: true })
    await expectSameRun(run.path, out('whole'))
  })
})

describe('checkpoints', () => {
  it('are written by step and by time beside those of the epochs, and kept by the rule', async () => {
    const { images, out, settings } = await small()
    const steps = async (name: string) => (await new RunFolder(out(name)).listCheckpoints()).map((path) => Number(/step-(\d+)/.exec(path)![1]))
    const config = { ...settings, images, epochs: 3, checkpointEvery: 2, keepLast: 99 }
    await pretrain({ ...config, out: out('epochs') })
    expect(await steps('epochs')).toEqual([6, 9])
    await pretrain({ ...config, out: out('steps'), checkpointSteps: 2 })
    expect(await steps('steps')).toEqual([2, 4, 6, 8, 9])
    await pretrain({ ...config, out: out('minutes'), checkpointMinutes: 1e-9 })
    expect(await steps('minutes')).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    await pretrain({ ...config, out: out('kept'), checkpointSteps: 1, keepLast: 1, keepEvery: 2 })
    expect(await steps('kept')).toEqual([6, 9])
  })

  it('that are damaged: the run goes on from the one before, to the same end, and says so', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('whole') })
    await interrupted({ ...settings, images, out: out('a'), checkpointSteps: 1 }, 4)
    const run = new RunFolder(out('a'))
    await truncate(run.checkpoint(4), 5000)
    await writeFile(`${run.checkpoint(5)}.12-0-3.tmp`, 'what a crash left')
    const notices: string[] = []
    const starts: RunStart[] = []
    await pretrain({ images, out: run.path, resume: true }, { onNotice: (notice) => notices.push(notice), onStart: (start) => starts.push(start) })
    expect(notices).toEqual([expect.stringMatching(/step-00000004.safetensors' is damaged: .*\. Going on from the one before/)])
    expect(starts[0]!.resumedFrom!.step).toBe(3)
    expect(await readdir(run.checkpoints)).toEqual(['step-00000004.safetensors.damaged', 'step-00000005.safetensors', 'step-00000006.safetensors'])
    await expectSameRun(run.path, out('whole'))
  })
})

describe('an abort', () => {
  it('at the last step is too late: the run is done', async () => {
    const { images, out, settings } = await small()
    expect(await interrupted({ ...settings, images, out: out('a') }, 6)).toMatchObject({ status: 'done', steps: 6 })
  })

  it('before the first step leaves a checkpoint all the same', async () => {
    const { images, out, settings } = await small()
    const result = await interrupted({ ...settings, images, out: out('a') }, 0)
    expect(result).toMatchObject({ status: 'interrupted', steps: 0, loss: NaN })
    expect(await readdir(new RunFolder(out('a')).checkpoints)).toEqual(['step-00000000.safetensors'])
  })
})

describe('resume', () => {
  it('starts where there is nothing yet, and does nothing to a run that is done', async () => {
    const { images, out, settings } = await small()
    const first = await pretrain({ ...settings, images, out: out('a'), resume: true })
    expect(first.steps).toBe(6)
    const before = [await newestCheckpoint(out('a')), await reproducible(out('a'))]
    expect(await pretrain({ images, out: out('a'), resume: true })).toEqual(first)
    expect([await newestCheckpoint(out('a')), await reproducible(out('a'))]).toEqual(before)
  })

  it('takes more epochs, and remembers them', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('a'), epochs: 1 })
    expect(await interrupted({ images, out: out('a'), resume: true, epochs: 3 }, 4)).toMatchObject({ status: 'interrupted', steps: 4 })
    expect(await pretrain({ images, out: out('a'), resume: true })).toMatchObject({ status: 'done', steps: 9 })
  })

  it('goes on with other settings where it is told to, and keeps them', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('a'), epochs: 1 })
    const resume = { images, out: out('a'), resume: true, epochs: 3 }
    await interrupted({ ...resume, lr: 0.5, override: true }, 4)
    const saved = await new RunFolder(out('a')).readConfig()
    expect(saved).toMatchObject({ lr: 0.5, epochs: 3 })
    expect(saved).not.toHaveProperty('override')
    expect(await pretrain(resume)).toMatchObject({ status: 'done', steps: 9 })
    await expect(pretrain({ ...resume, patchSize: 2, override: true })).rejects.toThrow(/other settings of patchSize/)
  })

  it("keeps the precision that 'auto' once settled", async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('a'), epochs: 1, amp: 'auto' })
    const run = new RunFolder(out('a'))
    const saved = await run.readConfig()
    expect(['float32', 'bfloat16']).toContain(saved['precision'])
    for (const precision of ['float32', 'bfloat16'] as const) {
      await writeFile(run.config, JSON.stringify({ ...saved, precision }))
      const starts: RunStart[] = []
      await pretrain({ images, out: run.path, resume: true }, { onStart: (start) => starts.push(start) })
      expect(starts[0]!.precision).toBe(precision)
    }
  })

  it('refuses other images of the same number, unless told', async () => {
    const { out, settings } = await small()
    const content = await paint(8, 8, (x, y) => [30 * x, 30 * y, 99]).png().toBuffer()
    const named = (first: number) => folderWith(Object.fromEntries(Array.from({ length: 24 }, (_, i) => [`${first + i}.png`, content])))
    await pretrain({ ...settings, images: await named(0), out: out('a'), epochs: 1, imageSize: 8 })
    const run = new RunFolder(out('a'))
    const before = await run.readConfig()
    const resume = { images: await named(1), out: run.path, resume: true, epochs: 2 }
    await expect(pretrain(resume)).rejects.toThrow(/cannot go on with other images: images '.*' has files of other names/)
    expect(await run.readConfig()).toEqual(before)
    expect(await pretrain({ ...resume, override: true })).toMatchObject({ status: 'done', steps: 6 })
    // From now on these are the run's.
    expect(await pretrain({ ...resume, epochs: 3 })).toMatchObject({ status: 'done', steps: 9 })
    // As a run of an earlier version has it.
    const { imagesSha256, ...earlier } = await run.readConfig()
    expect(imagesSha256).toMatch(/^[0-9a-f]{64}$/)
    await writeFile(run.config, JSON.stringify(earlier))
    expect(await pretrain({ ...resume, images: await named(2), epochs: 4 })).toMatchObject({ status: 'done', steps: 12 })
  })

  it('refuses other settings, other images and a checkpoint that is damaged, and leaves the run alone', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('a'), epochs: 1 })
    const { tensors } = torch.memory()
    const run = new RunFolder(out('a'))
    const before = [await run.readConfig(), await reproducible(run.path)]
    const resume = { images, out: run.path, resume: true, epochs: 2 }
    await expect(pretrain({ ...resume, lr: 0.5 })).rejects.toThrow(/other settings: lr \(the run has 0.01, given is 0.5\)/)
    const [more, others] = [{ ...resume, images: await stripes(25) }, { ...resume, images: await stripes(24, { seed: 9 }) }]
    await expect(pretrain(more)).rejects.toThrow(/the 24 images that the run began with for images '.*', received 25/)
    await expect(pretrain(others)).rejects.toThrow(/received 'images of another size or with other statistics'/)
    const [checkpoint] = await run.listCheckpoints()
    await writeFile(checkpoint!, 'half a checkpoint')
    await expect(pretrain(resume)).rejects.toThrow(/No checkpoint of .* can be used.*\n.*step-00000003.safetensors is no legal safetensors file/)
    expect([await run.readConfig(), await reproducible(run.path)]).toEqual(before)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    // The same images elsewhere.
    await rm(checkpoint!)
    expect(await pretrain({ ...resume, images: await folderWith(stripeFiles(24)) })).toMatchObject({ status: 'done', steps: 6 })
  })
})
