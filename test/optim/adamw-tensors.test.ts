import { describe, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import { AdamW, type AdamWStateDict } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'

const make = (dtype: 'float32' | 'float64') => {
  torch.manualSeed(3)
  return [[4, 5], [7], [2, 3, 2]].map((shape) => new Parameter(torch.randn(shape, { dtype })))
}
const lrAt = (step: number) => 0.02 / (step + 1)
const decayAt = (step: number) => 0.1 + 0.3 * step
const number = (value: number, dtype: 'float32' | 'float64' = 'float32') => torch.keep(torch.tensor(value, { dtype }))

/** Steps of two groups, the second without decay; `rates` gives the optimizer's options before each step. */
function train(parameters: readonly Parameter[], optimizer: AdamW, before: (step: number) => void, infinite: readonly number[] = []) {
  for (let step = 0; step < 8; step++) {
    torch.manualSeed(step)
    for (const parameter of parameters) parameter.grad = torch.randnLike(parameter)
    before(step)
    optimizer.step({ foundInf: torch.tensor(infinite.includes(step) ? 1 : 0) })
  }
  return parameters.map((parameter) => parameter.detach())
}

describe('AdamW with lr and weight decay as tensors', () => {
  it.each([['float64', 1e-7], ['float32', 2e-6]] as const)('takes the steps that it takes with numbers, of %s', (dtype, tolerance) => {
    for (const infinite of [[], [0, 3]]) {
      const plain = make(dtype)
      const numbers = new AdamW([{ parameters: plain.slice(0, 2) }, { parameters: plain.slice(2), weightDecay: 0 }])
      const wanted = train(plain, numbers, (step) => {
        for (const group of numbers.groups) group.lr = lrAt(step)
        numbers.groups[0]!.weightDecay = decayAt(step)
      }, infinite)

      const own = make(dtype)
      const [lr, weightDecay] = [number(0, dtype), number(0, dtype)]
      const tensors = new AdamW([{ parameters: own.slice(0, 2), weightDecay }, { parameters: own.slice(2), weightDecay: 0 }], { lr })
      const found = train(own, tensors, (step) => {
        lr.fill_(lrAt(step))
        weightDecay.fill_(decayAt(step))
      }, infinite)
      for (const [i, parameter] of found.entries()) {
        expect(torch.allclose(parameter, wanted[i]!, { rtol: tolerance, atol: tolerance / 10 }), `${i}`).toBe(true)
        expect(parameter.equal(make(dtype)[i]!)).toBe(false)
      }
    }
  })

  it('decays as much as numbers do: without a gradient what is left is the decay alone', () => {
    const parameter = new Parameter(torch.full([3], 2, { dtype: 'float32' }))
    parameter.grad = torch.zeros([3])
    new AdamW([parameter], { lr: number(0.5), weightDecay: number(0.25) }).step()
    expect(parameter.toArray()).toEqual([1.75, 1.75, 1.75])
    // The one a tensor, the other a number.
    for (const rates of [{ lr: 0.5, weightDecay: number(0.5) }, { lr: number(0.5), weightDecay: 0.5 }]) {
      const other = new Parameter(torch.full([3], 2, { dtype: 'float32' }))
      other.grad = torch.zeros([3])
      new AdamW([other], rates).step()
      expect(other.toArray()).toEqual([1.5, 1.5, 1.5])
    }
  })

  it('changes nothing where foundInf says so, not even by the decay', () => {
    const parameter = new Parameter(torch.ones([3]))
    parameter.grad = torch.full([3], NaN)
    const optimizer = new AdamW([parameter], { lr: number(0.5), weightDecay: number(0.25) })
    optimizer.step({ foundInf: torch.tensor(1) })
    expect(parameter.toArray()).toEqual([1, 1, 1])
    expect(optimizer.stateDict().state.get(0)!.step.item()).toBe(0)
  })

  it('has numbers in its state dict, and takes one into the same tensors', () => {
    const [lr, weightDecay] = [number(0.25), number(0.5)]
    const parameters = make('float32')
    const optimizer = new AdamW([{ parameters, lr, weightDecay }])
    train(parameters, optimizer, () => {})
    const saved = optimizer.stateDict()
    expect(saved.param_groups).toEqual([{ lr: 0.25, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.5, params: [0, 1, 2] }])
    const through = { ...saved, param_groups: JSON.parse(JSON.stringify(saved.param_groups)) as AdamWStateDict['param_groups'] }

    const others = [number(9), number(9)] as const
    const other = new AdamW([{ parameters: make('float32'), lr: others[0], weightDecay: others[1] }])
    other.loadStateDict(through)
    expect(other.groups[0]!.lr).toBe(others[0])
    expect(other.groups[0]!.weightDecay).toBe(others[1])
    expect(others.map((rate) => rate.item())).toEqual([0.25, 0.5])
    const plain = new AdamW(make('float32'))
    plain.loadStateDict(through)
    expect(plain.groups[0]).toMatchObject({ lr: 0.25, weightDecay: 0.5 })
  })

  it('refuses tensors that are not one floating-point number', () => {
    const [parameter] = make('float32')
    const refuse = (rate: Tensor, message: RegExp) => {
      for (const name of ['lr', 'weightDecay'] as const) {
        expect(() => new AdamW([parameter!], { [name]: rate })).toThrow(InputError)
        expect(() => new AdamW([parameter!], { [name]: rate })).toThrow(message)
      }
    }
    refuse(torch.ones([1]), /one number, float32, for (lr|weightDecay), received 'float32 \[1\]'/)
    refuse(torch.tensor(1, { dtype: 'int64' }), /received 'int64 \[\]'/)
  })

  it('leaves nothing behind', () => {
    const parameters = make('float32')
    const optimizer = new AdamW([{ parameters, lr: number(0.1), weightDecay: number(0.1) }])
    for (const parameter of parameters) parameter.grad = torch.zerosLike(parameter)
    const foundInf = torch.tensor(0)
    optimizer.step({ foundInf })
    const { tensors } = memory()
    torch.scope(() => optimizer.step({ foundInf }))
    expect(memory().tensors).toBe(tensors)
  })
})
