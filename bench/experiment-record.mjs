// node bench/experiment-record.mjs RUN CONFIG --name fashion-mnist [--note "what else ran"]: a record in bench/results of what
// `gmml experiment IMAGES --out RUN --config CONFIG` has found so far. Folders are left out: they say nothing elsewhere.
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { describeDevice, writeRecord } from './record.mjs'

const { values, positionals } = parseArgs({ allowPositionals: true, options: { name: { type: 'string' }, note: { type: 'string', default: '' } } })
if (positionals.length !== 2 || !values.name) throw new Error('expected the folder of an experiment, its settings, and --name')
const [run, config] = positionals
const read = (file) => JSON.parse(readFileSync(join(run, file), 'utf8'))

const { images, test: _, out, ...settings } = read('experiment.json')
const { rows, features, ...found } = read('results.json')
const complete = rows.every(({ arm, accuracy }) => accuracy.values.length === (arm === 'scratch-total' ? settings.totalSeeds : settings.seeds))
const what = [
  'accuracy on the test images; values has one number for each seed', ...(complete ? [] : ['the repetitions are not complete']),
  ...(values.note ? [values.note] : [])
]
const text = JSON.stringify(features).replaceAll(JSON.stringify(out).slice(1, -1), 'RUN').replaceAll(JSON.stringify(images).slice(1, -1), 'IMAGES')
writeRecord(
  { name: values.name, what, settings, ...found, rows, features: JSON.parse(text) }, describeDevice(),
  `gmml experiment IMAGES --out RUN --config bench/${basename(config)}`
)
