import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { Generator, InputError, TorchError, generator } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'
import { clean, runChild } from '../native/support.js'

describe('misuse', () => {
  it.each([-1, 1.5, NaN, 2 ** 53, '1', null, {}, -1n, 2n ** 64n, Symbol('x')].map((seed) => [seed]))('seed %o', (seed) => {
    expect(() => generator({ seed: seed as number })).toThrow(InputError)
    expect(() => generator().manualSeed(seed as number)).toThrow(InputError)
  })

  it('devices', () => {
    expect(() => generator({ device: 'gpu' as 'cpu' })).toThrow(InputError)
    expect(() => generator(3 as never)).toThrow(InputError)
    expect(() => generator(null as never)).toThrow(InputError)
    expect(() => generator({ device: 'meta' })).toThrow(/there are generators for 'cpu' and 'cuda' only, received 'meta'/)
    expect(() => generator({ device: 'cuda:77' })).toThrow(/no CUDA device 77: /)
    if (torch.cuda.deviceCount() === 0) expect(() => generator({ device: 'cuda' })).toThrow(/no CUDA device 0: /)
  })

  it('states', () => {
    const own = generator({ seed: 1 })
    const state = own.getState()
    for (const value of [null, 'x', [...state], new Float32Array(4)]) expect(() => own.setState(value as unknown as Uint8Array)).toThrow(InputError)
    for (const value of [new Uint8Array(0), new Uint8Array(3), new Uint8Array(state.length).fill(255)]) {
      expect(() => own.setState(value)).toThrow(TorchError)
    }
    expect(own.getState()).toEqual(state)
  })

  it('what is no generator, or no longer one', () => {
    const own = generator()
    own.dispose()
    own.dispose()
    expect(own.isLive).toBe(false)
    const uses = [
      () => own.seed(), () => own.manualSeed(1), () => own.initialSeed(), () => own.getState(), () => own.setState(new Uint8Array(5056)),
      () => torch.rand([2], { generator: own })
    ]
    for (const use of uses) expect(use).toThrow(/the generator was disposed of, its scope has ended, or it belongs to another thread/)
    const fresh = generator()
    expect(() => torch.rand([2], { generator: own })).toThrow(TorchError) // the slot was taken again
    for (const value of [3, 1e15, torch.ones([1]), { handle: 3 }, 'x', { handle: fresh.handle + 2 ** 22 }]) {
      expect(() => torch.rand([2], { generator: value as Generator })).toThrow(TorchError)
    }
  })

  it('from another thread', async () => {
    const own = generator()
    const worker = new Worker(`
      const { parentPort, workerData } = require('node:worker_threads')
      import(workerData.torch).then((torch) => {
        try { torch.call('aten::rand.generator', [2], workerData.handle) } catch (error) { parentPort.postMessage(error.message) }
      })`, { eval: true, workerData: { handle: own.handle, torch: new URL('../../dist/torch/index.js', import.meta.url).href } })
    const message = await new Promise<string>((resolve, reject) => worker.once('message', resolve).once('error', reject))
    expect(message).toContain('belongs to another thread')
    await worker.terminate()
  })
})

describe('PyTorch’s numbers', () => {
  const seeds = [0, 7, 2 ** 40 + 1, 2n ** 63n + 5n, 2n ** 64n - 1n]
  const script = `
import json, sys, torch
def draw(g):
    c = torch.full((8,), 0.3)
    return [torch.rand(5, generator=g), torch.randn(20, generator=g), torch.randn(3, dtype=torch.float64, generator=g),
            torch.randint(1000, (6,), generator=g), torch.randint(-5, 5, (6,), generator=g), torch.randperm(9, generator=g),
            torch.bernoulli(c, generator=g), torch.empty(4).bernoulli_(0.5, generator=g), torch.empty(5).uniform_(-2, 2, generator=g),
            torch.empty(17).normal_(1, 3, generator=g), torch.normal(c, 2.0, generator=g), torch.multinomial(torch.ones(6), 4, generator=g),
            torch.empty(3).exponential_(2.0, generator=g), torch.empty(3).cauchy_(generator=g), torch.empty(3).geometric_(0.4, generator=g),
            torch.empty(3).log_normal_(generator=g), torch.empty(3, dtype=torch.int64).random_(10, generator=g), torch.poisson(c * 9, generator=g)]
out = [[x.tolist() for x in draw(torch.Generator().manual_seed(int(seed)))] for seed in json.loads(sys.argv[1])]
g = torch.Generator()
fresh = [g.initial_seed(), torch.rand(3, generator=g).tolist()]
g.manual_seed(11)
torch.randn(3, generator=g)
print(json.dumps([out, fresh, g.get_state().tolist(), torch.rand(4, generator=g).tolist()]))`

  it('for every operator that takes one, for a fresh one, and from a state', async () => {
    const [reference, fresh, state, next] = JSON.parse(await runPython('-c', script, JSON.stringify(seeds.map(String)))) as
      [unknown[][], [number, number[]], number[], number[]]
    const ours = seeds.map((seed) => {
      const [own, c] = [generator({ seed }), torch.full([8], 0.3)]
      const values = [
        torch.rand([5], { generator: own }), torch.randn([20], { generator: own }), torch.randn([3], { generator: own, dtype: 'float64' }),
        torch.randint(1000, [6], { generator: own }), torch.call('aten::randint.low_generator', -5, 5, [6], own),
        torch.randperm(9, { generator: own }), torch.bernoulli(c, { generator: own }),
        torch.empty([4]).bernoulli_({ p: 0.5, generator: own }), torch.empty([5]).uniform_({ from: -2, to: 2, generator: own }),
        torch.empty([17]).normal_({ mean: 1, std: 3, generator: own }), torch.call('aten::normal.Tensor_float', c, 2, own),
        torch.multinomial(torch.ones([6]), 4, { generator: own }), torch.empty([3]).exponential_({ lambd: 2, generator: own }),
        torch.empty([3]).cauchy_({ generator: own }), torch.empty([3]).geometric_(0.4, { generator: own }),
        torch.empty([3]).logNormal_({ generator: own }), torch.call('aten::random_.to', torch.empty([3], { dtype: 'int64' }), 10, own),
        torch.poisson(c.mul(9), { generator: own })
      ]
      return values.map((value) => value.toArray())
    })
    expect(ours).toEqual(reference)
    const own = generator()
    expect([own.initialSeed(), torch.rand([3], { generator: own }).toArray()]).toEqual(fresh)
    own.manualSeed(11)
    torch.randn([3], { generator: own })
    expect([...own.getState()]).toEqual(state)
    expect(torch.rand([4], { generator: generator().setState(Uint8Array.from(state)) }).toArray()).toEqual(next)
  })
})

it('has a state of its own', () => {
  torch.manualSeed(1)
  const expected = torch.rand([3]).toArray()
  torch.manualSeed(1)
  const [a, b] = [generator({ seed: 4 }), generator({ seed: 4 })]
  const drawn = torch.rand([3], { generator: a }).toArray()
  expect(torch.rand([3]).toArray()).toEqual(expected)
  expect(torch.rand([3], { generator: b }).toArray()).toEqual(drawn)
  expect(torch.rand([3], { generator: b }).toArray()).not.toEqual(drawn)
  expect([a.device, a.isLive, a instanceof Generator, a.manualSeed(2n ** 60n) === a, a.initialSeed()]).toEqual(['cpu', true, true, true, 2n ** 60n])
  const seed = a.seed()
  expect(a.initialSeed()).toBe(seed)
  expect(a.seed()).not.toBe(seed)
  // Scopes free tensors, not generators.
  const kept = torch.scope(() => ({ own: generator({ seed: 1 }) })).own
  expect(torch.rand([1], { generator: kept }).shape).toEqual([1])
})

it('is freed when it is collected, or at the end of `using`', () => {
  const outcome = runChild(`
    const count = 2000
    const before = process.memoryUsage.rss()
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < count; i++) torch.generator({ seed: i })
      globalThis.gc()
      await tick(1)
    }
    // 40,000 Mersenne twisters are 200 MB.
    print(process.memoryUsage.rss() - before < 60e6)
    const own = torch.generator()
    own[Symbol.dispose]()
    print(own.isLive)
  `, { flags: ['--expose-gc'] })
  expect(outcome).toEqual(clean(true, false))
})
