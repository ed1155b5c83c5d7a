import { expected } from '../errors.js'
import type { EncodedSource } from './encoded.js'
import { copyImages } from './memory.js'
import { permutation, randomFor } from './random.js'
import { lastAtMost } from './search.js'
import type { ImageSource } from './source.js'
import type { SourcePart } from './weighted-order.js'

/**
 * Some images of a source, as a source of their own: same classes, the given order. Of a source in parts of different weight the parts
 * stay, unless the order mixes them.
 *
 * @param indices - Positions in `source`.
 * @throws InputError for none, or one that `source` does not have.
 */
export function selectImages(source: ImageSource, indices: ArrayLike<number>): ImageSource {
  const chosen = Array.from(indices)
  if (chosen.length === 0) throw expected('at least one position', 'indices', 'none')
  const stranger = chosen.find((index) => !(Number.isInteger(index) && index >= 0 && index < source.length))
  if (stranger !== undefined) throw expected(`integers from 0 to ${source.length - 1}`, 'indices', stranger)
  const at = (index: number): number => {
    const found = chosen[index]
    if (found === undefined) throw expected(`an integer from 0 to ${chosen.length - 1}`, 'index', index)
    return found
  }
  const labels = source.labels && Int32Array.from(chosen, (index) => source.labels![index]!)
  const parts = source.parts && partsOf(source.parts, chosen)
  const common = { length: chosen.length, labels, parts, name: (index: number) => source.name(at(index)) }
  if (source.kind === 'encoded') {
    return { ...source, ...common, blocks: blocksOf(source, chosen), content: (index, signal) => source.content(at(index), signal) }
  }
  return { ...source, ...common, images: copyImages(source, chosen) }
}

/** The parts of a source as far as they were chosen; none where the order goes back and forth between them. */
function partsOf(parts: readonly SourcePart[], chosen: readonly number[]): readonly SourcePart[] | undefined {
  const firsts = parts.map(({ first }) => first)
  const numbers = chosen.map((index) => lastAtMost(firsts, index))
  if (numbers.some((number, i) => i > 0 && number < numbers[i - 1]!)) return undefined
  return parts.flatMap(({ weight }, number) => {
    const first = numbers.indexOf(number)
    return first < 0 ? [] : [{ first, length: numbers.lastIndexOf(number) + 1 - first, weight }]
  })
}

/** Where a new block begins among the chosen images. */
function blocksOf({ blocks }: EncodedSource, chosen: readonly number[]): Int32Array | null {
  if (blocks === null) return null
  const blockOf = (index: number) => lastAtMost(blocks, index)
  return Int32Array.from(chosen.flatMap((index, i) => (i === 0 || blockOf(index) !== blockOf(chosen[i - 1]!) ? [i] : [])))
}

/** How many labelled images there are to learn from: a part of each class, or so many images of each. */
export type LabelBudget = { readonly part: number } | { readonly perClass: number }

/** Reads `1%` (a part of each class) or `25/class`. @throws InputError for another text. */
export function parseLabelBudget(text: string): LabelBudget {
  const [, percent] = /^(\d+(?:\.\d+)?) ?%$/.exec(text) ?? []
  const part = Number(percent) / 100
  if (part > 0 && part <= 1) return { part }
  const [, count] = /^(\d+)\/class$/.exec(text) ?? []
  if (Number(count) >= 1) return { perClass: Number(count) }
  throw expected("a part like '1%' or a number like '25/class'", 'labels', text)
}

// Positions of each class, in an order that the seed decides for each class alone.
function shuffledClasses(labels: ArrayLike<number>, seed: number, purpose: string): number[][] {
  const byClass = new Map<number, number[]>()
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i]!
    const positions = byClass.get(label)
    if (positions) positions.push(i)
    else byClass.set(label, [i])
  }
  return [...byClass].map(([label, positions]) =>
    Array.from(permutation(positions.length, randomFor(seed, label, purpose)), (place) => positions[place]!)
  )
}

const ascending = (positions: readonly number[]) => Int32Array.from(positions).sort()

/**
 * Labelled images to learn from: of each class the same part, or number, and at least one. With the same seed a smaller budget gives a
 * part of what a larger one gives.
 *
 * @param labels - Class of each image.
 * @returns Positions, ascending.
 */
export function chooseLabelled(labels: ArrayLike<number>, budget: LabelBudget, seed: number): Int32Array {
  const count = (size: number) => ('part' in budget ? Math.max(1, Math.round(budget.part * size)) : Math.min(size, budget.perClass))
  return ascending(shuffledClasses(labels, seed, 'labels').flatMap((positions) => positions.slice(0, count(positions.length))))
}

/**
 * Holds out a part of each class, for choices; of each class at least one is kept. Where the part of a class is no whole number, classes
 * take turns, so that over all of them it comes out.
 *
 * @param part - Of each class, above 0 and below 1.
 * @returns Positions, ascending: what remains, and what is held out, which may be nothing.
 */
export function holdOut(labels: ArrayLike<number>, part: number, seed: number): { kept: Int32Array; heldOut: Int32Array } {
  if (!(typeof part === 'number' && part > 0 && part < 1)) throw expected('a number between 0 and 1', 'the part to hold out', part)
  const classes = shuffledClasses(labels, seed, 'hold out')
  const kept: number[] = []
  const heldOut: number[] = []
  // In random order, or the turns would always come to the same classes.
  let due = 0
  for (const i of permutation(classes.length, randomFor(seed, 'turns'))) {
    const positions = classes[i]!
    due += Math.min(part * positions.length, positions.length - 1)
    const count = Math.round(due) - heldOut.length
    heldOut.push(...positions.slice(0, count))
    kept.push(...positions.slice(count))
  }
  return { kept: ascending(kept), heldOut: ascending(heldOut) }
}
