// Puts the newest records of bench/recipes.mjs into the tables of docs/recipes.md.
//   node scripts/recipes-table.mjs
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { main } from './tools.mjs'

const PATH = new URL('../docs/recipes.md', import.meta.url)
const RECORDS = new URL('../bench/results/', import.meta.url)

function record(part) {
  const newest = readdirSync(RECORDS).filter((name) => name.includes(`-recipes-${part}-`)).sort().at(-1)
  return JSON.parse(readFileSync(new URL(newest, RECORDS), 'utf8'))
}

const row = (cells) => `| ${cells.join(' | ')} |`
const table = (head, rows) => [row(head), row(head.map((_, i) => (i ? '---:' : '---'))), ...rows.map(row)].join('\n')
const percent = (share) => (100 * share).toFixed(1)
const points = (share) => `${share < 0 ? '−' : '+'}${Math.abs(100 * share).toFixed(1)}`

function pretraining({ variants, random }) {
  const base = variants.find(({ name }) => name === 'base')
  const cells = (name, { knn, probe }) => [
    name, percent(knn.mean), points(knn.mean - base.knn.mean), percent(probe.mean), points(probe.mean - base.probe.mean), percent(probe.cls)
  ]
  const rows = [...variants.map((variant) => cells(variant.name, variant)), cells('(untrained)', random)]
  return table(['changed', 'kNN, patches', 'against base', 'probe, patches', 'against base', 'probe, CLS'], rows)
}

function finetuning({ variants }) {
  const base = variants.find(({ name }) => name === 'base')
  return table(['changed', 'accuracy', 'against base'], variants.map(({ name, accuracy }) => [name, percent(accuracy), points(accuracy - base.accuracy)]))
}

/** The page with its tables as the records have them. @param {string} page */
export const withTables = (page) =>
  Object.entries({ pretrain: pretraining, finetune: finetuning }).reduce(
    (text, [part, make]) => text.replace(new RegExp(`(<!-- ${part} -->\n)[^]*?(<!-- end -->)`), (_, start, end) => `${start}${make(record(part))}\n${end}`),
    page
  )

main(import.meta.url, () => writeFileSync(PATH, withTables(readFileSync(PATH, 'utf8'))))
