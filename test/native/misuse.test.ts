import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, call, operator, scope, tensor, type Tensor } from '../../src/torch/index.js'
import { torchModule } from './support.js'

// What TypeScript would refuse.
const loose = torch as unknown as Record<string, (...args: unknown[]) => unknown>
const method = (self: Tensor, name: string) => (self as unknown as Record<string, (...args: unknown[]) => unknown>)[name]!.bind(self)

/** The error of a call, which must be one of the project's. */
function failure(body: () => unknown): Error & Partial<TorchError> {
  try {
    body()
  } catch (error) {
    expect(error instanceof TorchError || error instanceof InputError, String((error as Error).stack)).toBe(true)
    return error as Error
  }
  throw new Error('Expected a failure')
}

const x = tensor([[1, 2], [3, 4]])
const longs = tensor([1n, 2n])

const notTensors: [string, unknown, string][] = [
  ['a number', 3, 'number 3'], ['a string', 'abc', `string 'abc'`], ['null', null, 'null'], ['undefined', undefined, 'undefined'],
  ['an object', {}, 'an object'], ['an array', [1], 'an array'], ['a function', () => 1, 'a function'],
  ['a symbol', Symbol('s'), 'a symbol'],
  ['a bigint', 5n, 'bigint 5n'], ['a boolean', true, 'boolean true']
]

describe('a value of the wrong sort', () => {
  const kinds: [string, () => (value: unknown) => unknown, string[]][] = [
    ['Tensor', () => (value) => call(operator('aten::relu'), value), []],
    ['Tensor, boxed', () => (value) => call(operator('aten::trapz', 'dx'), value), []],
    ['Tensor?', () => (value) => call(operator('aten::linear'), x, x, value), ['null', 'undefined']],
    ['Tensor[]', () => (value) => call(operator('aten::cat'), value), []],
    ['Tensor?[]', () => (value) => call(operator('aten::index', 'Tensor'), x, value), []],
    ['Scalar', () => (value) => call(operator('aten::mul', 'Scalar'), x, value), ['a number', 'a bigint', 'a boolean']],
    ['int', () => (value) => call(operator('aten::unsqueeze'), x, value), ['a bigint', 'a number']],
    ['float', () => (value) => call(operator('aten::dropout'), x, value, false), ['a number']],
    ['bool', () => (value) => call(operator('aten::dropout'), x, 0.5, value), ['a boolean']],
    ['str', () => (value) => call(operator('aten::einsum'), value, [x]), ['a string']],
    ['int[]', () => (value) => call(operator('aten::permute'), x, value), ['an array']],
    ['SymInt[]', () => (value) => call(operator('aten::reshape'), x, value), ['an array']],
    ['ScalarType?', () => (value) => call(operator('aten::sum'), x, value), ['null', 'undefined']],
    ['Device?', () => (value) => call(operator('aten::zeros'), [2], null, null, value), ['null', 'undefined']],
    ['Layout?', () => (value) => call(operator('aten::zeros'), [2], null, value), ['null', 'undefined']],
    ['MemoryFormat?', () => (value) => call(operator('aten::clone'), x, value), ['null', 'undefined']],
    ['Generator?', () => (value) => call(operator('aten::bernoulli'), x, value), ['null', 'undefined']]
  ]
  it.each(kinds)('is refused for %s', (_, prepare, legal) => {
    const run = prepare()
    for (const [sort, value, described] of notTensors) {
      if (legal.includes(sort)) continue
      const error = failure(() => run(value))
      expect(error, sort).toBeInstanceOf(TorchError)
      expect(error.operator, sort).toMatch(/^aten::/)
      expect(error.message, sort).toContain(`${error.operator}: argument '`)
      // An array is refused for the element in it, and a string for what it says.
      if (sort !== 'an array' && sort !== 'a string') expect(error.message, sort).toContain(`received ${described}`)
    }
  })

  it('has the operator, the reason and each tensor in its message', () => {
    expect(failure(() => method(x, 'add')('b')).message).toBe(
      `aten::add.Scalar: argument 'other': expected a number, bigint, boolean or { re, im }, ` +
        `received string 'b'. Arguments: self float32 [2, 2] cpu`
    )
    expect(failure(() => call(operator('aten::cat'), [x, longs, 3])).message).toBe(
      `aten::cat: argument 'tensors': expected a Tensor, received number 3. ` +
        `Arguments: tensors[0] float32 [2, 2] cpu, tensors[1] int64 [2] cpu`
    )
  })

  it('is refused by every function that takes a tensor or a callback', () => {
    for (const [sort, value] of notTensors) {
      for (const name of ['keep', 'tensor']) if (sort !== 'an array' || name === 'keep') {
        if (name === 'tensor' && ['a number', 'a bigint', 'a boolean'].includes(sort)) continue
        failure(() => loose[name]!(value))
      }
      if (sort !== 'a function') for (const name of ['scope', 'noGrad', 'enableGrad']) failure(() => loose[name]!(value))
      if (sort !== 'a function') failure(() => loose['autocast']!('cpu', 'bfloat16', value))
      failure(() => loose['backward']!(value))
      failure(() => loose['grad']!(value, x))
      if (sort !== 'undefined') failure(() => loose['backward']!([x.sum()], value))
      if (sort !== 'null') failure(() => (x.grad = value as Tensor))
      failure(() => x.setData(value as Tensor))
      if (sort !== 'an object') failure(() => x.to(value as 'cpu'))
    }
    expect(torch.memory().scopes).toBe(0)
    expect(torch.isGradEnabled()).toBe(true)
  })
})

describe('an operator', () => {
  it('that does not exist fails at its first call, with the version', () => {
    const error = failure(() => call(operator('aten::no_such'), x))
    expect(error.message).toMatch(/^aten::no_such: libtorch 2\.\d+\.\d+\S* has no such operator$/)
    expect(failure(() => call(operator('aten::add', 'Nothing'), x)).message).toMatch(/^aten::add\.Nothing: /)
  })

  it('with an argument of a kind that is not covered is refused by name', () => {
    const error = failure(() => call(operator('aten::quantized_lstm', 'input'), x, [x], [], true, 1, 0, false, false, false))
    expect(error.message).toMatch(/^aten::quantized_lstm\.input: argument 'params' is of type .*CellParamsBase/)
  })

  it('refuses more arguments than its schema has, however many', () => {
    expect(failure(() => call(operator('aten::relu'), x, 1)).message).toContain('aten::relu: expected at most 1 arguments, received 2')
    const many = Array.from({ length: 100 }, () => x)
    expect(failure(() => call(operator('aten::relu'), ...many)).message).toContain('at most 1 arguments, received 100')
    expect(failure(() => call(operator('aten::relu'))).message).toContain(`argument 'self': expected a Tensor, received undefined`)
  })

  it('takes its longest schema of arguments', () => {
    const names = torch.listOperators().map((schema) => ({ schema, count: schema.split(',').length }))
    expect(Math.max(...names.map(({ count }) => count))).toBeGreaterThan(13)
    const gate = call<Tensor[]>(
      operator('aten::_batch_norm_impl_index'), torch.ones([2, 3]), null, null, null, null, true, 0.1, 1e-5, false
    )
    expect(gate[0]!.shape).toEqual([2, 3])
  })

  it('that libtorch refuses says why, with dtype, shape and device', () => {
    const shapes = failure(() => torch.matmul(x, torch.ones([3, 1])))
    expect(shapes.message).toMatch(
      /^aten::matmul: mat1 and mat2 shapes cannot be multiplied .*Arguments: self float32 \[2, 2\] cpu, other float32 \[3, 1\] cpu$/
    )
    expect(shapes.detail!.length).toBeGreaterThan(shapes.message.length)
    const dtypes = failure(() => torch.mm(x, x.to('float64')))
    expect(dtypes.message).toMatch(/^aten::mm: .*float32 \[2, 2\] cpu, mat2 float64 \[2, 2\] cpu$/)
    expect(failure(() => x.to('cuda:77')).message).toMatch(/^aten::to\.dtype_layout: /)
    expect(failure(() => x.to({ dtype: 'float33' as 'float32' })).message).toContain(`expected a dtype (float32, float64,`)
  })

  it.each([[[-5]], [[NaN]], [[1.5]], [[2 ** 60]], [[2 ** 40, 2 ** 40]], [[2 ** 45]], [[Infinity]], [['2']], [[null]], [[2n ** 70n]]])(
    'makes no tensor of shape %o', (shape) => {
      expect(failure(() => loose['empty']!(shape))).toBeInstanceOf(TorchError)
      expect(failure(() => loose['zeros']!(shape))).toBeInstanceOf(TorchError)
      expect(failure(() => method(x, 'reshape')(shape))).toBeInstanceOf(TorchError)
    }
  )

  it('runs no JavaScript in the middle of another call', () => {
    // Reading this number calls an operator and frees the tensors that were read before it.
    const victim = tensor([1, 2])
    const number = {
      get re() {
        victim.dispose()
        return scope(() => x.add(x).sum().item())
      },
      im: 0
    }
    expect(victim.mul(number).toArray()).toEqual([{ re: 20, im: 0 }, { re: 40, im: 0 }])
    const thrown = { get re(): number { throw new RangeError('mine') }, im: 0 }
    expect(() => x.mul(thrown)).toThrow(new RangeError('mine'))
    expect(x.mul(2).toArray()).toEqual([[2, 4], [6, 8]])
  })
})

describe('memory that JavaScript cannot hold', () => {
  it('is an error, not the end of the process', () => {
    const huge = torch.zeros([1]).expand([2 ** 45])
    expect(failure(() => huge.toTypedArray()).message).toBe(
      'JavaScript cannot hold the 140737488355328 bytes of this tensor: float32 [35184372088832]'
    )
  })
})

describe('a stale handle', () => {
  it('is an error wherever it is used', () => {
    const dead = tensor([1])
    dead.dispose()
    dead.dispose()
    expect(dead.isLive).toBe(false)
    const uses: (() => unknown)[] = [
      () => dead.shape, () => dead.dtype, () => dead.strides, () => dead.device, () => dead.isContiguous, () => dead.requiresGrad,
      () => dead.isLeaf, () => dead.grad, () => dead.item(), () => dead.toTypedArray(), () => dead.toString(), () => dead.add(1),
      () => x.add(dead), () => torch.cat([x, dead]),
      () => dead.backward(), () => (dead.requiresGrad = true), () => dead.retainGrad(), () => torch.keep(dead), () => (x.grad = dead),
      () => dead.setData(x), () => x.setData(dead), () => torch.grad([dead], [x]), () => dead.to('float64')
    ]
    for (const use of uses)
      expect(failure(use).message).toMatch(/the tensor was disposed of, its scope has ended, or it belongs to another thread/)
  })

  it('does not reach the tensor that took its place', () => {
    const dead = scope(() => {
      const made = tensor([1])
      made.dispose()
      return made
    })
    const others = Array.from({ length: 64 }, () => tensor([2]))
    failure(() => dead.add(1))
    for (const other of others) other.dispose()
  })

  it('rejects what is awaited', async () => {
    const dead = tensor([1])
    dead.dispose()
    await expect(dead.itemAsync()).rejects.toBeInstanceOf(TorchError)
    await expect(dead.toTypedArrayAsync()).rejects.toBeInstanceOf(TorchError)
    const nowhere = torch.empty([2], { device: 'meta' })
    await expect(nowhere.toTypedArrayAsync()).rejects.toBeInstanceOf(TorchError)
    expect(failure(() => nowhere.toTypedArray())).toBeInstanceOf(TorchError)
  })

  it('of another thread is foreign', async () => {
    const code = `
      const { parentPort } = require('node:worker_threads')
      import(${JSON.stringify(torchModule)}).then(async (torch) => {
        const { handleOf } = await import(${JSON.stringify(torchModule.replace('torch/index', 'native/tensor-handle'))})
        parentPort.postMessage(Array.from({ length: 100 }, () => handleOf(torch.tensor([1]))))
      })`
    const handles = await new Promise<number[]>((resolve, reject) => {
      new Worker(code, { eval: true }).once('message', resolve).once('error', reject)
    })
    const { addon } = await import('../../src/native/addon.js')
    const id = addon.findOperator('aten::relu', '').id
    Array.from({ length: 200 }, () => tensor([1]))
    for (const handle of handles) {
      expect(addon.isLive(handle)).toBe(false)
      expect(() => addon.call(id, handle)).toThrow('belongs to another thread')
    }
  })
})
