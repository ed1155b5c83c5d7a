import type { FileHandle } from 'node:fs/promises'
import type { PageHeader } from 'hyparquet'
import { parquetHeader } from 'hyparquet/src/column.js'
import pLimit from 'p-limit'
import type { KeptPage, Pages } from './parquet-cache.js'
import { type Chunk, openToRead, readRange } from './parquet-file.js'
import { type Cell, type Cells, type PageContent, readDataPage, readDictionaryPage } from './parquet-page.js'
import { unpackPage } from './parquet-unpack.js'
import { lastAtMost } from './search.js'

/** Where a page is, and what its header says. */
export interface Page {
  readonly content: Omit<PageContent, 'levels'>
  readonly dictionary: boolean
  /** First row in the row group. */
  readonly row: number
  /** First byte behind the header, and how many there are. */
  readonly first: number
  readonly length: number
  /** Bytes of the levels in front that are not packed; null: they are packed with the values. */
  readonly levels: number | null
  readonly packed: boolean
  /** Length of all once it is unpacked. */
  readonly unpacked: number
  readonly crc: number | null
}

/** Pages of more bytes are read one at a time. */
const LARGE = 32 * 2 ** 20
const oneLarge = pLimit(1)

/** The values of a column in one row group. Only the pages that are asked for are read. */
export class ColumnReader {
  #pages: Promise<PageList> | null = null

  constructor(readonly chunk: Chunk, readonly kept: Pages<Page>) {}

  /** The value in a row of the row group. @throws Error for a damaged page, and a file that cannot be read. */
  async cell(row: number): Promise<Cell> {
    const { values, rows } = await this.#list()
    const page = values[lastAtMost(rows, row)]!
    return this.#take(page, row - page.row)
  }

  /** All values. */
  async all(): Promise<Cell[]> {
    const cells: Cell[] = []
    for (const page of (await this.#list()).values) {
      for (let i = 0; i < page.content.values; i++) cells.push(await this.#take(page, i))
    }
    return cells
  }

  /** The value at a position of a page. */
  async #take(page: Page, i: number): Promise<Cell> {
    const kept = await this.#read(page)
    const cell = kept.take(i)
    if (cell === undefined) {
      this.kept.forget(page, kept)
      return this.#take(page, i)
    }
    if (!kept.coded || cell === null) return cell
    const { dictionary } = await this.#list()
    if (dictionary === null) throw new Error('its dictionary is missing')
    return this.#take(dictionary, Number(cell))
  }

  #list(): Promise<PageList> {
    const pages = this.#pages ?? withFile(this.chunk, (file) => listPages(file, this.chunk))
    this.#pages = pages
    // What could not be read may be there another time.
    pages.catch(() => (this.#pages = null))
    return pages
  }

  #read(page: Page): Promise<KeptPage> {
    const read = () => withFile(this.chunk, (file) => readPage(file, this.chunk, page))
    return this.kept.get(page, page.unpacked, () => (page.unpacked > LARGE ? oneLarge(read) : read()))
  }
}

async function withFile<T>({ file: path }: Chunk, use: (file: FileHandle) => Promise<T>): Promise<T> {
  await using file = await openToRead(path)
  return await use(file)
}

async function readPage(file: FileHandle, { leaf, codec }: Chunk, page: Page): Promise<Cells> {
  const bytes = await readRange(file, page.first, page.length)
  const plain = page.levels ?? 0
  // Unpacking takes the bytes away.
  const levels = page.levels === null ? null : bytes.slice(0, plain)
  const body = await unpackPage({ codec: page.packed ? codec : 'UNCOMPRESSED', bytes, plain, size: page.unpacked - plain, crc: page.crc })
  if (page.dictionary) return readDictionaryPage(leaf, page.content.values, body)
  return readDataPage(leaf, { ...page.content, levels }, body)
}

/** Headers are read in parts of a file of so many bytes, and in larger ones where a header is larger. */
const WINDOW = 16 * 1024
const LARGEST_HEADER = 64 * 2 ** 20

/** The pages of a column in a row group. */
interface PageList {
  readonly dictionary: Page | null
  /** At least one. */
  readonly values: readonly Page[]
  /** First row of each of them. */
  readonly rows: readonly number[]
}

async function listPages(file: FileHandle, chunk: Chunk): Promise<PageList> {
  const end = chunk.first + chunk.length
  const pages: Page[] = []
  let [window, windowAt] = [new Uint8Array(), 0]
  for (let [at, row] = [chunk.first, 0]; row < chunk.rows && at < end; ) {
    let found = headerAt(window, at - windowAt)
    for (let size = WINDOW; found === null; size *= 16) {
      if (size > LARGEST_HEADER || window.length >= end - at && windowAt === at) throw new Error('the header of a page is damaged')
      ;[window, windowAt] = [await readRange(file, at, Math.min(size, end - at)), at]
      found = headerAt(window, 0)
    }
    const page = describePage(found.header, at + found.length, row, chunk)
    at += found.length + found.header.compressed_page_size
    if (page === null) continue
    pages.push(page)
    if (!page.dictionary) row += page.content.values
  }
  const values = pages.filter((page) => !page.dictionary && page.content.values > 0)
  if (values.reduce((sum, page) => sum + page.content.values, 0) !== chunk.rows) throw new Error('pages are missing')
  return { dictionary: pages.find((page) => page.dictionary) ?? null, values, rows: values.map((page) => page.row) }
}

/** null if there is none, or not the whole of it. */
function headerAt(bytes: Uint8Array<ArrayBuffer>, at: number): { header: PageHeader; length: number } | null {
  if (at < 0 || at >= bytes.length) return null
  const reader = { view: new DataView(bytes.buffer), offset: at }
  try {
    return { header: parquetHeader(reader), length: reader.offset - at }
  } catch {
    return null
  }
}

/** null for a page without values, which is passed over. @throws Error for numbers that cannot be. */
function describePage(header: PageHeader, first: number, row: number, chunk: Chunk): Page | null {
  const { compressed_page_size: length, uncompressed_page_size: unpacked, data_page_header: v1, data_page_header_v2: v2 } = header
  const data = header.type === 'DATA_PAGE' ? v1 : header.type === 'DATA_PAGE_V2' ? v2 : undefined
  const dictionary = header.type === 'DICTIONARY_PAGE' ? header.dictionary_page_header : undefined
  const inside = (value: number, most: number) => Number.isInteger(value) && value >= 0 && value <= most
  if (!inside(length, chunk.first + chunk.length - first)) throw new Error('a page has an impossible length')
  const found = data ?? dictionary
  if (!found) {
    if (header.type === 'INDEX_PAGE') return null
    throw new Error('a page is of no known type')
  }
  // What is unpacked is told twice; the headers are counted in one of the two.
  if (!inside(unpacked, chunk.unpacked)) throw new Error('a page has an impossible length')
  if (!inside(found.num_values, data ? chunk.rows - row : unpacked)) throw new Error('a page has an impossible number of values')
  const levels = data && data === v2 ? v2.definition_levels_byte_length : null
  if (levels !== null && !(v2!.repetition_levels_byte_length === 0 && inside(levels, Math.min(length, unpacked)))) {
    throw new Error('a page has levels of an impossible length')
  }
  return {
    content: { encoding: found.encoding, values: found.num_values },
    dictionary: !data, row, first, length, levels, unpacked,
    packed: levels === null || v2!.is_compressed !== false,
    crc: header.crc ?? null
  }
}
