import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

import { randomFor } from '../../src/data/index.js'
import { GroupMaskedModel } from '../../src/gmml/index.js'
import { GELU, Linear, Sequential } from '../../src/nn/index.js'
import { AdamW } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { cuda, keep, noGrad, scope, TorchError, type Tensor } from '../../src/torch/index.js'
import { finetune, parseConfig, pretrain } from '../../src/train/index.js'
import { WARMUP_STEPS } from '../../src/train/captured-step.js'
import { PretrainStep } from '../../src/train/pretrain-step.js'
import { VisionTransformer } from '../../src/vision/index.js'
import { temporaryFolder } from '../support/folder.js'

// Run where there is a GPU; test/torch/cuda-errors.test.ts has what happens without one.

const network = (seed: number) => {
  torch.manualSeed(seed)
  return scope(() => new Sequential(new Linear(16, 32), new GELU(), new Linear(32, 4)).to('cuda'))
}
const onGpu = (make: () => Tensor) => keep(make().to('cuda'))

/** How far two tensors are apart, by the largest element. */
const distance = (a: Tensor, b: Tensor) => a.sub(b).abs().max().item() / Math.max(1e-12, b.abs().max().item())

describe.skipIf(!cuda.isAvailable())('a CUDA graph', () => {
  it('computes what its function computes, on what is in its inputs now', () => {
    const model = network(1)
    const x = onGpu(() => torch.randn([8, 16]))
    const forward = () => noGrad(() => model.call(x))
    const graph = new cuda.Graph()
    for (let i = 0; i < 3; i++) graph.warmUp(() => scope(forward)).dispose()
    const y = graph.capture(() => scope(forward))
    for (let i = 0; i < 4; i++) {
      torch.manualSeed(i)
      x.copy_(torch.randn([8, 16]))
      graph.replay()
      expect(distance(y, forward())).toBeLessThan(1e-5)
    }
    graph.dispose()
    graph.dispose()
    expect(y.isLive).toBe(false)
    expect(() => graph.replay()).toThrow(/graph was disposed of/)
  })

  it('draws the numbers that its function would draw: the same after the same seed, others at each replay', () => {
    const draw = () => [torch.randn([1000], { device: 'cuda' }), torch.zeros([1000], { device: 'cuda' }).bernoulli_({ p: 0.3 })] as const
    const graph = new cuda.Graph()
    graph.warmUp(() => scope(draw)).forEach((tensor) => tensor.dispose())
    const captured = graph.capture(() => scope(draw))
    for (const seed of [1, 2, 1]) {
      torch.manualSeed(seed)
      const eager = [draw(), draw()].map((tensors) => tensors.map((tensor) => tensor.toArray()))
      torch.manualSeed(seed)
      const replayed = [0, 1].map(() => {
        graph.replay()
        return captured.map((tensor) => tensor.toArray())
      })
      expect(replayed).toEqual(eager)
      expect(replayed[0]).not.toEqual(replayed[1])
      // The generator goes on where eager calls would have left it.
      const next = torch.randn([8], { device: 'cuda' }).toArray()
      torch.manualSeed(seed)
      void [draw(), draw()]
      expect(torch.randn([8], { device: 'cuda' }).toArray()).toEqual(next)
    }
    graph.dispose()
  })

  it('trains: backward, and AdamW with a learning rate and a weight decay that change', () => {
    const steps = 12
    const rates = (i: number) => [0.02 / (i + 1), 0.01 * i] as const
    const batch = (i: number) => {
      torch.manualSeed(50 + i)
      return torch.randn([8, 16])
    }
    const train = (make: (step: () => Tensor) => () => Tensor) => {
      const model = network(2)
      const [x, lr, weightDecay] = [onGpu(() => batch(0)), onGpu(() => torch.tensor(0)), onGpu(() => torch.tensor(0))]
      const optimizer = new AdamW(model.parameters(), { lr, weightDecay })
      const step = make(() =>
        scope(() => {
          const loss = (model.call(x)).square().mean()
          loss.backward()
          optimizer.step({ foundInf: loss.isfinite().logicalNot().to('float32') })
          optimizer.zeroGrad()
          return loss.detach()
        })
      )
      const losses = Array.from({ length: steps }, (_, i) => {
        x.copy_(batch(i))
        lr.fill_(rates(i)[0])
        weightDecay.fill_(rates(i)[1])
        return step().item()
      })
      return { losses, weights: model.parameters() }
    }
    const eager = train((step) => step)
    const graphed = train((step) => cuda.graphed(step))
    for (const [i, loss] of graphed.losses.entries()) expect(Math.abs(loss / eager.losses[i]! - 1)).toBeLessThan(1e-4)
    for (const [i, weight] of graphed.weights.entries()) expect(distance(weight, eager.weights[i]!)).toBeLessThan(1e-4)
    expect(graphed.losses.at(-1)).toBeLessThan(0.9 * graphed.losses[0]!)
  })

  it('that cannot be captured is refused by the name of what cannot be, and the process goes on', () => {
    const x = onGpu(() => torch.ones([8]))
    const failures: readonly [() => unknown, RegExp | typeof TorchError][] = [
      [() => x.add(1).nonzero(), /nonzero/],
      [() => x.sum().item(), TorchError],
      [() => x.to('cpu'), TorchError],
      [() => torch.getRngState('cuda'), TorchError],
      [() => { throw new Error('of the callback') }, /^of the callback$/],
      [() => Promise.resolve(1), /a synchronous function for the callback of capture\(\)/]
    ]
    const graph = new cuda.Graph()
    for (const [callback, error] of failures) {
      expect(() => graph.capture(callback as () => number)).toThrow(error)
      expect(() => graph.replay()).toThrow(/without a capture/)
      // Neither the stream, nor the allocator, nor the generator is left in a capture.
      torch.manualSeed(1)
      const drawn = torch.randn([100], { device: 'cuda' }).add(x.sum()).toArray()
      torch.manualSeed(1)
      expect(torch.randn([100], { device: 'cuda' }).add(x.sum()).toArray()).toEqual(drawn)
    }
    // And the same graph takes another callback.
    const y = graph.capture(() => x.mul(3))
    graph.replay()
    expect(y.toArray()).toEqual(Array(8).fill(3))
    expect(() => graph.capture(() => x.mul(3))).toThrow(/holds a capture already/)
    graph.dispose()
  })

  it('refuses to be used while it is being captured', () => {
    const graph = new cuda.Graph()
    const x = onGpu(() => torch.ones([2]))
    for (const misuse of [() => graph.warmUp(() => 1), () => graph.capture(() => 1), () => graph.replay(), () => graph.dispose()]) {
      expect(() => graph.capture(() => (misuse(), x.add(1)))).toThrow(/warmed up or captured|without a capture/)
    }
    graph.dispose()
  })

  it('shares memory with another one where it is told to', () => {
    const x = onGpu(() => torch.ones([1 << 20]))
    const [first, second] = [new cuda.Graph(), new cuda.Graph()]
    expect(() => second.capture(() => x.add(1), { memoryOf: first })).toThrow(/to share memory with/)
    const a = first.capture(() => x.add(1))
    const b = second.capture(() => x.add(2), { memoryOf: first })
    first.replay()
    second.replay()
    expect([a.sum().item(), b.sum().item()]).toEqual([2 << 20, 3 << 20])
    for (const graph of [second, first]) graph.dispose()
  })
})

describe.skipIf(!cuda.isAvailable())('captured training', () => {
  const images = fileURLToPath(new URL('../../data/fashion-mnist-mini/train', import.meta.url))

  /** The losses of all steps, and what was told. */
  async function losses(train: (graph: 'on' | 'off', hooks: { onStep: (at: { loss: number }) => void; onNotice: (text: string) => void }) => Promise<unknown>) {
    const results = []
    for (const graph of ['on', 'off'] as const) {
      const [found, notices]: [number[], string[]] = [[], []]
      await train(graph, { onStep: ({ loss }) => found.push(loss), onNotice: (text) => notices.push(text) })
      results.push({ found, notices })
    }
    const [captured, eager] = results as [(typeof results)[0], (typeof results)[0]]
    expect(captured.notices).toEqual([])
    expect(captured.found.length).toBeGreaterThan(3 * WARMUP_STEPS)
    for (const [i, loss] of captured.found.entries()) expect(Math.abs(loss / eager.found[i]! - 1), `step ${i + 1}`).toBeLessThan(5e-3)
  }

  it.each([
    { amp: 'off' }, { amp: 'bf16' }, { amp: 'fp16', ema: 0.9, accumulate: 2 }, { amp: 'off', fill: 'shuffle' }
  ] as const)('of pretraining has the losses of the eager one: %o', async (options) => {
    const folder = await temporaryFolder()
    const settings = { images, model: 'vit_micro', limit: 1024, epochs: 2, lr: 0.005, device: 'cuda', logEvery: 1 } as const
    await losses((graph, hooks) => pretrain({ ...settings, ...options, graph, out: join(folder, graph) }, hooks))
  })

  it('of finetuning too', async () => {
    const folder = await temporaryFolder()
    const settings = { from: 'random', train: images, model: 'vit_micro', limit: 1024, epochs: 2, device: 'cuda', amp: 'off', logEvery: 1 } as const
    await losses((graph, hooks) => finetune({ ...settings, graph, out: join(folder, graph) }, hooks))
  })

  it('goes on eagerly where the shape of a batch changes, after one notice', () => {
    const config = parseConfig({ images, out: 'out', dropPath: 0 })
    const model = new GroupMaskedModel(new VisionTransformer({ imageSize: 16, patchSize: 8, channels: 1, embedDim: 32, depth: 2, numHeads: 2 })).to('cuda')
    const notices: string[] = []
    const step = new PretrainStep(model, config, 10, 'cuda', 'float32', { graph: true, onNotice: (notice) => notices.push(notice) })
    const run = (i: number, batch: number) => {
      const [loss, finite] = step.run(torch.randn([batch, 1, 16, 16], { device: 'cuda' }), i, (view) => randomFor(1, i, view)).toArray() as number[]
      expect([Number.isFinite(loss), finite]).toEqual([true, 1])
    }
    for (let i = 0; i < WARMUP_STEPS + 3; i++) run(i, 8)
    expect(notices).toEqual([])
    for (let i = 0; i < 4; i++) run(i, i % 2 ? 8 : 6)
    expect(notices).toEqual([expect.stringMatching(/shape of a batch has changed/)])
    step.dispose()
  })
})
