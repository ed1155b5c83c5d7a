import { join } from 'node:path'

import { beforeAll, describe, expect, it } from 'vitest'

import { loadTorch, saveTorch } from '../../src/io/index.js'
import { Linear, Parameter, Sequential } from '../../src/nn/index.js'
import { SGD, type SGDOptions, type SGDStateDict } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { expectAllNear, expectNear, inFolder, references, report, runPython, type Tensors, weights } from './python.js'

const STEPS = 5
const options: Record<string, SGDOptions> = {
  'plain': { lr: 0.1 },
  'weight decay': { lr: 0.1, weightDecay: 0.3 },
  'momentum': { lr: 0.1, momentum: 0.9 },
  'momentum and weight decay': { lr: 0.05, momentum: 0.9, weightDecay: 0.1 },
  'dampening': { lr: 0.1, momentum: 0.9, dampening: 0.4 },
  'dampening without momentum': { lr: 0.1, dampening: 0.4 },
  "Nesterov's momentum": { lr: 0.1, momentum: 0.8, nesterov: true, weightDecay: 0.05 },
  'no step at all': { lr: 0, momentum: 0.9 }
}
const python = ({ lr, momentum, dampening, weightDecay, nesterov }: SGDOptions) =>
  ({ lr, momentum, dampening, weight_decay: weightDecay, nesterov })

torch.manualSeed(8)
const initial: Tensors = {
  a: torch.randn([4, 3]), b: torch.randn([5]).mul(1e4), empty: torch.randn([0, 2]), scalar: torch.randn([]),
  wide: torch.randn([3, 2], { dtype: 'float64' })
}
const names = Object.keys(initial)
const gradients = Array.from({ length: STEPS }, (_, step): Tensors => {
  const all = names.map((name) => [name, torch.randnLike(initial[name]!).mul(10 ** (step - 2))] as const)
  // One has its first gradient late, and none in a later step.
  return Object.fromEntries(all.filter(([name]) => name !== 'b' || step === 2 || step === 4))
})
const given = (steps: readonly Tensors[]): Tensors =>
  Object.fromEntries(steps.flatMap((step, i) => Object.entries(step).map(([name, tensor]) => [`grad.${i}.${name}`, tensor])))

const cases = [
  ...Object.entries(options).map(([name, own]) => [name, [{ names, ...own }]] as const),
  ['groups', [{ names: ['a', 'scalar'], lr: 0.2, momentum: 0.5 }, { names: ['b', 'empty', 'wide'], lr: 0.01, weightDecay: 1 }]] as const
]

let wanted: Tensors[]

beforeAll(async () => {
  wanted = await references(cases.map(([, groups]) => ({
    task: 'sgd_steps', tensors: { ...weights(initial), ...given(gradients) },
    config: { steps: STEPS, groups: groups.map(({ names, ...own }) => ({ names, ...python(own) })).map(defined) }
  })))
})

const defined = (group: object) => Object.fromEntries(Object.entries(group).filter(([, value]) => value !== undefined))

it.each(cases.map(([name, groups], i) => [name, groups, i] as const))("takes PyTorch's steps: %s", (name, groups, i) => {
  const named = Object.fromEntries(names.map((key) => [key, new Parameter(initial[key]!.clone())]))
  const optimizer = new SGD(groups.map(({ names, ...own }) => ({ parameters: names.map((key) => named[key]!), ...own })))
  const numbers = groups.flatMap((group) => group.names)
  const received: Tensors = {}
  for (const [step, gradient] of gradients.entries()) {
    for (const key of names) named[key]!.grad = gradient[key]?.clone() ?? null
    optimizer.step()
    for (const key of names) received[`step.${step}.param.${key}`] = named[key]!.detach().clone()
    for (const [number, { momentum_buffer }] of optimizer.stateDict().state) {
      received[`step.${step}.momentum.${numbers[number]!}`] = momentum_buffer.clone()
    }
  }
  report(`SGD, ${name}`, expectAllNear(received, wanted[i]!, { absolute: 1e-3, relative: 1e-6 }))
})

describe('the state of SGD', () => {
  const script = (from: string | null, to: string) => `
import torch
net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
optimizer = torch.optim.SGD([{"params": [net[0].weight]}, {"params": [net[0].bias, *net[1].parameters()], "weight_decay": 0.1}],
                            lr=0.05, momentum=0.9, dampening=0.2)
x = torch.arange(15.).reshape(5, 3).sin()
def step():
    optimizer.zero_grad()
    net(x).square().sum().backward()
    optimizer.step()
${from === null ? 'torch.manual_seed(3)\nstep()\nstep()' : `file = torch.load('${from}', weights_only=True)
net.load_state_dict(file["model"])
optimizer.load_state_dict(file["optimizer"])
step()`}
torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, '${to}')
`
  interface File {
    readonly model: Record<string, torch.Tensor>
    readonly optimizer: SGDStateDict
  }
  const python = async (folder: string, from: string | null): Promise<File> => {
    const to = join(folder, 'python.pth')
    await runPython('-c', script(from, to))
    return loadTorch<File>(to)
  }
  const groupsOf = (net: Sequential) => {
    const [first, ...rest] = net.parameters()
    return [{ parameters: [first!] }, { parameters: rest }]
  }

  it("of Python's comes over, ours goes there, and both take the same next step", async () => {
    await inFolder(async (folder) => {
      const first = await python(folder, null)
      const net = new Sequential(new Linear(3, 4), new Linear(4, 2))
      const optimizer = new SGD(groupsOf(net))
      net.loadStateDict(first.model)
      optimizer.loadStateDict(first.optimizer)
      const [one, other] = optimizer.groups
      expect(one).toMatchObject({ lr: 0.05, momentum: 0.9, dampening: 0.2, weightDecay: 0, nesterov: false })
      expect(other).toMatchObject({ lr: 0.05, momentum: 0.9, dampening: 0.2, weightDecay: 0.1, nesterov: false })
      const path = join(folder, 'ours.pth')
      await saveTorch(path, { model: net.stateDict(), optimizer: optimizer.stateDict() })
      const wanted = await python(folder, path)

      optimizer.zeroGrad()
      net.call(torch.arange(15, { dtype: 'float32' }).reshape([5, 3]).sin()).square().sum().backward()
      optimizer.step()
      for (const [name, tensor] of Object.entries(net.stateDict())) expectNear(tensor.detach(), wanted.model[name], name)
      const { state } = optimizer.stateDict()
      expect(state.size).toBe(4)
      for (const [number, { momentum_buffer }] of state) {
        expectNear(momentum_buffer, wanted.optimizer.state.get(number)!.momentum_buffer, `momentum of ${number}`)
        expect(torch.equal(momentum_buffer, first.optimizer.state.get(number)!.momentum_buffer)).toBe(false)
      }
    })
  })

  it('of a Python that wrote None for no momentum is taken', () => {
    const optimizer = new SGD([new Parameter(torch.ones([2]))], { lr: 1 })
    const { param_groups } = optimizer.stateDict()
    optimizer.loadStateDict({ state: new Map([[0, { momentum_buffer: null as never }]]), param_groups })
    expect(optimizer.stateDict().state.size).toBe(0)
  })
})
