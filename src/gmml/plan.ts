import { expected } from '../errors.js'
import type { Random } from '../data/random.js'
import { drawGroupMask, type Rectangle } from './rectangles.js'

/** What fills a corrupted region: N(0, 1) noise, zeros, or a copy of another region of the same image. */
export type Fill = 'noise' | 'zeros' | 'shuffle'

/** What corrupted pixels can become. */
export const fills: readonly Fill[] = ['noise', 'zeros', 'shuffle']

/** How views are corrupted: the options of `corrupt` with their defaults. */
export interface CorruptionSettings {
  readonly budget: number
  readonly alien: number
  readonly align: number
  readonly overhang: boolean
  /** At least one; each view takes one of them at random. */
  readonly fills: readonly Fill[]
}

/** What becomes of the corrupted pixels of a view: `moved` ones show another pixel of the batch. */
export const kinds = { noise: 0, zeros: 1, moved: 2 } as const

/** How a batch of B views of H x W pixels is corrupted: arrays of a size that settings and batch alone decide. */
export interface CorruptionPlan {
  /** 1 where a pixel is corrupted: [B, H, W]. */
  readonly covered: Uint8Array<ArrayBuffer>
  /** One of {@link kinds} for each view: [B]. */
  readonly kind: Uint8Array<ArrayBuffer>
  /**
   * How many pixels further on in the batch (views of H x W pixels, one after the other) lies the pixel that a pixel shows: [B, H, W], 0
   * for itself. null where nothing can be moved.
   */
  readonly offset: Int32Array<ArrayBuffer> | null
}

/** @throws InputError for settings that are not legal. */
export function settleCorruption(options: {
  readonly budget?: number | undefined
  readonly alien?: number | undefined
  readonly align?: number | undefined
  readonly overhang?: boolean | undefined
  readonly fill?: Fill | readonly Fill[] | undefined
}): CorruptionSettings {
  const { budget = 0.75, alien = 0.3, align = 1, overhang = false, fill = 'noise' } = options
  if (typeof alien !== 'number' || !(alien >= 0 && alien <= 1)) throw expected('a number between 0 and 1', 'alien', alien)
  const list = typeof fill === 'string' ? [fill] : fill
  if (list.length === 0 || list.some((kind) => !fills.includes(kind))) throw expected(`one or more of ${fills.join(', ')}`, 'fill', fill)
  return { budget, alien, align, overhang, fills: list }
}

/** What the settings leave possible. A fixed sequence of operators has to be ready for all of it. */
export const possibleKinds = ({ alien, fills }: CorruptionSettings) => ({
  noise: fills.includes('noise'), zeros: fills.includes('zeros'), moved: alien > 0 || fills.includes('shuffle')
})

/** A plan that corrupts nothing, to be written over. */
export function emptyPlan(batch: number, height: number, width: number, settings: CorruptionSettings): CorruptionPlan {
  const pixels = batch * height * width
  const offset = possibleKinds(settings).moved ? new Int32Array(pixels) : null
  return { covered: new Uint8Array(pixels), kind: new Uint8Array(batch), offset }
}

/**
 * Plans how the views of a batch are corrupted.
 *
 * @param random - The random numbers of a view.
 * @param plan - An earlier plan of such a batch: written over, which spares tens of megabytes of new memory in each step.
 * @throws InputError for a budget or an alignment that is not legal.
 */
export function planCorruption(
  batch: number, height: number, width: number, settings: CorruptionSettings, random: (view: number) => Random,
  plan = emptyPlan(batch, height, width, settings)
): CorruptionPlan {
  const { covered, kind, offset } = plan
  const { budget, alien, align, overhang, fills } = settings
  const pixels = height * width
  for (let view = 0; view < batch; view++) {
    const numbers = random(view)
    const first = view * pixels
    if (kind[view] === kinds.moved) offset!.fill(0, first, first + pixels)
    const move = ({ top, left, height: rows, width: columns }: Rectangle, by: number) => {
      for (let start = first + top * width + left, end = start + rows * width; start < end; start += width) {
        // Faster than fill() for so few.
        for (let i = start; i < start + columns; i++) offset![i] = by
      }
    }
    const fill = fills[numbers.integer(0, fills.length)]!
    let mask = drawGroupMask(numbers, height, width, budget, align, overhang)
    kind[view] = fill === 'shuffle' ? kinds.moved : kinds[fill]
    // The authors' code draws the first corruption in any case and then may replace it.
    if (alien > 0 && numbers.chance(1 / (fills.length + 1))) {
      mask = drawGroupMask(numbers, height, width, alien, align, overhang)
      kind[view] = kinds.moved
      for (const rectangle of mask.rectangles) move(rectangle, (numbers.integer(0, batch) - view) * pixels)
    } else if (fill === 'shuffle') {
      for (const rectangle of mask.rectangles) {
        const down = numbers.integer(0, height - rectangle.height + 1) - rectangle.top
        const right = numbers.integer(0, width - rectangle.width + 1) - rectangle.left
        move(rectangle, down * width + right)
      }
    }
    covered.set(mask.covered, first)
  }
  return plan
}
