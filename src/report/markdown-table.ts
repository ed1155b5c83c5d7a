import { markdownTable as writeTable } from 'markdown-table'

import { expected } from '../errors.js'

/** A text as Markdown shows it in a cell: nothing in it is markup, or begins another cell or row. */
function escape(text: string): string {
  return text.replace(/[\\`*[\]<>|~&]|(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])/gu, '\\$&').replace(/\s+/g, ' ')
}

/**
 * A table in GitHub's Markdown. Columns of numbers are aligned right.
 *
 * @throws InputError for rows of another length than the columns.
 */
export function markdownTable(columns: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const wrong = rows.findIndex((row) => row.length !== columns.length)
  if (wrong >= 0) throw expected(`${columns.length} cells, one for each column,`, `row ${wrong}`, `${rows[wrong]!.length} cells`)
  const align = columns.map((_, i) => (rows.length > 0 && rows.every((row) => typeof row[i] === 'number') ? 'right' : 'left'))
  return writeTable([columns, ...rows].map((row) => row.map((cell) => escape(String(cell)))), { align })
}
