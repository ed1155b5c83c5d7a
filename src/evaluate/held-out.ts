import { permutation, randomFor } from '../data/index.js'

/** Rows for fitting and rows for choosing, ascending. */
export interface Split {
  readonly fit: readonly number[]
  readonly heldOut: readonly number[]
}

/**
 * Holds out a part of the rows of each class, at random. Of each class at least one row is left to fit on. Where the part of a class is no
 * whole number, classes take turns, so that over all of them it comes out.
 *
 * @param part - From 0 to below 1.
 */
export function holdOut(labels: ArrayLike<number>, classes: number, part: number, seed: number): Split {
  const random = randomFor(seed, 'linear probe', 'held out')
  const rows: number[][] = Array.from({ length: classes }, () => [])
  for (let row = 0; row < labels.length; row++) rows[labels[row]!]!.push(row)
  const heldOut: number[] = []
  // In random order, or the turns would always come to the same classes.
  let due = 0
  for (const label of permutation(classes, random)) {
    const own = rows[label]!
    due += Math.min(part * own.length, Math.max(0, own.length - 1))
    const order = permutation(own.length, random)
    const count = Math.round(due) - heldOut.length
    heldOut.push(...Array.from(order.subarray(0, count), (i) => own[i]!))
  }
  const isHeldOut = new Set(heldOut)
  return { fit: Array.from(labels, (_, row) => row).filter((row) => !isHeldOut.has(row)), heldOut: heldOut.sort((a, b) => a - b) }
}
