import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type CsvError, parse } from 'csv-parse/sync'
import { expected } from '../errors.js'
import { type EncodedSource, fileSource, numberClasses } from './encoded.js'

/** The endings of files that are taken for lists of images, in any case. */
export const listExtensions = ['csv', 'jsonl'] as const

/** What the path of an image may be called, and what its class. */
const pathNames = ['path', 'image', 'file'] as const
const labelNames = ['label', 'class'] as const

/** Whether a file is a list of images, by its name. */
export const isList = (path: string): boolean => /\.(?:csv|jsonl)$/i.test(path)

/** One image of a list. */
interface Row {
  readonly line: number
  readonly path: string
  readonly label: string | null
}

/** What a line of the list is called in messages. */
type At = (line: number) => string

/**
 * Opens a list of images: a CSV file whose first line names the columns, or a file with a JSON object in each line. `path` (or `image`,
 * `file`) is where an image is, seen from the folder of the list; `label` (or `class`) is its class: all of them have one, or none. The
 * order is that of the list. Spaces around a cell of CSV count only in quotes. No image is opened: one that is not there counts as broken
 * when it is asked for.
 *
 * @throws InputError with the number of the line: no such column, both of two names for it, an empty path, the same path twice, some images
 * with a class and others without, what is neither CSV nor JSON; and for a list without images, or one that is not in UTF-8.
 */
export async function openList(path: string): Promise<EncodedSource> {
  const name = `the list '${path}'`
  const at: At = (line) => `line ${line} of ${name}`
  const text = decodeText(await readFile(path), name)
  const rows = /csv$/i.test(path) ? readCsv(text, at) : readJsonLines(text, at)
  const [first] = rows
  if (first === undefined) throw expected('at least one image', name, 'none')
  checkRows(rows, first, at)
  const classes = first.label === null ? { classes: null, labels: null } : numberClasses(rows.map(({ label }) => label!))
  return fileSource({ path, root: dirname(path), files: rows.map((row) => row.path), unreadable: [], ...classes })
}

function decodeText(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw expected('text in UTF-8', name, 'other bytes')
  }
}

function checkRows(rows: readonly Row[], first: Row, at: At): void {
  const lines = new Map<string, number>()
  for (const { line, path, label } of rows) {
    if (path === '') throw expected('the path of an image', at(line), path)
    const before = lines.get(path)
    if (before !== undefined) throw expected('each image once', at(line), `${path}, as in line ${before}`)
    lines.set(path, line)
    if ((label === null) === (first.label === null)) continue
    const [wanted, found] = label === null ? ['a label', 'none'] : ['no label', label]
    throw expected(`${wanted}, like line ${first.line},`, at(line), found)
  }
}

/** The one of these names that there is, null if there is none of them. @throws InputError for several. */
function choose(candidates: readonly string[], names: readonly string[], at: string): string | null {
  const found = names.filter((name) => candidates.includes(name))
  if (found.length > 1) throw expected(`one of ${candidates.join(', ')}`, at, found.join(' and '))
  return found[0] ?? null
}

function choosePath(names: readonly string[], what: string, at: string): string {
  const path = choose(pathNames, names, at)
  if (path === null) throw expected(`a ${what} ${pathNames.slice(0, -1).join(', ')} or ${pathNames.at(-1)}`, at, names.join(', '))
  return path
}

interface Cells {
  /** The last of the record: a cell in quotes may go over several. */
  readonly line: number
  readonly cells: readonly string[]
}

function readCsv(text: string, at: At): Row[] {
  const [header, ...records] = parseCsv(text, at)
  if (header === undefined) return []
  const names = header.cells
  const path = names.indexOf(choosePath(names, 'column', at(header.line)))
  const labelName = choose(labelNames, names, at(header.line))
  const label = labelName === null ? null : names.indexOf(labelName)
  return records.map(({ line, cells }) => {
    if (cells.length !== names.length) throw expected(`${names.length} cells, as many as columns,`, at(line), cells.length)
    return { line, path: cells[path]!, label: label === null ? null : cells[label]! || null }
  })
}

function parseCsv(text: string, at: At): Cells[] {
  const ends: number[] = []
  const note = (cells: string[], { lines }: { readonly lines: number }) => {
    ends.push(lines)
    return cells
  }
  try {
    const records = parse(text, { trim: true, relax_column_count: true, skip_empty_lines: true, on_record: note })
    return records.map((cells, i) => ({ line: ends[i]!, cells }))
  } catch (error) {
    const { lines, message } = error as CsvError
    throw expected('CSV', at(Number(lines)), message)
  }
}

function readJsonLines(text: string, at: At): Row[] {
  return text.split('\n').flatMap((content, index) => (content.trim() === '' ? [] : [readJsonLine(content, index + 1, at(index + 1))]))
}

function readJsonLine(content: string, line: number, at: string): Row {
  const record = parseJson(content, at)
  const names = Object.keys(record)
  const path = record[choosePath(names, 'key', at)]
  if (typeof path !== 'string') throw expected('the path of an image', at, path)
  const labelName = choose(labelNames, names, at)
  const label = labelName === null ? null : record[labelName]
  if (label === null || label === undefined || label === '') return { line, path, label: null }
  if (typeof label !== 'string' && typeof label !== 'number') throw expected('a text or a number as label', at, label)
  return { line, path, label: String(label) }
}

function parseJson(content: string, at: string): Record<string, unknown> {
  let record: unknown
  try {
    record = JSON.parse(content)
  } catch {
    throw expected('a JSON object', at, content.trim())
  }
  if (typeof record !== 'object' || record === null || Array.isArray(record)) throw expected('a JSON object', at, record)
  return record as Record<string, unknown>
}
