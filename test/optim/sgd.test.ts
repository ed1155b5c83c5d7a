import { describe, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import { AdamW, SGD, type SGDStateDict } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'

function parameter(values: number[], gradient?: number[]): Parameter {
  const made = new Parameter(torch.tensor(values))
  if (gradient) made.grad = torch.tensor(gradient)
  return made
}

const numbers = (tensor: Tensor) => tensor.detach().toArray() as number[]

describe('SGD refuses', () => {
  const p = parameter([1])
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'no parameters': [() => new SGD(undefined as never), /Parameters or groups of them for parameters, received undefined/],
    'a parameter twice': [() => new SGD([{ parameters: [p] }, { parameters: [p] }]), /each parameter once/],
    'a negative lr': [() => new SGD([p], { lr: -1 }), /at least 0 for lr, received -1/],
    'a negative momentum': [() => new SGD([p], { momentum: -0.1 }), /at least 0 for momentum, received -0.1/],
    'dampening that is no number': [() => new SGD([p], { dampening: NaN }), /a number for dampening, received NaN/],
    'an infinite weight decay': [() => new SGD([p], { weightDecay: Infinity }), /weightDecay, received Infinity/],
    'nesterov: 1': [() => new SGD([p], { nesterov: 1 as never }), /a boolean for nesterov, received 1/],
    'nesterov without momentum': [() => new SGD([p], { nesterov: true }), /a momentum above 0 beside nesterov for momentum, received 0/],
    'nesterov with dampening': [
      () => new SGD([{ parameters: [p], nesterov: true, momentum: 0.9, dampening: 0.1 }]),
      /no dampening beside nesterov for dampening, received 0.1/
    ],
    'an lr that became illegal': [
      () => {
        const optimizer = new SGD([parameter([1], [1])])
        optimizer.groups[0]!.lr = NaN
        optimizer.step()
      },
      /lr, received NaN/
    ]
  }
  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(InputError)
    expect(call).toThrow(message)
  })
})

describe('SGD', () => {
  it('takes the steps of the formula', () => {
    const [lr, momentum, dampening, decay] = [0.1, 0.9, 0.2, 0.3]
    let [w, b] = [2, NaN]
    const p = parameter([w])
    const optimizer = new SGD([p], { lr, momentum, dampening, weightDecay: decay })
    for (const [i, g] of [0.5, -3, 0.01].entries()) {
      p.grad = torch.tensor([g])
      optimizer.step()
      b = i === 0 ? g + decay * w : momentum * b + (1 - dampening) * (g + decay * w)
      w -= lr * b
      expect(p.item()).toBeCloseTo(w, 5)
    }
  })

  it('takes no state without momentum', () => {
    const p = parameter([1, 2], [1, 1])
    const optimizer = new SGD([p], { lr: 0.5 })
    const before = memory().tensors
    optimizer.step()
    expect(memory().tensors).toBeLessThanOrEqual(before)
    expect(numbers(p)).toEqual([0.5, 1.5])
    expect(optimizer.stateDict().state.size).toBe(0)
  })

  it('changes nothing where foundInf is 1, and goes on from there', () => {
    const p = parameter([1, 2], [Infinity, NaN])
    const optimizer = new SGD([p], { lr: 1, momentum: 0.5 })
    optimizer.step({ foundInf: torch.tensor(1) })
    expect(numbers(p)).toEqual([1, 2])
    p.grad = torch.tensor([1, 1])
    for (let i = 0; i < 2; i++) optimizer.step({ foundInf: torch.tensor(0) })
    expect(numbers(p)).toEqual([1 - 1 - 1.5, 2 - 1 - 1.5])
  })

  it('leaves nothing behind in a step, and frees its state', () => {
    const optimizer = new SGD([parameter([1, 2], [1, 1]), parameter([3], [1])], { momentum: 0.9 })
    const before = memory().tensors
    for (let i = 0; i < 20; i++) optimizer.step()
    expect(memory().tensors).toBeLessThanOrEqual(before + 2)
    optimizer.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })

  it('takes state as a copy, and refuses what does not fit', () => {
    const make = () => new SGD([parameter([1, 2], [1, 3]), parameter([3], [1])], { lr: 0.1, momentum: 0.9 })
    const [one, other] = [make(), make()]
    one.step()
    other.loadStateDict(one.stateDict())
    one.step()
    const { state, param_groups } = other.stateDict()
    expect(numbers(state.get(0)!.momentum_buffer)).toEqual([1, 3])
    expect(Object.keys(param_groups[0]!).sort()).toEqual(['dampening', 'lr', 'momentum', 'nesterov', 'params', 'weight_decay'])
    const refuse = (wrong: SGDStateDict, message: RegExp) => {
      expect(() => other.loadStateDict(wrong)).toThrow(message)
      expect(numbers(other.stateDict().state.get(0)!.momentum_buffer)).toEqual([1, 3])
    }
    const buffer = (size: number) => new Map([[0, { momentum_buffer: torch.zeros([2]) }], [1, { momentum_buffer: torch.zeros([size]) }]])
    refuse({ state: buffer(2), param_groups }, /shape \[1\] for momentum_buffer of parameter 1, received 'shape \[2\]'/)
    const maximizing = [{ ...param_groups[0]!, maximize: true }]
    refuse({ state, param_groups: maximizing }, /maximize: false for the optimizer state, received true/)
    refuse({ state: new Map([[0, { momentum_buffer: undefined as never }]]), param_groups }, /a Tensor for momentum_buffer of parameter 0/)
  })
})

// The fused operators do not look at strides.
describe.each([['SGD', SGD], ['AdamW', AdamW]] as const)('%s and memory', (_, Kind) => {
  const step = (p: Parameter, gradient: Tensor) => {
    p.grad = gradient
    const optimizer = new Kind([p], { lr: 0.5, weightDecay: 0.1 })
    for (let i = 0; i < 2; i++) optimizer.step()
    return p.detach().contiguous()
  }
  const values = () => torch.arange(6, { dtype: 'float32' }).reshape([3, 2])
  const transposed = () => values().t().contiguous().t()

  it('takes parameters and gradients as they lie', () => {
    const wanted = step(new Parameter(values()), values().sin())
    expect(torch.equal(step(new Parameter(transposed()), values().sin()), wanted)).toBe(true)
    expect(torch.equal(step(new Parameter(values()), transposed().sin()), wanted)).toBe(true)
    expect(torch.equal(step(new Parameter(transposed()), transposed().sin()), wanted)).toBe(true)
    const same = step(new Parameter(values()), torch.ones([3, 2]))
    expect(torch.equal(step(new Parameter(values()), torch.ones([1]).expand([3, 2])), same)).toBe(true)
  })

  it('refuses parameters with gaps', () => {
    const message = /memory without gaps for an element of parameters, received 'strides \[2\]'/
    expect(() => new Kind([new Parameter(values().select(1, 0))])).toThrow(message)
    expect(() => new Kind([new Parameter(torch.ones([1]).expand([3]))])).toThrow(/memory without gaps/)
  })
})
