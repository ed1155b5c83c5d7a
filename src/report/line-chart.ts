import type { Axis, Legend, Mark, Scale, Spec } from 'vega'

import { expected } from '../errors.js'
import { DENSITY, draw, titleLines, type Chart, type TextWidth } from './draw.js'
import { extent, requirePoint, thin, type Point } from './points.js'
import { cutNames, requireText } from './text.js'

/** Lines in one coordinate system. */
export interface Lines {
  readonly title: string
  readonly x: {
    readonly title: string
    /** Logarithmic; all x must be above 0. Default false. */
    readonly log?: boolean
    /** Where the axis has ticks, and what is written there. Default: round numbers. */
    readonly ticks?: readonly { readonly value: number; readonly label: string }[]
  }
  readonly y: { readonly title: string }
  /** Lines by name; the names are in the legend. */
  readonly series: readonly { readonly name: string; readonly points: readonly Point[] }[]
}

type Series = Lines['series']

/** Colours that are told apart with every kind of colour vision. Source: Okabe and Ito, "Color Universal Design"; without the yellow. */
const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000']
const SHAPES = ['circle', 'square', 'triangle-up', 'diamond', 'triangle-down', 'cross', 'triangle-right']
const DASHES = [[1, 0], [6, 3], [2, 2]]

const WIDTH = 600
const X_LABEL_SIZE = 12
/** CSS pixels between two labels of an axis. */
const LABEL_GAP = 8
/** CSS pixels beside the outermost symbols. */
const SYMBOL_PADDING = 24
const HEIGHT = 360
const Y_TICKS = 6

/** Lines of more points have neither symbols nor bars, but bands. */
const MAX_SYMBOLS = 30
/** CSS pixels between the error bars of two series at the same x, or they would hide each other. */
const DODGE = 6

/** @throws InputError for what cannot be drawn. */
function requireLines({ title, x, y, series }: Lines): Lines {
  const { log = false, ticks } = x
  const isEmpty = (value: unknown): boolean => !Array.isArray(value) || value.length === 0
  if (isEmpty(series)) throw expected('at least one series', 'series', series)
  for (const [i, { points }] of series.entries()) {
    if (isEmpty(points)) throw expected('at least one point', `series[${i}].points`, points)
    for (const [j, point] of points.entries()) requirePoint(point, log, `series[${i}].points[${j}]`)
  }
  for (const [i, { value }] of (ticks ?? []).entries()) {
    if (!Number.isFinite(value) || (log && value <= 0)) throw expected(log ? 'a number above 0' : 'a number', `x.ticks[${i}].value`, value)
  }
  return {
    title: requireText(title, 'title'),
    x: {
      title: requireText(x.title, 'x.title'),
      log,
      ...(ticks && { ticks: ticks.map(({ value, label }, i) => ({ value, label: requireText(label, `x.ticks[${i}].label`) })) })
    },
    y: { title: requireText(y.title, 'y.title') },
    series: series.map(({ name, points }, i) => ({ name: requireText(name, `series[${i}].name`), points }))
  }
}

const from = { data: 'points' }
const colour = { scale: 'colour', field: 'series' }
const yOf = (field: 'y' | 'low' | 'high') => ({ scale: 'y', field })

/** The marks of one series, in the order in which they are painted. */
function marksOf(symbols: boolean): Mark[] {
  const x = { scale: 'x', field: 'x', offset: { scale: 'dodge', field: 'series' } }
  const stroke = (width: number) => ({ stroke: colour, strokeWidth: { value: width } })
  const line: Mark = {
    type: 'line',
    from,
    encode: { enter: { x, y: yOf('y'), ...stroke(symbols ? 2 : 1.5), strokeDash: { scale: 'dash', field: 'series' } } }
  }
  if (!symbols) {
    const fillOpacity = { value: 0.18 }
    return [{ type: 'area', from, encode: { enter: { x, y: yOf('low'), y2: yOf('high'), fill: colour, fillOpacity } } }, line]
  }
  return [
    { type: 'rule', from, encode: { enter: { x, y: yOf('low'), y2: yOf('high'), ...stroke(1.5) } } },
    ...(['low', 'high'] as const).map((end): Mark => {
      const shape = { value: 'stroke' }
      const size = { signal: `datum.low < datum.high ? 50 : 0` }
      return { type: 'symbol', from, encode: { enter: { x, y: yOf(end), shape, size, ...stroke(1.5) } } }
    }),
    line,
    {
      type: 'symbol',
      from,
      encode: {
        enter: { x, y: yOf('y'), shape: { scale: 'shape', field: 'series' }, size: { value: 55 }, fill: colour }
      }
    }
  ]
}

/** The marks of all series; a later series is painted over an earlier one. */
function groups(symbols: boolean): Mark {
  return {
    type: 'group',
    from: { facet: { name: 'points', data: 'all', groupby: 'series' } },
    marks: marksOf(symbols)
  }
}

/** Where the symbols of each series stand beside their x. */
function dodges(series: Series, symbols: boolean): number[] {
  const barred = symbols && series.some(({ points }) => points.some(({ low, high }) => low !== undefined || high !== undefined))
  return series.map((_, i) => (barred ? DODGE * (i - (series.length - 1) / 2) : 0))
}

/** All points with the number of their series, in the order of x. */
function rowsOf(series: Series) {
  return series.flatMap(({ points }, i) => {
    const rows = points.map(({ x, y, low = y, high = y }) => ({ series: i, x, y, low, high }))
    return thin(rows.sort((a, b) => a.x - b.x), WIDTH * DENSITY)
  })
}

function scales({ x, series }: Lines, rows: ReturnType<typeof rowsOf>, symbols: boolean): Scale[] {
  const numbers = series.map((_, i) => i)
  const ofSeries = (name: string, range: readonly unknown[]): Scale => (
    { name, type: 'ordinal', domain: numbers, range: [...range] as string[] }
  )
  // A colour that comes again has another shape, and another dash.
  const lap = (i: number) => Math.floor(i / COLOURS.length)
  return [
    {
      name: 'x', type: x.log ? 'log' : 'linear', range: 'width', zero: false, nice: false, padding: symbols ? SYMBOL_PADDING : 0,
      domain: domainOf(x, rows)
    },
    {
      name: 'y', type: 'linear', range: 'height', zero: false, nice: Y_TICKS,
      domain: extent(rows.flatMap(({ low, high }) => [low, high]))
    },
    ofSeries('colour', COLOURS),
    ofSeries('shape', numbers.map((i) => SHAPES[(i + lap(i)) % SHAPES.length])),
    ofSeries('dash', numbers.map((i) => DASHES[lap(i) % DASHES.length])),
    ofSeries('dodge', dodges(series, symbols))
  ]
}

/**
 * What is written at each tick that is given; nothing where the next one's label takes the space. The last one, of the most labels or steps,
 * is always there.
 */
function labelsOf({ ticks = [], log = false }: Lines['x'], [least, greatest]: readonly [number, number], textWidth: TextWidth): Record<string, string> {
  const place = (value: number) => (log ? Math.log(value) : value)
  const scale = (WIDTH - 2 * SYMBOL_PADDING) / (place(greatest) - place(least))
  const labels: Record<string, string> = {}
  let free = Infinity
  for (const { value, label } of [...ticks].sort((a, b) => b.value - a.value)) {
    const half = textWidth(label, X_LABEL_SIZE) / 2
    const middle = scale * (place(value) - place(least))
    labels[value] = middle + half <= free ? label : ''
    if (labels[value]) free = middle - half - LABEL_GAP
  }
  return labels
}

/** The least and the greatest x of points and ticks. */
const domainOf = ({ ticks = [], log = false }: Lines['x'], rows: ReturnType<typeof rowsOf>) =>
  extent([...rows.map((row) => row.x), ...ticks.map(({ value }) => value)], log)

function axes({ x, y }: Lines): Axis[] {
  // Vega drops some of the values that it is given where there is a tick count.
  const ticks: Partial<Axis> = x.ticks
    ? { values: x.ticks.map(({ value }) => value), encode: { labels: { update: { text: { signal: 'labels[datum.value]' } } } } }
    : { tickCount: x.log ? 4 : 8, labelOverlap: true }
  return [
    { scale: 'y', orient: 'left', title: y.title, description: y.title, grid: true, ticks: false, domain: false, tickCount: Y_TICKS },
    { scale: 'x', orient: 'bottom', title: x.title, description: x.title, ...ticks }
  ]
}

/** The names of the series above the lines: in one row, or in as many columns as have space. */
function legend(names: readonly string[], symbols: boolean, textWidth: TextWidth): Legend {
  const widths = names.map((name) => textWidth(name, 12) + 40)
  const inOneRow = widths.reduce((sum, width) => sum + width) <= WIDTH
  return {
    ...(symbols ? { fill: 'colour', shape: 'shape' } : { stroke: 'colour', strokeDash: 'dash', symbolType: 'stroke' }),
    orient: 'top',
    description: names.join(', '),
    columns: inOneRow ? names.length : Math.max(1, Math.floor(WIDTH / Math.max(...widths))),
    columnPadding: 20,
    symbolSize: symbols ? 80 : 300,
    encode: { labels: { update: { text: { signal: 'names[datum.value]' } } } }
  }
}

/**
 * Lines by x, for accuracy by number of labels or loss by step. Few points get symbols and error bars, many a band.
 *
 * @throws InputError for a series without points, numbers that are not finite, and error bars beside their point.
 */
export async function lineChart(lines: Lines): Promise<Chart> {
  const legal = requireLines(lines)
  const { title, x, series } = legal
  const symbols = series.every(({ points }) => points.length <= MAX_SYMBOLS)
  const rows = rowsOf(series)
  return draw((textWidth): Spec => {
    const names = cutNames(series.map(({ name }) => name), WIDTH - 40, (text) => textWidth(text, 12))
    return {
      width: WIDTH,
      height: HEIGHT,
      title: { text: titleLines(title, WIDTH, textWidth) },
      signals: [
        { name: 'names', value: names },
        { name: 'labels', value: labelsOf(x, domainOf(x, rows), textWidth) }
      ],
      data: [{ name: 'all', values: rows }],
      scales: scales(legal, rows, symbols),
      axes: axes(legal),
      legends: [legend(names, symbols, textWidth)],
      marks: [groups(symbols)]
    }
  })
}
