import { expected } from '../errors.js'
import { randomFor, type Random } from '../data/random.js'
import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'
import { kinds, planCorruption, possibleKinds, settleCorruption, type CorruptionSettings, type Fill } from './plan.js'

export { fills, type Fill } from './plan.js'

/** How much of an image is corrupted, in which places, and by what. Source: section 3 of the paper. */
export interface CorruptionOptions {
  /** Largest part of the image that is corrupted. Default 0.75. */
  readonly budget?: number
  /** The same for corruption by pixels of other images; 0 for none of it. Default 0.3. */
  readonly alien?: number
  /** Pixels that rectangles are aligned to. Default 1. */
  readonly align?: number
  /** Whether rectangles may hang over the edges, which are else corrupted less often than the middle. Default false, the authors' rule. */
  readonly overhang?: boolean
  /** Kinds of filling; each view takes one of them at random. Default noise. */
  readonly fill?: Fill | readonly Fill[]
  /** Random numbers of view `i` of the batch. Default: drawn from PyTorch's CPU generator. */
  readonly random?: (view: number) => Random
}

/** A corrupted batch. */
export interface Corrupted {
  /** [B, C, H, W]. */
  readonly corrupted: Tensor
  /** True where a pixel was corrupted: bool [B, 1, H, W]. */
  readonly mask: Tensor
}

/** A plan as tensors. */
export interface PlanTensors {
  /** True where a pixel is corrupted: bool [B, 1, H, W]. */
  readonly mask: Tensor
  /** uint8 [B, 1, 1, 1]. */
  readonly kind: Tensor
  /** int32 [B, H, W]; null where nothing can be moved. */
  readonly offset: Tensor | null
}

/**
 * Corrupts a batch by a plan: for given settings the same operators in the same order, whatever the plan says. Noise is drawn for every
 * pixel of the batch from the default generator of its device, where there can be noise at all.
 *
 * @param clean - [B, C, H, W].
 * @returns [B, C, H, W].
 */
export function applyCorruption(clean: Tensor, { mask, kind, offset }: PlanTensors, settings: CorruptionSettings): Tensor {
  const possible = possibleKinds(settings)
  return noGrad(() =>
    scope(() => {
      let corrupted = offset ? moved(clean, offset) : clean
      const where = (name: keyof typeof kinds) => mask.logicalAnd(kind.eq(kinds[name]))
      if (possible.noise) corrupted = torch.where(where('noise'), torch.randnLike(clean), corrupted)
      if (possible.zeros) corrupted = corrupted.maskedFill(where('zeros'), 0)
      return corrupted.contiguous()
    })
  )
}

/** Each pixel of the batch as the one that lies so many pixels further on. */
function moved(clean: Tensor, offset: Tensor): Tensor {
  const [batch, channels, height, width] = clean.shape as [number, number, number, number]
  const all = batch * height * width
  const source = torch.arange(all, { dtype: 'int64', device: clean.device }).add(offset.flatten())
  const byChannel = clean.transpose(0, 1).reshape([channels, all])
  return byChannel.gather(1, source.expand([channels, all])).reshape([channels, batch, height, width]).transpose(0, 1)
}

// Seeds from PyTorch's generator, so that manualSeed decides the corruption too.
function defaultRandom(batch: number): (view: number) => Random {
  const seeds = scope(() => torch.randint(2 ** 31, [Math.max(1, batch)], { dtype: 'int32' }).toTypedArray()) as Int32Array
  return (view) => randomFor(seeds[view]!, view)
}

/**
 * Corrupts groups of neighbouring pixels, the input of group masked model learning (arXiv 2205.14986): rectangles filled with noise, or,
 * with probability 1 / (number of kinds + 1), with the same pixels of other images of the batch ("alien concepts").
 *
 * @param clean - [B, C, H, W], normalised. Stays as it is.
 * @throws InputError for a shape or an option that is not legal, before anything is computed.
 */
export function corrupt(clean: Tensor, options: CorruptionOptions = {}): Corrupted {
  const { shape } = clean
  if (!/float/.test(clean.dtype)) throw expected('floating-point pixels', 'clean', clean.dtype)
  if (shape.length !== 4) throw expected('a batch of images [B, C, H, W]', 'clean', `shape [${shape.join(', ')}]`)
  const settings = settleCorruption(options)
  const [batch, , height, width] = shape as [number, number, number, number]
  const plan = planCorruption(batch, height, width, settings, options.random ?? defaultRandom(batch))
  return scope(() => {
    const mask = torch.fromTypedArray(plan.covered, [batch, 1, height, width], { dtype: 'bool', device: clean.device })
    const kind = torch.fromTypedArray(plan.kind, [batch, 1, 1, 1], { device: clean.device })
    const offset = plan.offset && torch.fromTypedArray(plan.offset, [batch, height, width], { device: clean.device })
    return { corrupted: applyCorruption(clean, { mask, kind, offset }, settings), mask }
  })
}
