import { afterEach, describe, expect, it, vi } from 'vitest'

import { drawMixing, mixImages, mixTargets, randomFor } from '../../src/data/index.js'
import { corrupt, GroupMaskedModel } from '../../src/gmml/index.js'
import { addon } from '../../src/native/addon.js'
import { watchCalls } from '../../src/native/dispatch.js'
import { AdamW, clipGradNorm, ExponentialMovingAverage, GradScaler } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'
import { parseConfig, parseFinetuneConfig, pretrain, type FinetuneConfigInput, type PretrainConfigInput } from '../../src/train/index.js'
import type * as capturedStep from '../../src/train/captured-step.js'
import { CapturedStep, WARMUP_STEPS, type StepGraph } from '../../src/train/captured-step.js'
import { FinetuneStep } from '../../src/train/finetune-step.js'
import { inPrecision } from '../../src/train/precision.js'
import { PretrainStep } from '../../src/train/pretrain-step.js'
import { settleGraph } from '../../src/train/settle.js'
import { StaticInputs } from '../../src/train/static-inputs.js'
import { VisionTransformer } from '../../src/vision/index.js'
import { small } from './support.js'

torch.setNumThreads(1)

/** Called around the computation of every step, by what the mock below puts in. */
const around = vi.hoisted(() => ({ compute: null as (<T>(step: () => T) => T) | null }))

vi.mock('../../src/train/captured-step.js', async (original) => {
  const actual = await original<typeof capturedStep>()
  class Watched extends actual.CapturedStep {
    constructor(...[step, ...rest]: ConstructorParameters<typeof actual.CapturedStep>) {
      super(() => (around.compute ? around.compute(step) : step()), ...rest)
    }
  }
  return { ...actual, CapturedStep: Watched }
})

afterEach(() => {
  around.compute = null
  vi.restoreAllMocks()
})

const inputs = () => new StaticInputs('cpu')

describe('static inputs', () => {
  it('stay where they are, and are copies', () => {
    const own = inputs()
    const source = torch.tensor([1, 2])
    own.write('x', source)
    const kept = own.get('x')
    own.write('x', torch.tensor([3, 4]))
    expect(own.get('x')).toBe(kept)
    expect([kept.toArray(), source.toArray(), own.changes]).toEqual([[3, 4], [1, 2], 1])
    own.writeArray('x', Float32Array.of(5, 6), [2])
    expect([own.get('x').toArray(), own.get('x') === kept]).toEqual([[5, 6], true])
    own.writeArray('flags', Uint8Array.of(1, 0), [2, 1], 'bool')
    expect([own.get('flags').toArray(), own.changes]).toEqual([[[true], [false]], 2])
    own.dispose()
    expect(kept.isLive).toBe(false)
  })

  it('of another shape or dtype are others, and it is counted', () => {
    const own = inputs()
    own.write('x', torch.zeros([2]))
    const first = own.get('x')
    own.write('x', torch.zeros([3]))
    own.write('x', torch.zeros([3], { dtype: 'float64' }))
    expect([own.changes, first.isLive, own.get('x').dtype]).toEqual([3, false, 'float64'])
    expect(() => own.get('y')).toThrow(/one of x for the name of an input, received 'y'/)
  })
})

/** A graph as CUDA's, on the CPU: what it captured is computed at each replay. */
class FakeGraph implements StepGraph {
  readonly log: string[] = []
  #replay: (() => void) | null = null

  constructor(readonly failure: Error | null = null) {}

  warmUp(callback: () => Tensor): Tensor {
    this.log.push('warm up')
    return callback()
  }

  capture(callback: () => Tensor): Tensor {
    this.log.push('capture')
    if (this.failure) throw this.failure
    const result = torch.keep(callback())
    result.fill_(NaN) // not computed yet
    this.#replay = () => torch.scope(() => void result.copy_(callback()))
    return result
  }

  replay(): void {
    this.log.push('replay')
    this.#replay!()
  }

  dispose(): void {
    this.log.push('dispose')
  }
}

function fakeStep(failure: Error | null = null) {
  const own = inputs()
  const graph = new FakeGraph(failure)
  const notices: string[] = []
  const forget = vi.fn()
  const step = new CapturedStep(
    () => own.get('x').sum().mul(2), own, { graph: true, onNotice: (notice) => notices.push(notice) }, forget, () => graph
  )
  const run = (...values: number[]) => {
    own.writeArray('x', Float32Array.from(values), [values.length])
    return step.run()
  }
  return { run, graph, notices, forget, step }
}

describe('a captured step', () => {
  it('is run as it is a few times, captured once, and replayed; its results are of the caller', () => {
    const { run, graph, notices, step } = fakeStep()
    const results = Array.from({ length: WARMUP_STEPS + 3 }, (_, i) => run(i, 1))
    expect(results.map((result) => result.item())).toEqual(results.map((_, i) => 2 * (i + 1)))
    expect(graph.log).toEqual([...Array<string>(WARMUP_STEPS).fill('warm up'), 'capture', 'replay', 'replay', 'replay'])
    expect(notices).toEqual([])
    step.dispose()
    expect(graph.log.at(-1)).toBe('dispose')
  })

  it('that cannot be captured is run as it is from then on: one notice names the operator', () => {
    const { run, graph, notices, forget } = fakeStep(new torch.TorchError('nonzero: operation not permitted when stream is capturing'))
    const results = Array.from({ length: WARMUP_STEPS + 3 }, (_, i) => run(i, 1).item())
    expect(results).toEqual(results.map((_, i) => 2 * (i + 1)))
    expect(graph.log.slice(WARMUP_STEPS)).toEqual(['capture', 'dispose'])
    expect(notices).toEqual(['Steps are not replayed as a CUDA graph, which is slower: nonzero: operation not permitted when stream is capturing'])
    expect(forget).toHaveBeenCalledOnce()
  })

  it.each([1, WARMUP_STEPS, WARMUP_STEPS + 2])('after %d steps: another shape ends the replays, with one notice', (steps) => {
    const { run, graph, notices } = fakeStep()
    for (let i = 0; i < steps; i++) expect(run(i, 1).item()).toBe(2 * (i + 1))
    for (const values of [[1, 2, 3], [1, 2, 3], [4, 5]]) expect(run(...values).item()).toBe(2 * values.reduce((a, b) => a + b))
    expect(graph.log.at(-1)).toBe('dispose')
    expect(notices).toEqual([expect.stringMatching(/shape of a batch has changed/)])
  })
})

const size = { imageSize: 16, patchSize: 8, channels: 2, embedDim: 32, depth: 3, numHeads: 2 } as const
const STEPS = 6
const batches = Array.from({ length: STEPS }, (_, i) => {
  torch.manualSeed(100 + i)
  return torch.keep(torch.randn([6, 2, 16, 16]))
})
const random = (step: number) => (view: number) => randomFor(7, step, view)

type Precision = 'float32' | 'bfloat16' | 'float16'

function pretraining(options: Partial<PretrainConfigInput> = {}, precision: Precision = 'float32') {
  const config = parseConfig({ images: 'images', out: 'out', dropPath: 0.3, lr: 0.05, warmupEpochs: 1, epochs: 2, seed: 3, ...options })
  torch.manualSeed(1)
  const model = new GroupMaskedModel(new VisionTransformer({ ...size, dropPath: config.dropPath }), { maskedOnly: !config.allPixels })
  const step = new PretrainStep(model, config, 10, 'cpu', precision)
  return { config, model, step, run: (i: number) => step.run(batches[i]!, i, random(i)) }
}

const labels = (i: number) => Array.from({ length: 6 }, (_, k) => (5 * i + k * k) % 4)

function finetuning(options: Partial<FinetuneConfigInput> = {}, precision: Precision = 'float32') {
  const config = parseFinetuneConfig({ from: 'random', train: 'train', out: 'out', dropPath: 0.3, lr: 0.05, epochs: 2, warmupEpochs: 1, seed: 4, ...options })
  torch.manualSeed(1)
  const model = new VisionTransformer({ ...size, dropPath: config.dropPath, numClasses: 4 })
  const step = new FinetuneStep(model, config, 6, 10, 'cpu', precision)
  return { config, model, step, run: (i: number) => step.run(batches[i]!, labels(i), i) }
}

describe('a step of pretraining is what it says, bit for bit, step after step', () => {
  const cases: readonly [Partial<PretrainConfigInput>, Precision][] = [
    [{}, 'float32'], [{ fill: 'shuffle', clip: 0 }, 'float32'], [{ fill: 'zeros', alien: 0, ema: 0.9 }, 'bfloat16'], [{ allPixels: true }, 'float16']
  ]
  it.each(cases)('%o in %s', (options, precision) => {
    const { config, model, step, run } = pretraining(options, precision)
    const found = batches.map((_, i) => run(i).toArray())

    // The same, written out: everything made anew in every step.
    const other = pretraining(options, precision).model
    const [decayed, others] = [true, false].map((decays) => other.parameters().filter(({ ndim }) => ndim > 1 === decays))
    const optimizer = new AdamW([{ parameters: decayed! }, { parameters: others!, weightDecay: 0 }])
    const scaler = precision === 'float16' ? new GradScaler('cpu') : null
    const ema = config.ema ? new ExponentialMovingAverage(other.parameters(), config.ema) : null
    const wanted = batches.map((clean, i) => {
      torch.manualSeed(randomFor(config.seed, i, 'torch').integer(0, 2 ** 53))
      const { maskBudget: budget, alien, fill } = config
      const { corrupted, mask } = corrupt(clean, { budget, alien, fill, random: random(i) })
      const loss = inPrecision(precision, 'cpu', () => other.loss(corrupted, clean, mask)).to('float32')
      ;(scaler?.scale(loss) ?? loss).backward()
      scaler?.unscale(other.parameters())
      const norm = clipGradNorm(other.parameters(), config.clip || Infinity, { perTensor: true })
      const foundInf = norm.isfinite().logicalAnd(loss.isfinite()).logicalNot().to('float32')
      for (const group of optimizer.groups) group.lr = torch.tensor(step.lr(i))
      optimizer.groups[0]!.weightDecay = torch.tensor(step.weightDecay(i))
      optimizer.step({ foundInf })
      scaler?.update()
      optimizer.zeroGrad()
      ema?.update()
      return [loss.item(), 1 - foundInf.item()]
    })
    expect(found).toEqual(wanted)
    for (const [name, tensor] of Object.entries(other.stateDict())) expect(model.stateDict()[name]!.equal(tensor), name).toBe(true)
    for (const [i, mean] of (ema?.means ?? []).entries()) expect(step.ema!.means[i]!.equal(mean)).toBe(true)
    expect(new Set(found.map(String)).size).toBe(STEPS)
  })
})

describe('a step of finetuning', () => {
  it.each([{ mixup: 0.8, cutmix: 1 }, { mixup: 0, cutmix: 1 }, { mixup: 0, cutmix: 0 }, { mixProbability: 0.5 }])('mixes as mixImages and mixTargets: %o', (options) => {
    const { config, model, run } = finetuning({ dropPath: 0, ...options })
    const kinds = batches.map((images, i) => {
      const { mixup, cutmix, mixProbability: probability } = config
      const mixing = drawMixing(randomFor(config.seed, i, 'mixing'), { height: 16, width: 16 }, { mixup, cutmix, probability })
      const wanted = torch.noGrad(() => {
        const targets = mixTargets(torch.tensor(labels(i).map(BigInt)), 4, mixing, config.labelSmoothing)
        return model.logits(mixImages(images, mixing)).crossEntropyLoss(targets).item()
      })
      expect((run(i).toArray() as number[])[0]).toBeCloseTo(wanted, 5)
      return mixing?.kind ?? 'none'
    })
    if (config.mixup && config.cutmix) expect(new Set(kinds).size).toBeGreaterThan(1)
  })

  it('refuses a label that is no class', () => {
    const { step } = finetuning()
    expect(() => step.run(batches[0]!, [0, 1, 2, 3, 4, 0], 0)).toThrow(InputError)
    expect(() => step.run(batches[0]!, [0, 1, 2, 3, 4, 0], 0)).toThrow(/integers from 0 to 3 for labels, received 4/)
  })
})

/** What a computation asked of the addon: operators with all that is no tensor, and everything that reads or makes memory of the host. */
function trace<T>(compute: () => T): { calls: string[]; host: string[]; result: T } {
  // Larger than any number that a step passes.
  const text = (value: unknown): string =>
    Array.isArray(value) ? `[${value.map(text).join()}]` : typeof value === 'number' && value > 2 ** 42 ? 'tensor' : String(value)
  const names: string[] = []
  const before = watchCalls((op) => names.push(`${op.name}.${op.overload}`))
  const forbidden = ['fromBytes', 'item', 'toBytes', 'toBytesAsync', 'manualSeed', 'generatorState', 'setGeneratorState'] as const
  const spies = forbidden.map((name) => [name, vi.spyOn(addon, name)] as const)
  const spy = vi.spyOn(addon, 'call')
  try {
    const result = compute()
    const calls = spy.mock.calls.map(([, ...args], i) => `${names[i]}(${args.map(text).join()})`)
    // Results whose size depends on data, and moves to another device.
    const reading = calls.filter((line) => /nonzero|masked_select|unique|equal\.|allclose|pin_memory|::(to|_to_copy|copy_)\..*(cpu|cuda)/.test(line))
    const host = [...spies.flatMap(([name, { mock }]) => mock.calls.map(() => name as string)), ...reading]
    return { calls, host, result }
  } finally {
    for (const [, watched] of spies) watched.mockRestore()
    spy.mockRestore()
    watchCalls(before)
  }
}

describe("a step's function reads static inputs alone", () => {
  const steps: Record<string, () => { readonly run: (i: number) => Tensor }> = {
    pretraining: () => pretraining(),
    'pretraining with everything': () =>
      pretraining({ fill: 'shuffle', accumulate: 4, ema: 0.9, clip: 1, allPixels: false }, 'float16'),
    'pretraining over all pixels, in bfloat16': () => pretraining({ fill: 'zeros', allPixels: true, accumulate: 2, clip: 0 }, 'bfloat16'),
    finetuning: () => finetuning(),
    'finetuning with everything': () => finetuning({ accumulate: 3, ema: 0.9, clip: 1 }, 'float16')
  }
  it.each(Object.entries(steps))('%s: no memory of the host, and the same operators with the same numbers in every step', (_, make) => {
    const { run } = make()
    const traces: ReturnType<typeof trace>[] = []
    around.compute = (step) => {
      const traced = trace(step)
      traces.push(traced)
      return traced.result
    }
    // The first step makes the optimizer's state.
    for (let i = 0; i < STEPS; i++) run(i).dispose()
    expect(traces).toHaveLength(STEPS)
    expect(traces[1]!.calls.length).toBeGreaterThan(100)
    for (const { calls, host } of traces.slice(1)) {
      expect(host).toEqual([])
      expect(calls).toEqual(traces[1]!.calls)
    }
  })

  it('which is seen: a number that changes, and memory of the host', () => {
    const x = torch.ones([3])
    const [one, other] = [1, 2].map((factor) => trace(() => void x.mul(factor)))
    expect(one!.calls).not.toEqual(other!.calls)
    expect(trace(() => void torch.tensor([1])).host).toEqual(['fromBytes'])
    expect(trace(() => x.sum().item()).host).toEqual(['item'])
    expect(trace(() => void x.nonzero()).host).toHaveLength(1)
    expect(trace(() => void x.to('cpu')).host).toHaveLength(1)
  })

  it('leaves nothing behind', () => {
    const { tensors } = memory()
    const { model, step, run } = pretraining({ ema: 0.9 })
    for (let i = 0; i < 3; i++) {
      run(i).dispose()
      if (i === 0) torch.scope(() => undefined)
    }
    const after = memory().tensors
    run(3).dispose()
    expect(memory().tensors).toBe(after)
    step.dispose()
    model.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('takes batches of another shape', () => {
    const { step } = pretraining()
    for (const count of [6, 4, 6]) {
      const [loss, finite] = step.run(batches[0]!.narrow(0, 0, count), 0, random(0)).toArray() as number[]
      expect([Number.isFinite(loss), finite]).toEqual([true, 1])
    }
  })
})

describe('the setting graph', () => {
  it('is on for a GPU, unless parts are computed again, which is said', () => {
    const notices: string[] = []
    const settle = (graph: 'auto' | 'on' | 'off', device: 'cpu' | 'cuda:1', gradCheckpointing = false) =>
      settleGraph({ graph, gradCheckpointing }, device, (notice) => notices.push(notice), () => ({ dispose() {} }))
    expect([settle('auto', 'cuda:1'), settle('on', 'cuda:1'), settle('off', 'cuda:1'), settle('auto', 'cpu'), settle('off', 'cpu')])
      .toEqual([true, true, false, false, false])
    expect(notices).toEqual([])
    expect(settle('auto', 'cuda:1', true)).toBe(false)
    expect(notices).toEqual([expect.stringMatching(/gradCheckpointing/)])
    expect(settle('off', 'cuda:1', true)).toBe(false)
    expect(notices).toHaveLength(1)
    expect(() => settle('on', 'cpu')).toThrow(/'auto' or 'off' on the device cpu for graph, received 'on'/)
    expect(() => settle('on', 'cuda:1', true)).toThrow(/'auto' or 'off' beside gradCheckpointing for graph/)
  })

  it('is off, which is said, where no graph can be made', () => {
    const notices: string[] = []
    const settle = (graph: 'auto' | 'on', error: Error) =>
      settleGraph({ graph, gradCheckpointing: false }, 'cuda', (notice) => notices.push(notice), () => {
        throw error
      })
    const error = new torch.TorchError('aten::no_such: there are no graphs', 'aten::no_such', '')
    expect(settle('auto', error)).toBe(false)
    expect(notices).toEqual([expect.stringMatching(/^Steps are not replayed as a CUDA graph, which is slower: aten::no_such/)])
    expect(settle('on', error)).toBe(true) // the run itself fails, with the reason
    expect(() => settle('auto', new RangeError('a defect'))).toThrow(RangeError)
  })

  it('on the CPU a run refuses it before it begins', async () => {
    const { images, out, settings } = await small()
    await expect(pretrain({ ...settings, images, out: out('a'), device: 'cpu', graph: 'on' })).rejects.toThrow(InputError)
  })
})
