import { describe, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import { AdamW, clipGradNorm, cosineSchedule, GradScaler, type AdamWStateDict } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, memory, type Tensor } from '../../src/torch/index.js'

function parameter(values: number[], gradient?: number[]): Parameter {
  const made = new Parameter(torch.tensor(values))
  if (gradient) made.grad = torch.tensor(gradient)
  return made
}

const numbers = (tensor: Tensor | null) => tensor!.toArray() as number[]

describe('AdamW refuses', () => {
  const p = parameter([1])
  const misuse: Record<string, readonly [() => unknown, RegExp]> = {
    'no parameters': [() => new AdamW(undefined as never), /Parameters or groups of them for parameters, received undefined/],
    'a single parameter': [() => new AdamW(p as never), /Parameters or groups of them for parameters, received Parameter/],
    'tensors that are no parameters': [
      () => new AdamW([torch.ones([2])] as never),
      /a Parameter or { parameters } for parameters\[0\], received Tensor/
    ],
    'a tensor among parameters': [
      () => new AdamW([p, torch.ones([2])] as never),
      /a Parameter for an element of parameters, received Tensor/
    ],
    'a parameter among groups': [() => new AdamW([{ parameters: [p] }, p] as never), /for parameters\[1\], received Parameter/],
    'a group without parameters': [() => new AdamW([{ lr: 1 }] as never), /for parameters\[0\], received { lr: 1 }/],
    'a parameter twice': [() => new AdamW([{ parameters: [p] }, { parameters: [p] }]), /each parameter once/],
    'a negative lr': [() => new AdamW([p], { lr: -1 }), /at least 0 for lr, received -1/],
    'an lr that is no number': [() => new AdamW([p], { lr: '0.1' as never }), /lr, received '0.1'/],
    'an lr of NaN': [() => new AdamW([p], { lr: NaN }), /lr, received NaN/],
    'an infinite weight decay': [() => new AdamW([p], { weightDecay: Infinity }), /weightDecay, received Infinity/],
    'a negative eps': [() => new AdamW([p], { eps: -1e-8 }), /eps, received/],
    'a beta of 1': [() => new AdamW([p], { betas: [0.9, 1] }), /from 0 to below 1 for betas, received \[ 0.9, 1 \]/],
    'one beta': [() => new AdamW([p], { betas: 0.9 as never }), /two numbers for betas, received 0.9/],
    'an lr that became illegal': [
      () => {
        const optimizer = new AdamW([parameter([1], [1])])
        optimizer.groups[0]!.lr = NaN
        optimizer.step()
      },
      /lr, received NaN/
    ]
  }
  it.each(Object.entries(misuse))('%s', (_, [call, message]) => {
    expect(call).toThrow(InputError)
    expect(call).toThrow(message)
  })
})

describe('AdamW', () => {
  it('takes the steps of the formula', () => {
    const [lr, decay, eps, b1, b2] = [0.1, 0.2, 1e-8, 0.9, 0.999]
    let [w, m, v] = [2, 0, 0]
    const p = parameter([w])
    const optimizer = new AdamW([p], { lr, weightDecay: decay })
    for (const [i, g] of [0.5, -3, 0.01].entries()) {
      p.grad = torch.tensor([g])
      optimizer.step()
      w -= lr * decay * w
      m = b1 * m + (1 - b1) * g
      v = b2 * v + (1 - b2) * g * g
      w -= (lr * (m / (1 - b1 ** (i + 1)))) / (Math.sqrt(v / (1 - b2 ** (i + 1))) + eps)
      expect(p.item()).toBeCloseTo(w, 5)
    }
  })

  it('leaves parameters without a gradient alone, and forgets gradients', () => {
    const [a, b] = [parameter([1], [1]), parameter([1])]
    const optimizer = new AdamW([a, b])
    optimizer.step()
    expect(a.item()).toBeLessThan(1)
    expect(b.item()).toBe(1)
    expect([...optimizer.stateDict().state.keys()]).toEqual([0])
    optimizer.zeroGrad()
    expect(a.grad).toBeNull()
    optimizer.step()
    expect(new AdamW([]).step()).toBeUndefined()
  })

  it('gives each group its options', () => {
    const [a, b] = [parameter([1], [0]), parameter([1], [0])]
    new AdamW([{ parameters: [a] }, { parameters: new Set([b]) as never, weightDecay: 0 }], { lr: 0.1, weightDecay: 0.5 }).step()
    expect(a.item()).toBeCloseTo(0.95, 6)
    expect(b.item()).toBe(1)
  })

  it('takes float64 parameters, empty ones, and ones of one dimension of memory', () => {
    const p = new Parameter(torch.ones([4, 3], { dtype: 'float64' }).t())
    const empty = new Parameter(torch.empty([0, 3]))
    p.grad = torch.ones([3, 4], { dtype: 'float64' })
    empty.grad = torch.empty([0, 3])
    new AdamW([p, empty], { lr: 0.1, weightDecay: 0 }).step()
    expect(p.sub(0.9).abs().max().item()).toBeLessThan(1e-7)
  })

  it('changes nothing, not even its step count, where foundInf is 1', () => {
    const p = parameter([1, 2], [Infinity, 1])
    const optimizer = new AdamW([p])
    optimizer.step({ foundInf: torch.tensor(1) })
    expect(numbers(p)).toEqual([1, 2])
    const { step, exp_avg } = optimizer.stateDict().state.get(0)!
    expect([step.item(), numbers(exp_avg)]).toEqual([0, [0, 0]])
    p.grad = torch.tensor([1, 1])
    optimizer.step({ foundInf: torch.tensor(0) })
    expect(step.item()).toBe(1)
  })

  it('leaves nothing behind in a step, and frees its state', () => {
    const all = [parameter([1, 2], [1, 1]), parameter([3], [1])]
    const optimizer = new AdamW(all)
    const before = memory().tensors
    optimizer.step()
    const first = memory().tensors
    expect(first).toBe(before + 6)
    for (let i = 0; i < 20; i++) optimizer.step()
    expect(memory().tensors).toBeLessThanOrEqual(first)
    optimizer.dispose()
    expect(memory().tensors).toBeLessThanOrEqual(before)
  })
})

describe('the state of AdamW', () => {
  const make = () => {
    const all = [parameter([1, 2]), parameter([3]), parameter([4, 5, 6])]
    return { all, optimizer: new AdamW([{ parameters: all.slice(0, 2), lr: 0.2 }, { parameters: all.slice(2) }], { weightDecay: 0.3 }) }
  }
  const train = ({ all, optimizer }: ReturnType<typeof make>, seed: number) => {
    torch.manualSeed(seed)
    for (const p of all) p.grad = torch.randnLike(p)
    optimizer.step()
    return all.map(numbers)
  }
  const plain = (state: AdamWStateDict) =>
    Array.from(state.state, ([number, { step, exp_avg, exp_avg_sq }]) => [
      number,
      step.item(),
      numbers(exp_avg),
      numbers(exp_avg_sq)
    ])

  it('refuses other groups, shapes and options, and then stays as it was', () => {
    const { all, optimizer } = make()
    train({ all, optimizer }, 1)
    const [before, options] = [plain(optimizer.stateDict()), optimizer.stateDict().param_groups]
    const { state, param_groups } = optimizer.stateDict()
    const refuse = (wrong: AdamWStateDict, message: RegExp) => {
      expect(() => optimizer.loadStateDict(wrong)).toThrow(InputError)
      expect(() => optimizer.loadStateDict(wrong)).toThrow(message)
      expect(plain(optimizer.stateDict())).toEqual(before)
      expect(optimizer.stateDict().param_groups).toEqual(options)
    }
    const zeros = (size: number) => torch.zeros([size])
    const group = (i: number) => param_groups[i]!
    refuse({ state, param_groups: [group(0)] }, /groups of 2, 1 parameters for the optimizer state, received 'groups of 2'/)
    refuse({ state, param_groups: [group(1), group(0)] }, /received 'groups of 1, 2'/)
    refuse({ state, param_groups: [group(0), { ...group(1), lr: -1 }] }, /lr, received -1/)
    refuse({ state: new Map([...state, [9, state.get(0)!]]), param_groups }, /a parameter of the groups for the optimizer state, received 9/)
    // The first of them is right, so a check on the way would leave half of it loaded.
    const first = { ...state.get(0)!, exp_avg: zeros(2) }
    refuse(
      { state: new Map([[0, first], [2, { ...state.get(2)!, exp_avg: zeros(1) }]]), param_groups },
      /shape \[3\] for exp_avg of parameter 2, received 'shape \[1\]'/
    )
    refuse({ state: new Map([[0, first], [2, { ...state.get(2)!, exp_avg_sq: zeros(1) }]]), param_groups }, /exp_avg_sq of parameter 2/)
    refuse({ state: new Map([[0, first], [2, { ...state.get(2)!, step: zeros(3) }]]), param_groups }, /one number for step of parameter 2/)
    const amsgrad = [group(0), { ...group(1), amsgrad: true }]
    refuse({ state, param_groups: amsgrad }, /amsgrad: false for the optimizer state, received true/)
    refuse({ state: Object.fromEntries(state) as never, param_groups }, /a Map by number for the state of the optimizer/)
    refuse(null as never, /\{ state, param_groups \} for the optimizer state, received null/)
  })

  it('goes on after a load as if there had been none', () => {
    const [one, other] = [make(), make()]
    train(one, 1)
    one.optimizer.groups[0]!.lr = 0.05
    other.optimizer.loadStateDict(one.optimizer.stateDict())
    torch.noGrad(() => one.all.forEach((p, i) => other.all[i]!.copy_(p)))
    expect(other.optimizer.groups.map(({ lr, weightDecay }) => [lr, weightDecay])).toEqual([
      [0.05, 0.3],
      [1e-3, 0.3]
    ])
    expect(plain(other.optimizer.stateDict())).toEqual(plain(one.optimizer.stateDict()))
    expect(train(other, 2)).toEqual(train(one, 2))
  })

  it('is a copy', () => {
    const [one, other] = [make(), make()]
    train(one, 1)
    other.optimizer.loadStateDict(one.optimizer.stateDict())
    const before = plain(other.optimizer.stateDict())
    train(one, 2)
    expect(plain(other.optimizer.stateDict())).toEqual(before)
  })

  it('is dropped where the loaded one has none', () => {
    const [stepped, fresh] = [make(), make()]
    train(stepped, 1)
    stepped.optimizer.loadStateDict(fresh.optimizer.stateDict())
    expect(stepped.optimizer.stateDict().state.size).toBe(0)
    torch.noGrad(() => fresh.all.forEach((p, i) => stepped.all[i]!.copy_(p)))
    expect(train(stepped, 3)).toEqual(train(fresh, 3))
  })

  it('follows the numbers of its groups, as PyTorch does', () => {
    const [one, other] = [make(), make()]
    train(one, 1)
    const { state, param_groups } = one.optimizer.stateDict()
    const shifted = new Map(Array.from(state, ([number, entry]) => [number + 10, entry] as const))
    other.optimizer.loadStateDict({
      state: shifted,
      param_groups: param_groups.map((group) => ({ ...group, params: group.params.map((i) => i + 10) }))
    })
    expect(plain(other.optimizer.stateDict())).toEqual(plain(one.optimizer.stateDict()))
  })
})

describe('clipGradNorm', () => {
  it.each([0, -1, NaN, '3'])('refuses a norm of %s', (norm) => {
    const p = parameter([1], [5])
    expect(() => clipGradNorm([p], norm as number)).toThrow(/above 0 for maxNorm/)
    expect(() => clipGradNorm(p as never, 1)).toThrow(/an array of Parameters for parameters, received Parameter/)
    expect(() => new GradScaler('cpu').unscale(p as never)).toThrow(/an array of Parameters/)
    expect(() => new AdamW([{ parameters: p }] as never)).toThrow(/a Parameter or { parameters }/)
    expect(numbers(p.grad)).toEqual([5])
  })

  const make = () => [parameter([0, 0], [3, 4]), parameter([0], [12]), parameter([7])]

  it('scales all by their joint norm, and gives it as it was', () => {
    const all = make()
    expect(clipGradNorm(all, 6.5).item()).toBeCloseTo(13, 5)
    expect(numbers(all[0]!.grad).map((x) => +x.toFixed(5))).toEqual([1.5, 2])
    expect(numbers(all[1]!.grad)[0]).toBeCloseTo(6, 5)
    expect(all[2]!.grad).toBeNull()
    expect(clipGradNorm(all, Infinity).item()).toBeCloseTo(6.5, 5)
  })

  it('scales each by its own norm', () => {
    const all = make()
    expect(clipGradNorm(all, 10, { perTensor: true }).item()).toBeCloseTo(13, 5)
    expect(numbers(all[0]!.grad)).toEqual([3, 4])
    expect(numbers(all[1]!.grad)[0]).toBeCloseTo(10, 5)
  })

  it('leaves small gradients as they are, bit for bit', () => {
    const all = make()
    clipGradNorm(all, 100)
    clipGradNorm(all, 100, { perTensor: true })
    expect(numbers(all[0]!.grad)).toEqual([3, 4])
  })

  it('of nothing is 0', () => {
    expect(clipGradNorm([], 1).item()).toBe(0)
    expect(clipGradNorm([parameter([1])], 1).item()).toBe(0)
  })

  it('does not hide what is not finite', () => {
    const all = [parameter([0], [Infinity]), parameter([0], [1])]
    expect(clipGradNorm(all, 1).item()).toBe(Infinity)
    expect(numbers(all[0]!.grad)[0]).toBeNaN()
    const other = [parameter([0], [NaN])]
    expect(clipGradNorm(other, 1).item()).toBeNaN()
  })

  it('leaves nothing behind', () => {
    const all = make()
    torch.scope(() => {
      const before = memory().tensors
      clipGradNorm(all, 1)
      clipGradNorm(all, 1, { perTensor: true })
      expect(memory().tensors).toBeLessThanOrEqual(before + 2)
    })
  })
})

describe('cosineSchedule', () => {
  it.each([
    [{ steps: 0 }, /at least 1 for steps, received 0/],
    [{ steps: 1.5 }, /steps, received 1.5/],
    [{ steps: 10, warmupSteps: -1 }, /at least 0 for warmupSteps, received -1/],
    [{ steps: 10, warmupSteps: 0.5 }, /warmupSteps, received 0.5/]
  ])('refuses %o', (options, message) => {
    expect(() => cosineSchedule({ base: 1, final: 0, ...options })).toThrow(message)
  })

  const values = (schedule: (step: number) => number, count: number) => Array.from({ length: count }, (_, i) => schedule(i))

  it('warms up linearly and reaches the base at the end of it', () => {
    const schedule = cosineSchedule({ base: 1, final: 0.2, steps: 9, warmupSteps: 5 })
    expect(values(schedule, 5)).toEqual([0, 0.25, 0.5, 0.75, 1])
    expect(values(cosineSchedule({ base: 1, final: 0, steps: 9, warmupSteps: 3, start: 0.5 }), 3)).toEqual([0.5, 0.75, 1])
    expect(cosineSchedule({ base: 1, final: 0, steps: 9, warmupSteps: 1 })(0)).toBe(1)
  })

  it('then follows half a cosine to the final value', () => {
    const schedule = cosineSchedule({ base: 1, final: 0.2, steps: 9, warmupSteps: 5 })
    expect(schedule(5)).toBe(1)
    expect(schedule(6)).toBeCloseTo(0.2 + 0.4 * (1 + Math.SQRT1_2), 12)
    expect(schedule(7)).toBeCloseTo(0.6, 12)
    expect(schedule(8)).toBeCloseTo(0.2 + 0.4 * (1 - Math.SQRT1_2), 12)
    expect(schedule(9)).toBeCloseTo(0.2, 12)
    expect(schedule(100)).toBeCloseTo(0.2, 12)
  })

  it('rises where the final value is the larger, as the weight decay does', () => {
    const decay = values(cosineSchedule({ base: 0.04, final: 0.4, steps: 100 }), 101)
    expect(decay[0]).toBeCloseTo(0.04, 12)
    expect(decay[50]).toBeCloseTo(0.22, 12)
    expect(decay[100]).toBeCloseTo(0.4, 12)
    expect(decay).toEqual([...decay].sort((a, b) => a - b))
  })

  it('of nothing but warm-up ends there', () => {
    expect(cosineSchedule({ base: 1, final: 0, steps: 2, warmupSteps: 4 })(2)).toBeCloseTo(2 / 3, 12)
  })
})

describe('GradScaler', () => {
  it('continues from its state', () => {
    const [one, other] = [new GradScaler('cpu', 256), new GradScaler('cpu')]
    const p = parameter([1], [NaN])
    one.unscale([p])
    one.update()
    expect(one.stateDict()).toEqual({ scale: 128, growth_factor: 2, backoff_factor: 0.5, growth_interval: 2000, _growth_tracker: 0 })
    one.unscale([parameter([1], [1])])
    one.update()
    other.loadStateDict(one.stateDict())
    expect(other.stateDict()).toEqual({ ...one.stateDict(), _growth_tracker: 1 })
  })

  it('takes no gradients at all as finite', () => {
    const scaler = new GradScaler('cpu', 2)
    scaler.unscale([parameter([1])])
    expect(scaler.foundInf.item()).toBe(0)
  })
})
