import { expected } from '../errors.js'

/** A point of a line. */
export interface Point {
  readonly x: number
  readonly y: number
  /** Lower end of the error bar or band. */
  readonly low?: number
  /** Upper end of the error bar or band. */
  readonly high?: number
}

/** @throws InputError for numbers that are not finite, an x that has no logarithm, and an error bar beside its point. */
export function requirePoint(point: Point, log: boolean, name: string): void {
  if (typeof point !== 'object' || point === null) throw expected('a point { x, y }', name, point)
  const { x, y, low = y, high = y } = point
  for (const [field, value] of Object.entries({ x, y, low, high })) {
    if (!Number.isFinite(value)) throw expected('a finite number', `${name}.${field}`, value)
  }
  if (log && x <= 0) throw expected('a number above 0, as the axis is logarithmic,', `${name}.x`, x)
  if (low > y) throw expected(`a number of at most y (${y})`, `${name}.low`, low)
  if (high < y) throw expected(`a number of at least y (${y})`, `${name}.high`, high)
}

/**
 * Points that draw the same line as all: of each of so many runs of neighbours the lowest and the highest.
 *
 * @param points - In the order of x.
 */
export function thin<P extends Point>(points: readonly P[], runs: number): readonly P[] {
  if (points.length <= 2 * runs) return points
  const length = Math.ceil(points.length / runs)
  return Array.from({ length: Math.ceil(points.length / length) }, (_, i) => {
    const run = points.slice(i * length, (i + 1) * length)
    const lowest = run.reduce((best, point) => (point.y < best.y ? point : best))
    const highest = run.reduce((best, point) => (point.y > best.y ? point : best))
    return run.filter((point) => point === lowest || point === highest)
  }).flat()
}

/** The least and the greatest value; around a single one there is space. */
export function extent(values: readonly number[], log = false): [least: number, greatest: number] {
  const least = values.reduce((a, b) => Math.min(a, b))
  const greatest = values.reduce((a, b) => Math.max(a, b))
  if (least < greatest) return [least, greatest]
  if (log) return [least / 2, least * 2]
  const space = Math.abs(least) / 10 || 1
  return [least - space, least + space]
}
