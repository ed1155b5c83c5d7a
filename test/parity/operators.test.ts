import { beforeAll, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { inputs, operatorCases, type Inputs, type OperatorCase } from './operators.js'
import { difference, expectNear, probe, references, type Tensors } from './python.js'

/** A result as the reference writes it: numbers and booleans as tensors. */
function asTensor(value: unknown): torch.Tensor {
  if (value instanceof torch.Tensor) return value.detach()
  return torch.tensor(value as number | boolean, typeof value === 'number' ? { dtype: 'float64' } : {})
}

function evaluate({ run, grad = [] }: OperatorCase): Tensors {
  const leaves = grad.map((name) => inputs[name].detach().requiresGrad_())
  const given: Inputs = { ...inputs, ...Object.fromEntries(grad.map((name, i) => [name, leaves[i]!])) }
  const result = run(given)
  const outputs = Array.isArray(result) ? (result as unknown[]) : [result]
  const received: Tensors = {}
  for (const [i, output] of outputs.entries()) received[Array.isArray(result) ? `.${i}` : ''] = asTensor(output)
  if (grad.length) {
    const differentiable = outputs.filter((output): output is torch.Tensor => output instanceof torch.Tensor && output.requiresGrad)
    const total = differentiable.map((output) => output.mul(probe(output)).sum()).reduce((sum, term) => sum.add(term))
    for (const [i, gradient] of torch.grad(total, leaves).entries()) received[`.grad.${grad[i]}`] = gradient!
  }
  return received
}

// JSON knows neither of these.
const jsonArgs = (args: readonly unknown[]) =>
  args.map((value) => (value === Infinity ? 'torch.inf' : typeof value === 'bigint' ? `int:${value}` : value))

const reference: Tensors[] = operatorCases.map(() => ({}))

beforeAll(async () => {
  const config = operatorCases.map(({ fn, args, kwargs = {}, grad = [] }) => ({ fn, args: jsonArgs(args), kwargs, grad }))
  const [results] = await references([{ task: 'ops', tensors: inputs, config }])
  for (const [name, tensor] of Object.entries(results!)) {
    const [, number, rest] = /^out\.(\d+)(.*)$/.exec(name)!
    reference[Number(number)]![rest!] = tensor
  }
})

describe('what PyTorch refuses is refused', () => {
  const { x, z, i32, bool, row } = inputs
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'a matrix product of sizes that do not fit': [() => x.matmul(x), /^aten::matmul: .*\(3x4 and 3x4\).*self float32 \[3, 4\] cpu/],
    'the maximum of nothing': [() => z.max(), /^aten::max: /],
    'softmax of integers': [() => i32.softmax(0), /^aten::softmax.*not implemented for 'Int'/],
    'shapes that do not broadcast': [() => x.add(torch.ones([3])), /^aten::add.Tensor: .*size of tensor a \(4\).*float32 \[3\] cpu/],
    'a reshape to another number of elements': [() => x.reshape([5, 5]), /^aten::reshape: /],
    'a string for a tensor': [() => torch.add(x, 'y' as never), /aten::add/],
    'a fraction for an integer': [() => x.sum(0.5), /aten::sum.*integer/],
    'a number for a list of tensors': [() => torch.cat(3 as never), /^aten::cat: argument 'tensors': expected an array of Tensors/],
    'an unknown dtype': [() => x.sum({ dtype: 'float7' as never }), /float7/],
    'subtraction of booleans': [() => bool.sub(bool), /^aten::sub/],
    'writing in place into fewer elements': [() => row.clone().add_(x), /^aten::add_/],
    'an index out of range': [() => x.indexSelect(0, torch.tensor([9n])), /out of range/]
  }
  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(torch.TorchError)
    expect(call).toThrow(message)
  })
})

describe('operators give what PyTorch gives', () => {
  it('on enough of them, with inputs that are what they say', () => {
    expect(operatorCases.length).toBeGreaterThan(100)
    for (const name of ['sx', 'sy', 'sw', 'simage', 'sheads', 'es'] as const) expect(inputs[name].isContiguous, name).toBe(false)
    for (const name of ['z', 'zc', 'zi'] as const) expect(inputs[name].numel(), name).toBe(0)
  })

  it.each(operatorCases.map((tested, i) => [i, tested.fn, String(tested.args.join(' ')), tested] as const))(
    '%d %s(%s)',
    (i, _fn, _args, tested) => {
      const received = torch.scope(() => evaluate(tested))
      expect(Object.keys(received).sort()).toEqual(Object.keys(reference[i]!).sort())
      expect(Object.keys(received).length).toBeGreaterThan(0)
      for (const [name, tensor] of Object.entries(received)) {
        const wanted = reference[i]![name]!
        // float64 does not hold every int64.
        if (!/float|complex/.test(tensor.dtype)) expect(tensor.toTypedArray(), `result${name}`).toEqual(wanted.toTypedArray())
        // Eight or eleven bits of mantissa, where two orders of summation may round the last one differently.
        const short = tensor.dtype.endsWith('float16')
        expectNear(tensor, wanted, `result${name}`, short ? { absolute: Infinity, relative: 5e-3 } : { absolute: Infinity, relative: 2e-6 })
      }
    }
  )
})

it('leaves its inputs as they were', () => {
  const before = Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, tensor.clone()]))
  for (const tested of operatorCases) torch.scope(() => void evaluate(tested))
  for (const [name, tensor] of Object.entries(inputs)) expect(difference(tensor, before[name]!, name).absolute, name).toBe(0)
})
