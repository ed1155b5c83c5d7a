import { expected } from '../errors.js'
import { randomFor, type Random } from '../data/random.js'
import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'
import { drawGroupMask, type GroupMask, type Rectangle } from './rectangles.js'

/** What fills a corrupted region: N(0, 1) noise, zeros, or a copy of another region of the same image. */
export type Fill = 'noise' | 'zeros' | 'shuffle'

export const fills: readonly Fill[] = ['noise', 'zeros', 'shuffle']

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

/** How one view is corrupted: which pixels, and what they become. */
interface Plan {
  readonly kind: Fill | 'alien'
  readonly mask: GroupMask
  /** For `alien` and `shuffle` the place that each pixel is taken from: image of the batch, or pixel of the same image. */
  readonly source: Int32Array | null
}

function eachPixel(rectangle: Rectangle, width: number, visit: (pixel: number) => void): void {
  for (let y = rectangle.top; y < rectangle.top + rectangle.height; y++) {
    for (let x = rectangle.left; x < rectangle.left + rectangle.width; x++) visit(y * width + x)
  }
}

function planView(view: number, batch: number, height: number, width: number, options: Required<CorruptionOptions>): Plan {
  const random = options.random(view)
  const kinds = typeof options.fill === 'string' ? [options.fill] : options.fill
  const kind = kinds[random.integer(0, kinds.length)]!
  const mask = drawGroupMask(random, height, width, options.budget, options.align, options.overhang)
  // The authors' code draws the first corruption in any case and then may replace it.
  if (options.alien > 0 && random.chance(1 / (kinds.length + 1))) {
    const alienMask = drawGroupMask(random, height, width, options.alien, options.align, options.overhang)
    const source = new Int32Array(height * width).fill(view)
    for (const rectangle of alienMask.rectangles) {
      const other = random.integer(0, batch)
      eachPixel(rectangle, width, (pixel) => (source[pixel] = other))
    }
    return { kind: 'alien', mask: alienMask, source }
  }
  if (kind !== 'shuffle') return { kind, mask, source: null }
  const source = Int32Array.from({ length: height * width }, (_, pixel) => pixel)
  for (const rectangle of mask.rectangles) {
    const down = random.integer(0, height - rectangle.height + 1) - rectangle.top
    const right = random.integer(0, width - rectangle.width + 1) - rectangle.left
    eachPixel(rectangle, width, (pixel) => (source[pixel] = pixel + down * width + right))
  }
  return { kind, mask, source }
}

function fillViews(kind: Plan['kind'], clean: Tensor, own: Tensor, covered: Tensor, plans: readonly Plan[]): Tensor {
  if (kind === 'zeros') return own.mul(covered.logicalNot())
  if (kind === 'noise') return torch.where(covered, torch.randnLike(own), own)
  const pixels = covered.shape.at(-1)!
  const flat = new Int32Array(plans.length * pixels)
  for (const [i, plan] of plans.entries()) flat.set(plan.source!, i * pixels)
  const source = torch.fromTypedArray(flat, [plans.length, 1, pixels]).to(clean.device).to('int64').expand(own.shape)
  // `alien` looks the same pixel up in another image of the batch, `shuffle` another pixel in the same image.
  return kind === 'alien' ? clean.gather(0, source) : own.gather(2, source)
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
  const { budget = 0.75, alien = 0.3, align = 1, overhang = false, fill = 'noise' } = options
  const { shape } = clean
  if (!/float/.test(clean.dtype)) throw expected('floating-point pixels', 'clean', clean.dtype)
  if (shape.length !== 4) throw expected('a batch of images [B, C, H, W]', 'clean', `shape [${shape.join(', ')}]`)
  if (typeof alien !== 'number' || !(alien >= 0 && alien <= 1)) throw expected('a number between 0 and 1', 'alien', alien)
  const kinds = typeof fill === 'string' ? [fill] : fill
  if (kinds.length === 0 || kinds.some((kind) => !fills.includes(kind))) throw expected(`one or more of ${fills.join(', ')}`, 'fill', fill)
  const [batch, channels, height, width] = shape as [number, number, number, number]
  const settled = { budget, alien, align, overhang, fill, random: options.random ?? defaultRandom(batch) }
  const plans = Array.from({ length: batch }, (_, view) => planView(view, batch, height, width, settled))
  const pixels = height * width
  const covered = new Uint8Array(batch * pixels)
  for (const [i, plan] of plans.entries()) covered.set(plan.mask.covered, i * pixels)

  return noGrad(() =>
    scope(() => {
      const mask = torch.fromTypedArray(covered, [batch, 1, pixels], { dtype: 'bool' }).to(clean.device)
      const flat = clean.reshape([batch, channels, pixels])
      const corrupted = flat.clone()
      for (const kind of new Set(plans.map((plan) => plan.kind))) {
        const views = plans.flatMap((plan, i) => (plan.kind === kind ? [i] : []))
        const rows = torch.fromTypedArray(Int32Array.from(views)).to(clean.device)
        const filled = fillViews(kind, flat, flat.indexSelect(0, rows), mask.indexSelect(0, rows), views.map((i) => plans[i]!))
        corrupted.indexCopy_(0, rows.to('int64'), filled)
      }
      return { corrupted: corrupted.reshape(shape), mask: mask.reshape([batch, 1, height, width]) }
    })
  )
}
