import { readdir } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { basename, dirname, join } from 'node:path'
import type { SchemaTree } from 'hyparquet'
import { expected } from '../errors.js'
import { BrokenImageError } from './broken.js'
import { readContent } from './content.js'
import { type EncodedSource } from './encoded.js'
import { chooseSplit, type Split, type SplitFiles } from './memory.js'
import { PageCache, type Pages } from './parquet-cache.js'
import { ColumnReader, type Page } from './parquet-column.js'
import { type Chunk, type Leaf, leafOf, type ParquetFile, readParquetFile, tableName } from './parquet-file.js'
import { type Classes, findLabels, readLabels } from './parquet-labels.js'
import { lastAtMost } from './search.js'
import type { OpenOptions } from './source.js'

/** Whether a file is a Parquet table, by its name. */
export const isParquet = (path: string): boolean => /\.parquet$/i.test(path)

/** What a column of images may be called where there are several that could be. */
const imageNames = ['image', 'images', 'img', 'jpg', 'jpeg', 'png', 'webp', 'photo', 'picture'] as const

/**
 * How many images of a table are kept. In the order of an epoch 4096 images wait for their turn, of whose pages as many again were used and
 * are not forgotten yet, and four row groups are read side by side: of fewer, pages would be read again for single images.
 */
const kept = (rowsOfGroup: number): number => 2 * 4096 + 4 * rowsOfGroup

/** Pages of all tables of the process: those of one run may be several. */
export const keptPages = new PageCache<Page>(64 * 2 ** 20, totalmem() / 4)

const partName = /^(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.parquet$/i
const wholeName = /^(train|test|validation)\.parquet$/i

interface TableFiles extends SplitFiles {
  readonly name: string
}

/**
 * The Parquet files that lie directly in a folder, by their splits as Hugging Face names them: `train-00000-of-00010.parquet`,
 * `test.parquet`. Files of other names are one table.
 */
export async function findParquet(folder: string): Promise<TableFiles[]> {
  // A folder of image files may have one that tells of them, and holds none.
  const names = (await readdir(folder)).filter((name) => isParquet(name) && !name.startsWith('.') && name !== 'metadata.parquet').sort()
  const splits = new Map<string, string[]>()
  for (const name of names) {
    const [, split = ''] = partName.exec(name) ?? wholeName.exec(name) ?? []
    splits.set(split, [...(splits.get(split) ?? []), name])
  }
  return [...splits].map(([name, images]) => ({ name, images, split: splitNamed(name) }))
}

const splitNamed = (name: string): Split | null => (name === 'train' || name === 'test' ? name : null)

/**
 * Opens the Parquet files of a folder as one table, in the order of their names; of those of several splits, `split` says which
 * ({@link chooseSplit}).
 *
 * @returns null if there are none.
 * @throws InputError as {@link openParquet}, and for files of several splits none of which is meant.
 */
export async function openParquetFolder(folder: string, { split }: Pick<OpenOptions, 'split'> = {}): Promise<EncodedSource | null> {
  const found = await findParquet(folder)
  if (found.length === 0) return null
  const chosen = chooseSplit(found, split, folder, 'Parquet')
  if (chosen.split === null && found.length > 1) {
    throw expected('Parquet files of a split train, or of a single one,', `images '${folder}'`, found.map(({ images }) => images[0]))
  }
  return openParquet(folder, chosen.images.map((name) => join(folder, name)))
}

/**
 * Opens Parquet files as one table of images. The column of images is a struct of `bytes` and `path`, as data sets of Hugging Face have it,
 * or of plain bytes; of several, the one called `image` or the like. Where a row has no bytes, its path is that of a file, seen from the
 * table's folder. A column `label`, `labels`, `class` or `fine_label` of integers or texts has the classes; their names are those of the
 * data set's ClassLabel, if the file has them.
 *
 * An image is read when it is asked for, with the page that it is in. Pages are kept: 8192 images and four row groups (photographs of 110 KB,
 * in row groups of 100: 0.9 GB), of all open tables together at least 64 MiB and at most a quarter of the machine's memory; images that were
 * not asked for yet are kept before others. Where a writer put a whole row group into one page, as pyarrow does with up to 1024 images, that page is what
 * is read: the images of a block belong together.
 *
 * @param path - What was asked for: the file, or the folder of the files.
 * @throws InputError for a file that is no Parquet file, is cut short, encrypted or damaged, for no column of images or several, for some
 * rows with a label and others without, and for no rows.
 */
export async function openParquet(path: string, files: readonly string[]): Promise<EncodedSource> {
  const tables: ParquetFile[] = []
  for (const file of files) tables.push(await readParquetFile(file))
  const groups = tables.flatMap((table) => groupsOf(table, findImages(table)))
  const rows = groups.reduce((sum, group) => sum + group.rows, 0)
  if (rows === 0) throw expected('at least one row', tableName(path), 'none')
  const pages = keptPages.share(wanted(groups, rows))
  const blocks = groups.map((group) => blockOf(group, pages))
  const labels = findLabels(tables)
  let first = 0
  const firsts = Int32Array.from(blocks, (block) => (first += block.rows) - block.rows)
  return tableSource(path, blocks, firsts, rows, labels && (await readLabels(tables, labels)))
}

/** Bytes of the images that are to be kept. */
function wanted(groups: readonly RowGroup[], rows: number): number {
  const bytes = groups.reduce((sum, group) => sum + group.bytes.unpacked, 0)
  const largest = groups.reduce((most, group) => Math.max(most, group.rows), 0)
  return (bytes / rows) * kept(largest)
}

/** A row group that is not empty. */
interface RowGroup {
  readonly file: string
  /** Of its first row in the file. */
  readonly number: number
  readonly rows: number
  readonly bytes: Chunk
  readonly paths: Chunk | null
}

interface Block extends Omit<RowGroup, 'bytes' | 'paths'> {
  readonly bytes: ColumnReader
  readonly paths: ColumnReader | null
}

function groupsOf(table: ParquetFile, images: ImageColumn): RowGroup[] {
  let row = 0
  return table.groups.flatMap((rows, group) => {
    const number = row
    row += rows
    if (rows === 0) return []
    return [{ file: table.path, number, rows, bytes: table.chunk(group, images.bytes), paths: images.path && table.chunk(group, images.path) }]
  })
}

const blockOf = ({ bytes, paths, ...group }: RowGroup, pages: Pages<Page>): Block =>
  ({ ...group, bytes: new ColumnReader(bytes, pages), paths: paths && new ColumnReader(paths, pages) })

function tableSource(path: string, blocks: readonly Block[], firsts: Int32Array, length: number, labels: Classes | null): EncodedSource {
  const find = (index: number): { block: Block; row: number } => {
    if (!Number.isInteger(index) || index < 0 || index >= length) throw expected(`an integer from 0 to ${length - 1}`, 'index', index)
    const number = lastAtMost(firsts, index)
    return { block: blocks[number]!, row: index - firsts[number]! }
  }
  const nameOf = ({ block, row }: ReturnType<typeof find>): string => `${basename(block.file)}#${block.number + row}`
  return {
    kind: 'encoded', path, length, channels: 3, unreadable: [], blocks: firsts,
    classes: labels?.classes ?? null,
    labels: labels?.labels ?? null,
    name: (index) => nameOf(find(index)),
    content(index, signal) {
      const place = find(index)
      return readImage(place.block, place.row, nameOf(place), signal)
    }
  }
}

async function readImage({ file, bytes, paths }: Block, row: number, name: string, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  signal?.throwIfAborted()
  const read = (column: ColumnReader) => column.cell(row).catch((error: NodeJS.ErrnoException) => {
    const reason = error.code?.startsWith('E') ? `the file cannot be read (${error.code})` : `the table is damaged here (${error.message})`
    throw new BrokenImageError(name, reason, { cause: error })
  })
  const image = await read(bytes)
  signal?.throwIfAborted()
  // A copy: whoever gets it may hand it over to a thread, and the page is others' as well.
  if (image instanceof Uint8Array) return image.slice()
  const path = paths && (await read(paths))
  if (!(path instanceof Uint8Array) || path.length === 0) throw new BrokenImageError(name, 'the row has no image')
  return readContent({ path: join(dirname(file), new TextDecoder().decode(path)) }, name)
}

interface ImageColumn {
  readonly bytes: Leaf
  /** Of a file, where there are no bytes. */
  readonly path: Leaf | null
}

const isBytes = (node: SchemaTree): boolean => node.element.type === 'BYTE_ARRAY' && !isText(node)
const isText = ({ element }: SchemaTree): boolean =>
  element.converted_type === 'UTF8' || ['STRING', 'JSON', 'ENUM'].includes(element.logical_type?.type ?? '')

/** A column as one of images; null if it is none. */
function imageColumn(column: SchemaTree): ImageColumn | null {
  if (column.children.length === 0) {
    const bytes = isBytes(column) ? leafOf([column]) : null
    return bytes && { bytes, path: null }
  }
  const child = (name: string) => column.children.find(({ element, children }) => element.name === name && children.length === 0)
  const [bytes, path] = [child('bytes'), child('path')]
  const leaf = bytes && bytes.element.type === 'BYTE_ARRAY' ? leafOf([column, bytes]) : null
  return leaf && { bytes: leaf, path: path?.element.type === 'BYTE_ARRAY' ? leafOf([column, path]) : null }
}

function findImages({ path, columns }: ParquetFile): ImageColumn {
  const found = columns.flatMap((column) => {
    const images = imageColumn(column)
    return images ? [{ name: column.element.name, images }] : []
  })
  const named = found.filter(({ name }) => (imageNames as readonly string[]).includes(name.toLowerCase()))
  const [column, ...others] = found.length > 1 ? named : found
  if (column && others.length === 0) return column.images
  if (found.length === 0) {
    const names = columns.map(({ element }) => element.name)
    throw expected('a column of images (of bytes, or of a struct of bytes and path)', tableName(path), names)
  }
  const wanted = `a single column of images, or a single one called ${imageNames.join(', ')},`
  throw expected(wanted, tableName(path), found.map(({ name }) => name))
}
