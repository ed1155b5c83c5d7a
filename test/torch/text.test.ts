import { inspect } from 'node:util'
import { afterEach, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, call, getPrintOptions, operator, setPrintOptions, tensor, type Tensor } from '../../src/torch/index.js'

torch.setNumThreads(1)
afterEach(() => void setPrintOptions('default'))

describe('print options', () => {
  it.each<[unknown, RegExp]>([
    [null, /an object or one of default, short, full for setPrintOptions\(\), received null/],
    ['long', /received 'long'/], [[4], /received \[ 4 \]/],
    [{ precison: 2 }, /one of precision, threshold, .* for the options of setPrintOptions\(\), received 'precison'/],
    [{ precision: -1 }, /an integer from 0 to 40 for precision, received -1/], [{ precision: 1.5 }, /precision/],
    [{ precision: 41 }, /precision/], [{ threshold: NaN }, /threshold/], [{ edgeItems: Infinity }, /edgeItems/],
    [{ lineWidth: '80' }, /lineWidth/], [{ sciMode: 1 }, /a boolean or null for sciMode/]
  ])('refuse %o', (options, message) => {
    const before = getPrintOptions()
    expect(() => setPrintOptions(options as 'default')).toThrow(InputError)
    expect(() => setPrintOptions(options as 'default')).toThrow(message)
    expect(getPrintOptions()).toBe(before)
  })

  it('change what they name, and give the options before', () => {
    const before = setPrintOptions({ precision: 2, sciMode: undefined as never })
    expect(before).toEqual({ precision: 4, threshold: 1000, edgeItems: 3, lineWidth: 80, sciMode: null })
    expect(getPrintOptions()).toEqual({ ...before, precision: 2 })
    expect(String(tensor([0.125]))).toBe('tensor([0.12])')
    setPrintOptions({ sciMode: true })
    expect(String(tensor([0.125]))).toBe('tensor([1.25e-01])')
    setPrintOptions(before)
    expect(String(tensor([0.125]))).toBe('tensor([0.1250])')
    setPrintOptions({ precision: 40 })
    expect(String(tensor([0.5]))).toBe(`tensor([0.5${'0'.repeat(39)}])`)
  })
})

describe('a tensor as text', () => {
  it('has values, and what is not as usual', () => {
    expect(String(tensor([[1, 2.5], [3, -4]]))).toBe('tensor([[ 1.0000,  2.5000],\n        [ 3.0000, -4.0000]])')
    expect(String(tensor(3))).toBe('tensor(3.)')
    expect(String(tensor([true, false]))).toBe('tensor([ True, False])')
    expect(String(torch.zeros([0, 3]))).toBe('tensor([], size=(0, 3))')
    expect(String(tensor([1], { requiresGrad: true }))).toBe('tensor([1.], requires_grad=True)')
    expect(String(tensor([1], { requiresGrad: true }).add(1))).toBe('tensor([2.], grad_fn=<AddBackward0>)')
    expect(`${torch.empty([2], { device: 'meta' })}`).toBe("tensor(..., device='meta', size=(2,))")
    expect(String(tensor([9007199254740993n]))).toBe('tensor([9007199254740993])')
  })

  it('leaves no tensor behind, and no trace in the graph', () => {
    const x = tensor([1, 2], { requiresGrad: true }).to('float16')
    const before = torch.memory().tensors
    expect(String(x)).toContain('dtype=torch.float16, grad_fn=<ToCopyBackward0>')
    expect(torch.memory().tensors).toBeLessThanOrEqual(before)
    expect(torch.isGradEnabled()).toBe(true)
  })

  it('copies of a large tensor no more than its edges', () => {
    // 2^40 elements, of one number: no copy of all of them would fit anywhere.
    const huge = tensor([7]).expand([2 ** 20, 2 ** 20])
    const row = '[7., 7., 7.,  ..., 7., 7., 7.]'
    expect(String(huge)).toBe(`tensor([${[row, row, row, '...', row, row, row].join(',\n        ')}])`)
    expect(String(torch.arange(3e6))).toBe('tensor([      0,       1,       2,  ..., 2999997, 2999998, 2999999])')
  })

  it('says so of a disposed tensor', () => {
    const dead = tensor([1])
    dead.dispose()
    expect(inspect(dead)).toBe('Tensor (disposed)')
    expect(inspect({ dead })).toBe('{ dead: Tensor (disposed) }')
    expect(() => String(dead)).toThrow(TorchError)
  })

  it('of what has no elements to read says the dtype', () => {
    const bits = call<Tensor>(operator('aten::empty', 'memory_format'), [2], 'quint8')
    expect(String(bits)).toMatch(/^tensor\(.*dtype=torch\.quint8/)
  })
})

describe('util.inspect', () => {
  const x = tensor([[1, 2], [3, 4]])

  it('shows the same text', () => {
    expect(inspect(x)).toBe(String(x))
    expect(inspect({ x: tensor([1]) })).toBe('{ x: tensor([1.]) }')
  })

  it('indents the lines of a tensor to where it stands', () => {
    expect(inspect([[x]])).toBe('[\n  [\n    tensor([[1., 2.],\n            [3., 4.]])\n  ]\n]')
    expect(inspect({ a: { b: x } })).toContain('\n')
    for (const line of inspect({ a: { b: x } }).split('\n').slice(1, -1)) expect(line).toMatch(/^ {2}/)
  })

  it('names only the class where inspect goes no deeper', () => {
    expect(inspect({ a: { b: { c: { d: x } } } })).toContain('[Object]')
    expect(inspect({ x }, { depth: 0 })).toBe('{ x: [Tensor] }')
    expect(inspect([[[x]]], { depth: 1 })).not.toContain('1., 2.')
    expect(inspect({ a: { b: { x } } }, { depth: 2 })).toContain('[Tensor]')
  })
})
