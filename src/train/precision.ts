import type { Module } from '../nn/index.js'
import { autocast, manualSeed, scope, type Device, type Tensor } from '../torch/index.js'

export const precisions = ['float32', 'bfloat16', 'float16'] as const

/** What the network computes in. */
export type Precision = (typeof precisions)[number]

/** Runs `callback` in a precision: with autocast unless it is float32. */
export function inPrecision(precision: Precision, device: Device, callback: () => Tensor): Tensor {
  if (precision === 'float32') return callback()
  return autocast(device.startsWith('cuda') ? 'cuda' : 'cpu', precision, callback)
}

/** Images that a short measurement of speed is made on. */
export const TRIAL_IMAGES = 16

const REPEATS = 3
// A large model takes seconds for each repetition, and its figures scatter the less.
const BUDGET = 3000
// A gain within the noise of so short a measurement is no reason to give up precision.
const WORTHWHILE = 0.9

/** Milliseconds of forward and backward: the fastest of a few. */
function measure(model: Module, precision: Precision, device: Device, loss: () => Tensor): number {
  let best = Infinity
  const begin = performance.now()
  for (let i = 0; i <= REPEATS; i++) {
    const start = performance.now()
    if (i > 1 && start - begin > BUDGET) break
    scope(() => {
      inPrecision(precision, device, loss).backward()
    })
    if (i > 0) best = Math.min(best, performance.now() - start) // the first one warms up
    model.zeroGrad()
  }
  return best
}

/**
 * What `--amp auto` means here: bfloat16 on a GPU, and on a CPU where a short measurement of this very model says that it pays. Draws from
 * PyTorch's generator, and leaves the model without gradients.
 *
 * @param prepare - Makes what is measured: a function that gives a loss of {@link TRIAL_IMAGES} random images.
 * @returns The precision, and how many times faster bfloat16 was than float32; null where that was not measured.
 */
export function choosePrecision(
  model: Module, device: Device, prepare: () => () => Tensor
): { precision: Precision; speedup: number | null } {
  if (device.startsWith('cuda')) return { precision: 'bfloat16', speedup: null }
  return scope(() => {
    manualSeed(0)
    const loss = prepare()
    const full = measure(model, 'float32', device, loss)
    const reduced = measure(model, 'bfloat16', device, loss)
    return { precision: reduced < WORTHWHILE * full ? 'bfloat16' : 'float32', speedup: full / reduced }
  })
}
