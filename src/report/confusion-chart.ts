import sharp from 'sharp'
import type { Axis, Mark, Spec } from 'vega'

import { expected } from '../errors.js'
import { DENSITY, draw, titleLines, type Chart, type TextWidth } from './draw.js'
import { EMPTY, inkOn, shade, shadeScale } from './shades.js'
import { cutNames, requireText } from './text.js'

/** How often images of each class were taken for each class. */
export interface Confusion {
  /** Names of the classes, at most 2000. */
  readonly classes: readonly string[]
  /** Images by true class (rows) and predicted class (columns), in the order of `classes`. */
  readonly counts: readonly ArrayLike<number>[]
  readonly title: string
}

/** Shares of a row of counts; null for a row without images. */
type Shares = Float64Array | null

/** As many as a picture of sane size has pixels for. */
const MAX_CLASSES = 2000

// Sides of cells in CSS pixels, from which on there is space for lines between them, for shares, for a decimal, and for counts.
const LINES_FROM = 8
const SHARES_FROM = 24
const DECIMALS_FROM = 34
const COUNTS_FROM = 40

/** A row or column of at least this height has space for the name of its class. */
const LABELS_FROM = 9
/** Distance of the names where only some have space. */
const SPARSE_LABELS = 25
/** Greatest width of a name. */
const MAX_LABEL = 150

/** @throws InputError unless the counts are those of the classes. */
function requireConfusion({ classes, counts, title }: Confusion): Confusion {
  const isList = (value: unknown): boolean => Array.isArray(value)
  const size = isList(classes) ? classes.length : 0
  if (size < 1 || size > MAX_CLASSES) throw expected(`from 1 to ${MAX_CLASSES} names`, 'classes', classes)
  if (!isList(counts) || counts.length !== size) throw expected(`${size} rows, one for each class,`, 'counts', counts)
  for (const [i, row] of counts.entries()) {
    if (row?.length !== size) throw expected(`${size} columns, one for each class,`, `counts[${i}]`, row)
    for (let j = 0; j < size; j++) {
      if (!Number.isSafeInteger(row[j]) || row[j]! < 0) throw expected('an integer of at least 0', `counts[${i}][${j}]`, row[j])
    }
  }
  return { classes: classes.map((name, i) => requireText(name, `classes[${i}]`)), counts, title: requireText(title, 'title') }
}

function sharesOf(row: ArrayLike<number>): Shares {
  const counts = Float64Array.from(row)
  const total = counts.reduce((sum, count) => sum + count, 0)
  return total > 0 ? counts.map((count) => count / total) : null
}

/** Side of a cell in CSS pixels: large for few classes, down to one pixel of the PNG. */
function cellSide(classes: number): number {
  const side = Math.min(80 * classes, 640 + 4 * classes, 1000)
  return Math.max(1 / DENSITY, Math.floor(side / classes))
}

/** The cells as a picture: a thousand classes would be a million shapes. */
async function paintCells(shares: readonly Shares[], side: number): Promise<string> {
  const size = shares.length
  const pixels = new Uint8Array(size * size * 3)
  for (const [i, row] of shares.entries()) {
    for (let j = 0; j < size; j++) pixels.set(row ? shade(row[j]!) : EMPTY, (i * size + j) * 3)
  }
  const picture = sharp(pixels, { raw: { width: size, height: size, channels: 3 } }).resize(side, side, { kernel: 'nearest' })
  return `data:image/png;base64,${(await picture.png().toBuffer()).toString('base64')}`
}

/** A share in percent, never 0 for what is there. */
function percent(share: number, decimals: number): string {
  const text = (100 * share).toFixed(decimals)
  return share > 0 && Number(text) === 0 ? `<${(10 ** -decimals).toFixed(decimals)}` : text
}

/** What is written in the cells. */
function cellTexts(counts: Confusion['counts'], shares: readonly Shares[], cell: number) {
  return shares.flatMap((values, row) =>
    Array.from(values ?? [], (share, column) => ({
      row,
      column,
      share: share > 0 ? percent(share, cell < DECIMALS_FROM ? 0 : 1) : '0',
      count: share > 0 ? String(counts[row]![column]) : '',
      ink: inkOn(share)
    }))
  )
}

/** Writes a field of the cells' texts, so many pixels below the middle of its cell: an expression. */
function textMark(field: 'share' | 'count', fontSize: number, below: string): Mark {
  return {
    type: 'text',
    from: { data: 'cells' },
    encode: {
      enter: {
        x: { scale: 'x', field: 'column', band: 0.5 },
        y: { scale: 'y', field: 'row', band: 0.5, offset: { signal: below } },
        text: { field },
        fill: { field: 'ink' },
        align: { value: 'center' },
        baseline: { value: 'middle' },
        fontSize: { value: fontSize }
      }
    }
  }
}

function textMarks(cell: number): Mark[] {
  if (cell < SHARES_FROM) return []
  if (cell < COUNTS_FROM) return [textMark('share', cell < DECIMALS_FROM ? 9.5 : 11, '0')]
  return [textMark('share', 13, 'datum.count ? -6 : 0'), textMark('count', 10, '10')]
}

const legendOf = (cell: number) => `percent of the true class${cell < COUNTS_FROM ? '' : ', number of images'}`

/** What is written at the axes, and how. Where there is not space for the names of all classes, every so many have theirs. */
function labelling(names: readonly string[], cell: number, textWidth: TextWidth) {
  const step = cell >= LABELS_FROM ? 1 : Math.ceil(SPARSE_LABELS / cell)
  const fontSize = step > 1 ? LABELS_FROM : Math.min(12, cell - 1)
  const width = (text: string) => textWidth(text, fontSize)
  const labels = cutNames(names, MAX_LABEL, width).map((name, i) => (i % step ? '' : name))
  return { labels, step, fontSize, upright: labels.every((label) => width(label) <= cell - 6) }
}

/** The scales are of numbers, as names may be the same. */
function axes(size: number, cell: number, { step, fontSize, upright }: ReturnType<typeof labelling>): Axis[] {
  const common = {
    values: Array.from({ length: Math.ceil(size / step) }, (_, i) => i * step),
    encode: { labels: { update: { text: { signal: 'names[datum.value]' } } } },
    labelFontSize: fontSize,
    labelOverlap: false,
    domain: false,
    ticks: false,
    tickBand: 'extent',
    grid: cell >= LINES_FROM,
    gridColor: 'white',
    gridCap: 'square',
    zindex: 1
  } as const
  return [
    { ...common, scale: 'y', orient: 'left', title: 'true class', description: 'true class' },
    {
      ...common, scale: 'x', orient: 'bottom', title: 'predicted', description: 'predicted',
      ...(!upright && { labelAngle: -90, labelAlign: 'right', labelBaseline: 'middle' })
    }
  ]
}

/**
 * A confusion matrix as a picture. A cell's colour is its share of the true class's images; where there is space the share in percent is
 * written in it, and the count below. A class without images has a grey row.
 *
 * @throws InputError for counts that are no integers of at least 0, or not those of the classes.
 */
export async function confusionChart(confusion: Confusion): Promise<Chart> {
  const { classes, counts, title } = requireConfusion(confusion)
  const cell = cellSide(classes.length)
  const side = cell * classes.length
  const shares = counts.map(sharesOf)
  const marks = textMarks(cell)
  const numbers = classes.map((_, i) => i)
  const picture = await paintCells(shares, side * DENSITY)
  return draw((textWidth): Spec => {
    const labels = labelling(classes, cell, textWidth)
    return {
      width: side,
      height: side,
      title: { text: titleLines(title, Math.max(side, 400), textWidth), ...(marks.length && { subtitle: legendOf(cell) }) },
      signals: [{ name: 'names', value: labels.labels }],
      data: [{ name: 'cells', values: marks.length ? cellTexts(counts, shares, cell) : [] }],
      scales: [
        { name: 'x', type: 'band', domain: numbers, range: 'width' },
        { name: 'y', type: 'band', domain: numbers, range: 'height' },
        shadeScale
      ],
      axes: axes(classes.length, cell, labels),
      legends: marks.length ? [] : [{ fill: 'share', title: 'share of the true class', format: '.0%', gradientLength: 240 }],
      marks: [
        {
          type: 'image',
          encode: { enter: { url: { value: picture }, width: { value: side }, height: { value: side }, aspect: { value: false } } }
        },
        ...marks
      ]
    }
  })
}
