import { beforeAll, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import { LBFGS, type LBFGSOptions } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { expectNear, references, report, type Tensors, weights } from './python.js'

torch.manualSeed(11)
const float64 = { dtype: 'float64' } as const
const row = (parameters: readonly Tensor[]) => torch.cat(parameters.map((parameter) => parameter.reshape([-1])))

const square = torch.randn([7, 7], float64)
const data = {
  quadratic: { matrix: square.matmul(square.t()).add(torch.eye(7, float64).mul(0.1)), vector: torch.randn([7], float64) },
  rosenbrock: {} as Tensors,
  waves: {} as Tensors,
  logistic: { x: torch.randn([200, 6], float64), y: torch.randint(4, [200], { dtype: 'int64' }) }
}

type Problem = keyof typeof data

const losses: Record<Problem, (parameters: Parameter[]) => Tensor> = {
  quadratic(parameters) {
    const x = row(parameters)
    return x.matmul(data.quadratic.matrix).dot(x).div(2).sub(data.quadratic.vector.dot(x))
  },
  rosenbrock(parameters) {
    const x = row(parameters)
    const [left, right] = [x.narrow(0, 0, x.numel() - 1), x.narrow(0, 1, x.numel() - 1)]
    return right.sub(left.square()).square().mul(100).add(left.rsub(1).square()).sum()
  },
  waves(parameters) {
    const x = row(parameters)
    return x.square().mul(0.1).add(x.mul(3).sin()).add(x.sub(1).square().mul(-20).exp()).sum()
  },
  logistic([weight, bias]) {
    const { x, y } = data.logistic
    return torch.crossEntropyLoss(x.matmul(weight!.t()).add(bias!), y).add(weight!.mul(weight!).sum().mul(0.005))
  }
}

const starts: Record<Problem, (seed: number) => Tensor[]> = {
  waves: (seed) => [torch.arange(1 + (seed % 3), float64).add(seed).mul(2.7).sin().mul(4)],
  quadratic: () => [torch.ones([2, 2], float64), torch.zeros([3], float64)],
  rosenbrock: () => [torch.tensor([-1.2, 1, -0.5, 0.8], float64)],
  logistic: () => [torch.zeros([4, 6], float64), torch.zeros([4], float64)]
}

const wolfe = { lineSearch: 'strong_wolfe' } as const
const cases: readonly [name: string, problem: Problem, steps: number, options: LBFGSOptions, start?: number][] = [
  ['quadratic, line search', 'quadratic', 1, wolfe],
  ['quadratic, line search, several steps', 'quadratic', 5, { ...wolfe, maxIter: 3 }],
  ['quadratic, fixed length', 'quadratic', 3, { lr: 0.5, maxIter: 8 }],
  ['quadratic, defaults', 'quadratic', 2, {}],
  ['Rosenbrock, line search', 'rosenbrock', 1, { ...wolfe, maxIter: 60, toleranceGrad: 1e-9 }],
  ['Rosenbrock, little history', 'rosenbrock', 4, { ...wolfe, maxIter: 12, historySize: 2 }],
  ['Rosenbrock, a long first step', 'rosenbrock', 1, { ...wolfe, lr: 300, maxIter: 30 }],
  ['Rosenbrock, a short one', 'rosenbrock', 1, { ...wolfe, lr: 1e-4, maxIter: 30 }],
  ['Rosenbrock, few evaluations', 'rosenbrock', 6, { ...wolfe, maxIter: 20, maxEval: 4 }],
  ['Rosenbrock, one evaluation', 'rosenbrock', 3, { ...wolfe, maxEval: 1 }],
  ['Rosenbrock, fixed length', 'rosenbrock', 3, { lr: 0.01, maxIter: 10 }],
  ['logistic regression, line search', 'logistic', 1, { ...wolfe, maxIter: 200, toleranceGrad: 1e-8, toleranceChange: 1e-14 }],
  ['logistic regression, line search, history 5', 'logistic', 3, { ...wolfe, maxIter: 5, historySize: 5 }],
  ['logistic regression, fixed length', 'logistic', 2, { maxIter: 15 }],
  ['logistic regression, at once at an end', 'logistic', 2, { ...wolfe, toleranceGrad: 10 }],
  ['logistic regression, no change is enough', 'logistic', 1, { ...wolfe, toleranceChange: 0.01 }],
  // Up and down and up again: the line search has to divide its brackets in every way that it knows.
  ...([...Array.from({ length: 16 }, (_, i) => [i, [0.3, 3, 30, 1][i % 4]!] as const), [28, 1], [95, 3]] as const).map(([start, lr]) =>
    [`waves from ${start}, ${lr}`, 'waves', 1, { ...wolfe, lr }, start] as [string, Problem, number, LBFGSOptions, number])
]

const python = ({ lr, maxIter, maxEval, toleranceGrad, toleranceChange, historySize, lineSearch }: LBFGSOptions) => {
  const named = {
    lr, max_iter: maxIter, max_eval: maxEval, tolerance_grad: toleranceGrad, tolerance_change: toleranceChange, history_size: historySize,
    line_search_fn: lineSearch
  }
  return Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined))
}

const numbered = (tensors: readonly Tensor[]) => weights(Object.fromEntries(tensors.map((tensor, i) => [String(i), tensor])))

let wanted: Tensors[]

beforeAll(async () => {
  wanted = await references(cases.map(([, problem, steps, options, start = 0]) => ({
    task: 'lbfgs', tensors: { ...data[problem], ...numbered(starts[problem](start)) }, config: { problem, steps, options: python(options) }
  })))
})

const numberedCases = cases.map(([name, problem, steps, options, start = 0], i) => [name, problem, steps, options, start, i] as const)

it.each(numberedCases)("goes PyTorch's way: %s", (name, problem, steps, options, start, i) => {
  const parameters = starts[problem](start).map((tensor) => new Parameter(tensor))
  const optimizer = new LBFGS(parameters, options)
  const before = torch.memory().tensors
  const [trace, values, calls]: [Tensor[], Tensor[], number[]] = [[], [], []]
  for (let step = 0; step < steps; step++) {
    const value = optimizer.step(() => {
      trace.push(torch.keep(row(parameters).detach()))
      optimizer.zeroGrad()
      const loss = losses[problem](parameters)
      loss.backward()
      return loss
    })
    values.push(value)
    calls.push(trace.length)
  }
  const reference = wanted[i]!
  expect(calls).toEqual((reference['calls']!.toArray() as number[]).map(Number))
  const tolerance = { absolute: 1e-9, relative: 1e-10 }
  report(`L-BFGS, ${name}: ${trace.length} evaluations`, expectNear(torch.stack(trace), reference['trace'], 'trace', tolerance))
  expectNear(torch.stack(values), reference['losses'], 'losses', tolerance)
  for (const [k, parameter] of parameters.entries()) expectNear(parameter.detach(), reference[`weights.${k}`], `parameter ${k}`, tolerance)

  for (const tensor of [...trace, ...values]) tensor.dispose()
  optimizer.dispose()
  expect(torch.memory().tensors).toBeLessThanOrEqual(before + 8) // what this test has made to compare
})
