import { describe, expect, it } from 'vitest'

import {
  Attention,
  Conv2d,
  ConvTranspose2d,
  Dropout,
  DropPath,
  GELU,
  LayerNorm,
  Linear,
  Module,
  ModuleList,
  Parameter,
  Sequential
} from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'

class Net extends Module {
  readonly scale = new Parameter(torch.ones([3]))
  readonly layers = new ModuleList([new Linear(3, 4), new Linear(4, 3)])
  readonly tail = new Sequential(new LayerNorm(3), new GELU(), new Dropout(0.5))

  constructor() {
    super()
    this.registerBuffer('count', torch.tensor([7n]))
    this.registerBuffer('mean', torch.tensor([0.5]))
  }

  override forward(x: Tensor): Tensor {
    return this.tail.call([...this.layers].reduce((value, layer) => layer.call(value), x.mul(this.scale)))
  }
}

const copies = (module: Module) =>
  Object.fromEntries(Object.entries(module.stateDict()).map(([name, tensor]) => [name, tensor.detach().clone()]))
const values = (module: Module) => Object.entries(module.stateDict()).map(([name, tensor]) => [name, tensor.toArray()])

describe('modules refuse', () => {
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'no features': [() => new Linear(0, 3), /integer of at least 1 for inFeatures, received 0/],
    'a fraction of a feature': [() => new Linear(3, 2.5), /outFeatures, received 2.5/],
    'a string for a size': [() => new LayerNorm('3' as never), /size, received '3'/],
    'groups that do not divide': [() => new Conv2d(4, 6, 3, { groups: 3 }), /divisor of inChannels and outChannels for groups, received 3/],
    'no groups': [() => new Conv2d(4, 6, 3, { groups: 0 }), /at least 1 for groups, received 0/],
    'no groups, transposed': [() => new ConvTranspose2d(4, 6, 3, { groups: 0 }), /at least 1 for groups, received 0/],
    'an empty kernel': [() => new Conv2d(4, 6, 0), /kernelSize, received 0/],
    'half a kernel': [() => new Conv2d(4, 6, [3] as never), /kernelSize, received undefined/],
    'heads that do not divide': [() => new Attention(10, 3), /divisor of the width 10 for numHeads, received 3/],
    'no heads': [() => new Attention(8, 0), /at least 1 for numHeads, received 0/],
    'half a head': [() => new Attention(8, 0.5), /at least 1 for numHeads, received 0.5/],
    'an attention dropout of 2': [() => new Attention(8, 2, { attnDrop: 2 }), /probability between 0 and 1 for attnDrop, received 2/],
    'a dropout of NaN': [() => new Dropout(NaN), /probability between 0 and 1 for p, received NaN/],
    'a drop path below 0': [() => new DropPath(-0.1), /received -0.1/],
    'a mode that is no boolean': [() => new Net().train('yes' as never), /boolean for mode, received 'yes'/],
    'an integer dtype': [() => new Net().to('int32'), /floating-point dtype for the target of Module.to\(\), received 'int32'/],
    'a device that does not exist': [() => new Net().to('gpu' as never), /received 'gpu'/]
  }
  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(InputError)
    expect(call).toThrow(message)
  })

  it('to run a list of modules', () => expect(() => new ModuleList([]).forward()).toThrow(/call its modules/))
})

describe('loadStateDict', () => {
  it.each([
    [null, /object of tensors by name for the state dict, received null/],
    [{ scale: [1, 2, 3] }, /Tensor for 'scale' of the state dict, received \[ 1, 2, 3 \]/],
    [{ scale: undefined }, /Tensor for 'scale' of the state dict, received undefined/]
  ])('refuses %o', (state, message) => {
    expect(() => new Net().loadStateDict(state as never)).toThrow(InputError)
    expect(() => new Net().loadStateDict(state as never)).toThrow(message)
  })

  it('names what is missing, unexpected and of another shape, and then changes nothing', () => {
    const net = new Net()
    const before = values(net)
    const state = copies(new Net())
    delete state['scale']
    delete state['count']
    state['other'] = torch.ones([1])
    state['layers.0.weight'] = torch.ones([3, 4])
    expect(() => net.loadStateDict(state)).toThrow(
      'The state dict does not fit Net. missing: scale, count; unexpected: other; ' +
        'of another shape: layers.0.weight (expected [4, 3], received [3, 4])'
    )
    // What is not strict forgives names, not shapes.
    expect(() => net.loadStateDict(state, { strict: false })).toThrow(
      /^The state dict does not fit Net. of another shape: layers.0.weight \(/
    )
    expect(values(net)).toEqual(before)
  })

  it('names the first ten, and how many there are', () => {
    const state = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`extra.${i}`, torch.zeros([1])]))
    const deep = new ModuleList(Array.from({ length: 8 }, () => new Linear(2, 2)))
    const message = /missing: 0.weight, 0.bias, .*4.bias, \.\.\. \(16 in all\); unexpected: extra.0, .*extra.9, \.\.\. \(12 in all\)$/
    expect(() => deep.loadStateDict(state)).toThrow(message)
    expect(() => deep.loadStateDict(state)).not.toThrow(/extra.10/)
    const narrow = new ModuleList(Array.from({ length: 8 }, () => new Linear(2, 3)))
    expect(() => deep.loadStateDict(narrow.stateDict())).toThrow(
      /of another shape: 0.weight \(expected \[2, 2\], received \[3, 2\]\), .*\(16 in all\)$/
    )
  })

  it('tells of names that only a prefix keeps apart', () => {
    const net = new Net()
    const withPrefix = (prefix: string) => Object.fromEntries(Object.entries(copies(net)).map(([name, tensor]) => [prefix + name, tensor]))
    expect(() => net.loadStateDict(withPrefix('module.'))).toThrow(
      /missing: .*; the names begin with 'module\.', which this module's do not: give them without$/
    )
    expect(() => net.loadStateDict(withPrefix('model.backbone.'))).toThrow(/; the names begin with 'model\.backbone\.', which/)
    const [part, whole] = [new Linear(2, 2), new ModuleList([new Linear(2, 2)])]
    expect(() => whole.loadStateDict(part.stateDict())).toThrow(/; this module's names begin with '0\.', which the given ones do not/)
    expect(() => net.loadStateDict({ 'module.scale': net.scale, other: net.scale })).not.toThrow(/begin with/)
    expect(() => net.loadStateDict({ state_dict: copies(net) } as never)).toThrow(
      /a Tensor \(what is there holds tensors: give it alone\) for 'state_dict' of the state dict/
    )
  })

  it('copies values, converts their dtype, and tells what did not match where that is allowed', () => {
    const [net, source] = [new Net(), new Net()]
    torch.noGrad(() => source.scale.fill_(1.5))
    const state: Record<string, Tensor> = { ...copies(source), other: torch.ones([1]) }
    state['scale'] = state['scale']!.to('float64')
    delete state['mean']
    const weight = net.layers[0]!.weight
    expect(net.loadStateDict(state, { strict: false })).toEqual({ missing: ['mean'], unexpected: ['other'] })
    expect(net.scale.toArray()).toEqual([1.5, 1.5, 1.5])
    expect(net.scale.dtype).toBe('float32')
    expect(weight.toArray()).toEqual(source.layers[0]!.weight.toArray())
    expect(weight.requiresGrad && weight.isLeaf).toBe(true)
    torch.noGrad(() => state['layers.0.weight']!.fill_(9))
    expect(weight.toArray(), 'a copy').toEqual(source.layers[0]!.weight.toArray())
  })

  it('is the inverse of stateDict', () => {
    const [net, other] = [new Net(), new Net()]
    expect(values(net)).not.toEqual(values(other))
    expect(other.loadStateDict(net.stateDict())).toEqual({ missing: [], unexpected: [] })
    expect(values(net)).toEqual(values(other))
  })
})

describe('a module', () => {
  it('names parameters and buffers by their properties, in the order of definition', () => {
    const net = new Net()
    const names = [
      'scale',
      'count',
      'mean',
      'layers.0.weight',
      'layers.0.bias',
      'layers.1.weight',
      'layers.1.bias',
      'tail.0.weight',
      'tail.0.bias'
    ]
    expect(Object.keys(net.stateDict())).toEqual(names)
    expect(Array.from(net.namedParameters(), ([name]) => name)).toEqual(names.filter((name) => !['count', 'mean'].includes(name)))
    expect(Array.from(net.namedBuffers(), ([name]) => name)).toEqual(['count', 'mean'])
    expect(Array.from(net.namedModules(), ([name]) => name)).toEqual([
      '',
      'layers',
      'layers.0',
      'layers.1',
      'tail',
      'tail.0',
      'tail.1',
      'tail.2'
    ])
    expect(net.parameters()).toHaveLength(7)
  })

  it('counts a parameter that two modules share once', () => {
    const shared = new Linear(2, 2)
    expect(Object.keys(new ModuleList([shared, shared]).stateDict())).toEqual(['0.weight', '0.bias'])
  })

  it.each(['float64', 'bfloat16', 'float16'] as const)('becomes %s, integers do not', (dtype) => {
    const net = new Net().eval()
    const wanted = net.scale.toArray()
    const before = net.scale
    net
      .call(torch.ones([2, 3]))
      .sum()
      .backward()
    expect(net.to(dtype)).toBe(net)
    const dtypes = Object.fromEntries(Object.entries(net.stateDict()).map(([name, tensor]) => [name, tensor.dtype]))
    expect(dtypes).toEqual(Object.fromEntries(Object.keys(dtypes).map((name) => [name, name === 'count' ? 'int64' : dtype])))
    expect(net.scale).toBe(before)
    expect(net.scale.toArray()).toEqual(wanted)
    expect(net.scale.grad!.dtype).toBe(dtype)
    net.zeroGrad()
    const output = net.call(torch.ones([2, 3], { dtype }))
    expect(output.dtype).toBe(dtype)
    output.sum().backward()
    expect(net.scale.grad!.dtype).toBe(dtype)
  })

  it('goes to a device by options, and to where it is already', () => {
    const net = new Net()
    expect(net.to('cpu').to({ device: 'cpu', dtype: 'float64' }).scale.dtype).toBe('float64')
    expect(new Linear(2, 2).to('cpu').weight.device).toBe('cpu')
  })

  it('trains and evaluates with all below it', () => {
    const net = new Net()
    expect(Array.from(net.namedModules(), ([, module]) => module.training)).not.toContain(false)
    expect(Array.from(net.eval().namedModules(), ([, module]) => module.training)).not.toContain(true)
    const x = torch.randn([4, 3])
    expect(net.call(x).toArray()).toEqual(net.call(x).toArray())
    net.train()
    const zeros = net
      .call(x.expand([4, 3]))
      .eq(0)
      .sum()
      .item()
    expect(zeros, 'dropped out').toBeGreaterThan(0)
  })

  it('frees what forward leaves behind, and keeps what it returns', () => {
    const net = new Net().eval()
    torch.scope(() => {
      const x = torch.randn([4, 3])
      const before = memory().tensors
      const y = net.call(x)
      expect(memory().tensors).toBeLessThanOrEqual(before + 1)
      expect(y.shape).toEqual([4, 3])
    })
  })

  it('forgets gradients, freezes, and frees its parameters', () => {
    const net = new Net()
    torch.scope(() =>
      net
        .call(torch.ones([1, 3]))
        .sum()
        .backward()
    )
    expect(net.scale.grad).not.toBeNull()
    net.zeroGrad()
    expect(net.scale.grad).toBeNull()
    net.requiresGrad_(false)
    expect(net.parameters().some((parameter) => parameter.requiresGrad)).toBe(false)
    net.dispose()
    expect(Object.values(net.stateDict()).some((tensor) => tensor.isLive)).toBe(false)
  })

  it('leaves nothing behind when it is disposed of', () => {
    const before = memory()
    const layers = [new Linear(300, 300), new LayerNorm(300), new Conv2d(3, 30, 4), new ConvTranspose2d(30, 3, 4), new Attention(30, 3)]
    expect(memory().tensors).toBeLessThanOrEqual(before.tensors + 12)
    for (const layer of layers) layer.dispose()
    expect(memory()).toEqual(before)
  })

  it('lives on when it was made in a scope', () => {
    const net = torch.scope(() => new Net())
    expect(net.layers[1]!.bias!.isLive).toBe(true)
    expect(net.stateDict()['count']!.toArray()).toEqual([7])
  })
})
