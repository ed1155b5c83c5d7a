import { expected } from '../errors.js'
import type { EncodedSource } from './encoded.js'
import type { MemorySource } from './memory.js'
import { lastAtMost } from './search.js'
import type { ImageSource, SourceBase } from './source.js'
import { checkWeight, partShares, type SourcePart } from './weighted-order.js'

/**
 * Several sources as one, one after the other. An epoch has as many images as all of them together: each image once, or, where a weight is
 * given, of each source the part that its weight is of all weights ({@link weightedOrder}).
 *
 * Classes of the same name are one; the images have none unless all sources have some. Encoded images stay where they are; images in
 * memory, all of one size, are copied together.
 *
 * @param sources - At least one; all of them encoded, or all in memory with images of one size.
 * @param weights - Of each source. Those that are not given are 1, if one is given at all.
 * @throws InputError for sources that do not go together, a weight that is no number above 0, or so small that a source gives no image.
 */
export function joinSources(sources: readonly ImageSource[], weights: readonly (number | undefined)[] = []): ImageSource {
  const [one] = sources
  if (one === undefined) throw expected('at least one source', 'sources', 'none')
  if (weights.length > sources.length) throw expected(`${sources.length} weights, as many as sources,`, 'weights', weights.length)
  for (const weight of weights) if (weight !== undefined) checkWeight(weight, 'a weight')
  if (sources.length === 1) return one
  let end = 0
  const firsts = sources.map(({ length }) => (end += length) - length)
  const common = { ...joinCommon(sources, firsts, end), parts: partsOf(sources, weights, firsts, end) }
  if (sources.every((source) => source.kind === 'encoded')) return { ...common, ...joinEncoded(sources, firsts) }
  if (sources.every((source) => source.kind === 'memory')) return { ...common, ...joinMemory(sources) }
  const [memory, other] = [true, false].map((wanted) => sources.find(({ kind }) => (kind === 'memory') === wanted)!.path)
  throw expected('image files and tables only, or IDX and CIFAR files only,', `images '${memory}' and '${other}'`, 'both')
}

type Common = Pick<SourceBase, 'path' | 'length' | 'classes' | 'labels' | 'name'>

function joinCommon(sources: readonly ImageSource[], firsts: readonly number[], length: number): Common {
  return {
    path: sources.map(({ path }) => path).join(', '),
    length,
    ...joinClasses(sources, length),
    name(index) {
      const { source, own } = locate(sources, firsts, index, length)
      return `${source.path}: ${source.name(own)}`
    }
  }
}

function locate<Source extends ImageSource>(sources: readonly Source[], firsts: readonly number[], index: number, length: number) {
  if (!Number.isInteger(index) || index < 0 || index >= length) throw expected(`an integer from 0 to ${length - 1}`, 'index', index)
  const number = lastAtMost(firsts, index)
  return { source: sources[number]!, own: index - firsts[number]! }
}

/** In the order of the first source that has them: names that are numbers stay in the order of the numbers. */
function joinClasses(sources: readonly ImageSource[], length: number): Pick<SourceBase, 'classes' | 'labels'> {
  if (sources.some(({ classes, labels }) => classes === null || labels === null)) return { classes: null, labels: null }
  const classes = [...new Set(sources.flatMap((source) => source.classes!))]
  const numbers = new Map(classes.map((name, number) => [name, number]))
  const labels = new Int32Array(length)
  let at = 0
  for (const source of sources) {
    const own = source.classes!.map((name) => numbers.get(name)!)
    for (const label of source.labels!) labels[at++] = own[label]!
  }
  return { classes, labels }
}

function partsOf(
  sources: readonly ImageSource[], weights: readonly (number | undefined)[], firsts: readonly number[], total: number
): readonly SourcePart[] | undefined {
  if (weights.every((weight) => weight === undefined)) return undefined
  const parts = sources.map(({ length }, i) => ({ first: firsts[i]!, length, weight: weights[i] ?? 1 }))
  const without = partShares(parts, total).indexOf(0)
  if (without < 0) return parts
  throw expected(`a weight that gives at least one of ${total} images`, `'${sources[without]!.path}'`, parts[without]!.weight)
}

function joinEncoded(sources: readonly EncodedSource[], firsts: readonly number[]): Omit<EncodedSource, keyof Common | 'parts'> {
  const length = firsts.at(-1)! + sources.at(-1)!.length
  return {
    kind: 'encoded',
    channels: 3,
    unreadable: sources.flatMap(({ path, unreadable }) => unreadable.map((entry) => `${path}: ${entry}`)),
    blocks: joinBlocks(sources, firsts),
    content(index, signal) {
      const { source, own } = locate(sources, firsts, index, length)
      return source.content(own, signal)
    }
  }
}

/** Of a source without blocks each image is one. */
function joinBlocks(sources: readonly EncodedSource[], firsts: readonly number[]): Int32Array | null {
  if (sources.every(({ blocks }) => blocks === null)) return null
  const blocks = sources.map(({ blocks, length }) => blocks ?? Int32Array.from({ length }, (_, index) => index))
  const all = new Int32Array(blocks.reduce((sum, own) => sum + own.length, 0))
  let at = 0
  for (const [i, own] of blocks.entries()) for (const block of own) all[at++] = firsts[i]! + block
  return all
}

function joinMemory(sources: readonly MemorySource[]): Omit<MemorySource, keyof Common | 'parts'> {
  const one = sources[0]!
  const { height, width, channels } = one
  const size = (source: MemorySource) => `${source.width} x ${source.height} in ${source.channels} channels`
  const other = sources.find((source) => size(source) !== size(one))
  if (other) throw expected(`images of ${size(one)}, as '${one.path}' has them,`, `images '${other.path}'`, size(other))
  const images = new Uint8Array(sources.reduce((sum, source) => sum + source.images.length, 0))
  let at = 0
  for (const source of sources) {
    images.set(source.images, at)
    at += source.images.length
  }
  return { kind: 'memory', channels, height, width, images }
}
