import { describe, expect, it } from 'vitest'

import { Linear } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'

// Large enough for the faster matrix product that nn.Linear takes on some processors; aten::linear is the truth.
const [rows, inner, outer] = [4 * 130, 96, 128]

function relativeError(received: Tensor, wanted: Tensor): number {
  return torch.scope(() => received.sub(wanted).norm().div(wanted.norm()).item())
}

describe('Linear on large input equals aten::linear', () => {
  const layouts: readonly [string, () => Tensor][] = [
    ['2-D', () => torch.randn([rows, inner])],
    ['3-D', () => torch.randn([4, rows / 4, inner])],
    ['transposed', () => torch.randn([inner, rows]).t()],
    ['strided', () => torch.randn([rows, 2 * inner]).slice({ dim: 1, step: 2 })]
  ]
  it.each(layouts)('%s: values, gradients and second derivatives', (_, make) => {
    torch.manualSeed(3)
    for (const bias of [true, false]) {
      const layer = new Linear(inner, outer, { bias })
      const x = make().detach().requiresGrad_()
      const inputs = [x, ...layer.parameters()]
      const derive = (output: Tensor) => {
        const first = torch.grad(output.square().sum(), inputs, { createGraph: true })
        const second = torch.grad(first[0]!.square().sum(), inputs)
        return [output, ...first, ...second]
      }
      const received = derive(layer.call(x))
      const wanted = derive(torch.linear(x, layer.weight, { bias: layer.bias }))
      for (const [i, tensor] of received.entries()) expect(relativeError(tensor, wanted[i]!), `result ${i}`).toBeLessThan(2e-6)
    }
  })

  it('a frozen weight gets no gradient, autocast gives bfloat16, a wrong width is refused', () => {
    const layer = new Linear(inner, outer)
    layer.weight.requiresGrad = false
    const x = torch.randn([rows, inner], { requiresGrad: true })
    layer.call(x).sum().backward()
    expect(layer.weight.grad).toBeNull()
    expect(x.grad!.shape).toEqual([rows, inner])
    expect(layer.bias!.grad!.toArray()).toEqual(Array<number>(outer).fill(rows))
    expect(torch.autocast('cpu', 'bfloat16', () => layer.call(x)).dtype).toBe('bfloat16')
    expect(() => layer.call(torch.randn([rows, inner + 1]))).toThrow(/shapes cannot be multiplied/)
  })
})
