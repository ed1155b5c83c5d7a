import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { z } from 'zod'

import { InputError } from '../errors.js'
import { describeScore, readResults } from '../evaluate/results.js'
import { writeFileAtomic } from '../io/index.js'
import { factTable, html, lineChart, page, picture, type Html, type Lines } from '../report/index.js'
import { pretrainSchema } from './config.js'
import { finetuneSchema } from './finetune-config.js'
import { quote } from '../shell.js'
import { RunFolder, writing } from './run-folder.js'
import { withoutSettled } from './settings.js'
import { describedIn, type Saved } from './settle.js'

/** A line of metrics.jsonl. Null for what was not finite. */
type Line = Readonly<Partial<Record<string, number | null>>>

const PICTURE_WIDTH = 480

/** What a run wrote down, as far as it was written whole: it may be at work. */
async function readMetrics(folder: RunFolder): Promise<Line[]> {
  if (!existsSync(folder.metrics)) return []
  return (await readFile(folder.metrics, 'utf8')).split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as Line]
    } catch {
      return []
    }
  })
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

/** The values of a figure, where it is there and finite, by epoch. */
const pointsOf = (lines: readonly Line[], name: string) =>
  lines.flatMap(({ epoch, [name]: value }) => (typeof epoch === 'number' && typeof value === 'number' ? [{ x: epoch, y: value }] : []))

/** What is drawn of a field of the lines. A mean over an epoch stands in its middle. */
type Figure = readonly [name: string, field: string, factor?: number, shift?: number]

/** The charts that there is something to show in. */
async function drawCharts(lines: readonly Line[]): Promise<Html[]> {
  const charts: readonly [title: string, unit: string, series: readonly Figure[]][] = [
    ['Loss', 'loss', [['steps', 'loss'], ['mean of the epoch', 'epochLoss', 1, -0.5]]],
    ['Accuracy on held-out images', 'accuracy, %', [['kNN', 'knn', 100], ['classifier', 'accuracy', 100]]],
    ['Learning rate', 'learning rate', [['learning rate', 'lr']]],
    ['Speed', 'images/s', [['images/s', 'imagesPerSecond']]],
    ['Time spent waiting for images', 'part of the time, %', [['waiting', 'dataShare', 100]]]
  ]
  const drawn: Html[] = []
  for (const [title, unit, wanted] of charts) {
    const series: Lines['series'] = wanted
      .map(([name, field, factor = 1, shift = 0]) => ({ name, points: pointsOf(lines, field).map(({ x, y }) => ({ x: x + shift, y: factor * y })) }))
      .filter(({ points }) => points.length > 0)
    if (series.length === 0) continue
    const chart = await lineChart({ title, x: { title: 'epoch' }, y: { title: unit }, series })
    drawn.push(html`<div>${picture('svg+xml', chart.svg, title)}</div>\n`)
  }
  return drawn
}

/** How far the run is, by its last lines. */
function progressOf(lines: readonly Line[], epochs: number): { readonly text: string; readonly done: boolean } {
  const last = lines.at(-1)
  if (typeof last?.step !== 'number' || typeof last.epoch !== 'number') return { text: 'no step is done yet', done: false }
  const steps = Math.round((last.step / last.epoch) * epochs)
  const done = last.step >= steps && 'epochLoss' in last
  return { text: done ? `done: ${epochs} epochs, ${steps} steps` : `step ${last.step} of ${steps}, epoch ${last.epoch.toFixed(2)} of ${epochs}`, done }
}

const showTime = (seconds: number): string =>
  seconds < 5400 ? `${(seconds / 60).toFixed(1)} minutes` : `${(seconds / 3600).toFixed(1)} hours`

/** What there is to say of the lines in figures. */
function figuresOf(lines: readonly Line[]): [string, string][] {
  const facts: [string, string][] = []
  const losses = pointsOf(lines, 'epochLoss')
  if (losses.length > 0) facts.push(['loss', `${losses[0]!.y.toFixed(4)} in the first epoch, ${losses.at(-1)!.y.toFixed(4)} in the last`])
  for (const [field, name] of [['knn', 'kNN accuracy'], ['accuracy', 'accuracy']] as const) {
    const points = pointsOf(lines, field)
    if (points.length === 0) continue
    const best = points.reduce((a, b) => (b.y > a.y ? b : a))
    const percent = (part: number) => `${(100 * part).toFixed(2)} %`
    facts.push([`${name} on held-out images`, `${percent(points.at(-1)!.y)}, the best ${percent(best.y)} after epoch ${best.x}`])
  }
  const seconds = lines.reduce((sum, line) => sum + (line['seconds'] ?? 0), 0)
  if (seconds > 0) facts.push(['time of its epochs', showTime(seconds)])
  const [speed, share] = ['imagesPerSecond', 'dataShare'].map((name) => median(pointsOf(lines, name).map(({ y }) => y)))
  if (speed !== undefined) facts.push(['images/s, median', `${speed.toFixed(1)}; waiting for images ${(100 * (share ?? 0)).toFixed(1)} % of the time`])
  const skipped = lines.findLast((line) => typeof line['skipped'] === 'number')?.['skipped']
  if (skipped) facts.push(['steps that were skipped', `${skipped}: their loss or a gradient was not finite`])
  return facts
}

/** The first picture and the last. */
async function reconstructionsOf(folder: RunFolder): Promise<Html[]> {
  const names = existsSync(folder.reconstructions) ? (await readdir(folder.reconstructions)).filter((name) => /^epoch-\d+\.png$/.test(name)).sort() : []
  const shown = [...new Set([names[0], names.at(-1)])].filter((name) => name !== undefined)
  return Promise.all(shown.map(async (name) => {
    const title = `after epoch ${Number(/\d+/.exec(name)![0])}`
    const image = picture('png', await readFile(join(folder.reconstructions, name)), title, PICTURE_WIDTH)
    return html`<figure>${image}<figcaption>${title}</figcaption></figure>\n`
  }))
}

/** Of a finetuning that is done: what it found. */
async function measuredOf(folder: RunFolder): Promise<Html[]> {
  const results = await readResults(folder.path)
  const score = results?.scores['classifier']
  if (!results || !score) return []
  const confusion = join(folder.path, 'confusion.png')
  const { split, path } = results.measuredOn
  return [
    html`<h2>Measured</h2>\n<p><strong>${describeScore(score)}</strong>, ${split} images of ${path}</p>\n`,
    ...(existsSync(confusion) ? [picture('png', await readFile(confusion), 'confusion matrix', 640)] : [])
  ]
}

const show = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))

/** Every setting, those that are not the default in bold. */
function settingsTable(schema: z.ZodObject, saved: Saved): Html {
  const facts = Object.entries(withoutSettled(saved)).map(([name, value]) => {
    const usual = (schema.shape[name] as z.ZodType | undefined)?.safeParse(undefined).data
    const text = show(value)
    return [name, JSON.stringify(usual) === JSON.stringify(value) ? text : html`<strong>${text}</strong>`] as const
  })
  return factTable(facts)
}

/**
 * Writes `report.html` into a run's folder: a page without other files, with the run's loss, accuracy and speed as charts, its first and last
 * reconstructions or what a finetuning found, and every setting. The run may still be at work.
 *
 * @returns Path of the page.
 * @throws InputError for a folder without a run, and one that cannot be written.
 */
export async function writeRunReport(path: string): Promise<string> {
  const folder = new RunFolder(path)
  const saved = await folder.readConfig()
  const [command, schema] = 'train' in saved ? (['finetune', finetuneSchema] as const) : (['pretrain', pretrainSchema] as const)
  const epochs = Number(saved['epochs'])
  if (!(epochs >= 1)) throw new InputError(`'${folder.config}' holds no settings of a training: expected a number of epochs, received ${String(saved['epochs'])}`)
  const { model, imageSize, patchSize } = describedIn(saved)
  const lines = await readMetrics(folder)
  const { text: progress, done } = progressOf(lines, epochs)
  const versions = Object.entries((saved['versions'] ?? {}) as Record<string, string>).map(([name, version]) => `${name} ${version}`)
  const reconstructions = await reconstructionsOf(folder)
  const charts = await drawCharts(lines)
  const facts: readonly (readonly [string, string])[] = [
    ['progress', progress],
    ['encoder', `${model}, images of ${imageSize.join(' x ')}, patches of ${patchSize}`],
    ...['imageCount', 'precision'].map((name) => [name === 'imageCount' ? 'number of images' : name, show(saved[name] ?? '?')] as const),
    ...figuresOf(lines),
    ...(versions.length > 0 ? [['versions', versions.join(', ')] as const] : []),
    ['written', new Date().toISOString()]
  ]
  const [what, again] = done
    ? (['The same once more:', `gmml ${command} --config ${quote(folder.config)} --out ${quote(`${folder.path}-again`)}`] as const)
    : (['To go on:', `gmml ${command} --out ${quote(folder.path)} --resume`] as const)
  const body = [
    factTable(facts), await measuredOf(folder),
    charts.length > 0 ? html`<h2>Course</h2>\n<div class="charts">${charts}</div>\n` : [],
    reconstructions.length > 0
      ? html`<h2>Reconstructions</h2>\n<p>On each row: the image, what the network sees, what it makes of it, and where it was corrupted.</p>\n<div class="charts">${reconstructions}</div>\n`
      : [],
    html`<h2>Commands</h2>\n<p>${what}</p>\n<pre>${again}</pre>\n`,
    html`<h2>Settings</h2>\n<p>In bold what is not the default.</p>\n${settingsTable(schema, saved)}`
  ]
  await writing(`'${folder.report}'`, () => writeFileAtomic(folder.report, page(`${command === 'pretrain' ? 'Pretraining' : 'Finetuning'} ${folder.path}`, body)))
  return folder.report
}
