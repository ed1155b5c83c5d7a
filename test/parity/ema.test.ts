import { beforeAll, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import { ExponentialMovingAverage } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { expectAllNear, references, report, type Tensors, weights } from './python.js'

torch.manualSeed(3)
const draw = (): Tensors => ({ a: torch.randn([4, 3]), b: torch.randn([5]).mul(1e6), empty: torch.randn([0, 2]), scalar: torch.randn([]) })
const initial = draw()
const steps = Array.from({ length: 5 }, draw)
const decay = 0.9

const none = torch.tensor(0)
let wanted: Tensors

beforeAll(async () => {
  const named = steps.flatMap((values, step) => Object.entries(values).map(([name, tensor]) => [`step.${step}.${name}`, tensor] as const))
  const tensors = { ...weights(initial), ...Object.fromEntries(named) }
  wanted = (await references([{ task: 'ema', tensors, config: { decay, steps: steps.length } }]))[0]!
})

it("averages as PyTorch's AveragedModel, step by step, and lends its means", async () => {
  const parameters = Object.fromEntries(Object.entries(initial).map(([name, tensor]) => [name, new Parameter(tensor.clone())]))
  const before = torch.memory().tensors
  const ema = new ExponentialMovingAverage(Object.values(parameters), decay)
  const received: Tensors = {}
  for (const [step, values] of steps.entries()) {
    torch.noGrad(() => {
      for (const [name, parameter] of Object.entries(parameters)) parameter.copy_(values[name]!)
    })
    // As a training does it, or as it is.
    ema.update(step % 2 ? { foundInf: none } : {})
    for (const [i, name] of Object.keys(parameters).entries()) received[`mean.${step}.${name}`] = ema.means[i]!.clone()
  }
  report('EMA', expectAllNear(received, wanted, { absolute: 0, relative: 1e-6 }))

  const last = steps.at(-1)!
  const same = (values: Tensors) => Object.entries(parameters).every(([name, parameter]) => torch.equal(parameter, values[name]!))
  const means = Object.fromEntries(Object.keys(parameters).map((name, i) => [name, ema.means[i]!]))
  expect(await ema.applied(() => same(means) && !same(last))).toBe(true)
  expect(same(last)).toBe(true)
  await expect(ema.applied(() => Promise.reject(new Error('within')))).rejects.toThrow('within')
  expect(same(last)).toBe(true)
  ema.dispose()
  for (const tensor of Object.values(received)) tensor.dispose()
  expect(torch.memory().tensors).toBeLessThanOrEqual(before)
})

it('stays where the step was skipped', () => {
  const parameters = Object.values(initial).map((tensor) => new Parameter(tensor.clone()))
  const ema = new ExponentialMovingAverage(parameters, decay)
  torch.noGrad(() => parameters.forEach((parameter) => parameter.add_(1)))
  const before = ema.means.map((mean) => mean.clone())
  ema.update({ foundInf: torch.tensor(1) })
  expect(ema.means.every((mean, i) => torch.equal(mean, before[i]!))).toBe(true)
  ema.update({ foundInf: torch.tensor(0) })
  expect(ema.means.filter((mean) => mean.numel() > 0).some((mean, i) => torch.equal(mean, before[i]!))).toBe(false)
  new ExponentialMovingAverage([], decay).update({ foundInf: torch.tensor(1) })
})

it.each([1, -0.1, NaN, '0.9'])('refuses a decay of %s', (value) => {
  expect(() => new ExponentialMovingAverage([], value as number)).toThrow(/a number from 0 to below 1 for decay/)
})
