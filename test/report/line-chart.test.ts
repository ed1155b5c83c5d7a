import { describe, expect, it } from 'vitest'

import { lineChart, type Chart, type Lines } from '../../src/report/index.js'
import { thin } from '../../src/report/points.js'
import { corner, decode, texts } from './support.js'

const [WIDTH, HEIGHT] = [600, 360]
const BLUE = [0, 114, 178]
const RED = [213, 94, 0]

const part = (name: string, ...values: readonly number[]) => ({
  name,
  points: values.map((y, i) => ({ x: 10 ** i, y, low: y - 3, high: y + 2 }))
})
const accuracy: Lines = {
  title: 'Test accuracy',
  x: { title: 'labels', log: true, ticks: [1, 10, 100].map((value) => ({ value, label: `${value} %` })) },
  y: { title: 'accuracy (%)' },
  series: [part('pretrained', 60, 80, 90), part('from scratch', 40, 65, 85), part('from scratch with the total budget', 45, 70, 86)]
}
const line = (points: readonly { x: number; y: number; low?: number; high?: number }[], log = false): Lines => ({
  title: 'Loss', x: { title: 'step', log }, y: { title: 'L1' }, series: [{ name: 'loss', points }]
})

/** Rows of the plot, in CSS pixels from its top, where a column has a colour. */
async function rows({ svg, png }: Chart, column: number, [red, green, blue]: readonly number[]): Promise<number[]> {
  const [left, top] = corner(svg)
  const { at } = await decode(png)
  return Array.from({ length: 2 * HEIGHT }, (_, y) => y / 2).filter((y) => {
    const [r, g, b] = at(2 * (left + column), 2 * (top + y))
    return Math.abs(r - red!) + Math.abs(g - green!) + Math.abs(b - blue!) < 24
  })
}

describe('lineChart', () => {
  it('is a PNG of two pixels per CSS pixel on white', async () => {
    const chart = await lineChart(accuracy)
    const { width, height, at } = await decode(chart.png)
    expect([width, height]).toEqual([2 * chart.width, 2 * chart.height])
    expect(at(0, 0)).toEqual([255, 255, 255])
    expect(chart.width).toBeLessThan(760)
  })

  it('writes titles, names and the given ticks, and no others at x', async () => {
    const { svg } = await lineChart(accuracy)
    const written = texts(svg)
    const wanted = ['Test accuracy', 'labels', 'accuracy (%)', ...accuracy.series.map(({ name }) => name)]
    for (const text of wanted) expect(written).toContain(text)
    expect(written.filter((text) => text.endsWith(' %'))).toEqual(['1 %', '10 %', '100 %'])
    const legend = accuracy.series.map(({ name }) => new RegExp(`translate\\(([\\d.]+),([\\d.]+)\\)"[^>]*>${name}<`).exec(svg)![2])
    expect(new Set(legend).size).toBe(1) // one row
  })

  it('each third of a logarithmic axis is a factor of ten', async () => {
    const { svg } = await lineChart(accuracy)
    const place = (label: string) => Number(new RegExp(`translate\\(([\\d.]+),[\\d.]+\\)"[^>]*>${label}<`).exec(svg)![1])
    const places = ['1 %', '10 %', '100 %'].map(place)
    expect(places[1]! - places[0]!).toBeCloseTo(places[2]! - places[1]!, 0)
    expect(places[0]).toBeCloseTo(24, 0)
    expect(places[2]).toBeCloseTo(WIDTH - 24, 0)
  })

  it('a line goes through its points in the order of x', async () => {
    const chart = await lineChart(line([{ x: 2, y: 0 }, { x: 0, y: 0 }, { x: 1, y: 10 }]))
    for (const x of [0.25, 0.75, 1.5]) {
      const column = 24 + (x / 2) * (WIDTH - 48)
      const found = await rows(chart, column, BLUE)
      expect(found.length).toBeGreaterThan(1)
      for (const y of found) expect(Math.abs(HEIGHT * Math.abs(1 - x) - y)).toBeLessThan(4)
    }
  })

  it('error bars reach from low to high, and those of two series stand beside each other', async () => {
    const point = (y: number) => [{ x: 0, y, low: y - 5, high: y + 2 }, { x: 1, y, low: y, high: y }]
    const chart = await lineChart({ ...line([]), series: [{ name: 'a', points: point(5) }, { name: 'b', points: point(8) }] })
    for (const [colour, y, column] of [[BLUE, 5, 21], [RED, 8, 27]] as const) {
      const found = await rows(chart, column, colour)
      expect(Math.min(...found)).toBeCloseTo(HEIGHT * (1 - (y + 2) / 10), -1)
      expect(Math.max(...found)).toBeCloseTo(HEIGHT * (1 - (y - 5) / 10), -1)
      expect(found.length).toBeGreaterThan(2 * HEIGHT * 0.65)
    }
  })

  it('many points have a band and no symbols, and stay a small file with all extremes', async () => {
    const points = Array.from({ length: 50_000 }, (_, i) => ({ x: i, y: i === 12_345 ? 10 : Math.sin(i) + 2 }))
    const chart = await lineChart(line(points))
    expect(chart.svg.length).toBeLessThan(300_000)
    expect(Math.min(...(await rows(chart, (12_345 / 49_999) * WIDTH, BLUE)))).toBeLessThan(3)
    const banded = await lineChart(line(points.slice(0, 100).map(({ x }) => ({ x, y: 5, low: 0, high: 10 }))))
    const pale = BLUE.map((value) => Math.round(255 - 0.18 * (255 - value)))
    expect((await rows(banded, 303.5, pale)).length).toBeGreaterThan(2 * HEIGHT * 0.9)
  })

  it('a series more than there are colours differs in shape and dash', async () => {
    const series = Array.from({ length: 9 }, (_, i) => ({ name: `s${i}`, points: [{ x: 1, y: i }, { x: 2, y: i }] }))
    const { svg } = await lineChart({ ...line([]), series })
    const symbols = [...svg.matchAll(/role-legend-symbol"[^>]*><path[^>]* (d="[^"]+" fill="[^"]+")/g)]
    expect(new Set(symbols.map(([, shape]) => shape)).size).toBe(9)
    expect(new Set([...svg.matchAll(/stroke-dasharray="([^"]+)"/g)].map(([, dash]) => dash)).size).toBe(2)
  })

  const narrow = [[{ x: 3, y: 0.5 }], [{ x: 3, y: 0 }, { x: 4, y: 0 }], [{ x: 3, y: -1e-9 }, { x: 3, y: 1e12 }]]
  it.each(narrow.map((points) => [points]))('draws %j', async (points) => {
    for (const log of [false, true]) {
      const { svg } = await lineChart(line(points, log))
      expect(svg).not.toMatch(/NaN|Infinity|undefined/)
    }
  })

  it('has every tick that is given, and writes at those that have space for it, the last one before all', async () => {
    const values = [200, 210, 400, 600, 2000, 2100, 20_000]
    const ticks = values.map((value) => ({ value, label: `${value}/class (${10 * value})` }))
    const points = values.map((x, y) => ({ x, y }))
    const { svg } = await lineChart({ ...line(points), x: { title: 'x', log: true, ticks } })
    expect(texts(svg).filter((text) => text.includes('/class'))).toEqual(['210/class (2100)', '600/class (6000)', '2100/class (21000)', '20000/class (200000)'])
    const tickGroup = /role-axis-tick"[^>]*>(.*?)<\/g>/.exec(svg.slice(svg.indexOf('aria-label="x"')))![1]!
    expect(tickGroup.match(/<line/g)).toHaveLength(values.length)
  })

  it('breaks a long title and cuts a long name', async () => {
    const name = 'a series with a name '.repeat(20)
    const { svg, width } = await lineChart({ ...accuracy, title: 'many words '.repeat(30), series: [{ ...accuracy.series[0]!, name }] })
    expect(width).toBeLessThan(760)
    expect(texts(svg).some((text) => text.startsWith('a series') && text.endsWith('…'))).toBe(true)
  })

  it('is the same bytes for the same input', async () => {
    const [first, second] = await Promise.all([lineChart(accuracy), lineChart(accuracy)])
    expect(second.svg).toBe(first.svg)
    expect(Buffer.compare(second.png, first.png)).toBe(0)
  })

  it('refuses what cannot be drawn', async () => {
    const point = { x: 1, y: 1 }
    const refused: readonly [Lines, RegExp][] = [
      [{ ...accuracy, series: [] }, /at least one series for series, received \[\]/],
      [line([]), /at least one point for series\[0\].points/],
      [line([point, { x: 2, y: NaN }]), /a finite number for series\[0\].points\[1\].y, received NaN/],
      [line([{ x: Infinity, y: 1 }]), /a finite number for series\[0\].points\[0\].x, received Infinity/],
      [line([{ x: 1, y: 1, high: NaN }]), /points\[0\].high, received NaN/],
      [line([{ x: 1, y: 1, low: 2 }]), /at most y \(1\) for series\[0\].points\[0\].low, received 2/],
      [line([{ x: 1, y: 1, high: 0 }]), /at least y \(1\) for series\[0\].points\[0\].high, received 0/],
      [line([{ x: 0, y: 1 }], true), /above 0, as the axis is logarithmic, for series\[0\].points\[0\].x, received 0/],
      [{ ...accuracy, x: { ...accuracy.x, ticks: [{ value: 0, label: '0' }] } }, /above 0 for x.ticks\[0\].value, received 0/],
      [{ ...accuracy, title: 3 as never }, /a text for title, received 3/]
    ]
    for (const [wrong, message] of refused) await expect(lineChart(wrong)).rejects.toThrow(message)
  })
})

describe('thin', () => {
  it('keeps the lowest and the highest of each run, in their order', () => {
    const points = [3, 1, 2, 9, 5, 5, 5, 5, 7, 8].map((y, x) => ({ x, y }))
    expect(thin(points, 5)).toEqual(points)
    expect(thin(points, 3).map(({ x }) => x)).toEqual([1, 3, 4, 8, 9])
  })
})
