// What gradient checkpointing saves and costs: peak of resident memory and time of forward and backward.
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { runtime } from './gmml-server.mjs'
import { median, table } from './statistics.mjs'

const MODEL = { imageSize: 224, patchSize: 16, embedDim: 192, depth: 12, numHeads: 3, dropPath: 0.1 }
const CASES = ['none', 'each block', 'segments of 4 blocks']
const BATCH = 16

const measure = (request) => {
  const script = fileURLToPath(new URL('checkpoint-step.mjs', import.meta.url))
  return JSON.parse(execFileSync(process.execPath, [script, JSON.stringify(request)], { encoding: 'utf8' }))
}

export function run({ quick, only = '' }) {
  const names = CASES.filter((name) => name.includes(only))
  const [rounds, steps] = quick ? [1, 3] : [3, 6]
  const rows = names.map((name) => ({ case: name, peakMiB: 0, seconds: [] }))
  // The cases take turns, so that what else the machine does meets all of them.
  for (let round = 0; round < rounds; round++) {
    for (const row of rows) {
      const { peakMiB, seconds } = measure({ case: row.case, model: MODEL, batch: BATCH, steps })
      row.peakMiB = Math.max(row.peakMiB, Math.round(peakMiB))
      row.seconds.push(...seconds)
    }
  }
  return {
    name: 'checkpoint',
    what: ['peakMiB: growth of the peak of resident memory (VmHWM) by training steps, above model and images', 'seconds: forward and backward'],
    runtime: runtime(), model: MODEL, batch: BATCH, rows
  }
}

export function print({ rows, batch }) {
  console.log(`\ncheckpoint: vit_tiny 224/16 batch ${batch}, float32, forward and backward; median of the steps`)
  console.log(table(['', 'MiB above the model', 'seconds'], rows.map((row) => [row.case, String(row.peakMiB), median(row.seconds).toFixed(2)])))
}
