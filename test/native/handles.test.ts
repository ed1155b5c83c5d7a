import { afterEach, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, keep, memory, scope, tensor, type Tensor } from '../../src/torch/index.js'
import { clean, runChild } from './support.js'

const live = () => memory().tensors

afterEach(() => expect(memory().scopes).toBe(0))

describe('misuse of scope', () => {
  it('refuses an async callback, and its rejection is nobody else’s', async () => {
    const before = live()
    const later = scope as unknown as (callback: () => Promise<unknown>) => void
    expect(() => later(async () => Promise.reject(new Error('lost')))).toThrow(InputError)
    expect(() => later(async () => { tensor([1]); await Promise.resolve() })).toThrow(/synchronous function.*scope\(\)/)
    await Promise.resolve()
    expect(live()).toBe(before)
  })

  it('frees what a throwing callback made, at every depth', () => {
    const before = live()
    const nested = (depth: number): Tensor =>
      scope(() => {
        tensor([depth])
        if (depth === 0) throw new Error('deep')
        return nested(depth - 1)
      })
    expect(() => nested(5)).toThrow('deep')
    expect(memory()).toMatchObject({ tensors: before, scopes: 0 })
    scope(() => {
      const kept = tensor([1])
      expect(() => nested(3)).toThrow('deep')
      expect(kept.isLive).toBe(true)
      expect(memory().scopes).toBe(1)
    })
  })

  it('refuses to close a scope twice, or one that never was', async () => {
    const { addon } = await import('../../src/native/addon.js')
    const depth = addon.scopeBegin()
    expect(addon.scopeEnd(depth, [])).toBe(0)
    for (const wrong of [depth, 0, -1, NaN, 1e9]) expect(() => addon.scopeEnd(wrong, [])).toThrow('the scope has already ended')
    // A scope that is left open inside another closes with it.
    const outer = addon.scopeBegin()
    addon.scopeBegin()
    expect(addon.scopeEnd(outer, [])).toBe(0)
  })

  it('passes on a disposed tensor as it is', () => {
    const before = live()
    const dead = scope(() => {
      const made = tensor([1])
      made.dispose()
      return [made]
    })
    expect(dead[0]!.isLive).toBe(false)
    expect(live()).toBe(before)
  })
})

describe('scope', () => {
  it('keeps what it returns: alone, in arrays, objects, maps and sets', () => {
    const before = live()
    const result = scope(() => {
      const made = Array.from({ length: 6 }, (_, i) => tensor([i]))
      tensor([9])
      const bare = Object.assign(Object.create(null) as Record<string, Tensor>, { tensor: made[5] })
      const [map, set] = [new Map([['a', made[2]]]), new Set([made[3]])]
      return { list: [made[0], [made[1], 'x', null]], map, set, deep: { deeper: { tensor: made[4] } }, bare }
    })
    expect(live()).toBe(before + 6)
    expect(result.map.get('a')!.toArray()).toEqual([2])
    expect(result.deep.deeper.tensor!.toArray()).toEqual([4])
    expect(result.bare['tensor']!.toArray()).toEqual([5])
    const listed = [result.list[0] as Tensor, (result.list[1] as Tensor[])[0]]
    for (const held of [...listed, ...result.map.values(), ...result.set, result.deep.deeper.tensor, result.bare['tensor']]) held!.dispose()
    expect(live()).toBe(before)
  })

  it('returns what holds itself', () => {
    const ring: { tensor?: Tensor; self?: unknown } = {}
    const result = scope(() => {
      ring.tensor = tensor([1])
      ring.self = [ring]
      return ring
    })
    expect(result.tensor!.isLive).toBe(true)
    result.tensor!.dispose()
  })

  it('moves a result outward one scope at a time', () => {
    const before = live()
    let inner: Tensor | undefined
    const outer = scope(() => {
      const middle = scope(() => {
        inner = scope(() => [tensor([1]), tensor([2])])[1]!
        expect(live()).toBe(before + 2)
        return tensor([3])
      })
      expect(inner!.isLive).toBe(false)
      expect(middle.isLive).toBe(true)
      return middle
    })
    expect(outer.toArray()).toEqual([3])
    expect(live()).toBe(before + 1)
    outer.dispose()
  })

  it('leaves a tensor of an outer scope to that scope', () => {
    const before = live()
    scope(() => {
      const mine = tensor([1])
      expect(scope(() => mine)).toBe(mine)
      scope(() => void tensor([2]))
      expect(mine.isLive).toBe(true)
    })
    expect(live()).toBe(before)
  })

  it('lets go of what is kept, disposed of, or returned twice', () => {
    const before = live()
    const kept = scope(() => {
      tensor([1]).dispose()
      const first = keep(tensor([2]))
      return [first, first, keep(first)]
    })
    expect(live()).toBe(before + 1)
    kept[0]!.dispose()
    expect(live()).toBe(before)
  })

  it('frees a list result and the other results of a tuple', () => {
    const before = live()
    const values = scope(() => torch.max(tensor([[1, 2], [3, 0]]), 1)[0])
    expect(values.toArray()).toEqual([2, 3])
    const second = scope(() => torch.split(torch.arange(6), 2)[1]!)
    expect(second.toArray()).toEqual([2, 3])
    expect(live()).toBe(before + 2)
    values.dispose()
    second.dispose()
  })

  it('keeps in the graph what autograd needs', () => {
    const weight = keep(tensor([3], { requiresGrad: true }))
    const loss = scope(() => weight.mul(weight).exp().sum())
    loss.backward()
    expect(weight.grad!.item()).toBeCloseTo(6 * Math.exp(9), -1)
  })

  it('does not keep a dead tensor’s place in a long scope', () => {
    scope(() => {
      for (let i = 0; i < 20_000; i++) tensor([1]).dispose()
      const before = live()
      tensor([1])
      expect(live()).toBe(before + 1)
    })
  })
})

it('`using` and [Symbol.dispose] free at once', () => {
  const before = live()
  const held = tensor([1])
  held[Symbol.dispose]()
  expect(held.isLive).toBe(false)
  expect(live()).toBe(before)
})

describe('memory()', () => {
  it('counts each storage once, whatever views there are', () => {
    scope(() => {
      const before = memory()
      const base = torch.zeros([256, 256])
      const views = [base.t(), base.reshape([-1]), base.narrow(0, 1, 2), base.detach(), base.narrow(0, 0, 1).expand([4096, 256])]
      const now = memory()
      expect(now.tensors - before.tensors).toBeGreaterThanOrEqual(6)
      expect(now.bytes['cpu']! - (before.bytes['cpu'] ?? 0)).toBe(256 * 256 * 4)
      base.dispose()
      expect(memory().bytes['cpu']! - (before.bytes['cpu'] ?? 0)).toBe(256 * 256 * 4)
      for (const view of views) view.dispose()
    })
  })

  it('tells devices apart and does not count what has no memory', () => {
    scope(() => {
      const before = memory().bytes['meta'] ?? 0
      torch.empty([10], { device: 'meta' })
      expect((memory().bytes['meta'] ?? 0) - before).toBe(40)
      expect(memory().scopes).toBe(1)
    })
  })
})

describe('the safety net outside scopes', () => {
  it('frees what is collected, and only that', () => {
    const outcome = runChild(`
      const kept = torch.keep(torch.tensor([7]))
      const survivor = torch.scope(() => torch.tensor([8]))
      const before = torch.memory().tensors
      const make = () => { for (let i = 0; i < 1000; i++) torch.zeros([10]); torch.scope(() => [torch.ones([1]), torch.ones([2])]) }
      make()
      const made = torch.memory().tensors - before
      for (let i = 0; i < 20 && torch.memory().tensors > before; i++) { global.gc(); await tick(10) }
      print({ made, left: torch.memory().tensors - before, kept: kept.toArray(), survivor: survivor.toArray() })
    `, { flags: ['--expose-gc'] })
    expect(outcome).toEqual(clean({ made: 1002, left: 0, kept: [7], survivor: [8] }))
  })

  it('tells V8 of memory outside scopes, not of views and scopes', () => {
    // How often V8 collects the whole heap is what the hint decides; nothing shows it directly.
    const outcome = runChild(`
      import { PerformanceObserver, constants } from 'node:perf_hooks'
      let collections = 0
      const { NODE_PERFORMANCE_GC_MAJOR: major } = constants
      const count = (list) => { for (const { detail } of list.getEntries()) if (detail.kind === major) collections++ }
      new PerformanceObserver(count).observe({ entryTypes: ['gc'] })
      const base = torch.keep(torch.zeros([1]))
      const during = async (body) => {
        await tick(50)
        collections = 0
        const held = []
        for (let i = 0; i < 400; i++) held.push(body(i))
        await tick(50)
        for (const tensor of held) tensor?.dispose()
        return collections
      }
      const views = await during(() => base.expand([2 ** 40]))
      const scoped = await during(() => torch.scope(() => void torch.empty([2 ** 18])))
      const held = await during(() => torch.empty([2 ** 18]))
      print({ views, scoped, held: held > 0 })
    `)
    expect(outcome).toEqual(clean({ views: 0, scoped: 0, held: true }))
  })

  it('a loop that makes tensors in one go does not outgrow what the collector can free between turns', () => {
    const outcome = runChild(`
      const peak = []
      for (let turn = 0; turn < 30; turn++) {
        for (let i = 0; i < 20; i++) torch.zeros([2 ** 18])
        peak.push(torch.memory().tensors)
        await tick()
      }
      print(Math.max(...peak) < 600)
    `)
    expect(outcome).toEqual(clean(true))
  })
})

it('generations go round without reaching an old handle', () => {
  const handles = new Set<string>()
  const made = Array.from({ length: 1000 }, () => {
    const one = tensor([1])
    one.dispose()
    handles.add(String(one.isLive))
    return one
  })
  expect([...handles]).toEqual(['false'])
  const now = tensor([5])
  expect(made.filter((one) => one.isLive)).toEqual([])
  expect(() => made[999]!.item()).toThrow(TorchError)
  now.dispose()
})
