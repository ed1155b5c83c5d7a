import { describe, expect, it } from 'vitest'

import { confusionChart, type Chart } from '../../src/report/index.js'
import { brightness, corner, decode, texts } from './support.js'

/** A classifier that is right for so many of the hundred images of each class, and takes the others for the next class. */
const counts = (classes: number, right: number) =>
  Array.from({ length: classes }, (_, i) =>
    Array.from({ length: classes }, (_, j) => (i === j ? right : 0) + (j === (i + 1) % classes ? 100 - right : 0))
  )
/** Rows whose first cell has such a share of a thousand images, and the second one the others. */
const divided = (shares: readonly number[]) =>
  shares.map((share) => shares.map((_, j) => (j < 2 ? Math.round(1000 * (j ? 1 - share : share)) : 0)))
const names = (classes: number) => Array.from({ length: classes }, (_, i) => `class ${i}`)

/** Colour of a cell, near its corner, where nothing is written. */
async function cells({ svg, png }: Chart, cell: number) {
  const [left, top] = corner(svg)
  const pixels = await decode(png)
  return (row: number, column: number) => pixels.at(2 * (left + (column + 0.15) * cell), 2 * (top + (row + 0.15) * cell))
}

describe('confusionChart', () => {
  it('is a PNG of two pixels per CSS pixel on white, and an SVG of the same size', async () => {
    const chart = await confusionChart({ classes: ['cat', 'dog'], counts: [[9, 1], [0, 5]], title: 'Pets' })
    const { width, height, channels, at } = await decode(chart.png)
    expect([width, height, channels]).toEqual([2 * chart.width, 2 * chart.height, 3])
    expect(chart.svg).toContain(`width="${chart.width}" height="${chart.height}"`)
    for (const x of [0, width - 1]) for (const y of [0, height - 1]) expect(at(x, y)).toEqual([255, 255, 255])
    // The lines between the cells meet at the corners.
    const [left, top] = corner(chart.svg)
    for (const x of [0, 80, 160]) for (const y of [0, 80, 160]) expect(at(2 * (left + x), 2 * (top + y))).toEqual([255, 255, 255])
  })

  it('writes names, shares and counts', async () => {
    const { svg } = await confusionChart({ classes: ['cat', 'dog'], counts: [[2999, 1], [0, 5]], title: 'Pets' })
    const written = texts(svg)
    for (const text of ['Pets', 'true class', 'predicted', '100.0', '2999', '&lt;0.1', '1', '0', '5']) expect(written).toContain(text)
    expect(written.filter((text) => text === 'cat')).toHaveLength(2)
    expect(written.filter((text) => text === 'dog')).toHaveLength(2)
  })

  it('rows are true classes, columns predicted ones', async () => {
    const cell = await cells(await confusionChart({ classes: ['a', 'b'], counts: [[1, 9], [0, 5]], title: '' }), 80)
    const [aa, ab, ba, bb] = [cell(0, 0), cell(0, 1), cell(1, 0), cell(1, 1)].map(brightness)
    expect(bb).toBeLessThan(ab!)
    expect(ab).toBeLessThan(aa! - 50)
    expect(aa).toBeLessThan(ba! - 20)
  })

  it('a cell is the darker the greater its share, whatever the number of images', async () => {
    const shares = [0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1]
    const counts = divided(shares).map((row, i) => row.map((count) => count * (i + 1)))
    const cell = await cells(await confusionChart({ classes: names(10), counts, title: 'Shares' }), 68)
    const levels = shares.map((_, row) => brightness(cell(row, 0)))
    for (let i = 1; i < levels.length; i++) expect(levels[i]).toBeLessThan(levels[i - 1]! - 2)
    expect(cell(0, 0)).toEqual([247, 250, 253])
    expect(cell(9, 0)).toEqual([8, 48, 107])
    expect(cell(0, 1)).toEqual([8, 48, 107])
  })

  it.each([2, 10, 20, 30, 100])('a good classifier has a dark diagonal: %i classes', async (size) => {
    const chart = await confusionChart({ classes: names(size), counts: counts(size, 90), title: `${size} classes` })
    const side = { 2: 80, 10: 68, 20: 36, 30: 25, 100: 10 }[size]!
    const cell = await cells(chart, side)
    for (let i = 0; i < size; i++) {
      for (const j of [(i + 1) % size, (i + size - 1) % size]) expect(brightness(cell(i, i))).toBeLessThan(brightness(cell(i, j)) - 100)
    }
    expect(Math.max(chart.width, chart.height)).toBeLessThan(1400)
    // The shares are written where there is space, and what the colours mean where there is not.
    const written = texts(chart.svg)
    expect(written.filter((text) => Number(text) === 90)).toHaveLength(size <= 30 ? (size <= 10 ? 2 : 1) * size : 0)
    expect(written.includes('share of the true class')).toBe(size > 30)
    expect(written.filter((text) => text === 'class 1')).toHaveLength(2)
  })

  it('the numbers are readable on every shade', async () => {
    const shares = Array.from({ length: 21 }, (_, i) => i / 20)
    const { svg, png } = await confusionChart({ classes: names(21), counts: divided(shares), title: '' })
    const [left, top] = corner(svg)
    const { at } = await decode(png)
    const luminance = (colour: readonly number[]) => brightness(colour.map((value) => 255 * (value / 255) ** 2.2)) / 255
    for (const row of shares.keys()) {
      const level = (x: number, y: number) => luminance(at(2 * left + 4 + x, 2 * top + 68 * row + 18 + y))
      const levels = Array.from({ length: 60 }, (_, x) => Array.from({ length: 30 }, (_, y) => level(x, y))).flat()
      // WCAG 2.1 asks for a contrast of 4.5; the middle of thin strokes may fall between pixels.
      expect((Math.max(...levels) + 0.05) / (Math.min(...levels) + 0.05)).toBeGreaterThan(4.3)
    }
  })

  it('a class without images has a grey row without numbers', async () => {
    const chart = await confusionChart({ classes: ['a', 'b', 'c'], counts: [[2, 0, 0], [0, 0, 0], [1, 0, 1]], title: '' })
    const cell = await cells(chart, 80)
    for (let j = 0; j < 3; j++) expect(cell(1, j)).toEqual([232, 232, 232])
    expect(texts(chart.svg).filter((text) => /^[\d.]+$/.test(text))).toEqual(['100.0', '0', '0', '50.0', '0', '50.0', '2', '1', '1'])
    expect(chart.svg).not.toContain('NaN')
  })

  it('draws a thousand classes within seconds, with some of the names', async () => {
    const classes = Array.from({ length: 1000 }, (_, i) => `n0144${i} ${'long name '.repeat(20)}`)
    const start = performance.now()
    const chart = await confusionChart({ classes, counts: counts(1000, 80), title: 'ImageNet' })
    expect(performance.now() - start).toBeLessThan(10_000)
    expect([chart.width, chart.height].every((side) => side > 1000 && side < 1400)).toBe(true)
    expect(chart.svg.length).toBeLessThan(2 ** 20)
    const labels = texts(chart.svg).filter((text) => text.startsWith('n0144'))
    expect(labels.length).toBeGreaterThan(20)
    expect(labels.length).toBeLessThan(200)
    const [left, top] = corner(chart.svg)
    const { at } = await decode(chart.png)
    for (const i of [0, 500, 998]) expect(brightness(at(2 * (left + i), 2 * (top + i)))).toBeLessThan(100)
    expect(brightness(at(2 * (left + 700), 2 * (top + 200)))).toBeGreaterThan(240)
  })

  it('cuts long names, keeps equal ones apart, and writes every text as text', async () => {
    const long = 'Ficedula hypoleuca, the European pied flycatcher'
    const classes = [long, long, '<b>&"\'', 'a\u0000b\nc', '', 'äöü 漢字 😀']
    const chart = await confusionChart({ classes, counts: counts(6, 70), title: '<script>alert(1)</script>' })
    const written = texts(chart.svg)
    expect(written.filter((text) => /^Ficedula hyp.*…$/.test(text))).toHaveLength(4)
    const times = (text: string) => written.filter((other) => other === text).length
    expect(['&lt;b&gt;&amp;"\'', 'a b c', 'äöü 漢字 😀'].map(times)).toEqual([2, 2, 2])
    expect(written).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
    expect(times('70.0')).toBe(6)
  })

  it('cuts names of the same beginning in their middle', async () => {
    const classes = [0, 1, 2].map((i) => `organisms/animals/vertebrates/mammals/felidae/species-${i}`)
    const written = texts((await confusionChart({ classes, counts: counts(3, 70), title: '' })).svg)
    for (const i of [0, 1, 2]) expect(written.filter((text) => new RegExp(`^organisms/.*….*/species-${i}$`).test(text))).toHaveLength(2)
  })

  it('breaks a long title, so that the picture stays as wide as the cells', async () => {
    const draw = (title: string) => confusionChart({ classes: ['a', 'b'], counts: [[1, 0], [0, 1]], title })
    const title = 'A title of many words '.repeat(10).trim()
    const chart = await draw(title)
    expect(chart.width).toBeLessThan(500)
    expect(texts(chart.svg)).toContain(title)
    expect((await draw('x'.repeat(500))).width).toBeLessThan(500)
  })

  it('is the same bytes for the same input, also beside others', async () => {
    const draw = (right: number) => confusionChart({ classes: names(12), counts: counts(12, right), title: `${right}` })
    const [first, other, second] = await Promise.all([draw(90), draw(10), draw(90)])
    expect(second.svg).toBe(first.svg)
    expect(Buffer.compare(second.png, first.png)).toBe(0)
    expect(other.svg).not.toBe(first.svg)
    expect(Buffer.compare((await draw(90)).png, first.png)).toBe(0)
  })

  it('leaves Vega as it was: others may use it too', async () => {
    const { textMetrics } = (await import('vega')) as unknown as { readonly textMetrics: { readonly width: unknown } }
    const { width } = textMetrics
    await Promise.all([5, 3, 4].map((size) => confusionChart({ classes: names(size), counts: counts(size, 50), title: '' })))
    expect(textMetrics.width).toBe(width)
  })

  it('refuses what is no confusion matrix', async () => {
    const refused: readonly [Partial<Parameters<typeof confusionChart>[0]>, RegExp][] = [
      [{ counts: [[1, 2]] }, /Expected 2 rows, one for each class, for counts, received \[ \[ 1, 2 \] \]/],
      [{ counts: [[1, 2], [3]] }, /2 columns, one for each class, for counts\[1\], received \[ 3 \]/],
      [{ counts: [[1, 2, 3], [4, 5, 6]] }, /2 columns, one for each class, for counts\[0\]/],
      [{ counts: [[1, 2], [-3, 4]] }, /an integer of at least 0 for counts\[1\]\[0\], received -3/],
      [{ counts: [[1, NaN], [3, 4]] }, /at least 0 for counts\[0\]\[1\], received NaN/],
      [{ counts: [[1, 0.5], [3, 4]] }, /at least 0 for counts\[0\]\[1\], received 0.5/],
      [{ counts: [[1, Infinity], [3, 4]] }, /received Infinity/],
      [{ counts: null as never }, /2 rows, one for each class, for counts, received null/],
      [{ classes: ['a', 'b', 'c'] }, /3 rows/],
      [{ classes: [] }, /from 1 to 2000 names for classes/],
      [{ classes: names(2001) }, /from 1 to 2000 names for classes, received array of length 2001/],
      [{ classes: ['a', 7 as never] }, /a text for classes\[1\], received 7/],
      [{ title: undefined as never }, /a text for title, received undefined/]
    ]
    for (const [wrong, message] of refused) {
      await expect(confusionChart({ classes: ['a', 'b'], counts: [[1, 2], [3, 4]], title: '', ...wrong })).rejects.toThrow(message)
    }
  })
})
