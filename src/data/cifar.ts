import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expected } from '../errors.js'
import { chooseSplit, type MemorySource, type SplitFiles } from './memory.js'
import type { OpenOptions } from './source.js'

const SIDE = 32
const PIXELS = 3 * SIDE * SIDE

/** One of the two layouts that https://www.cs.toronto.edu/~kriz/cifar.html describes: records of label bytes, then red, green and blue. */
interface Layout {
  readonly name: string
  readonly train: RegExp
  readonly test: RegExp
  /** Bytes before the pixels; the last of them is the class (CIFAR-100: the fine label). */
  readonly labels: number
  /** A text file with the name of a class in each line. */
  readonly names: string
  /** How many classes there are where that file is not. */
  readonly classes: number
}

const layouts: readonly Layout[] = [
  { name: 'CIFAR-10', train: /^data_batch_[1-9]\d*\.bin$/, test: /^test_batch\.bin$/, labels: 1, names: 'batches.meta.txt', classes: 10 },
  { name: 'CIFAR-100', train: /^train\.bin$/, test: /^test\.bin$/, labels: 2, names: 'fine_label_names.txt', classes: 100 }
]

interface CifarFiles extends SplitFiles {
  readonly layout: Layout
}

/** The CIFAR files that lie directly in a folder, by their names. */
export async function findCifar(folder: string): Promise<CifarFiles[]> {
  const names = await readdir(folder)
  return layouts.flatMap((layout) =>
    (['train', 'test'] as const).flatMap((split) => {
      const images = names.filter((name) => layout[split].test(name)).sort((a, b) => batchNumber(a) - batchNumber(b))
      return images.length > 0 ? [{ split, images, layout }] : []
    })
  )
}

const batchNumber = (name: string): number => Number(/\d+/.exec(name)?.[0] ?? 0)

/**
 * Opens the CIFAR-10 or CIFAR-100 files of a folder, in their binary version: images of 32 x 32 in colour, with classes.
 *
 * @returns null if there is no file by such a name.
 * @throws InputError for a split that is not there, files of both data sets, a batch that is missing between others, a damaged file.
 */
export async function openCifar(folder: string, { split }: Pick<OpenOptions, 'split'> = {}): Promise<MemorySource | null> {
  const found = await findCifar(folder)
  if (found.length === 0) return null
  const name = `images '${folder}'`
  if (new Set(found.map(({ layout }) => layout)).size > 1) {
    throw expected('files of CIFAR-10 or of CIFAR-100', name, found.flatMap(({ images }) => images))
  }
  const { layout, images: files } = chooseSplit(found, split, folder, layouts.map((one) => one.name).join(' or '))
  const missing = files.findIndex((file, i) => file.startsWith('data_batch') && batchNumber(file) !== i + 1)
  if (missing >= 0) throw expected(`data_batch_${missing + 1}.bin beside ${files[missing]!}`, name, files)
  const classes = await readClasses(folder, layout)
  const contents = []
  for (const file of files) contents.push(await readRecords(join(folder, file), layout, classes.length))
  const ends = contents.reduce<number[]>((sums, { labels }) => [...sums, (sums.at(-1) ?? 0) + labels.length], [])
  const length = ends.at(-1)!
  const images = new Uint8Array(length * PIXELS)
  const labels = new Int32Array(length)
  for (const [i, content] of contents.entries()) {
    images.set(content.images, (ends[i - 1] ?? 0) * PIXELS)
    labels.set(content.labels, ends[i - 1] ?? 0)
  }
  return {
    kind: 'memory', path: folder, length, channels: 3, height: SIDE, width: SIDE, classes, labels, images,
    name(index) {
      if (!Number.isInteger(index) || index < 0 || index >= length) throw expected(`an integer from 0 to ${length - 1}`, 'index', index)
      const file = ends.findIndex((end) => index < end)
      return `${files[file]!}#${index - (ends[file - 1] ?? 0)}`
    }
  }
}

/** The names of the classes, or their numbers where there is no file of names. */
async function readClasses(folder: string, layout: Layout): Promise<string[]> {
  const file = join(folder, layout.names)
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw expected('a readable file', `the class names '${file}'`, error.code)
  })
  if (text === null) return Array.from({ length: layout.classes }, (_, label) => String(label))
  const names = text.split('\n').map((line) => line.trim()).filter((line) => line !== '')
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw expected('a name for each class', `the class names '${file}'`, `${twice} twice`)
  return names
}

/** One file: pixels [N, 3, 32, 32] and the class of each image. */
async function readRecords(file: string, layout: Layout, classes: number): Promise<{ images: Uint8Array; labels: Uint8Array }> {
  const name = `the ${layout.name} file '${file}'`
  const stored = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    throw expected('a readable file', name, error.code)
  })
  const step = layout.labels + PIXELS
  if (stored.length === 0 || stored.length % step) throw expected(`a multiple of ${step} bytes, one or more records,`, name, stored.length)
  const count = stored.length / step
  const images = new Uint8Array(count * PIXELS)
  const labels = new Uint8Array(count)
  for (let i = 0; i < count; i++) {
    const pixels = i * step + layout.labels
    const label = stored[pixels - 1]!
    if (label >= classes) throw expected(`a label below ${classes}, the number of classes,`, `record ${i} of ${name}`, label)
    labels[i] = label
    images.set(stored.subarray(pixels, pixels + PIXELS), i * PIXELS)
  }
  return { images, labels }
}
