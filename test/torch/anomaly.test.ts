import { pathToFileURL } from 'node:url'

import { describe, expect, it } from 'vitest'

import type * as torch from '../../src/torch/index.js'
import { InputError, TorchError, detectAnomaly, grad, tensor } from '../../src/torch/index.js'
import { clean, runChild, torchModule } from '../native/support.js'

const torchUrl = pathToFileURL(torchModule).href

const leaf = (values: number[]) => tensor(values, { requiresGrad: true })

function failure(body: () => unknown): TorchError & { cause?: Error } {
  try {
    body()
  } catch (error) {
    expect(error).toBeInstanceOf(TorchError)
    return error as TorchError & { cause?: Error }
  }
  throw new Error('Expected a failure')
}

function squareRoot(x: torch.Tensor) {
  return x.sqrt()
}

it('is refused for what is no synchronous function, or no options', () => {
  const loose = detectAnomaly as unknown as (...values: unknown[]) => unknown
  for (const callback of [null, 3, 'x', async () => Promise.resolve()]) expect(() => loose(callback)).toThrow(InputError)
  for (const options of [null, 3, { checkNan: 'yes' }]) expect(() => loose(() => 1, options)).toThrow(InputError)
})

describe('the error of backward', () => {
  it('names the operator whose backward gave NaN, and where it was called', () => {
    const error = failure(() =>
      detectAnomaly(() => {
        const x = leaf([-1, 4])
        const fine = x.exp().log()
        fine.add(squareRoot(x)).sum().backward()
      })
    )
    expect(error.message).toMatch(
      /^backward: Function 'SqrtBackward0' returned nan values in its 0th output\. .*SqrtBackward0 is the backward of aten::sqrt, called at squareRoot \(.*anomaly\.test\.ts:\d+:\d+\)$/
    )
    expect(error.cause!.message).toBe('The forward call of SqrtBackward0 was aten::sqrt')
    const frames = error.cause!.stack!.split('\n')
    expect(frames[1]).toMatch(/at squareRoot .*anomaly\.test\.ts/)
    expect(frames.some((frame) => frame.includes('/src/'))).toBe(false)
  })

  it('tells calls of the same operator apart', () => {
    const places = [0, 1].map((which) => {
      const error = failure(() =>
        detectAnomaly(() => {
          const [x, y] = [leaf([which === 0 ? -1 : 1]), leaf([which === 1 ? -1 : 1])]
          const a = x.sqrt()
          const b = y.sqrt()
          a.add(b).sum().backward()
        })
      )
      return Number(/anomaly\.test\.ts:(\d+):/.exec(error.message)![1])
    })
    expect(places[1]).toBe(places[0]! + 1)
  })

  it('of a second derivative names the first forward call', () => {
    const error = failure(() =>
      detectAnomaly(() => {
        const x = leaf([0])
        // The first derivative at 0 is 0, the second is not finite.
        const [first] = grad(x.abs().pow(1.5).sum(), x, { createGraph: true })
        first.mul(0).sum().backward()
      })
    )
    expect(error.message).toMatch(/^backward: .*nan values.*is the backward of aten::\w+(\.\w+)?, called at .*anomaly\.test\.ts/)
  })

  it('of other sorts names the call too', () => {
    const error = failure(() =>
      detectAnomaly(() => {
        const y = leaf([1, 2]).exp()
        const z = y.sum()
        y.add_(1)
        z.backward()
      })
    )
    expect(error.message).toMatch(/modified by an inplace operation.*is at version 1; expected version 0 instead\. The backward of that operator/)
    expect(error.message).toMatch(/ExpBackward0 is the backward of aten::exp, called at .*anomaly\.test\.ts/)
  })

  it('is as ever outside, with NaN let through', () => {
    const x = leaf([-1, 4])
    expect(detectAnomaly(() => x.mul(2).sum().item())).toBe(6)
    squareRoot(x).sum().backward()
    expect(x.grad!.toArray()).toEqual([NaN, 0.25])
    detectAnomaly(() => squareRoot(x).sum().backward(), { checkNan: false })
    expect(detectAnomaly(() => detectAnomaly(() => squareRoot(x).sum().backward(), { checkNan: false }))).toBe(undefined)
    // A node from outside has no call to name.
    const loss = squareRoot(x).sum()
    const error = failure(() => detectAnomaly(() => loss.backward()))
    expect(error.message).toMatch(/^backward: Function 'SqrtBackward0' returned nan values in its 0th output/)
    expect(error.message).not.toContain('called at')
    expect(error.cause).toBe(undefined)
    const plain = failure(() => { const y = x.exp(); const z = y.sum(); y.add_(1); z.backward() })
    expect([plain.message.includes('called at'), plain.cause]).toEqual([false, undefined])
  })

  it('ends with an exception', () => {
    expect(() => detectAnomaly(() => { throw new RangeError('inside') })).toThrow(RangeError)
    squareRoot(leaf([-1])).sum().backward()
  })
})

it('threads see their own calls, and one that ends in the middle leaves nothing on', () => {
  const outcome = runChild(`
    import { Worker } from 'node:worker_threads'
    const code = \`
      import { parentPort } from 'node:worker_threads'
      const torch = await import(${JSON.stringify(torchUrl)})
      const messages = []
      for (let i = 0; i < 30; i++) {
        try {
          torch.detectAnomaly(function ownCall() { torch.tensor([-1], { requiresGrad: true }).sqrt().sum().backward() })
        } catch (error) { messages.push(/aten::sqrt, called at ownCall/.test(error.message)) }
      }
      parentPort.postMessage(messages.filter(Boolean).length)\`
    const counts = await Promise.all(Array.from({ length: 3 }, () => new Promise((resolve, reject) => {
      const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(code)))
      worker.once('message', resolve).once('error', reject)
    })))
    print(counts)
    const dying = new Worker(new URL('data:text/javascript,' + encodeURIComponent(
      'const torch = await import(${JSON.stringify(torchUrl)}); torch.detectAnomaly(() => process.exit(0))')))
    await new Promise((resolve) => dying.once('exit', resolve))
    const x = torch.tensor([-1], { requiresGrad: true })
    x.sqrt().sum().backward()
    print(Number.isNaN(x.grad.item()))
  `)
  expect(outcome).toEqual(clean([30, 30, 30], true))
})
