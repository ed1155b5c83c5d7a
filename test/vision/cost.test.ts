import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { describe, expect, it } from 'vitest'

import { GroupMaskedModel } from '../../src/gmml/index.js'
import * as torch from '../../src/torch/index.js'
import { memory } from '../../src/torch/index.js'
import { costOf, VisionTransformer, visionTransformers, type VisionTransformerOptions } from '../../src/vision/index.js'
import { runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'

const cases: Record<string, VisionTransformerOptions> = {
  ...Object.fromEntries(Object.entries(visionTransformers).map(([name, options]) => [`${name} 224/16`, options])),
  'vit_micro 28/4, one channel': { ...visionTransformers.vit_micro, imageSize: 28, patchSize: 4, channels: 1 },
  'vit_tiny 32/4': { ...visionTransformers.vit_tiny, imageSize: 32, patchSize: 4 },
  'not square, a narrow MLP': { embedDim: 48, depth: 3, numHeads: 2, imageSize: [24, 40], patchSize: 8, channels: 5, mlpRatio: 1.5 }
}

const count = (parameters: readonly torch.Tensor[]) => parameters.reduce((sum, parameter) => sum + parameter.numel(), 0)

describe('the cost of a vision transformer', () => {
  it('of what is no model is refused', () => {
    const options = visionTransformers.vit_micro
    for (const wrong of [undefined, null, 3, 'vit_tiny']) {
      expect(() => costOf(wrong as never)).toThrow(/a vision transformer or its options for costOf\(\)/)
    }
    for (const depth of [0, -1, 1.5, NaN, '4' as never]) expect(() => costOf({ ...options, depth })).toThrow(/a positive integer for depth/)
    expect(() => costOf({ ...options, numHeads: 3 })).toThrow(torch.InputError)
    expect(() => costOf({ ...options, patchSize: 15 })).toThrow(torch.InputError)
  })

  it('has the parameters that the models have, the head of GMML counted by itself', () => {
    for (const [name, options] of Object.entries(cases)) {
      const cost = costOf(options)
      const backbone = new VisionTransformer(options)
      const model = new GroupMaskedModel(backbone)
      expect(cost.parameters, name).toBe(count(backbone.parameters()))
      expect(cost.parameters + cost.reconstruction.parameters, name).toBe(count(model.parameters()))
      expect(costOf(backbone), name).toEqual(cost)
      model.dispose()
    }
    const without = { ...cases['not square, a narrow MLP']!, qkvBias: false }
    expect(costOf(without).parameters).toBe(costOf({ ...without, qkvBias: true }).parameters - 3 * 3 * 48)
  })

  it('has the operations that PyTorch counts', async () => {
    const folder = await temporaryFolder()
    const configs = Object.values(cases).map(({ imageSize = 224, patchSize = 16, channels = 3, embedDim, depth, numHeads, mlpRatio = 4 }) =>
      [imageSize, patchSize, channels, embedDim, depth, numHeads, mlpRatio])
    await writeFile(
      join(folder, 'count.py'),
      `import json, sys
sys.path.insert(0, ${JSON.stringify(join(import.meta.dirname, '../../bench/pytorch'))})
import model, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

def count(module, *args):
    with FlopCounterMode(display=False) as counter:
        module(*args)
    return counter.get_total_flops(), {str(op).split(".")[-1]: n for op, n in counter.get_flop_counts()["Global"].items()}

results = []
with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
    for size, patch, channels, *rest in json.loads(sys.argv[1]):
        height, width = (size, size) if isinstance(size, int) else size
        gmml = model.GroupMaskedModel(model.VisionTransformer(size, patch, channels, *rest))
        image = torch.zeros(1, channels, height, width)
        flops, parts = count(gmml.backbone, image)
        results.append([flops, parts["bmm"], parts["convolution"], count(gmml, image)[0]])
print(json.dumps(results))`
    )
    const counted = JSON.parse(await runPython(join(folder, 'count.py'), JSON.stringify(configs))) as number[][]
    for (const [i, [name, options]] of Object.entries(cases).entries()) {
      const { flops, parts, reconstruction } = costOf(options)
      expect([flops, parts.scores + parts.values, parts.patches, flops + reconstruction.flops], name).toEqual(counted[i])
    }
  })

  it('is told without leaving anything behind: no tensors, and no random numbers drawn', () => {
    torch.manualSeed(3)
    const first = torch.rand([4]).toArray()
    torch.manualSeed(3)
    const before = memory().tensors
    costOf(visionTransformers.vit_base)
    expect(memory().tensors).toBeLessThanOrEqual(before)
    expect(torch.rand([4]).toArray()).toEqual(first)
  })
})
