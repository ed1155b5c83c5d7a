import { beforeAll, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import { AdamW, clipGradNorm, GradScaler } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { expectAllNear, references, report, type Tensors, weights } from './python.js'

torch.manualSeed(5)
const initial = { a: torch.randn([4, 3]), b: torch.randn([5]) }
const STEPS = 7
// Overflow at the third step, NaN at the fourth; the scale doubles at the second, from a tracker two below its interval.
const gradients = Array.from({ length: STEPS }, (_, step) => {
  const [a, b] = [torch.randn([4, 3]).mul(65536), torch.randn([5]).mul(65536)]
  if (step === 2) a.select(0, 1).fill_(Infinity)
  if (step === 3) b.narrow(0, 2, 1).fill_(NaN)
  return { a, b }
})
const options = { lr: 0.01, weight_decay: 0.1, clip: 1 }
const state = { scale: 65536, _growth_tracker: 1998 }

let wanted: Tensors

beforeAll(async () => {
  const named = gradients.flatMap((pair, step) => Object.entries(pair).map(([name, tensor]) => [`grad.${step}.${name}`, tensor] as const))
  const tensors = { ...weights(initial), ...Object.fromEntries(named) }
  wanted = (await references([{ task: 'grad_scaler', tensors, config: { ...options, steps: STEPS, state } }]))[0]!
})

it('scales, skips and grows as torch.amp.GradScaler, step by step', () => {
  const parameters = { a: new Parameter(initial.a.clone()), b: new Parameter(initial.b.clone()) }
  const all = Object.values(parameters)
  const optimizer = new AdamW(all, { lr: options.lr, weightDecay: options.weight_decay })
  const scaler = new GradScaler('cpu')
  scaler.loadStateDict({ ...scaler.stateDict(), ...state })
  const received: Tensors = {}
  for (const [step, gradient] of gradients.entries()) {
    parameters.a.grad = gradient.a.clone()
    parameters.b.grad = gradient.b.clone()
    scaler.unscale(all)
    expect(scaler.foundInf.item(), `step ${step}`).toBe(step === 2 || step === 3 ? 1 : 0)
    clipGradNorm(all, options.clip)
    optimizer.step({ foundInf: scaler.foundInf })
    scaler.update()
    const { scale, _growth_tracker } = scaler.stateDict()
    received[`step.${step}.scale`] = torch.tensor(scale, { dtype: 'float64' })
    received[`step.${step}.growth_tracker`] = torch.tensor(_growth_tracker, { dtype: 'int64' })
    for (const [name, parameter] of Object.entries(parameters)) received[`step.${step}.param.${name}`] = parameter.detach().clone()
  }
  report('GradScaler', expectAllNear(received, wanted, { absolute: 1e-6, relative: 1e-6 }))
  expect(received['step.1.scale']!.item()).toBe(2 * 65536)
  expect(received['step.3.scale']!.item()).toBe(65536 / 2)
})

it('scales the loss, and the gradients come back unscaled', () => {
  const parameter = new Parameter(torch.tensor([2, 3]))
  const scaler = new GradScaler('cpu', 1024)
  scaler.scale(parameter.mul(parameter).sum()).backward()
  expect(parameter.grad!.toArray()).toEqual([4 * 1024, 6 * 1024])
  scaler.unscale([parameter])
  expect(parameter.grad!.toArray()).toEqual([4, 6])
})
