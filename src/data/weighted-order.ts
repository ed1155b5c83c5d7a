import { expected } from '../errors.js'
import type { Random } from './random.js'

/** Images of a source that lie one after the other, and what part of an epoch they are. */
export interface SourcePart {
  /** Position of the first. */
  readonly first: number
  /** How many; at least one. */
  readonly length: number
  /** Above 0; only the proportion to the others counts. */
  readonly weight: number
}

/** How many images of an epoch each part gives: in proportion to the weights, rounded so that together they are `total`. */
export function partShares(parts: readonly Pick<SourcePart, 'weight'>[], total: number): number[] {
  const sum = parts.reduce((all, { weight }) => all + weight, 0)
  const exact = parts.map(({ weight }) => (total * weight) / sum)
  const shares = exact.map(Math.floor)
  // Those that lost most by rounding down get what is left over.
  const byLoss = exact.map((share, i) => ({ i, loss: share - shares[i]! })).sort((a, b) => b.loss - a.loss || a.i - b.i)
  let left = total - shares.reduce((all, share) => all + share, 0)
  for (const { i } of byLoss) {
    if (left <= 0) break
    shares[i]! += 1
    left--
  }
  return shares
}

/**
 * The order of an epoch of a source in parts of different weight. The epoch has as many images as the source; each part gives its share
 * of them ({@link partShares}): all of its images as often as that goes, then a random choice. Whose turn it is, is drawn.
 *
 * @param random - Decides everything: the same numbers give the same order.
 * @param orderOf - Order of one part in which each of its images comes once; positions in the source.
 * @returns uint32 [N], positions in the source; some more than once, some maybe not at all.
 */
export function weightedOrder(
  parts: readonly SourcePart[], random: Random, orderOf: (first: number, length: number, random: Random) => Uint32Array
): Uint32Array {
  const total = parts.reduce((all, { length }) => all + length, 0)
  const shares = partShares(parts, total)
  const orders = parts.map(({ first, length }, i) => repeated(shares[i]!, length, () => orderOf(first, length, random)))
  return interleave(orders, total, random)
}

function repeated(count: number, length: number, order: () => Uint32Array): Uint32Array {
  const all = new Uint32Array(count)
  for (let at = 0; at < count; at += length) all.set(order().subarray(0, count - at), at)
  return all
}

/** Each order stays as it is, so what is read block by block remains so. */
function interleave(orders: readonly Uint32Array[], total: number, random: Random): Uint32Array {
  const taken = orders.map(() => 0)
  return Uint32Array.from({ length: total }, (_, done) => {
    let ticket = random.integer(0, total - done)
    const turn = orders.findIndex((order, i) => (ticket -= order.length - taken[i]!) < 0)
    return orders[turn]![taken[turn]!++]!
  })
}

/**
 * How often each image of an order came before. One that comes again in an epoch has to be seen otherwise: it needs random numbers of its
 * own.
 *
 * @param order - Positions.
 * @returns As long as the order: 0 where an image comes for the first time.
 */
export function repetitions(order: Uint32Array): Uint32Array {
  const seen = new Uint32Array(order.reduce((most, index) => Math.max(most, index + 1), 0))
  return order.map((index) => seen[index]!++)
}

/** What of a source's blocks lies among `length` images from `first` on, counted from there; null if any order is as good. */
export function blocksWithin(blocks: Int32Array | null, first: number, length: number): Int32Array | null {
  if (blocks === null) return null
  const inside = blocks.filter((block) => block > first && block < first + length)
  return Int32Array.from([0, ...inside.map((block) => block - first)])
}

/** @throws InputError for a weight that is no number above 0. */
export function checkWeight(weight: unknown, name: string): void {
  if (!(typeof weight === 'number' && weight > 0 && Number.isFinite(weight))) throw expected('a number above 0', name, weight)
}
