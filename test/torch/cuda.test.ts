import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

import { corrupt, GroupMaskedModel } from '../../src/gmml/index.js'
import { AdamW, clipGradNorm } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import type { Device } from '../../src/torch/index.js'
import { pretrain } from '../../src/train/index.js'
import { visionTransformer } from '../../src/vision/index.js'
import { temporaryFolder } from '../support/folder.js'

const available = torch.cuda.isAvailable()

describe('without a GPU', () => {
  it.skipIf(available)('CUDA is refused by name, and the CPU goes on', () => {
    expect(torch.cuda.deviceCount()).toBe(0)
    expect(() => torch.zeros([2], { device: 'cuda' })).toThrow(torch.TorchError)
    expect(() => torch.tensor(1).cuda()).toThrow(torch.TorchError)
    expect(() => torch.cuda.synchronize()).toThrow(/no CUDA device 0/)
    expect(torch.tensor(1).add(1).item()).toBe(2)
  })
})

/** The losses of some training steps from the same weights on the same images. */
function train(device: Device, steps: number): number[] {
  torch.manualSeed(5)
  const model = new GroupMaskedModel(visionTransformer('vit_micro', { imageSize: 28, patchSize: 4, channels: 1 })).to(device)
  const clean = torch.keep(torch.randn([16, 1, 28, 28]))
  const { corrupted, mask } = corrupt(clean, { fill: 'zeros' })
  const batch = [corrupted, clean, mask].map((tensor) => torch.keep(tensor.to(device))) as [torch.Tensor, torch.Tensor, torch.Tensor]
  const optimizer = new AdamW(model.parameters(), { lr: 1e-3 })
  return Array.from({ length: steps }, () =>
    torch.scope(() => {
      const loss = model.loss(...batch)
      loss.backward()
      clipGradNorm(model.parameters(), 3, { perTensor: true })
      optimizer.step()
      optimizer.zeroGrad()
      return loss.item()
    })
  )
}

describe.skipIf(!available)('on CUDA', () => {
  it('tensors go there and back', async () => {
    const x = torch.randn([33, 65])
    const there = x.to('cuda')
    expect(there.device).toBe('cuda:0')
    expect(there.cpu().toTypedArray()).toEqual(x.toTypedArray())
    expect(await there.sum().itemAsync()).toBeCloseTo(x.sum().item(), 2)
    expect(torch.memory().bytes['cuda:0']).toBeGreaterThanOrEqual(4 * 33 * 65)
    expect(() => there.add(x)).toThrow(/cuda:0.*cpu|cpu.*cuda:0/)
  })

  it('the generator of the device is seeded, and its state can be put back', () => {
    torch.manualSeed(1)
    const state = torch.getRngState('cuda')
    const first = torch.randn([64], { device: 'cuda' }).toArray()
    torch.setRngState(state, 'cuda')
    expect(torch.randn([64], { device: 'cuda' }).toArray()).toEqual(first)
  })

  it('ten training steps have the losses of the CPU', () => {
    const [cpu, cuda] = [train('cpu', 10), train('cuda', 10)]
    for (const [i, loss] of cuda.entries()) expect(loss).toBeCloseTo(cpu[i]!, 3)
  })

  it('autocast gives bfloat16', () => {
    const x = torch.randn([8, 8], { device: 'cuda' })
    expect(torch.autocast('cuda', 'bfloat16', () => x.matmul(x)).dtype).toBe('bfloat16')
  })

  it('a pretraining run learns, in bfloat16 and with a loss scaler in float16', async () => {
    const folder = await temporaryFolder()
    const images = fileURLToPath(new URL('../../data/fashion-mnist-mini/train', import.meta.url))
    for (const amp of ['bf16', 'fp16'] as const) {
      const losses: number[] = []
      const settings = { images, model: 'vit_micro', limit: 2048, epochs: 2, lr: 0.01, device: 'cuda', amp, logEvery: 1 } as const
      await pretrain({ ...settings, out: join(folder, amp) }, { onStep: ({ loss }) => losses.push(loss) })
      const mean = (part: number[]) => part.reduce((sum, loss) => sum + loss, 0) / part.length
      expect(mean(losses.slice(-8))).toBeLessThan(0.9 * mean(losses.slice(0, 8)))
    }
  })
})
