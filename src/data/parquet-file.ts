import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { type ColumnMetaData, type FileMetaData, parquetMetadata, parquetSchema, type SchemaElement, type SchemaTree } from 'hyparquet'
import { expected } from '../errors.js'
import { codecs } from './parquet-unpack.js'

/** A column that has values of its own: at the end of a path through structs. */
export interface Leaf {
  readonly path: readonly string[]
  readonly element: SchemaElement
  /** The definition level of a value that is there; lower ones are nulls. */
  readonly maxDefinition: number
}

/** The values of a column in one row group: a range of bytes, in which page follows page. */
export interface Chunk {
  readonly file: string
  readonly leaf: Leaf
  readonly codec: ColumnMetaData['codec']
  readonly rows: number
  readonly first: number
  readonly length: number
  /** Bytes of all its pages once they are unpacked. */
  readonly unpacked: number
}

/** What the footer of a Parquet file says. */
export interface ParquetFile {
  readonly path: string
  readonly columns: readonly SchemaTree[]
  /** Rows of each row group. */
  readonly groups: readonly number[]
  /** Texts that whoever wrote the file put beside the table. */
  readonly notes: ReadonlyMap<string, string>
  /** @throws InputError if the group lacks the column, or it is encrypted, packed in an unknown way, elsewhere, or not inside the file. */
  chunk(group: number, leaf: Leaf): Chunk
}

/** `PAR1` at both ends; where the footer is encrypted, `PARE`. */
const MAGIC = 4
/** Length of the footer, then the magic. */
const TAIL = 4 + MAGIC

export async function readRange(file: FileHandle, first: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length)
  let read = 0
  while (read < length) {
    const { bytesRead } = await file.read(bytes, read, length - read, first + read)
    if (bytesRead === 0) throw new Error('the file is cut short')
    read += bytesRead
  }
  return bytes
}

/** Opens a file to read; a pipe, which would be waited for without end, is none. */
export const openToRead = (path: string): Promise<FileHandle> => open(path, constants.O_RDONLY | constants.O_NONBLOCK)

export const tableName = (path: string): string => `the table '${path}'`

/**
 * Reads the footer of a Parquet file: its columns, and where they are.
 *
 * @throws InputError for another file, one that is cut short, encrypted or damaged.
 */
export async function readParquetFile(path: string): Promise<ParquetFile> {
  await using file = await openToRead(path)
  const { size } = await file.stat()
  const name = tableName(path)
  const wrong = (received: unknown) => expected('a whole Parquet file, PAR1 at both ends,', name, received)
  if (size < MAGIC + TAIL) throw wrong(`a file of ${size} bytes`)
  const tail = Buffer.from(await readRange(file, size - TAIL, TAIL))
  const magics = [Buffer.from(await readRange(file, 0, MAGIC)), tail.subarray(TAIL - MAGIC)].map((bytes) => bytes.toString('latin1'))
  if (magics.includes('PARE')) throw expected('a Parquet file without encryption', name, 'an encrypted one')
  if (magics.some((magic) => magic !== 'PAR1')) throw wrong(magics[0] === 'PAR1' ? 'a file that is cut short' : 'another file')
  const length = tail.readUInt32LE(0)
  if (length > size - MAGIC - TAIL) throw wrong(`a footer of ${length} bytes in a file of ${size}`)
  const footer = await readRange(file, size - TAIL - length, length + TAIL)
  try {
    return describeFile(path, size - TAIL - length, parse(footer))
  } catch (error) {
    throw expected('a Parquet file with an intact footer', name, (error as Error).message)
  }
}

// Smallest and largest values are not asked for; as texts, those of images would be large.
const parse = (footer: Uint8Array): FileMetaData => parquetMetadata(footer, { geoparquet: false, parsers: { stringFromBytes: () => '' } })

/** A number of bytes or rows. */
function count(value: bigint | number | undefined): number {
  const number = Number(value)
  if (!Number.isSafeInteger(number) || number < 0) throw new Error(`a size of ${String(value)}`)
  return number
}

/** @param end - Where the footer begins: the data is before it. */
function describeFile(path: string, end: number, metadata: FileMetaData): ParquetFile {
  // The root, which is not named everywhere, comes first.
  if (metadata.schema.slice(1).some(({ name }) => typeof name !== 'string')) throw new Error('a column without a name')
  const groups = metadata.row_groups.map(({ num_rows }) => count(num_rows))
  const places = metadata.row_groups.map(({ columns }) => new Map(columns.map((column) => [pathOf(column.meta_data), column])))
  const notes = new Map(metadata.key_value_metadata?.map(({ key, value }) => [key, value ?? '']))
  return {
    path, groups, notes,
    columns: parquetSchema(metadata).children,
    chunk(group, leaf) {
      const name = `column ${leaf.path.join('.')} of ${tableName(path)}`
      const column = places[group]!.get(leaf.path.join('.'))
      const encrypted = column?.crypto_metadata ?? column?.encrypted_column_metadata
      if (encrypted !== undefined) throw expected('a column without encryption', name, 'an encrypted one')
      if (!column?.meta_data) throw expected('values in each row group', name, 'none')
      const { codec } = column.meta_data
      if (!codecs.includes(codec)) throw expected(`values packed by ${codecs.join(', ')}`, name, codec)
      if (column.file_path) throw expected('values in the same file', name, column.file_path)
      try {
        return { file: path, leaf, rows: groups[group]!, ...placeOf(column.meta_data, groups[group]!, end) }
      } catch (error) {
        throw expected('values inside the file', name, (error as Error).message)
      }
    }
  }
}

const pathOf = (meta: ColumnMetaData | undefined): string => meta?.path_in_schema.join('.') ?? ''

function placeOf(meta: ColumnMetaData, rows: number, end: number): Pick<Chunk, 'codec' | 'first' | 'length' | 'unpacked'> {
  const data = count(meta.data_page_offset)
  // Some writers say 0 where there is no dictionary.
  const dictionary = count(meta.dictionary_page_offset ?? 0n)
  const first = dictionary > 0 ? Math.min(dictionary, data) : data
  const length = count(meta.total_compressed_size)
  if (first < MAGIC || first + length > end) throw new Error(`bytes ${first} to ${first + length} of ${end}`)
  if (count(meta.num_values) !== rows) throw new Error(`${meta.num_values} values for ${rows} rows`)
  return { codec: meta.codec, first, length, unpacked: count(meta.total_uncompressed_size) }
}

/** A column's leaf; null if it is, or lies in, a list. */
export function leafOf(nodes: readonly SchemaTree[]): Leaf | null {
  if (nodes.some(({ element }) => element.repetition_type === 'REPEATED')) return null
  const { element, path } = nodes.at(-1)!
  return { path, element, maxDefinition: nodes.filter((node) => node.element.repetition_type !== 'REQUIRED').length }
}
