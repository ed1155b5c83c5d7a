import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, getRngState, manualSeed, setRngState } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'

describe('misuse', () => {
  it.each([-1, 1.5, NaN, 2 ** 53, '1', null, undefined, {}, -1n, 2n ** 64n, Symbol('x')].map((seed) => [seed]))('seed %o', (seed) => {
    expect(() => manualSeed(seed as number)).toThrow(InputError)
  })

  it('states that are none leave the generator as it was', () => {
    manualSeed(3)
    const state = getRngState()
    const wrong = [new Uint8Array(3), new Uint8Array(state.length).fill(255), null, 'x', [...state], new Float32Array(4)]
    for (const value of wrong) {
      expect(() => setRngState(value as Uint8Array)).toThrow(value instanceof Uint8Array ? TorchError : InputError)
    }
    expect(getRngState()).toEqual(state)
    expect(() => getRngState('gpu' as 'cpu')).toThrow(InputError)
    expect(() => getRngState('meta')).toThrow(TorchError)
    if (torch.cuda.deviceCount() === 0) expect(() => getRngState('cuda')).toThrow(TorchError)
  })
})

it('a state brings the numbers back', () => {
  manualSeed(42)
  torch.randn([7])
  const state = getRngState()
  const [normal, permutation] = [torch.randn([20]).toArray(), torch.randperm(20).toArray()]
  expect(torch.randn([20]).toArray()).not.toEqual(normal)
  setRngState(state)
  expect([torch.randn([20]).toArray(), torch.randperm(20).toArray()]).toEqual([normal, permutation])
  // A part of a larger buffer, as a file gives it.
  const padded = new Uint8Array(state.length + 16)
  padded.set(state, 8)
  setRngState(padded.subarray(8, 8 + state.length))
  expect(torch.randn([20]).toArray()).toEqual(normal)
})

describe('PyTorch’s numbers for the same seed', () => {
  const seeds = [0, 7, 2 ** 40 + 1, 2n ** 63n + 5n, 2n ** 64n - 1n]
  const script = `
import json, sys, torch
for seed in json.loads(sys.argv[1]):
    torch.manual_seed(int(seed))
    values = [torch.rand(5), torch.randn(3), torch.randn(20), torch.randn(4, dtype=torch.float64),
              torch.randint(0, 1000, (6,)), torch.randperm(9), torch.bernoulli(torch.full((8,), 0.3)),
              torch.nn.functional.dropout(torch.ones(9), 0.5), torch.empty(5).uniform_(-2, 2), torch.multinomial(torch.ones(6), 4)]
    print(json.dumps([value.tolist() for value in values]))`

  it('from every kind of draw', async () => {
    const out = await runPython('-c', script, JSON.stringify(seeds.map(String)))
    const reference = out.trim().split('\n').map((line) => JSON.parse(line) as unknown[])
    const ours = seeds.map((seed) => {
      manualSeed(seed)
      const values = [
        torch.rand([5]), torch.randn([3]), torch.randn([20]), torch.randn([4], { dtype: 'float64' }), torch.randint(1000, [6]),
        torch.randperm(9), torch.bernoulli(torch.full([8], 0.3)), torch.dropout(torch.ones([9]), 0.5, true),
        torch.empty([5]).uniform_({ from: -2, to: 2 }),
        torch.multinomial(torch.ones([6]), 4)
      ]
      return values.map((value) => value.toArray())
    })
    expect(ours).toEqual(reference)
  })

  it('and its state, to go on from', async () => {
    const out = await runPython('-c', `
import json, torch
torch.manual_seed(11)
torch.randn(3)
print(json.dumps([torch.get_rng_state().tolist(), torch.randn(5).tolist()]))`)
    const [state, next] = JSON.parse(out) as [number[], number[]]
    manualSeed(11)
    torch.randn([3])
    expect([...getRngState()]).toEqual(state)
    setRngState(Uint8Array.from(state))
    expect(torch.randn([5]).toArray()).toEqual(next)
  })
})
