import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'

import { GroupMaskedModel } from '../../src/gmml/index.js'
import * as torch from '../../src/torch/index.js'
import { finetune, pretrain, RunFolder, type PretrainConfigInput, type PretrainHooks, type StepReport } from '../../src/train/index.js'
import type * as stepQueue from '../../src/train/step-queue.js'
import { StepQueue, type SettledStep } from '../../src/train/step-queue.js'
import { interrupted, metricsOf, small } from './support.js'

torch.setNumThreads(1)

// As on a GPU, where outcomes are looked at some steps late.
const AHEAD = 3
const ahead = vi.hoisted(() => ({ steps: 0 }))
vi.mock('../../src/train/step-queue.js', async (original) => ({
  ...(await original<typeof stepQueue>()), stepsAhead: () => ahead.steps
}))

afterEach(() => {
  ahead.steps = 0
  vi.restoreAllMocks()
})

const times = ['imagesPerSecond', 'dataShare', 'seconds']
const withoutTimes = (line: object): Record<string, unknown> => Object.fromEntries(Object.entries(line).filter(([name]) => !times.includes(name)))

/** Everything that a run wrote, but for times. */
async function writtenBy(run: string) {
  const folder = new RunFolder(run)
  const checkpoints = (await folder.listCheckpoints()).map(async (path) => [basename(path), (await readFile(path)).toString('base64')])
  return { metrics: (await metricsOf(run)).map(withoutTimes), checkpoints: await Promise.all(checkpoints) }
}

type Ending = { readonly result: unknown } | { readonly error: string }

/** How a run ends, what it reports and what it leaves behind. */
async function outcomeOf(steps: number, config: PretrainConfigInput, hooks: PretrainHooks = {}) {
  ahead.steps = steps
  const reports: object[] = []
  const onStep = (report: StepReport) => {
    reports.push(withoutTimes(report))
    hooks.onStep?.(report)
  }
  const { tensors } = torch.memory()
  const ending = await pretrain(config, { ...hooks, onStep }).then(
    ({ out: _, exported, ...result }): Ending => ({ result: { ...result, exported: exported && basename(exported) } }),
    (error: Error): Ending => ({ error: error.message })
  )
  ahead.steps = 0
  expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  return { ending, reports, ...(await writtenBy(config.out)) }
}

/** Spoils the loss of steps by their number from 0; counts the calls. */
function spoil(how: (step: number, loss: torch.Tensor) => torch.Tensor): { steps: number } {
  const original: (...given: Parameters<GroupMaskedModel['loss']>) => torch.Tensor = Reflect.get(GroupMaskedModel.prototype, 'loss')
  const calls = { steps: 0 }
  vi.spyOn(GroupMaskedModel.prototype, 'loss').mockImplementation(function (this: GroupMaskedModel, ...given) {
    return how(calls.steps++, original.apply(this, given))
  })
  return calls
}

describe(`a run whose outcomes are known ${AHEAD} steps late writes what one does that waits for each`, () => {
  const cases: readonly [name: string, settings: Partial<PretrainConfigInput>][] = [
    ['with a checkpoint after every second step', { checkpointSteps: 2, keepLast: 9, logEvery: 1 }],
    ['with checkpoints by time, of which each waits for all steps', { checkpointMinutes: 1e-9, keepLast: 9 }],
    ['in float16, with its loss scale, a running mean and kNN', { amp: 'fp16', ema: 0.9, knnEvery: 1, logEvery: 2 }],
    ['of epochs that are shorter than it is late', { batchSize: 12, epochs: 3 }]
  ]
  it.each(cases)('%s', async (_, changes) => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, ...changes }
    const [late, wanted] = [await outcomeOf(AHEAD, { ...config, out: out('late') }), await outcomeOf(0, { ...config, out: out('wanted') })]
    expect(late).toEqual(wanted)
    expect(late.ending).toMatchObject({ result: { status: 'done' } })
  })

  it('where steps are not finite: they are counted, and no checkpoint is saved on top of them', async () => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, epochs: 3, checkpointSteps: 1, keepLast: 99 }
    const run = async (steps: number, name: string) => {
      // The gradients of the third step are infinite, the loss of the fourth is NaN.
      spoil((step, loss) => step === 2 ? loss.add(loss.sub(loss.detach()).mul(Infinity)) : loss.mul(step === 3 ? NaN : 1))
      const found = await outcomeOf(steps, { ...config, out: out(name) })
      vi.restoreAllMocks()
      return found
    }
    const [late, wanted] = [await run(AHEAD, 'late'), await run(0, 'wanted')]
    expect(late).toEqual(wanted)
    expect(late.reports.map((report) => (report as StepReport).skipped)).toEqual([0, 0, 1, 2, 2, 2, 2, 2, 2])
    expect(late.checkpoints.map(([name]) => name!.slice(5, 13))).toEqual(['1', '2', '5', '6', '7', '8', '9'].map((step) => step.padStart(8, '0')))
  })

  it('where too many steps in a row are not finite: the same step is named, and little is computed after it', async () => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, batchSize: 2, maxSkipped: 4 }
    const run = async (steps: number, name: string) => {
      const calls = spoil((step, loss) => loss.mul(step >= 5 && step < 9 ? NaN : 1)) // the tenth would be finite again
      const found = await outcomeOf(steps, { ...config, out: out(name) })
      vi.restoreAllMocks()
      return { found, calls: calls.steps }
    }
    const [late, wanted] = [await run(AHEAD, 'late'), await run(0, 'wanted')]
    const withoutFolder = ({ ending, ...found }: typeof late.found) => ({ ...found, ending: JSON.stringify(ending).replaceAll(/'[^']*'/g, '') })
    expect(withoutFolder(late.found)).toEqual(withoutFolder(wanted.found))
    const message: unknown = expect.stringMatching(/^The loss is NaN: 4 steps .*, the last is step 9 \(lr .*, images \d+, /)
    expect(late.found.ending).toMatchObject({ error: message })
    expect(wanted.calls).toBe(9)
    expect(late.calls).toBeGreaterThan(9)
    expect(late.calls).toBeLessThanOrEqual(9 + AHEAD)
  })

  it('where a step fails: those before it count', async () => {
    const { images, out, settings } = await small()
    const run = async (steps: number, name: string) => {
      spoil((step, loss) => {
        if (step === 4) throw new Error('no memory')
        return loss
      })
      const found = await outcomeOf(steps, { ...settings, images, out: out(name) })
      vi.restoreAllMocks()
      return found
    }
    const [late, wanted] = [await run(AHEAD, 'late'), await run(0, 'wanted')]
    expect(late).toEqual(wanted)
    expect(late.ending).toEqual({ error: 'no memory' })
    expect(late.metrics.map((line) => line['step'])).toEqual([1, 2, 3, 3, 4])
  })

  it('where it is interrupted, which then ends with what was asked for, and resumed', async () => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, epochs: 3 }
    await outcomeOf(0, { ...config, out: out('whole') })
    ahead.steps = AHEAD
    // Each step of the second epoch is asked for before the first of them is known.
    expect(await interrupted({ ...config, out: out('halves') }, 1)).toMatchObject({ status: 'interrupted', steps: 3 })
    expect(await interrupted({ images, out: out('halves'), resume: true }, 5)).toMatchObject({ status: 'interrupted', steps: 6 })
    await pretrain({ images, out: out('halves'), resume: true })
    ahead.steps = 0
    expect(await writtenBy(out('halves'))).toEqual(await writtenBy(out('whole')))
  })

  it('where it is killed, and resumed from the last checkpoint', async () => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, epochs: 3 }
    await outcomeOf(0, { ...config, out: out('whole') })
    const onStep = ({ step }: StepReport) => {
      if (step === 5) throw new Error('killed')
    }
    expect((await outcomeOf(AHEAD, { ...config, out: out('killed') }, { onStep })).ending).toEqual({ error: 'killed' })
    expect((await metricsOf(out('killed'))).at(-1)).toMatchObject({ step: 5 })
    ahead.steps = AHEAD
    await pretrain({ images, out: out('killed'), resume: true })
    ahead.steps = 0
    expect(await writtenBy(out('killed'))).toEqual(await writtenBy(out('whole')))
  })

  it('where it is a finetuning', async () => {
    const { images, out, settings } = await small()
    const { model, patchSize, batchSize, lr, amp, threads, logEvery, device } = settings
    const config = { from: 'random', train: images, model, patchSize, batchSize, lr, amp, threads, logEvery, device, epochs: 3, validation: 0.3 } as const
    for (const steps of [AHEAD, 0]) {
      ahead.steps = steps
      await finetune({ ...config, out: out(String(steps)) })
    }
    expect(await writtenBy(out(String(AHEAD)))).toEqual(await writtenBy(out('0')))
  })
})

describe('the queue of steps', () => {
  const step = (number: number) => ({ step: number, indices: [number], waited: 0 })
  const outcome = (loss: number, finite = 1) => () => torch.tensor([loss, finite])

  it('settles in order, each as late as it may, and all when it is drained', async () => {
    const settled: SettledStep[] = []
    using queue = new StepQueue('cpu', 2, (known) => {
      settled.push(known)
      return Promise.resolve()
    })
    const seen: number[] = []
    for (let i = 1; i <= 4; i++) {
      await queue.add(step(i), outcome(i / 2, i % 2))
      seen.push(settled.length)
    }
    expect(seen).toEqual([0, 0, 1, 2])
    await queue.drain()
    expect(settled).toMatchObject([1, 2, 3, 4].map((i) => ({ step: i, indices: [i], loss: i / 2, finite: i % 2 === 1 })))
    expect(settled.every(({ start, end }, i) => end.since(start) >= 0 && (i === 0 || start.since(settled[i - 1]!.end) >= 0))).toBe(true)
    await queue.drain()
    expect(settled).toHaveLength(4)
  })

  it('forgets what comes after a step that could not be settled, and nothing where a step could not be asked for', async () => {
    const settled: number[] = []
    using queue = new StepQueue('cpu', 2, (known) => {
      settled.push(known.step)
      return known.step === 2 ? Promise.reject(new Error('full')) : Promise.resolve()
    })
    for (const i of [1, 2, 3]) await queue.add(step(i), outcome(i))
    await expect(queue.add(step(4), outcome(4))).rejects.toThrow('full')
    await queue.drain()
    expect(settled).toEqual([1, 2])
    await queue.add(step(5), outcome(5))
    const fail = () => {
      throw new Error('none')
    }
    await expect(queue.add(step(6), fail)).rejects.toThrow('none')
    await queue.drain()
    expect(settled).toEqual([1, 2, 5])
  })
})
