import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { temporaryFolder } from '../support/folder.js'

const { cuda } = torch

interface TraceEvent {
  readonly ph: string
  readonly cat?: string
  readonly name: string
  readonly ts: number
  readonly dur: number
  readonly args?: Readonly<Record<string, unknown>>
}

async function readTrace(path: string): Promise<TraceEvent[]> {
  const { traceEvents } = JSON.parse(await readFile(path, 'utf8')) as { traceEvents: TraceEvent[] }
  return traceEvents.filter(({ ph }) => ph === 'X')
}

const named = (events: readonly TraceEvent[], name: string) => events.filter((event) => event.name === name)
const within = (inner: TraceEvent, outer: TraceEvent) => inner.ts >= outer.ts && inner.ts + inner.dur <= outer.ts + outer.dur + 1

describe('a trace', () => {
  it('has the operators by their names, those of backward too, and named regions around theirs', async () => {
    const path = join(await temporaryFolder(), 'new', 'folder', 'trace.json')
    const result = await torch.profile(path, async () => {
      const x = torch.randn([32, 32]).requiresGrad_()
      const loss = torch.recordFunction('my forward', () => x.matmul(x).softmax(-1).sum())
      await new Promise((resolve) => setTimeout(resolve, 5))
      loss.backward()
      return loss.item()
    })
    expect(result).toBeCloseTo(32, 3)
    const events = await readTrace(path)
    const [region] = named(events, 'my forward')
    expect(region!.cat).toBe('user_annotation')
    for (const name of ['aten::matmul', 'aten::mm', 'aten::softmax', 'aten::sum']) {
      expect(named(events, name).some((event) => within(event, region!)), name).toBe(true)
    }
    expect(events.some(({ name }) => /SoftmaxBackward0/.test(name))).toBe(true)
    // What came before and after is not in it.
    expect(named(events, 'aten::cumsum')).toEqual([])
  })

  it('has the steps that are marked, and the shapes if they are asked for', async () => {
    const path = join(await temporaryFolder(), 'trace.json')
    torch.ones([2]).cumsum(0)
    const profiler = torch.profiler({ shapes: true }).start()
    expect(profiler.recording).toBe(true)
    for (const size of [3, 4]) {
      profiler.step(size)
      torch.zeros([size, 5]).exp()
    }
    await profiler.stop(path)
    expect(profiler.recording).toBe(false)
    torch.ones([2]).cumsum(0)
    const events = await readTrace(path)
    const steps = [3, 4].map((number) => named(events, `ProfilerStep#${number}`)[0]!)
    const exps = named(events, 'aten::exp')
    expect(exps).toHaveLength(2)
    for (const [i, event] of exps.entries()) {
      expect(within(event, steps[i]!)).toBe(true)
      expect(event.args?.['Input Dims']).toEqual([[i + 3, 5]])
    }
    expect(named(events, 'aten::cumsum')).toEqual([])
  })

  it('is not written where the callback fails, and the next one is', async () => {
    const folder = await temporaryFolder()
    const failing = torch.profile(join(folder, 'a.json'), () => torch.zeros([2]).add(torch.zeros([3])))
    await expect(failing).rejects.toThrow(torch.TorchError)
    expect(existsSync(join(folder, 'a.json'))).toBe(false)
    await torch.profile(join(folder, 'b.json'), () => torch.zeros([2]).sin())
    expect(named(await readTrace(join(folder, 'b.json')), 'aten::sin')).toHaveLength(1)
  })

  it('of two at a time the second is refused, and the first goes on', async () => {
    const folder = await temporaryFolder()
    const first = torch.profiler().start()
    expect(() => torch.profiler().start()).toThrow(/a profiler is recording already/)
    torch.zeros([2]).cos()
    await first.stop(join(folder, 'a.json'))
    expect(named(await readTrace(join(folder, 'a.json')), 'aten::cos')).toHaveLength(1)
    await expect(first.stop(join(folder, 'a.json'))).rejects.toThrow(/a profiler that was started/)
    await first.cancel()
  })

  it('refuses what it cannot do before it records', async () => {
    const folder = await temporaryFolder()
    await mkdir(join(folder, 'taken'))
    await expect(torch.profile('', () => 1)).rejects.toThrow(/the path of a file for path/)
    await expect(torch.profile(join(folder, 'taken'), () => 1)).rejects.toThrow(/a folder/)
    await expect(torch.profile(join(folder, 'x'), 1 as never)).rejects.toThrow(/a function for the callback/)
    expect(() => torch.profiler({ activities: ['gpu' as never] })).toThrow(/an array of 'cpu', 'cuda' or both for activities/)
    expect(() => torch.profiler({ activities: [] })).toThrow(torch.InputError)
    expect(() => torch.recordFunction('', () => 1)).toThrow(/a name for name/)
    // @ts-expect-error a promise is refused by the type too
    expect(() => torch.recordFunction('x', () => Promise.resolve(1))).toThrow(/a synchronous function/)
    if (!cuda.isAvailable()) expect(() => torch.profiler({ activities: ['cuda'] }).start()).toThrow(/CUDA is not available: \w/)
    await torch.profiler().start().cancel()
  })

  it.skipIf(!cuda.isAvailable())('has the kernels of CUDA', async () => {
    const path = join(await temporaryFolder(), 'trace.json')
    const x = torch.randn([256, 256], { device: 'cuda' })
    await torch.profile(path, async () => {
      x.matmul(x)
      await cuda.synchronizeAsync()
    })
    const events = await readTrace(path)
    expect(events.some(({ cat }) => cat === 'kernel')).toBe(true)
    expect(named(events, 'aten::mm')).toHaveLength(1)
  })
})

it('ranges of NVTX run their callbacks, with CUDA and without', () => {
  cuda.nvtxMark('here')
  expect(cuda.nvtxRange('outer', () => cuda.nvtxRange('inner', () => 5))).toBe(5)
  expect(() => cuda.nvtxRange('fails', () => { throw new RangeError('mine') })).toThrow(RangeError)
  expect(() => cuda.nvtxRange(1 as never, () => 1)).toThrow(/a name for name, received 1/)
})
