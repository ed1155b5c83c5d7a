import type { SchemaTree } from 'hyparquet'
import { expected, InputError } from '../errors.js'
import { type EncodedSource, numberClasses } from './encoded.js'
import { PageCache } from './parquet-cache.js'
import { ColumnReader } from './parquet-column.js'
import { type Leaf, leafOf, type ParquetFile, tableName } from './parquet-file.js'
import type { Cell } from './parquet-page.js'

const labelNames = ['label', 'labels', 'class', 'fine_label'] as const

/** As images have them. */
export type Classes = Pick<EncodedSource, 'classes' | 'labels'>

/** The column of labels of each file of a table. */
export type LabelColumns = readonly Leaf[]

/**
 * The columns of labels: integers or texts. Those of other types (lists, boxes, numbers with a fraction) are no classes.
 *
 * @returns null if there are none.
 * @throws InputError for several, and for files with one beside files without.
 */
export function findLabels(tables: readonly ParquetFile[]): LabelColumns | null {
  const leaves = tables.map((table) => {
    const found = table.columns.filter(({ element }) => (labelNames as readonly string[]).includes(element.name)).filter(isClass)
    if (found.length > 1) throw expected(`one of ${labelNames.join(', ')}`, tableName(table.path), found.map(({ element }) => element.name))
    return found[0] ? leafOf([found[0]]) : null
  })
  const without = leaves.findIndex((leaf) => (leaf === null) !== (leaves[0] === null))
  if (without < 0) return leaves[0] === null ? null : (leaves as Leaf[])
  const [wanted, received] = leaves[0] === null ? ['no labels', 'labels'] : ['labels', 'none']
  throw expected(`${wanted}, as in ${tableName(tables[0]!.path)},`, tableName(tables[without]!.path), received)
}

function isClass({ element, children }: SchemaTree): boolean {
  if (children.length > 0 || element.repetition_type === 'REPEATED') return false
  const { type, converted_type: converted, logical_type: logical } = element
  const integers = converted === undefined ? logical === undefined || logical.type === 'INTEGER' : /^U?INT_\d+$/.test(converted)
  return type === 'BYTE_ARRAY' ? converted === 'UTF8' || logical?.type === 'STRING' : (type === 'INT32' || type === 'INT64') && integers
}

/**
 * The classes of a table's images.
 *
 * @returns null if no row has one. Of the classes of a data set -1 means none.
 * @throws InputError for some rows with a label and others without, a number that none of the named classes has, and damaged values.
 */
export async function readLabels(tables: readonly ParquetFile[], columns: LabelColumns): Promise<Classes | null> {
  const names = classNames(tables[0]!, columns[0]!)
  const labels: (string | number)[] = []
  let rows = 0
  for (const [i, table] of tables.entries()) {
    for (const cell of await readColumn(table, columns[i]!)) {
      const label = labelOf(cell, names !== null)
      if (label !== null) labels.push(label)
      rows++
      if (labels.length === rows || labels.length === 0) continue
      throw expected('a label in each row, or in none,', tableName(table.path), `${label === null ? 'none' : label} after others`)
    }
  }
  if (labels.length === 0) return null
  return names === null ? numbered(labels) : named(labels, names, tables[0]!)
}

async function readColumn(table: ParquetFile, leaf: Leaf): Promise<Cell[]> {
  const cells: Cell[] = []
  for (const [group, rows] of table.groups.entries()) {
    if (rows === 0) continue
    try {
      for (const cell of await new ColumnReader(table.chunk(group, leaf), new PageCache(Infinity)).all()) cells.push(cell)
    } catch (error) {
      if (error instanceof InputError) throw error
      throw expected('intact values', `column ${leaf.path.join('.')} of ${tableName(table.path)}`, (error as Error).message)
    }
  }
  return cells
}

const utf8 = new TextDecoder()

function labelOf(cell: Cell, named: boolean): string | number | null {
  if (cell === null) return null
  if (cell instanceof Uint8Array) return utf8.decode(cell) || null
  const number = Number(cell)
  return named && number === -1 ? null : number
}

/** Without names, the classes are the numbers in their order, or the texts in theirs. */
function numbered(labels: readonly (string | number)[]): { classes: string[]; labels: Int32Array } {
  if (typeof labels[0] === 'string') return numberClasses(labels as string[])
  const numbers = [...new Set(labels as number[])].sort((a, b) => a - b)
  const places = new Map(numbers.map((number, place) => [number, place]))
  return { classes: numbers.map(String), labels: Int32Array.from(labels as number[], (number) => places.get(number)!) }
}

function named(labels: readonly (string | number)[], classes: readonly string[], { path }: ParquetFile) {
  const stranger = labels.find((label) => !(typeof label === 'number' && label >= 0 && label < classes.length))
  if (stranger !== undefined) throw expected(`labels from 0 to ${classes.length - 1}, of the named classes,`, tableName(path), stranger)
  return { classes, labels: Int32Array.from(labels as number[]) }
}

/** The names of a ClassLabel, as the library `datasets` puts them beside the table; null if there are none. */
function classNames({ notes }: ParquetFile, { path, element }: Leaf): readonly string[] | null {
  if (element.type === 'BYTE_ARRAY') return null
  try {
    const note = JSON.parse(notes.get('huggingface') ?? 'null') as { info?: { features?: Record<string, { names?: unknown }> } } | null
    const names = note?.info?.features?.[path[0]!]?.names
    return Array.isArray(names) && names.length > 0 && names.every((name) => typeof name === 'string') ? names : null
  } catch {
    return null
  }
}
