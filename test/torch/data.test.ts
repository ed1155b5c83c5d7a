import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import {
  InputError, TorchError, call, dtypes, fromTypedArray, operator, tensor, type DType, type TypedArray
} from '../../src/torch/index.js'

describe('what cannot become a tensor', () => {
  const cyclic: unknown[] = []
  cyclic.push(cyclic)
  it.each<[string, unknown, RegExp]>([
    ['ragged arrays', [[1, 2], [3]], /nested arrays of one shape/], ['depths that differ', [[1], 2], /nested arrays of one shape/],
    ['a number before an array', [1, [2]], /nested arrays of one shape/], ['a string', 'abc', /numbers for data, received 'abc'/],
    ['strings', ['1'], /received '1'/], ['null', null, /numbers/], ['undefined', [undefined], /numbers/], ['a hole', [1, , 3], /numbers/],
    ['a symbol', [Symbol('x')], /numbers/], ['a function', () => 1, /numbers/], ['an object', { re: 1 }, /numbers/],
    ['a tensor', tensor([1]), /numbers/], ['an array that holds itself', cyclic, /at most 64 dimensions/],
    ['a fraction among bigints', [1n, 1.5], /integers for data, received 1.5/],
    ['what int64 cannot hold', [2n ** 63n], /integers of int64/],
    ['a date', new Date(0), /numbers/], ['a DataView', new DataView(new ArrayBuffer(4)), /typed array/],
    ['a buffer', new ArrayBuffer(4), /numbers/]
  ])('%s', (_, data, message) => {
    const make = () => tensor(data as number)
    expect(make).toThrow(InputError)
    expect(make).toThrow(message)
  })

  it('options that are none', () => {
    for (const options of [null, 5, { dtype: 'float33' }, { dtype: 3 }, { device: 'gpu' }, { device: 'cuda:x' }]) {
      expect(() => tensor([1], options as object)).toThrow(InputError)
      expect(() => fromTypedArray(new Float32Array(1), [1], options as object)).toThrow(InputError)
    }
    expect(() => tensor([1.5, NaN], { dtype: 'int64' })).toThrow(/integers for data, received 1.5/)
    expect(() => tensor([-1n], { dtype: 'uint64' })).toThrow(/integers of uint64/)
    expect(() => tensor([1, 2], { dtype: 'int32', requiresGrad: true })).toThrow(TorchError)
  })

  it('a shape that does not fit', () => {
    const data = new Float32Array(6)
    for (const shape of [[5], [-2, -3], [NaN], [6, 0], [1.5, 4], ['6'], [2 ** 60], 6, 'x', null, {}, [[6]], [6n]]) {
      expect(() => fromTypedArray(data, shape as number[]), inspect(shape)).toThrow(InputError)
    }
    for (const wrong of [[1, 2], null, undefined, 'abc', new DataView(new ArrayBuffer(8)), new ArrayBuffer(8), {}]) {
      expect(() => fromTypedArray(wrong as never)).toThrow(InputError)
    }
    expect(() => fromTypedArray(new Float32Array(3), undefined, { dtype: 'complex64' })).toThrow(InputError)
  })
})

describe('a round trip through typed arrays', () => {
  const samples: Record<DType, TypedArray> = {
    float32: new Float32Array([0, -0, 1.5, NaN, Infinity, 2 ** -149]),
    float64: new Float64Array([0, -0, 1.1, NaN, -Infinity, 5e-324]),
    float16: new Uint16Array([0x0000, 0x8000, 0x3c00, 0x7c00, 0x7e00, 0x0001]),
    bfloat16: new Uint16Array([0x0000, 0x8000, 0x3f80, 0xff80, 0x7fc0, 0x0001]),
    int64: new BigInt64Array([0n, -1n, 2n ** 62n + 1n, -(2n ** 63n), 2n ** 53n + 1n, 7n]),
    int32: new Int32Array([0, -1, 2 ** 31 - 1, -(2 ** 31), 3, 4]),
    int16: new Int16Array([0, -1, 32767, -32768, 3, 4]),
    int8: new Int8Array([0, -1, 127, -128, 3, 4]),
    uint8: new Uint8Array([0, 1, 255, 128, 3, 4]),
    bool: new Uint8Array([0, 1, 1, 0, 1, 0]),
    uint16: new Uint16Array([0, 1, 65535, 32768, 3, 4]),
    uint32: new Uint32Array([0, 1, 2 ** 32 - 1, 2 ** 31, 3, 4]),
    uint64: new BigUint64Array([0n, 1n, 2n ** 64n - 1n, 2n ** 63n, 3n, 4n]),
    complex32: new Uint16Array([0x3c00, 0x4000, 0x4200, 0xc400, 0x8000, 0, 0x7e00, 0x3c00, 1, 2, 3, 4]),
    complex64: new Float32Array([1, 2, 3, -4, -0, 0, NaN, 1, 5, 6, 7, 8]),
    complex128: new Float64Array([1, 2, 3, -4, -0, 0, NaN, 1, 5, 6, 7, 8]),
    float8_e4m3fn: new Uint8Array([0, 0x38, 0x7e, 0x80, 1, 2]),
    float8_e5m2: new Uint8Array([0, 0x3c, 0x7b, 0x80, 1, 2]),
    float8_e4m3fnuz: new Uint8Array([0, 0x38, 0x7f, 1, 2, 3]),
    float8_e5m2fnuz: new Uint8Array([0, 0x3c, 0x7f, 1, 2, 3]),
    float8_e8m0fnu: new Uint8Array([0, 1, 127, 128, 254, 255]),
    float4_e2m1fn_x2: new Uint8Array([0, 1, 0x7f, 0x80, 0xf8, 0xff])
  }

  it.each(dtypes)('%s keeps every bit, also transposed, sliced, empty and of no dimension', async (dtype) => {
    const array = samples[dtype]
    const x = fromTypedArray(array, [2, 3], { dtype })
    expect([x.dtype, x.shape]).toEqual([dtype, [2, 3]])
    const back = x.toTypedArray()
    expect(back).toEqual(array)
    expect(back.constructor).toBe(array.constructor)
    expect(new Uint8Array(back.buffer)).toEqual(new Uint8Array(array.buffer))
    expect(await x.toTypedArrayAsync()).toEqual(array)
    const width = array.length / 6
    const element = (i: number) => [...array.slice(i * width, (i + 1) * width)]
    expect([...x.t().toTypedArray()]).toEqual([0, 3, 1, 4, 2, 5].flatMap((i) => element(i) as number[]))
    expect([...x.select(0, 1).toTypedArray()]).toEqual([3, 4, 5].flatMap((i) => element(i) as number[]))
    const empty = fromTypedArray(array.slice(0, 0), [0, 3], { dtype })
    expect([empty.shape, empty.toTypedArray().length, empty.toArray()]).toEqual([[0, 3], 0, []])
    const scalar = fromTypedArray(array.slice(width, 2 * width), [], { dtype })
    expect([scalar.shape, [...scalar.toTypedArray()]]).toEqual([[], element(1)])
  })

  it('is a copy on both ways', () => {
    const array = new Float32Array([1, 2])
    const x = fromTypedArray(array)
    array[0] = 9
    const out = x.toTypedArray()
    out[1] = 9
    expect(x.toArray()).toEqual([1, 2])
  })

  it('reads shared memory, and a part of a buffer', () => {
    const shared = new Float32Array(new SharedArrayBuffer(16))
    shared.set([1, 2, 3, 4])
    expect(fromTypedArray(shared, [2, 2]).toArray()).toEqual([[1, 2], [3, 4]])
    expect(fromTypedArray(shared.subarray(1, 3)).toArray()).toEqual([2, 3])
    expect(fromTypedArray(new Float64Array(new Float64Array([1, 2, 3]).buffer, 8, 2)).toArray()).toEqual([2, 3])
    expect(fromTypedArray(new Uint8ClampedArray([300, -5])).toArray()).toEqual([255, 0])
    expect(fromTypedArray(Buffer.from([1, 2])).toArray()).toEqual([1, 2])
  })

  it('makes a bool of any byte', () => {
    const x = fromTypedArray(new Uint8Array([0, 2, 255, 1]), [4], { dtype: 'bool' })
    expect([...x.toTypedArray()]).toEqual([0, 1, 1, 1])
    expect(x.sum().item()).toBe(3)
  })

  it('converts where the array does not hold the dtype', () => {
    expect([...fromTypedArray(new Float32Array([1, 2.5]), [2], { dtype: 'float16' }).toTypedArray()]).toEqual([0x3c00, 0x4100])
    expect(fromTypedArray(new Int32Array([1, -2]), [2], { dtype: 'float64' }).toTypedArray()).toEqual(new Float64Array([1, -2]))
    expect(fromTypedArray(new Uint16Array([65535]), [1]).dtype).toBe('uint16')
  })

  it('sees through conjugate and negative views', () => {
    const z = tensor([{ re: 1, im: 2 }, { re: 3, im: -4 }])
    expect(z.conj().toArray()).toEqual([{ re: 1, im: -2 }, { re: 3, im: 4 }])
    expect(torch.imag(z.conj()).toArray()).toEqual([-2, 4])
    expect(z.conj().select(0, 1).item()).toEqual({ re: 3, im: 4 })
  })

  it('reads a sparse tensor, an expanded one and one that requires grad', () => {
    expect(tensor([[0, 1], [2, 0]]).toSparse().toArray()).toEqual([[0, 1], [2, 0]])
    expect(tensor([1]).expand([2, 3]).toArray()).toEqual([[1, 1, 1], [1, 1, 1]])
    expect(tensor([1], { requiresGrad: true }).exp().toArray()).toEqual([Math.fround(Math.E)])
  })

  it('refuses a dtype that no typed array holds', async () => {
    const quantized = call<torch.Tensor>(operator('aten::quantize_per_tensor'), tensor([1]), 0.1, 0, 'qint8')
    expect(() => quantized.toTypedArray()).toThrow(InputError)
    expect(() => quantized.toArray()).toThrow(/the dtype of toTypedArray\(\), received 'qint8'/)
    await expect(quantized.toTypedArrayAsync()).rejects.toThrow(InputError)
    await expect(quantized.itemAsync()).rejects.toThrow(InputError)
  })
})

describe('tensor()', () => {
  it('takes its dtype from the values', () => {
    const data = [2, [true, false], [1n, 2n], [1n, 2], { re: 1, im: 2 }, [true, 2], []]
    const made = data.map((values) => tensor(values))
    expect(made.map(({ dtype }) => dtype)).toEqual(['float32', 'bool', 'int64', 'int64', 'complex64', 'float32', 'float32'])
    expect(made.map(({ shape }) => shape)).toEqual([[], [2], [2], [2], [], [2], [0]])
    expect(tensor([[], []]).shape).toEqual([2, 0])
    expect(tensor([[[1], [2]]]).shape).toEqual([1, 2, 1])
  })

  it('loses nothing on the way to a dtype', () => {
    expect(tensor([2 ** 31 - 1, -(2 ** 31)], { dtype: 'int32' }).toArray()).toEqual([2 ** 31 - 1, -(2 ** 31)])
    expect(tensor(0.1, { dtype: 'float64' }).item()).toBe(0.1)
    expect(tensor([2n ** 64n - 1n], { dtype: 'uint64' }).toArray()).toEqual([2n ** 64n - 1n])
    expect(tensor([2 ** 53, true], { dtype: 'int64' }).toTypedArray()).toEqual(new BigInt64Array([2n ** 53n, 1n]))
    expect(tensor([{ re: 0.1, im: 0.2 }], { dtype: 'complex128' }).toArray()).toEqual([{ re: 0.1, im: 0.2 }])
    expect([...tensor([1, 3.140625], { dtype: 'bfloat16' }).toTypedArray()]).toEqual([0x3f80, 0x4049])
  })

  it('takes no number that an integer dtype cannot hold', () => {
    for (const [dtype, value] of [
      ['int8', 128], ['int8', -129], ['uint8', -1], ['uint8', 256n], ['int16', 40000], ['int32', 2 ** 31], ['uint16', 65536], ['uint32', -1],
      ['int32', NaN], ['int16', Infinity], ['int64', 2n ** 63n], ['uint64', -1n], ['int64', 0.5], ['int64', NaN]
    ] as const) {
      expect(() => tensor([0, value], { dtype }), `${dtype} ${value}`).toThrow(InputError)
    }
    expect(tensor([127.9, -128.9, true], { dtype: 'int8' }).toArray()).toEqual([127, -128, 1])
    for (const dtype of ['float32', 'int32', 'int64'] as const) expect(() => tensor([{ re: 1, im: 0 }], { dtype })).toThrow(InputError)
    expect(tensor([{ re: 0, im: 2 }, { re: 0, im: 0 }], { dtype: 'bool' }).toArray()).toEqual([true, false])
    expect(tensor([NaN, 300, 0], { dtype: 'bool' }).toArray()).toEqual([true, true, false])
  })

  it('leaves no second tensor behind', () => {
    const before = torch.memory().tensors
    const made = [tensor([1], { dtype: 'float16' }), tensor([1]), tensor([1], { device: 'cpu' }), tensor([1], { requiresGrad: true })]
    expect(torch.memory().tensors).toBeLessThanOrEqual(before + 4)
    expect(made[3]!.requiresGrad).toBe(true)
    for (const one of made) one.dispose()
  })
})

describe('as JavaScript values', () => {
  it('16-bit floats are their numbers', () => {
    const numbers = [1, -0.5, 65504, 2 ** -24, 0]
    expect(tensor(numbers, { dtype: 'float16' }).toArray()).toEqual(numbers)
    expect(tensor([1, -0.5, 2 ** 100, 2 ** -133], { dtype: 'bfloat16' }).toArray()).toEqual([1, -0.5, 2 ** 100, 2 ** -133])
    expect(tensor([Infinity, -Infinity, NaN], { dtype: 'float16' }).toArray()).toEqual([Infinity, -Infinity, NaN])
  })

  it('every float16 is the float32 that libtorch makes of it', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i)
    const x = fromTypedArray(bits, undefined, { dtype: 'float16' })
    expect(x.toArray()).toEqual([...x.to('float32').toTypedArray()])
    const y = fromTypedArray(bits, undefined, { dtype: 'bfloat16' })
    expect(y.toArray()).toEqual([...y.to('float32').toTypedArray()])
  })

  it('an integer beyond 2^53 is a bigint', async () => {
    const x = tensor([2n ** 53n + 1n, 5n, -(2n ** 60n)])
    expect(x.toArray()).toEqual([2n ** 53n + 1n, 5, -(2n ** 60n)])
    expect(x.select(0, 0).item()).toBe(2n ** 53n + 1n)
    expect(x.select(0, 1).item()).toBe(5)
    expect(await x.select(0, 2).itemAsync()).toBe(-(2n ** 60n))
    expect(tensor([2n ** 64n - 1n], { dtype: 'uint64' }).item()).toBe(2n ** 64n - 1n)
  })

  it('item() takes one element of any shape, and no more', async () => {
    expect(tensor([[[3]]]).item()).toBe(3)
    expect(tensor(true).item()).toBe(true)
    expect(await tensor([[1.5]]).itemAsync()).toBe(1.5)
    expect(() => tensor([1, 2]).item()).toThrow(/^item: .*float32 \[2\] cpu$/)
    await expect(tensor([1, 2]).itemAsync()).rejects.toThrow(InputError)
    expect(() => torch.empty([1], { device: 'meta' }).item()).toThrow(TorchError)
  })
})

describe('results', () => {
  it('of dtype kind are dtype names', () => {
    expect(torch.promoteTypes('int32', 'float16')).toBe('float16')
    expect(torch.resultType(tensor([1n]), 2.5)).toBe('float32')
    expect(torch.resultType(tensor([1n]), tensor([1], { dtype: 'float64' }))).toBe('float64')
    expect(call<string>(operator('aten::promote_types'), 'uint8', 'int8')).toBe('int16')
    expect(() => torch.promoteTypes('float32', 'int33' as DType)).toThrow(TorchError)
  })

  it('are numbers, booleans, strings, lists, tuples, nothing', () => {
    const x = tensor([[1, 2], [3, 4]])
    expect(x.numel()).toBe(4)
    expect(torch.isFloatingPoint(x)).toBe(true)
    const [values, indices] = torch.max(x, 1)
    expect([values.toArray(), indices.toArray()]).toEqual([[2, 4], [1, 1]])
    expect(torch.split(x, 1).map((part) => part.toArray())).toEqual([[[1, 2]], [[3, 4]]])
    expect(call(operator('aten::_foreach_add_', 'Scalar'), [x], 1)).toBeUndefined()
    expect(x.toArray()).toEqual([[2, 3], [4, 5]])
    const [mean, rstd] = [tensor([[3.5], [4.5]]), tensor([[1], [1]])]
    expect(call(operator('aten::native_layer_norm_backward'), x, x, [2], mean, rstd, null, null, [true, false, false]))
      .toMatchObject([{}, null, null])
  })

  it('that are the argument itself are that object', () => {
    const x = tensor([1, 2])
    expect(x.add_(1)).toBe(x)
    const out = torch.empty([2])
    expect(call(operator('aten::add', 'out'), x, x, 1, out)).toBe(out)
    const [values, indices] = [torch.empty([]), torch.empty([], { dtype: 'int64' })]
    const results = call<unknown[]>(operator('aten::max', 'dim_max'), x, 0, false, values, indices)
    expect(results).toHaveLength(2)
    expect(results[0]).toBe(values)
    expect(results[1]).toBe(indices)
    expect(x.to('float32') === x).toBe(false)
  })

  it('of the scalar kind keep 64 bits', () => {
    const x = torch.full([1], 2n ** 62n + 1n, { dtype: 'int64' })
    expect(x.item()).toBe(2n ** 62n + 1n)
    expect(torch.full([1], 2n ** 64n - 1n, { dtype: 'uint64' }).item()).toBe(2n ** 64n - 1n)
    expect(call(operator('aten::item'), torch.full([], 2n ** 64n - 1n, { dtype: 'uint64' }))).toBe(2n ** 64n - 1n)
    expect(() => torch.full([1], 2n ** 64n, { dtype: 'int64' })).toThrow(TorchError)
  })
})

it.each(dtypes.filter((dtype) => dtype.startsWith('float8')))('every number of %s is what it is as float32', async (dtype) => {
  const x = fromTypedArray(Uint8Array.from({ length: 256 }, (_, i) => i), undefined, { dtype })
  const numbers = x.to('float32').toArray()
  expect(x.toArray()).toEqual(numbers)
  expect(await x.select(0, 3).itemAsync()).toBe(x.select(0, 3).item())
})

it('complex32 numbers are pairs of float16', async () => {
  const x = torch.tensor([{ re: 1.5, im: -2 }, { re: -0, im: Infinity }], { dtype: 'complex32' })
  expect(x.toArray()).toEqual([{ re: 1.5, im: -2 }, { re: -0, im: Infinity }])
  expect(x.select(0, 0).item()).toEqual({ re: 1.5, im: -2 })
  expect(await x.select(0, 0).itemAsync()).toEqual({ re: 1.5, im: -2 })
  expect(torch.tensor([1], { dtype: 'float16' }).add({ re: 0, im: 1 } as never).toArray()).toEqual([{ re: 1, im: 1 }])
  expect(String(x)).toMatch(/1\.5000-2\.j.*complex32/)
})

it('what is made like a tensor is no part of its graph', () => {
  const x = torch.zeros([2], { requiresGrad: true })
  const made = [torch.randintLike(x, 5), x.randintLike(5), torch.randLike(x), torch.zerosLike(x.mul(2)), x.newOnes([3])]
  for (const y of made) expect([y.requiresGrad, y.isLeaf]).toEqual([false, true])
  const y = torch.randintLike(x, 5, { requiresGrad: true })
  expect([y.requiresGrad, y.isLeaf]).toEqual([true, true])
})
