import { manualSeed, noGrad, ones, randn, scope, autocast, type Device, type Tensor } from '../torch/index.js'
import type { GroupMaskedModel } from '../gmml/index.js'

export const precisions = ['float32', 'bfloat16', 'float16'] as const

/** What the network computes in. */
export type Precision = (typeof precisions)[number]

/** Runs `callback` in a precision: with autocast unless it is float32. */
export function inPrecision(precision: Precision, device: Device, callback: () => Tensor): Tensor {
  if (precision === 'float32') return callback()
  return autocast(device.startsWith('cuda') ? 'cuda' : 'cpu', precision, callback)
}

const MEASURED_VIEWS = 16
const REPEATS = 3
// A large model takes seconds for each repetition, and its figures scatter the less.
const BUDGET = 3000
// A gain within the noise of so short a measurement is no reason to give up precision.
const WORTHWHILE = 0.9

/** Milliseconds of forward and backward on some views: the fastest of a few. */
function measure(model: GroupMaskedModel, precision: Precision, device: Device, images: Tensor, mask: Tensor): number {
  let best = Infinity
  const begin = performance.now()
  for (let i = 0; i <= REPEATS; i++) {
    const start = performance.now()
    if (i > 1 && start - begin > BUDGET) break
    scope(() => {
      inPrecision(precision, device, () => model.loss(images, images, mask)).backward()
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
 * @returns The precision, and how many times faster bfloat16 was than float32; null where that was not measured.
 */
export function choosePrecision(model: GroupMaskedModel, device: Device): { precision: Precision; speedup: number | null } {
  if (device.startsWith('cuda')) return { precision: 'bfloat16', speedup: null }
  const { channels, imageSize } = model.backbone
  return scope(() => {
    manualSeed(0)
    const images = noGrad(() => randn([MEASURED_VIEWS, channels, ...imageSize], { device }))
    const mask = noGrad(() => ones([MEASURED_VIEWS, 1, ...imageSize], { device, dtype: 'bool' }))
    const full = measure(model, 'float32', device, images, mask)
    const reduced = measure(model, 'bfloat16', device, images, mask)
    return { precision: reduced < WORTHWHILE * full ? 'bfloat16' : 'float32', speedup: full / reduced }
  })
}
