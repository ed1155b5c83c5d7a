import { epochOrder } from './order.js'
import { randomFor } from './random.js'
import type { ImageSource } from './source.js'
import { blocksWithin, repetitions, weightedOrder } from './weighted-order.js'

/** Which image is where in an epoch. */
export interface Places {
  /** Positions in the source. */
  readonly order: Uint32Array
  /** For each place, how often its image came before in the epoch; null: each image comes once. */
  readonly repeats: Uint32Array | null
}

/**
 * The places of an epoch, a function of seed and epoch alone: sources of different weight by their weights ({@link weightedOrder}), those
 * that are read in blocks with images of one block near to each other ({@link epochOrder}).
 */
export function placesOf(source: ImageSource, seed: number, epoch: number): Places {
  const random = randomFor(seed, epoch, 'order')
  const { parts } = source
  if (!parts) return { order: epochOrder(source, random), repeats: null }
  const blocks = source.kind === 'encoded' ? source.blocks : null
  const order = weightedOrder(parts, random, (first, length, own) =>
    epochOrder({ length, blocks: blocksWithin(blocks, first, length) }, own).map((index) => first + index)
  )
  return { order, repeats: repetitions(order) }
}
