// What the compiler makes of operators. `tsc -p tsconfig.json` checks the types; most calls are made as well.
import { describe, expect, expectTypeOf, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import {
  call, operator, type Complex, type DType, type Device, type Layout, type MemoryFormat, type Scalar, type Tensor
} from '../../src/torch/index.js'

torch.setNumThreads(1)
const x = torch.tensor([[1, 2], [3, 4]])

/** What must not compile is never run. */
const refused = (_: () => void) => undefined

describe('kinds of argument', () => {
  it('dtype, device, layout and memory format are names', () => {
    expectTypeOf<'bfloat16'>().toExtend<DType>()
    expectTypeOf<'float'>().not.toExtend<DType>()
    expectTypeOf<'cuda:1'>().toExtend<Device>()
    expectTypeOf<'gpu'>().not.toExtend<Device>()
    expectTypeOf<'cuda:a'>().not.toExtend<Device>()
    expectTypeOf<'sparse_coo'>().toExtend<Layout>()
    expectTypeOf<'channels_last'>().toExtend<MemoryFormat>()
    expectTypeOf(x.dtype).toEqualTypeOf<DType>()
    expectTypeOf(x.device).toEqualTypeOf<Device>()
    expectTypeOf(torch.zeros([2], { dtype: 'int64', device: 'cpu', layout: null, requiresGrad: false })).toEqualTypeOf<Tensor>()
    expectTypeOf(x.contiguous({ memoryFormat: 'contiguous' })).toEqualTypeOf<Tensor>()
    expectTypeOf(x.to({ dtype: 'float64', device: 'cpu', memoryFormat: 'preserve' })).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.promoteTypes('int32', 'float16')).toEqualTypeOf<DType>()
    refused(() => {
      // @ts-expect-error no dtype
      torch.zeros([2], { dtype: 'float' })
      // @ts-expect-error no dtype
      x.to('double')
      // @ts-expect-error no device
      torch.zeros([2], { device: 'gpu' })
      // @ts-expect-error no memory format
      x.clone({ memoryFormat: 'channelsLast' })
      // @ts-expect-error no layout
      torch.zeros([2], { layout: 'dense' })
      // @ts-expect-error a dtype is no number
      x.sum({ dtype: 6 })
    })
  })

  it('a scalar is a number, bigint, boolean or complex number', () => {
    expectTypeOf<Scalar>().toEqualTypeOf<number | bigint | boolean | Complex>()
    expectTypeOf(torch.add).parameter(0).toEqualTypeOf<Tensor>()
    for (const other of [2, 2n, true, { re: 1, im: 0 }]) expectTypeOf(x.add(other as 2)).toEqualTypeOf<Tensor>()
    expectTypeOf(x.mul(2n)).toEqualTypeOf<Tensor>()
    expectTypeOf(x.mul(true)).toEqualTypeOf<Tensor>()
    expectTypeOf(x.mul({ re: 1, im: 2 })).toEqualTypeOf<Tensor>()
    refused(() => {
      // @ts-expect-error no number
      x.add('2')
      // @ts-expect-error no number
      x.add(null)
      // @ts-expect-error half a complex number
      x.add({ re: 1 })
      // @ts-expect-error an array is no tensor
      x.add([1, 2])
      // @ts-expect-error a number of dimensions is no bigint
      x.unsqueeze(0n)
    })
  })

  it('an optional tensor is null or left out', () => {
    expectTypeOf(torch.linear(x, x)).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.linear(x, x, { bias: null })).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.linear(x, x, { bias: undefined })).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.layerNorm(x, [2], { weight: torch.ones([2]), bias: null, eps: 1e-6 })).toEqualTypeOf<Tensor>()
    expectTypeOf(x.clamp({ min: 0, max: null })).toEqualTypeOf<Tensor>()
    expectTypeOf(x.index([null, torch.tensor([0n])])).toEqualTypeOf<Tensor>()
    refused(() => {
      // @ts-expect-error a tensor that is not optional
      torch.matmul(x, null)
      // @ts-expect-error a tensor that is not optional
      torch.matmul(x)
      // @ts-expect-error no tensor
      torch.linear(x, x, { bias: 1 })
    })
  })

  it('lists of tensors and of sizes', () => {
    const both: readonly Tensor[] = [x, x]
    expectTypeOf(torch.cat(both)).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.stack([x, x], { dim: 1 })).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.einsum('ij,jk', both)).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.avgPool2d(x.view(1, 2, 2), 2)).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.avgPool2d(x.view(1, 2, 2), [1, 2] as const)).toEqualTypeOf<Tensor>()
    expectTypeOf(x.reshape([4])).toEqualTypeOf<Tensor>()
    expectTypeOf(x.reshape(2, 2)).toEqualTypeOf<Tensor>()
    refused(() => {
      // @ts-expect-error no list
      torch.cat(x)
      // @ts-expect-error not of tensors
      torch.cat([1, 2])
      // @ts-expect-error null is not among them
      torch.cat([x, null])
      // @ts-expect-error a list of any length has no single value
      torch.zeros(2)
      // @ts-expect-error sizes are numbers
      x.reshape(['2', 2])
      // @ts-expect-error in one array, or one by one
      x.reshape([2], [2])
    })
  })
})

describe('results', () => {
  it('are tensors, tuples, lists, numbers, booleans or nothing', () => {
    expectTypeOf(x.max(1)).toEqualTypeOf<[values: Tensor, indices: Tensor]>()
    expectTypeOf(x.max()).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.max(x, x)).toEqualTypeOf<Tensor>()
    expectTypeOf(x.topk(1)).toEqualTypeOf<[values: Tensor, indices: Tensor]>()
    expectTypeOf(torch.linalgSvd(x)).toEqualTypeOf<[U: Tensor, S: Tensor, Vh: Tensor]>()
    expectTypeOf(x.split(1)).toEqualTypeOf<Tensor[]>()
    expectTypeOf(torch.where(x.gt(2))).toEqualTypeOf<Tensor[]>()
    expectTypeOf(torch.where(x.gt(2), x, 0)).toEqualTypeOf<Tensor>()
    expectTypeOf(x.numel()).toEqualTypeOf<number>()
    expectTypeOf(x.isFloatingPoint()).toEqualTypeOf<boolean>()
    expectTypeOf(x.equal(x)).toEqualTypeOf<boolean>()
    expectTypeOf(x.grad).toEqualTypeOf<Tensor | null>()
    const w = torch.ones([2], { requiresGrad: true })
    expectTypeOf(torch.grad(w.sum(), w)).toEqualTypeOf<[Tensor]>()
    expectTypeOf(torch.grad(w.sum(), [w], { createGraph: true })).toEqualTypeOf<Tensor[]>()
    expectTypeOf(torch.grad(w.sum(), [w], { allowUnused: true })).toEqualTypeOf<(Tensor | null)[]>()
    const [values, indices] = x.max(1)
    expect([values.toArray(), indices.toArray()]).toEqual([[2, 4], [1, 1]])
    expect([x.split(1).length, x.numel(), x.isFloatingPoint(), torch.where(x.gt(2)).length]).toEqual([2, 4, true, 2])
  })

  it('chain', () => {
    expectTypeOf(x.add(x).mul(2).sum(0, { keepdim: true }).sqrt_()).toEqualTypeOf<Tensor>()
    expectTypeOf(x.clone().requiresGrad_()).toEqualTypeOf<Tensor>()
  })

  it('of operators called by name are what the caller says', () => {
    expectTypeOf(call<Tensor>(operator('aten::add', 'Tensor'), x, x)).toEqualTypeOf<Tensor>()
    expectTypeOf(call<[Tensor, Tensor]>(operator('aten::max', 'dim'), x, 0)).toEqualTypeOf<[Tensor, Tensor]>()
  })
})

describe('named options', () => {
  it('may be left out, undefined or in a variable', () => {
    const options = { alpha: 2 }
    expectTypeOf(x.add(x, options)).toEqualTypeOf<Tensor>()
    expectTypeOf(x.add(x, { alpha: undefined })).toEqualTypeOf<Tensor>()
    expectTypeOf(x.sum(1, { keepdim: true, dtype: 'float64' })).toEqualTypeOf<Tensor>()
    expectTypeOf(x.std({ correction: 0, dim: [0, 1] })).toEqualTypeOf<Tensor>()
    expect(x.sum(1, { keepdim: true, dtype: 'float64' }).dtype).toBe('float64')
  })

  it('that there are not do not compile, nor do they run', () => {
    refused(() => {
      // @ts-expect-error misspelled
      x.add(x, { alhpa: 2 })
      // @ts-expect-error in the writing of Python
      x.sum(1, { keepDim: true })
      // @ts-expect-error of another type
      x.sum(1, { keepdim: 1 })
      // @ts-expect-error not null
      x.sum(1, null)
      // @ts-expect-error not positional
      x.sum(1, true)
      // @ts-expect-error of another operator
      torch.zeros([2], { keepdim: true })
      // @ts-expect-error required
      torch.gridSampler(x, x)
    })
    expect(() => x.add(x, { alhpa: 2 } as object)).toThrow(/one of alpha for an option of aten::add, received 'alhpa'/)
    expect(() => x.sum(1, null as never)).toThrow(torch.InputError)
    expect(() => torch.zeros([2], 'float32' as never)).toThrow(/an object with dtype, layout, device, pinMemory, requiresGrad/)
    expect(() => torch.zeros([2], x as never)).toThrow(/received Tensor/)
    expect(() => torch.zeros([2], { dtyp: 'float64' } as object)).toThrow(/'dtyp'/)
  })
})
