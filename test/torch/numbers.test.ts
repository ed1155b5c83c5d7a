import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { TorchError, call, operator, tensor, type DType, type Scalar, type Tensor } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'

// A tensor and a number go by way of add.Tensor and so on, with a shortcut for float32 and float64: nobody must be able to tell.
const operations = ['add', 'sub', 'mul', 'div'] as const
const dtypes: DType[] = ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'uint8', 'bool', 'complex64']
const numbers: Scalar[] = [2, -3, 0.1, 1e300, -0, Infinity, NaN, 2 ** 40, 2n ** 53n + 1n, true, { re: 0.5, im: -1 }, 1 / 3, 16777217]

const python = `
import json, math, sys, torch
numbers = [2, -3, 0.1, 1e300, -0.0, math.inf, math.nan, 2 ** 40, 2 ** 53 + 1, True, 0.5 - 1j, 1 / 3, 16777217]
for op in json.loads(sys.argv[1]):
    for dtype in json.loads(sys.argv[2]):
        x = torch.tensor([3, 0, 1, 5]).to(getattr(torch, dtype))
        for number in numbers:
            try:
                y = getattr(torch, op)(x, number)
                if y.dtype.is_floating_point or y.is_complex():
                    bits = y.to(torch.complex128 if y.is_complex() else torch.float64).view(torch.int64)
                else:
                    bits = y
                print(json.dumps([str(y.dtype)[6:], bits.tolist()]))
            except (RuntimeError, OverflowError) as error:
                print(json.dumps("error"))
`

/** The dtype, and the values bit by bit. */
function observe(body: () => Tensor): unknown {
  let y: Tensor
  try {
    y = body()
  } catch (error) {
    expect(error).toBeInstanceOf(TorchError)
    return 'error'
  }
  const complex = y.dtype.startsWith('complex')
  if (!complex && !y.dtype.includes('float')) {
    const wide = (value: unknown) => (typeof value === 'number' && Math.abs(value) >= 1e15 ? BigInt(value) : value)
    return [y.dtype, (y.toArray() as unknown[]).map(wide)]
  }
  const wide = (complex ? torch.viewAsReal(y) : y).to('float64').reshape([-1]).toTypedArray()
  // NaN has many bit patterns.
  return [y.dtype, [...wide].map((value) => (Number.isNaN(value) ? 'nan' : Object.is(value, -0) ? '-0' : value))]
}

function fromBits(line: unknown): unknown {
  if (line === 'error') return line
  const [dtype, values] = line as [string, unknown[]]
  if (!dtype.includes('float') && !dtype.startsWith('complex')) {
    return [dtype, values.map((value) => (typeof value === 'string' ? BigInt(value) : value))]
  }
  const bits = new BigInt64Array((values as string[]).map(BigInt))
  return [dtype, [...new Float64Array(bits.buffer)].map((value) => (Number.isNaN(value) ? 'nan' : Object.is(value, -0) ? '-0' : value))]
}

describe('a number beside a tensor', () => {
  it('gives PyTorch’s dtype and values', async () => {
    const out = await runPython('-c', python, JSON.stringify(operations), JSON.stringify(dtypes))
    // 64-bit patterns are beyond JSON's numbers here.
    const quoted = out.trim().split('\n').map((line) => fromBits(JSON.parse(line.replace(/(?<=[[ ])-?\d{16,}/g, '"$&"'))))
    let line = 0
    const differing: unknown[] = []
    for (const name of operations) for (const dtype of dtypes) for (const number of numbers) {
      const reference = quoted[line++]
      const x = tensor([3, 0, 1, 5]).to(dtype)
      const received = observe(() => x[name](number as number))
      try {
        expect(received).toEqual(reference)
      } catch {
        differing.push({ name, dtype, number, received, reference })
      }
    }
    expect(line).toBe(quoted.length)
    expect(differing).toEqual([])
  })

  it('has the gradients of the operator it stands for', () => {
    const differentiable = ['float32', 'float64', 'bfloat16', 'complex64'] as const
    for (const name of operations) for (const dtype of differentiable) for (const number of [2, 0.25, -1.5]) {
      const x = tensor([1, 2, 3]).to(dtype).detach().requiresGrad_()
      const y = x.detach().requiresGrad_()
      const [dx] = torch.grad(x[name](number).abs().pow(2).sum(), x, { createGraph: true })
      const [dy] = torch.grad(y[name](tensor(number, { dtype })).abs().pow(2).sum(), y, { createGraph: true })
      expect(dx.dtype).toBe(dtype)
      // By distance: a complex zero may have another sign.
      expect(dx.sub(dy).abs().max().item(), `${name} ${dtype} ${number}`).toBe(0)
      if (dtype !== 'complex64') {
        expect(torch.grad(dx.sum(), x)[0].toArray()).toEqual(torch.grad(dy.sum(), y)[0].toArray())
      }
    }
  })

  it('takes alpha, and an explicit default for it', () => {
    const x = tensor([1, 2])
    expect(x.add(3, { alpha: 2 }).toArray()).toEqual([7, 8])
    expect(x.sub(3, { alpha: 0.5 }).toArray()).toEqual([-0.5, 0.5])
    expect(call<Tensor>(operator('aten::add', 'Scalar'), x, 3, undefined).toArray()).toEqual([4, 5])
    expect(() => tensor([1n]).add(3, { alpha: 0.5 })).toThrow(TorchError)
    expect(() => tensor([true]).sub(true)).toThrow(/^aten::sub\.Scalar: /)
  })

  it('works on an empty tensor, a zero-dim one, and one without memory', () => {
    expect(torch.zeros([0]).mul(2).shape).toEqual([0])
    expect(tensor(3).mul(2).item()).toBe(6)
    expect(tensor(3, { dtype: 'int64' }).mul(2.5).dtype).toBe('float32')
    expect(torch.empty([2], { device: 'meta' }).mul(2.5).device).toBe('meta')
  })

  it('keeps the tensor’s dtype under autocast', () => {
    expect(torch.autocast('cpu', 'bfloat16', () => tensor([1]).mul(2).dtype)).toBe('float32')
  })
})

describe('operators called by their C++ signature give what the boxed call gives', () => {
  const x = torch.arange(12, { dtype: 'float32' }).reshape([3, 4])
  const leaf = () => x.detach().requiresGrad_()

  it('with defaults left out, given as undefined, or null', () => {
    const softmax = operator('aten::softmax', 'int')
    const results = [[x, 1], [x, 1, undefined], [x, 1, null], [x, 1, 'float32']].map((args) => call<Tensor>(softmax, ...args).toArray())
    for (const result of results) expect(result).toEqual(results[0])
    const norm = operator('aten::layer_norm')
    const [weight, bias] = [torch.ones([4]), torch.zeros([4])]
    const norms = [
      [x, [4]], [x, 4 as unknown as number[]], [x, [4], null, undefined], [x, [4], weight, bias], [x, [4], weight, bias, 1e-5, true],
      [x, [4n], undefined, bias]
    ]
    const [first, bare, ...others] = norms.map((args) => {
      try {
        return call<Tensor>(norm, ...args).toArray()
      } catch (error) {
        return (error as Error).message
      }
    })
    expect(bare).toMatch(/expected an array of integers, received number 4/)
    for (const other of others) expect(other).toEqual(first)
    expect(call<Tensor>(operator('aten::sum'), x, 'float64').dtype).toBe('float64')
    expect(call<Tensor>(operator('aten::cat'), [x, x]).shape).toEqual([6, 4])
    expect(call<Tensor>(operator('aten::cat'), [x, x], 1).shape).toEqual([3, 8])
    expect(() => call(operator('aten::cat'), [], 0)).toThrow(TorchError)
  })

  it('and the same gradients', () => {
    const g = leaf()
    const total = torch.cat([g.transpose(0, 1).reshape([-1]), g.softmax(1).reshape([12]), torch.linear(g, torch.ones([2, 4])).reshape([6])])
    total.square().sum().backward()
    expect(g.grad!.shape).toEqual([3, 4])
    const h = leaf()
    const out = call<Tensor>(operator('aten::_softmax'), h, 1, false)
    const boxed = call<Tensor[]>(operator('aten::split_with_sizes'), out, [2, 2], 1)
    torch.grad(boxed[0]!.sum(), h)
  })
})
