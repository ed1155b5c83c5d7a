import { createHash } from 'node:crypto'

import { describe, expect, it } from 'vitest'

import { checkpoint, checkpointSequential, Dropout, GELU, LayerNorm, Linear, Module, ModuleList, Sequential } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, grad, scope, type Tensor } from '../../src/torch/index.js'
import { VisionTransformer } from '../../src/vision/index.js'
import { clean, runChild, torchModule } from '../native/support.js'

torch.setNumThreads(1)

const nnModule = new URL('../../dist/nn/index.js', import.meta.url).href

const leaf = (shape: number[]) => torch.randn(shape, { dtype: 'float64', requiresGrad: true })
const bits = (tensor: Tensor | null) => tensor && createHash('sha1').update(tensor.toTypedArray()).digest('hex')

/** Gradients of all parameters, and numbers that are drawn afterwards, by name. */
function trained(model: Module, step: () => Tensor, steps = 2): unknown {
  for (let i = 0; i < steps; i++) scope(() => step().backward())
  const gradients = [...model.namedParameters()].map(([name, parameter]) => [name, bits(parameter.grad)])
  return { gradients, next: torch.randn([3]).toArray() }
}

describe('misuse', () => {
  it('is refused before anything runs', () => {
    const x = leaf([2])
    const loose: (part: never, ...inputs: never[]) => unknown = checkpoint
    const refused = (part: unknown) => expect(() => loose(part as never, x as never))
    for (const part of [null, undefined, 3, 'x', {}, x]) refused(part).toThrow(InputError)
    refused(async () => Promise.resolve(x)).toThrow(InputError)
    for (const output of [undefined, null, 3, [], [3], { x }]) refused(() => output).toThrow(/Expected a Tensor or an array of Tensors/)
    const sequential = checkpointSequential as unknown as (...values: unknown[]) => unknown
    for (const segments of [0, -1, 1.5, 3, NaN, '1', undefined]) {
      expect(() => sequential([torch.sin, torch.cos], segments, x)).toThrow(InputError)
    }
    for (const blocks of [null, 3, [3], ['x'], [x]]) expect(() => sequential(blocks, 1, x)).toThrow(InputError)
    expect(() => sequential([torch.sin], 1, 3)).toThrow(InputError)
    expect(torch.isGradEnabled()).toBe(true)
    expect(torch.memory().scopes).toBe(0)
  })

  it('an input that is written to, a parameter that is, and a graph that is spent', () => {
    const x = leaf([2])
    const hidden = x.mul(2)
    const loss = checkpoint(torch.exp, hidden).sum()
    hidden.add_(1)
    expect(() => loss.backward()).toThrow(/^backward: one of the variables .* modified by an inplace operation/)
    const layer = new Linear(2, 2).to('float64')
    const output = checkpoint(layer, x).sum()
    torch.noGrad(() => { layer.weight.mul_(2) })
    expect(() => output.backward()).toThrow(/^backward: a parameter of a checkpointed region has been modified.*float64 \[2, 2\] cpu/)
    expect([x.grad, layer.weight.grad]).toEqual([null, null])
    const spent = checkpoint(torch.exp, x).sum()
    spent.backward()
    expect(() => spent.backward()).toThrow(/^backward: Trying to backward through the graph a second time.*retainGraph: true/)
    const inner = checkpoint(torch.exp, x).sum()
    expect(() => torch.call('aten::_backward', inner, [], null, false, false)).toThrow(/backward\(\) and grad\(\) only/)
  })

  it('a function that is another one the second time, or fails then, leaves all gradients as they were', () => {
    const [x, y] = [leaf([2]), leaf([2])]
    let calls = 0
    const changing = (z: Tensor) => (calls++ === 0 ? z.exp() : z.exp().sum())
    expect(() => checkpoint(changing, x).add(y.sin()).sum().backward()).toThrow(/^backward: the recomputation .* another shape or dtype/)
    calls = 0
    const failing = (z: Tensor) => {
      if (calls++ > 0) throw new RangeError('the second time')
      return z.exp()
    }
    expect(() => checkpoint(torch.sin, checkpoint(failing, x)).add(y.sin()).sum().backward()).toThrow(RangeError)
    calls = 0
    const manyThenOne = (z: Tensor) => (calls++ === 0 ? [z.exp(), z.sin()] : [z.exp()])
    expect(() => torch.stack([...checkpoint(manyThenOne, x)]).sum().backward()).toThrow(/gave 1 tensors instead of 2/)
    calls = 0
    const wrongOperator = (z: Tensor) => (calls++ === 0 ? z.exp() : z.matmul(torch.ones([7, 7])))
    expect(() => checkpoint(wrongOperator, x).sum().backward()).toThrow(/^aten::matmul: /)
    expect([x.grad, y.grad]).toEqual([null, null])
    expect(torch.isGradEnabled()).toBe(true)
    expect(torch.memory().scopes).toBe(0)
    checkpoint(torch.exp, x).sum().backward()
    expect(x.grad!.toArray()).toEqual(x.exp().toArray())
  })
})

describe('gradients are equal to the bit', () => {
  const transformer = (gradCheckpointing: boolean, step: (model: VisionTransformer, images: Tensor) => Tensor) => {
    torch.manualSeed(5)
    const model = new VisionTransformer({ imageSize: 16, patchSize: 4, embedDim: 24, depth: 4, numHeads: 3, dropPath: 0.5 })
    model.gradCheckpointing = gradCheckpointing
    const images = torch.randn([3, 3, 16, 16])
    return trained(model, () => step(model, images))
  }
  const steps: Record<string, (model: VisionTransformer, images: Tensor) => Tensor> = {
    'of the last block': (model, images) => model.call(images).square().mean(),
    'of several blocks, used past the next ones': (model, images) => model.call(images, [1, 2, 4]).square().mean(),
    'in bfloat16': (model, images) => torch.autocast('cpu', 'bfloat16', () => model.call(images, [3, 4]).square().mean()),
    'of two passes through the model': (model, images) => model.call(images).sub(model.call(images.neg())).square().mean()
  }
  it.each(Object.entries(steps))('for a vision transformer with stochastic depth: %s', (_, step) => {
    expect(transformer(true, step)).toEqual(transformer(false, step))
  })

  it('nearly, where a weight’s cast to bfloat16 is shared with what is not checkpointed; none is lost', () => {
    const run = (region: typeof checkpoint) => {
      torch.manualSeed(4)
      const block = new Linear(8, 8)
      const x = torch.randn([4, 8])
      torch.autocast('cpu', 'bfloat16', () => block.call(region(block, block.call(region(block, x)))).square().sum().backward())
      return block.weight.grad!
    }
    const [plain, ours] = [run(((part: Linear, x: Tensor) => part.call(x)) as never), run(checkpoint)]
    // Without checkpoints the casts of one region are one tensor, whose gradients are summed in bfloat16.
    expect(ours.sub(plain).norm().item() / plain.norm().item()).toBeLessThan(0.01)
  })

  class Mlp extends Module {
    readonly norm = new LayerNorm(8)
    readonly fc1 = new Linear(8, 16)
    readonly act = new GELU()
    readonly drop = new Dropout(0.3)
    readonly fc2 = new Linear(16, 8)
    override forward(x: Tensor): Tensor {
      return x.add(this.fc2.call(this.drop.call(this.act.call(this.fc1.call(this.norm.call(x))))))
    }
  }

  it.each([1, 2, 3, 5])('for a list of blocks with dropout in %i segments', (segments) => {
    const run = (use: (blocks: ModuleList<Mlp>, x: Tensor) => Tensor) => {
      torch.manualSeed(1)
      const blocks = new ModuleList(Array.from({ length: 5 }, () => new Mlp()))
      const x = torch.randn([4, 8])
      return trained(blocks, () => use(blocks, x).square().sum())
    }
    const plain = run((blocks, x) => [...blocks].reduce((value, block) => block.call(value), x))
    expect(run((blocks, x) => checkpointSequential(blocks, segments, x))).toEqual(plain)
    expect(run((blocks, x) => checkpointSequential(new Sequential(...blocks), segments, x))).toEqual(plain)
    const functions = (blocks: ModuleList<Mlp>) => [...blocks].map((block) => (value: Tensor) => block.call(value))
    expect(run((blocks, x) => checkpointSequential(functions(blocks), segments, x))).toEqual(plain)
  })

  it('where segments share a block, gradients accumulate, and regions are within regions', () => {
    const run = (region: typeof checkpoint) => {
      torch.manualSeed(2)
      const [shared, own] = [new Mlp(), new Mlp()]
      const x = torch.randn([4, 8])
      const all = new Sequential(shared, own)
      const outer = (value: Tensor) => region((inner: Tensor) => region(shared, region(own, inner)), region(shared, value)).mul(0.5)
      return trained(all, () => region(shared, region(outer, region(shared, x))).square().sum(), 3)
    }
    const direct = ((part: Module | ((...inputs: Tensor[]) => Tensor), ...inputs: Tensor[]) =>
      part instanceof Module ? (part as Mlp).call(inputs[0]!) : part(...inputs)) as typeof checkpoint
    expect(run(checkpoint)).toEqual(run(direct))
  })

  it('with a generator of the user’s own, and its numbers go on as without', () => {
    const run = (region: (part: (x: Tensor) => Tensor, x: Tensor) => Tensor) => {
      const generator = torch.generator({ seed: 9 })
      const x = torch.ones([50], { requiresGrad: true })
      const noisy = (value: Tensor) => value.mul(torch.rand([50], { generator })).mul(torch.rand([50], { generator }))
      const loss = region(noisy, region(noisy, x)).sum()
      const between = torch.rand([2], { generator }).toArray()
      loss.backward()
      return [bits(x.grad), between, torch.rand([2], { generator }).toArray()]
    }
    expect(run((part, x) => checkpoint(part, x))).toEqual(run((part, x) => part(x)))
  })

  it('in the mode that the module was in, whatever it is in now', () => {
    const block = new Mlp()
    const x = torch.randn([4, 8], { requiresGrad: true })
    block.eval()
    block.call(x).sum().backward()
    const [gradient] = [bits(x.grad)]
    x.grad = null
    const loss = checkpoint(block, x).sum()
    block.train()
    loss.backward()
    expect(bits(x.grad)).toEqual(gradient)
    expect([block.training, block.drop.training]).toEqual([true, true])
  })
})

describe('any graph', () => {
  const f = (x: Tensor) => x.sin().mul(x).exp()
  const g = (x: Tensor, y: Tensor) => [x.mul(y).tanh(), x.sub(y).square()] as const
  const graph = (region: typeof checkpoint) => {
    torch.manualSeed(3)
    const [x, y, unused] = [leaf([4]), leaf([4]), leaf([4])]
    const before = x.mul(y)
    const [a, b] = region(g, before, y)
    const c = region(f, a).add(before).add(region(torch.cos, before))
    void region(f, unused) // an output that nobody uses
    return { x, y, unused, before, a, b, c, loss: c.mul(b).add(region(f, x)).sum() }
  }
  const direct = ((part: (...inputs: Tensor[]) => unknown, ...inputs: Tensor[]) => part(...inputs)) as unknown as typeof checkpoint
  const near = (received: (Tensor | null)[], reference: (Tensor | null)[]) => {
    expect(received.map((tensor) => tensor !== null)).toEqual(reference.map((tensor) => tensor !== null))
    for (const [i, tensor] of received.entries()) {
      if (tensor) expect(tensor.allclose(reference[i]!, { rtol: 1e-12 }), `gradient ${i}`).toBe(true)
    }
  }

  it('backward, once and again', () => {
    const results = [direct, checkpoint].map((region) => {
      const { x, y, unused, loss } = graph(region)
      loss.backward(undefined, { retainGraph: true })
      loss.backward()
      return [bits(x.grad), bits(y.grad), unused.grad]
    })
    expect(results[1]).toEqual(results[0])
  })

  it('gradients of tensors on the way, and of those that nothing depends on', () => {
    const [plain, ours] = [direct, checkpoint].map((region) => {
      const { x, y, unused, before, a, b, c, loss } = graph(region)
      return grad(loss, [x, y, before, a, b, c, loss, unused], { allowUnused: true })
    })
    near(ours!, plain!)
    expect(ours![7]).toBe(null)
    const { loss, unused, x } = graph(checkpoint)
    expect(() => grad(loss, [x, unused])).toThrow(/^grad: .*not have been used in the graph\. Give allowUnused: true/)
    expect(() => grad(loss, [torch.ones([1])])).toThrow(/^grad: .*does not require grad/)
    expect(() => grad([loss, torch.ones([1])], [x])).toThrow(/^grad: element 1 of tensors does not require grad/)
    const { c } = graph(checkpoint)
    expect(() => c.backward()).toThrow(/only for scalar outputs/)
    expect(() => c.backward(torch.ones([5]))).toThrow(/expected a gradient of the shape of output 0/)
  })

  it('second and third derivatives', () => {
    const [plain, ours] = [direct, checkpoint].map((region) => {
      const { x, y, before, loss } = graph(region)
      const first = grad(loss, [x, y, before], { createGraph: true })
      const second = grad(first.map((tensor) => tensor.square().sum()), [x, y], { createGraph: true })
      const penalty = second[0]!.sum().add(region(f, second[1]!).sum())
      return [...first, ...second, ...grad(penalty, [x, y])]
    })
    near(ours!, plain!)
  })

  it('retainGrad, several outputs at once, and writing to an output', () => {
    const [plain, ours] = [direct, checkpoint].map((region) => {
      const { x, y, before, a, b, c, loss } = graph(region)
      for (const tensor of [before, a, c]) tensor.retainGrad()
      const d = region(torch.sin, x)
      d.mul_(2)
      torch.backward([loss, b, d], [null, torch.ones([4], { dtype: 'float64' }), torch.ones([4], { dtype: 'float64' })])
      return [x.grad, y.grad, before.grad, a.grad, c.grad]
    })
    near(ours!, plain!)
  })

  it('what gives back an input, an integer tensor, a view, or needs no gradient', () => {
    const x = leaf([4])
    const same = checkpoint((z: Tensor) => z, x)
    expect(same.requiresGrad).toBe(true)
    const three = (z: Tensor): [Tensor, Tensor, Tensor] => [z.argsort(), z.sort()[0], z.slice({ dim: 0, start: 1 })]
    const [indices, sorted, view] = checkpoint(three, same)
    expect([indices.dtype, indices.requiresGrad, sorted.requiresGrad]).toEqual(['int64', false, true])
    sorted.mul(torch.arange(4)).sum().add(view.sum()).backward()
    const expected = leaf([4])
    torch.noGrad(() => { expected.copy_(x) })
    expected.sort()[0].mul(torch.arange(4)).sum().add(expected.slice({ dim: 0, start: 1 }).sum()).backward()
    expect(x.grad!.toArray()).toEqual(expected.grad!.toArray())
    const frozen = new Linear(4, 4).to('float64').requiresGrad_(false)
    expect(checkpoint(frozen, torch.ones([1, 4], { dtype: 'float64' })).requiresGrad).toBe(false)
    expect(torch.noGrad(() => checkpoint(f, x)).requiresGrad).toBe(false)
    const constant = checkpoint(() => torch.ones([2]))
    expect(constant.sum().add(x.sum()).backward()).toBe(undefined)
    const empty = torch.zeros([0, 3], { requiresGrad: true })
    checkpoint(torch.exp, empty).sum().backward()
    expect(empty.grad!.shape).toEqual([0, 3])
  })

  it('a tensor from outside that requires grad, where its graph is still whole', () => {
    const [x, w] = [leaf([4]), leaf([4])]
    checkpoint((z: Tensor) => z.mul(w).exp(), x).sum().backward()
    const [dx, dw] = [x.grad!.toArray(), w.grad!.toArray()]
    x.grad = w.grad = null
    x.mul(w).exp().sum().backward()
    expect([dx, dw]).toEqual([x.grad!.toArray(), w.grad!.toArray()])
  })
})

describe('memory', () => {
  it('does not grow from step to step, also where steps fail or are given up', () => {
    const model = new VisionTransformer({ imageSize: 16, patchSize: 4, embedDim: 24, depth: 3, numHeads: 3, dropPath: 0.2 })
    model.gradCheckpointing = true
    const images = torch.randn([2, 3, 16, 16])
    let calls = 0
    const failing = (x: Tensor) => {
      if (++calls % 2 === 0) throw new Error('half-way')
      return x.exp()
    }
    const step = () => {
      scope(() => model.call(images).square().mean().backward())
      scope(() => { model.call(images).sum() }) // never differentiated
      scope(() => { expect(() => model.call(checkpoint(failing, images)).sum().backward()).toThrow('half-way') })
      model.zeroGrad()
    }
    step()
    const before = torch.memory()
    for (let i = 0; i < 5; i++) step()
    expect(torch.memory()).toEqual(before)
  })

  it('holds less between forward and backward, and frees the function with its graph', () => {
    // Bytes that libtorch holds, counted by the process itself: what only the graph holds has no handle.
    const outcome = runChild(`
      import { Linear, Sequential, GELU, checkpointSequential } from ${JSON.stringify(nnModule)}
      torch.setNumThreads(1)
      const blocks = Array.from({ length: 8 }, () => new Sequential(new Linear(64, 512), new GELU(), new Linear(512, 64)))
      const x = torch.randn([4096, 64])
      const resident = () => process.memoryUsage.rss() / 2 ** 20
      const measure = (segments) => {
        let peak = 0
        const before = resident()
        torch.scope(() => {
          const watched = blocks.map((block) => (value) => { const out = block.call(value); peak = Math.max(peak, resident()); return out })
          checkpointSequential(watched, segments, x).sum().backward()
        })
        return peak - before
      }
      const checkpointed = measure(8)
      const plain = measure(1)
      let freed = 0
      const registry = new FinalizationRegistry(() => freed++)
      for (let i = 0; i < 50; i++) torch.scope(() => {
        const part = (value) => value.exp()
        registry.register(part, i)
        checkpointSequential([part, part], 2, torch.ones([2], { requiresGrad: true })).sum().backward()
      })
      for (let i = 0; i < 20; i++) { globalThis.gc(); await tick(5) }
      print([checkpointed < plain / 2, freed >= 48])
    `, { flags: ['--expose-gc'], env: { OMP_NUM_THREADS: '1', MALLOC_TRIM_THRESHOLD_: '0', MALLOC_MMAP_THRESHOLD_: '65536' } })
    expect(outcome).toEqual(clean([true, true]))
  })

  it('is given back when a worker ends in the middle', () => {
    const outcome = runChild(`
      import { Worker } from 'node:worker_threads'
      const code = \`
        void Promise.all([import(\${JSON.stringify(${JSON.stringify(torchModule)})}),
          import(\${JSON.stringify(${JSON.stringify(nnModule)})})]).then(([torch, { checkpoint }]) => {
          const x = torch.ones([4], { requiresGrad: true })
          let calls = 0
          torch.detectAnomaly(() => {
            const y = checkpoint((z) => { if (calls++) process.exit(0); return z.exp() }, x)
            y.sum().backward()
          })
        })\`
      for (let i = 0; i < 3; i++) await new Promise((resolve) => new Worker(code, { eval: true }).once('exit', resolve))
      const x = torch.tensor([0, 0], { requiresGrad: true })
      x.mul(0).div(x).sum().backward()
      print(Number.isNaN(x.grad.toArray()[0])) // no thread is in anomaly mode any more
    `)
    expect(outcome).toEqual(clean(true))
  })
})
