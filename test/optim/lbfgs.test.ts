import { describe, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import { LBFGS, type LBFGSOptions } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'

const make = (values: number[], dtype: 'float32' | 'float64' = 'float64') => new Parameter(torch.tensor(values, { dtype }))

describe('LBFGS refuses', () => {
  const p = make([1])
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'no parameters': [() => new LBFGS([]), /at least one Parameter for parameters, received 'none'/],
    'two groups': [
      () => new LBFGS([{ parameters: [p] }, { parameters: [make([2])] }]), /a single group for parameters, received '2 groups'/
    ],
    'a tensor': [() => new LBFGS([torch.ones([2])] as never), /a Parameter or { parameters }/],
    'complex numbers': [() => new LBFGS([new Parameter(torch.zeros([2], { dtype: 'complex64' }))]), /real numbers .* received 'complex64'/],
    'a negative lr': [() => new LBFGS([p], { lr: -1 }), /at least 0 for lr, received -1/],
    'no iterations': [() => new LBFGS([p], { maxIter: 0 }), /at least 1 for maxIter, received 0/],
    'half an evaluation': [() => new LBFGS([p], { maxEval: 0.5 }), /at least 1 for maxEval, received 0.5/],
    'no history': [() => new LBFGS([p], { historySize: 0 }), /at least 1 for historySize, received 0/],
    'a tolerance of NaN': [() => new LBFGS([p], { toleranceGrad: NaN }), /at least 0 for toleranceGrad, received NaN/],
    'another line search': [
      () => new LBFGS([p], { lineSearch: 'armijo' as never }),
      /'strong_wolfe' or null for lineSearch, received 'armijo'/
    ],
    'no closure': [() => new LBFGS([p]).step(undefined as never), /a function that gives the loss for closure, received undefined/],
    'a closure without a loss': [() => new LBFGS([p]).step(() => 1 as never), /a loss of one element for the closure's result, received 1/],
    'a loss of two elements': [() => new LBFGS([p]).step(() => torch.ones([2])), /a loss of one element/],
    'an async closure': [() => new LBFGS([p]).step((() => Promise.resolve(1)) as never), /a synchronous function/],
    'an lr that became illegal': [
      () => {
        const optimizer = new LBFGS([p])
        optimizer.groups[0].lr = NaN
        optimizer.step(() => torch.ones([]))
      },
      /at least 0 for lr, received NaN/
    ]
  }
  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(InputError)
    expect(call).toThrow(message)
  })
})

/** sum of (x - target)^4 + (x - target)^2, whose curvature changes. */
function bowl(parameters: readonly Parameter[], optimizer: LBFGS): () => Tensor {
  return () => {
    optimizer.zeroGrad()
    const squares = parameters.map((parameter, i) => parameter.sub(i + 1).square())
    const loss = torch.stack(squares.map((square) => square.square().add(square).sum())).sum()
    loss.backward()
    return loss
  }
}

const options: readonly [string, LBFGSOptions][] = [
  ['a line search', { lineSearch: 'strong_wolfe' }], ['steps of fixed length', { lr: 0.1, maxIter: 200 }]
]

describe.each(options)('LBFGS with %s', (_, own) => {
  it.each(['float32', 'float64'] as const)('finds the minimum in %s, inside noGrad too', (dtype) => {
    const parameters = [make([5, -3], dtype), new Parameter(torch.full([2, 2], -2, { dtype }).t()), make([2], dtype)]
    const unused = make([7], dtype)
    const optimizer = new LBFGS([...parameters, unused], own)
    const first = torch.noGrad(() => optimizer.step(bowl(parameters, optimizer)))
    for (let i = 0; i < 3; i++) optimizer.step(bowl(parameters, optimizer))
    for (const [i, parameter] of parameters.entries()) expect(parameter.sub(i + 1).abs().max().item()).toBeLessThan(1e-4)
    expect(unused.item()).toBe(7)
    expect(first.item()).toBeCloseTo(4 ** 4 + 4 ** 2 + 4 ** 4 + 4 ** 2 + 4 * (4 ** 4 + 4 ** 2) + 2, 1)
    expect(first.requiresGrad).toBe(false)
  })

  it('leaves nothing behind but its history, which is bounded and can be freed', () => {
    const parameter = make([5, -3, 8])
    const optimizer = new LBFGS([parameter], { ...own, maxIter: 4, historySize: 3 })
    const before = memory()
    const after: number[] = []
    for (let step = 0; step < 30; step++) {
      torch.noGrad(() => parameter.fill_(5 + step))
      optimizer.step(bowl([parameter], optimizer)).dispose()
      after.push(memory().tensors)
    }
    // Direction, gradient before it and scale; step, change and factor of three steps.
    expect(Math.max(...after)).toBeLessThanOrEqual(before.tensors + 3 + 3 * 3)
    optimizer.dispose()
    optimizer.zeroGrad()
    expect(memory().tensors).toBeLessThanOrEqual(before.tensors)
    expect(memory().bytes['cpu']).toBeLessThanOrEqual(before.bytes['cpu']!)
    expect(memory().scopes).toBe(before.scopes)
  })

  it('holds no tensors of the closure between its calls', () => {
    const parameter = make([5, -3, 8])
    const optimizer = new LBFGS([parameter], { ...own, maxIter: 30, historySize: 1 })
    const seen: number[] = []
    const closure = bowl([parameter], optimizer)
    optimizer.step(() => {
      seen.push(memory().tensors)
      for (let i = 0; i < 50; i++) parameter.add(1)
      return closure()
    })
    expect(seen.length).toBeGreaterThan(5)
    expect(Math.max(...seen) - seen[0]!).toBeLessThan(25)
  })
})

it('a closure that throws leaves an optimizer that goes on', () => {
  const parameter = make([5])
  const optimizer = new LBFGS([parameter], { lineSearch: 'strong_wolfe' })
  const closure = bowl([parameter], optimizer)
  let calls = 0
  expect(() => optimizer.step(() => {
    if (++calls === 3) throw new Error('within')
    return closure()
  })).toThrow('within')
  optimizer.step(closure)
  expect(parameter.item()).toBeCloseTo(1, 4)
})

it('the line search comes back from where the loss is not a number', () => {
  const parameter = make([0.5])
  const optimizer = new LBFGS([parameter], { lineSearch: 'strong_wolfe', lr: 50 })
  // Defined between 0 and 2 only, and the first step goes far beyond.
  const closure = () => {
    optimizer.zeroGrad()
    const loss = parameter.rsub(2).log().neg().sub(parameter.log()).sum()
    loss.backward()
    return loss
  }
  for (let i = 0; i < 3; i++) optimizer.step(closure)
  expect(parameter.item()).toBeCloseTo(1, 4)
})
