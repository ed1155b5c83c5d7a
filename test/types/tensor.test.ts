// What the compiler makes of Tensor's own members: indices, values in and out, regions.
import { describe, expect, expectTypeOf, it } from 'vitest'

import { GELU, Linear, Module, Sequential } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import {
  ellipsis, slice, type Complex, type Index, type NestedArray, type Slice, type Tensor, type TypedArray
} from '../../src/torch/index.js'

torch.setNumThreads(1)
const x = torch.tensor([[1, 2], [3, 4]])
const refused = (_: () => void) => undefined

describe('indices', () => {
  it('are of eight kinds', () => {
    expectTypeOf(() => x.at(0, slice(1, 5), null, ellipsis, [0, 1n], [[true]], true, x)).returns.toEqualTypeOf<Tensor>()
    expectTypeOf(slice(null, -1, 2)).toEqualTypeOf<Slice>()
    expectTypeOf<readonly (readonly number[])[]>().toExtend<Index>()
    expectTypeOf<Tensor>().toExtend<Index>()
    expectTypeOf<undefined>().not.toExtend<Index>()
    expectTypeOf<string>().not.toExtend<Index>()
    expectTypeOf<bigint>().not.toExtend<Index>()
    expectTypeOf<(number | boolean)[]>().not.toExtend<Index>()
    expectTypeOf<symbol>().not.toExtend<Index>()
    expectTypeOf(x.clone().setAt([0, slice(1)], [[5]])).toEqualTypeOf<Tensor>()
    refused(() => {
      // @ts-expect-error Python's way to write a range
      x.at('1:5')
      // @ts-expect-error no index
      x.at(undefined)
      // @ts-expect-error a tensor is cut by slice(), not by its options
      x.at({ start: 1 })
      // @ts-expect-error integers and booleans
      x.at([0, true])
      // @ts-expect-error positions are numbers
      slice('1')
      // @ts-expect-error the indices are in an array
      x.setAt(0, 1)
      // @ts-expect-error a value
      x.setAt([0], null)
    })
    expect(x.at(0, slice(1)).toArray()).toEqual([2])
  })

  it('rows are tensors', () => {
    for (const row of x) expectTypeOf(row).toEqualTypeOf<Tensor>()
    const [first] = x
    expectTypeOf(first).toEqualTypeOf<Tensor | undefined>()
    expect(first!.toArray()).toEqual([1, 2])
  })
})

describe('values', () => {
  it('come from numbers, nested arrays and typed arrays', () => {
    expectTypeOf(torch.tensor).parameter(0).toEqualTypeOf<NestedArray | TypedArray>()
    expectTypeOf<[number, bigint, boolean, Complex]>().toExtend<NestedArray>()
    expectTypeOf<string[]>().not.toExtend<NestedArray>()
    refused(() => {
      // @ts-expect-error no numbers
      torch.tensor(['1'])
      // @ts-expect-error tensors are joined by stack()
      torch.tensor([x])
      // @ts-expect-error no such option
      torch.tensor([1], { requires_grad: true })
    })
  })

  it('go out as numbers, arrays and text', () => {
    expectTypeOf(() => x.item()).returns.toEqualTypeOf<number>()
    expectTypeOf(() => x.itemAsync()).returns.resolves.toEqualTypeOf<number>()
    expectTypeOf(x.toTypedArray()).toEqualTypeOf<TypedArray>()
    expectTypeOf(x.toArray()).toEqualTypeOf<unknown>()
    expectTypeOf(x.size()).toEqualTypeOf<number[]>()
    expectTypeOf(x.size(0)).toEqualTypeOf<number>()
    expectTypeOf(x.shape).toEqualTypeOf<number[]>()
    expectTypeOf(x.toString()).toEqualTypeOf<string>()
  })
})

describe('modules', () => {
  class Two extends Module {
    forward(a: Tensor, options: { readonly twice?: boolean } = {}): [Tensor, number] {
      return [options.twice ? a.mul(2) : a.add(0), a.ndim]
    }
  }

  it('are called with what forward takes, and give what it gives', () => {
    expectTypeOf(new Linear(2, 2).call(x)).toEqualTypeOf<Tensor>()
    expectTypeOf(new Sequential(new Linear(2, 2), new GELU()).call(x)).toEqualTypeOf<Tensor>()
    expectTypeOf(new Two().call(x, { twice: true })).toEqualTypeOf<[Tensor, number]>()
    refused(() => {
      // @ts-expect-error no tensor
      new Linear(2, 2).call([1, 2])
      // @ts-expect-error no input
      new Linear(2, 2).call()
      // @ts-expect-error misspelled
      new Two().call(x, { twise: true })
    })
    expect(new Two().call(x, { twice: true })[1]).toBe(2)
  })
})

describe('regions', () => {
  it('give what their callback gives', () => {
    expectTypeOf(torch.scope(() => [x.add(1), 2] as const)).toEqualTypeOf<readonly [Tensor, 2]>()
    expectTypeOf(torch.noGrad(() => x.add(1))).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.autocast('cpu', 'bfloat16', () => x.matmul(x))).toEqualTypeOf<Tensor>()
    expectTypeOf(torch.scope(() => undefined)).toEqualTypeOf<undefined>()
    expectTypeOf(torch.keep(x.add(0))).toEqualTypeOf<Tensor>()
  })

  it('must be synchronous', () => {
    refused(() => {
      // @ts-expect-error async
      void torch.scope(async () => x.add(await x.itemAsync()))
      // @ts-expect-error a promise
      void torch.scope(() => Promise.resolve(x))
      // @ts-expect-error async
      void torch.noGrad(async () => x.itemAsync())
      // @ts-expect-error a promise
      void torch.enableGrad(() => x.itemAsync())
      // @ts-expect-error async
      void torch.autocast('cpu', 'bfloat16', async () => x.itemAsync())
      // @ts-expect-error no device of autocast
      torch.autocast('meta', 'bfloat16', () => x)
      // @ts-expect-error no dtype of autocast
      torch.autocast('cpu', 'float32', () => x)
      // @ts-expect-error no callback
      torch.scope(x)
    })
    // @ts-expect-error at run time too
    expect(() => torch.scope(() => Promise.resolve(1))).toThrow(/a synchronous function/)
  })
})
