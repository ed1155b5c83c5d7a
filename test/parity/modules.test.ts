import { beforeAll, describe, expect, it } from 'vitest'

import { Attention, Conv2d, ConvTranspose2d, DropPath, GELU, LayerNorm, Linear, type Module } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { Block } from '../../src/vision/index.js'
import { expectAllNear, perturb, probe, references, report, type Tensors, weights } from './python.js'

interface Unary extends Module {
  forward(x: Tensor): Tensor
}

interface Case {
  readonly make: () => Unary
  /** The module of PyTorch, or of the plain model beside it. */
  readonly module: string
  readonly args: readonly unknown[]
  readonly kwargs?: Record<string, unknown>
  readonly shape: readonly number[]
}

const cases: Record<string, Case> = {
  Linear: { make: () => new Linear(6, 4), module: 'Linear', args: [6, 4], shape: [3, 5, 6] },
  'Linear without bias': {
    make: () => new Linear(6, 4, { bias: false }),
    module: 'Linear',
    args: [6, 4],
    kwargs: { bias: false },
    shape: [5, 6]
  },
  LayerNorm: { make: () => new LayerNorm(6), module: 'LayerNorm', args: [6], shape: [3, 5, 6] },
  'LayerNorm, eps 0.1': { make: () => new LayerNorm(6, 0.1), module: 'LayerNorm', args: [6, 0.1], shape: [5, 6] },
  Conv2d: { make: () => new Conv2d(4, 6, 3), module: 'Conv2d', args: [4, 6, 3], shape: [2, 4, 9, 7] },
  'Conv2d with every option': {
    make: () => new Conv2d(4, 6, [3, 2], { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 2, bias: false }),
    module: 'Conv2d',
    args: [4, 6, [3, 2]],
    kwargs: { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 2, bias: false },
    shape: [2, 4, 9, 7]
  },
  ConvTranspose2d: {
    make: () => new ConvTranspose2d(4, 6, 2, { stride: 2 }),
    module: 'ConvTranspose2d',
    args: [4, 6, 2],
    kwargs: { stride: 2 },
    shape: [2, 4, 5, 3]
  },
  'ConvTranspose2d with every option': {
    make: () =>
      new ConvTranspose2d(4, 6, [3, 2], {
        stride: [2, 3],
        padding: [1, 0],
        outputPadding: [1, 2],
        dilation: [2, 1],
        groups: 2,
        bias: false
      }),
    module: 'ConvTranspose2d',
    args: [4, 6, [3, 2]],
    kwargs: { stride: [2, 3], padding: [1, 0], output_padding: [1, 2], dilation: [2, 1], groups: 2, bias: false },
    shape: [2, 4, 5, 3]
  },
  GELU: { make: () => new GELU(), module: 'GELU', args: [], shape: [4, 7] },
  'GELU by tanh': { make: () => new GELU('tanh'), module: 'GELU', args: [], kwargs: { approximate: 'tanh' }, shape: [4, 7] },
  Attention: { make: () => new Attention(12, 3), module: 'Attention', args: [12, 3], shape: [2, 5, 12] },
  Block: { make: () => new Block(12, 3), module: 'Block', args: [12, 3], shape: [2, 5, 12] },
  DropPath: { make: () => new DropPath(0.4), module: 'DropPath', args: [0.4], shape: [16, 2, 3] }
}

/** The same values, with the first and the last dimension swapped in memory. */
const scattered = (x: Tensor): Tensor => x.transpose(0, -1).contiguous().transpose(0, -1)

const inputs: Record<string, (x: Tensor) => Tensor> = {
  'contiguous input': (x) => x,
  'non-contiguous input': scattered,
  'every other element of a larger one': (x) => torch.stack([x, torch.fullLike(x, NaN)], { dim: -1 }).select(-1, 0),
  'empty batch': (x) => x.narrow(0, 0, 0)
}

torch.manualSeed(3)
const made = Object.entries(cases).flatMap(([name, tested]) =>
  Object.entries(inputs).map(([kind, change]) => ({
    name,
    kind,
    tested,
    module: perturb(tested.make(), 0.3),
    input: change(torch.randn(tested.shape))
  }))
)

const results: Tensors[] = []

beforeAll(async () => {
  const tasks = made.map(({ tested, module, input }) => ({
    task: 'module' as const,
    tensors: { ...weights(module.stateDict()), input },
    config: { module: tested.module, args: tested.args, kwargs: tested.kwargs ?? {} }
  }))
  results.push(...(await references(tasks)))
})

describe.each(made.map((entry, i) => ({ ...entry, i })))('$name, $kind', ({ name, kind, module, input, i }) => {
  it('gives the output and the gradients that PyTorch gives', () => {
    const x = input.detach().requiresGrad_()
    if (kind.startsWith('non') && x.ndim > 1) expect(x.isContiguous).toBe(false)
    torch.manualSeed(0) // as the reference: what is random draws the same numbers
    const output = module.call(x)
    output.backward(probe(output))
    const gradients = Array.from(module.namedParameters(), ([key, parameter]) => [`grad.${key}`, parameter.grad!] as const)
    const received = { output: output.detach(), 'grad.input': x.grad!, ...Object.fromEntries(gradients) }
    const found = expectAllNear(received, results[i]!, { absolute: 1e-5, relative: 1e-5 })
    report(`${name}, ${kind}`, found)
  })
})
