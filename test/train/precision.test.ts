import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { choosePrecision, inPrecision } from '../../src/train/precision.js'
import { reconstructionTrial } from '../../src/train/pretrain-step.js'
import { tinyModel } from '../evaluate/support.js'

torch.setNumThreads(1)

describe('choosePrecision', () => {
  it('measures, and leaves the model as it was, without gradients', () => {
    const model = tinyModel()
    const before = torch.scope(() => Object.values(model.stateDict()).map((tensor) => torch.keep(tensor.clone())))
    const { tensors } = torch.memory()
    const { precision, speedup } = choosePrecision(model, 'cpu', () => reconstructionTrial(model, 'cpu'))
    expect(['float32', 'bfloat16']).toContain(precision)
    expect(precision === 'bfloat16').toBe(speedup! > 1 / 0.9)
    expect(model.parameters().every(({ grad }) => grad === null)).toBe(true)
    expect(model.training).toBe(true)
    for (const [i, tensor] of Object.values(model.stateDict()).entries()) expect(torch.equal(tensor, before[i]!)).toBe(true)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('does not measure on a GPU', () => {
    const never = () => { throw new Error('measured') }
    expect(choosePrecision(tinyModel(), 'cuda:1', never)).toEqual({ precision: 'bfloat16', speedup: null })
  })
})

describe('inPrecision', () => {
  it('computes matrix products in what it is told, and nothing after it', () => {
    const a = torch.randn([3, 3])
    for (const precision of ['float32', 'bfloat16', 'float16'] as const) {
      expect(inPrecision(precision, 'cpu', () => a.matmul(a)).dtype).toBe(precision)
      expect(a.matmul(a).dtype).toBe('float32')
    }
  })
})
