// node bench/loading-memory-parts.mjs FOLDER [--minutes 0.5] [--write]: what a worker and what an image of a batch take, in MiB, by runs of
// loading-memory.mjs with other numbers of both. README.md says how.
import { execFile } from 'node:child_process'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { runtime } from './gmml-server.mjs'
import { describeDevice, writeRecord } from './record.mjs'

const WORKERS = [1, 2, 4, 6, 8], BATCHES = [16, 32, 64, 96]
/** malloc gives every freed block back to the kernel: otherwise chance decides how much of it stays with the process. */
const EXACT = { MALLOC_MMAP_THRESHOLD_: '65536', MALLOC_TRIM_THRESHOLD_: '131072', MALLOC_ARENA_MAX: '1' }
/** What the other number is meanwhile. */
const USUAL = { workers: 2, batch: 32 }
const program = fileURLToPath(new URL('loading-memory.mjs', import.meta.url))
const run = promisify(execFile)

const { values, positionals } = parseArgs({
  allowPositionals: true, options: { minutes: { type: 'string', default: '0.5' }, write: { type: 'boolean', default: false } }
})
if (positionals.length !== 1) throw new Error('expected one folder of images')
const [folder] = positionals

/** The peak of resident memory, in a process of its own. */
async function peakOf(settings) {
  const options = Object.entries({ ...settings, minutes: values.minutes }).flatMap(([name, value]) => [`--${name}`, String(value)])
  const { stdout } = await run(process.execPath, [program, folder, ...options], { env: { ...process.env, ...EXACT } })
  const [, images, peak] = /(\d+) images; peak ([\d.]+) MiB/.exec(stdout)
  console.log(`${settings.workers} workers, batches of ${settings.batch}: ${peak} MiB (${images} images)`)
  return { ...settings, images: Number(images), peakRss: Number(peak) }
}

/** By least squares: what one more of `name` adds. */
function slope(runs, name) {
  const mean = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length
  const middle = mean(runs.map((one) => one[name])), height = mean(runs.map(({ peakRss }) => peakRss))
  const square = runs.reduce((sum, one) => sum + (one[name] - middle) ** 2, 0)
  return runs.reduce((sum, one) => sum + (one[name] - middle) * (one.peakRss - height), 0) / square
}

const device = describeDevice()
const runs = { workers: [], batch: [] }
for (const workers of WORKERS) runs.workers.push(await peakOf({ ...USUAL, workers }))
for (const batch of BATCHES) runs.batch.push(await peakOf({ ...USUAL, batch }))
const perWorker = slope(runs.workers, 'workers'), perImage = slope(runs.batch, 'batch')
console.log(`\neach worker ${perWorker.toFixed(1)} MiB, each image of a batch ${perImage.toFixed(1)} MiB`)
if (values.write) {
  const what = 'peak of resident memory (MiB) of one process while it loads; what one worker more and one image more in a batch add, by least squares'
  const result = { name: `loading-memory-parts-${basename(folder)}`, what, runtimes: { gmml: runtime() }, perWorker, perImage, runs }
  writeRecord(result, device, `node bench/loading-memory-parts.mjs photos/${basename(folder)} --minutes ${values.minutes} --write`)
}
