// Memory of a training step per image, for every model of the zoo's table.
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { visionTransformers } from 'gmml/vision'
import { zooRows } from '../scripts/zoo-table.mjs'
import { runtime } from './gmml-server.mjs'
import { table } from './statistics.mjs'

const STEPS = ['encoder', 'gmml']
const DTYPES = ['float32', 'bfloat16']

/** Every tensor in pages of its own, which the kernel has back when it is freed: resident memory is then that of live tensors. */
const EXACT = { MALLOC_MMAP_THRESHOLD_: '65536', MALLOC_TRIM_THRESHOLD_: '131072', MALLOC_ARENA_MAX: '1', OMP_NUM_THREADS: '1' }

const peak = (request) => {
  const script = fileURLToPath(new URL('zoo-step.mjs', import.meta.url))
  return Number(execFileSync(process.execPath, [script, JSON.stringify(request)], { encoding: 'utf8', env: { ...process.env, ...EXACT } }))
}

/** Two batches, so far apart that what does not depend on them is small against their difference. */
function batches({ model, imageSize, patchSize }) {
  const tokens = (imageSize / patchSize) ** 2 + 1
  const first = Math.max(2, Math.round(2e8 / (64 * tokens * model.embedDim * model.depth)))
  return [first, 3 * first]
}

export function run({ quick, only = '' }) {
  const rows = zooRows(visionTransformers).filter(({ title }) => title.includes(only)).slice(0, quick ? 1 : undefined)
  const measured = rows.map(({ title, model, imageSize, patchSize }) => {
    const [few, many] = batches({ model, imageSize, patchSize })
    const measure = (step, dtype) => {
      const [less, more] = [few, many].map((batch) => peak({ model: { ...model, imageSize, patchSize }, step, dtype, batch }))
      return { peaks: [less, more], bytesPerImage: Math.round((more - less) / (many - few)) }
    }
    const result = Object.fromEntries(STEPS.map((step) => [step, Object.fromEntries(DTYPES.map((dtype) => [dtype, measure(step, dtype)]))]))
    return { title, batches: [few, many], ...result }
  })
  return {
    name: 'zoo',
    what: [
      'bytesPerImage: growth of the peak of resident memory in forward, loss and backward from the smaller batch to the larger, by image',
      'encoder: the encoder alone; gmml: corruption, encoder, reconstruction head and L1; images of three channels included in both',
      'bfloat16: autocast, weights and gradients in float32'
    ],
    runtime: { ...runtime(), threads: 1 },
    rows: measured
  }
}

export function print({ rows }) {
  const columns = STEPS.flatMap((step) => DTYPES.map((dtype) => [step, dtype]))
  console.log('\nzoo: MB of memory per image in training')
  console.log(table(
    ['', 'batches', ...columns.map((column) => column.join(' '))],
    rows.map((row) => [
      row.title, row.batches.join(', '), ...columns.map(([step, dtype]) => (row[step][dtype].bytesPerImage / 1e6).toFixed(1))
    ])
  ))
}
