/** @param {readonly number[]} values @param {number} part between 0 and 1 */
export function quantile(values, part) {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * part
  const low = Math.floor(at)
  return sorted[low] + (at - low) * (sorted[Math.ceil(at)] - sorted[low])
}

export const median = (values) => quantile(values, 0.5)

/** Median and quartiles. @param {readonly number[]} values */
export const summary = (values) => ({ median: median(values), q1: quantile(values, 0.25), q3: quantile(values, 0.75) })

/** `0.65 (0.63-0.68)`: median and quartiles. */
export const spread = ({ median, q1, q3 }, digits = 2) => `${median.toFixed(digits)} (${q1.toFixed(digits)}-${q3.toFixed(digits)})`

/** A table in plain text: the first column to the left, the others to the right. @param {string[]} head @param {string[][]} rows */
export function table(head, rows) {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i].length)))
  const line = (cells) => cells.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('   ')
  return [line(head), ...rows.map(line)].join('\n')
}
