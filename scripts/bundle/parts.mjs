// What run.sh does on a GPU host once Node is unpacked: builds the addon, then runs the parts that were asked for, each with a limit.
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { spawnSync } from 'node:child_process'
import { cudaTests, readReport } from '../cuda-tests.mjs'
import { findLibtorch } from '../libtorch.mjs'
import { SetupError, readText } from '../tools.mjs'
import { runTimed } from './timed.mjs'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../..')
const node = process.execPath
const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs')
const images = join(ROOT, 'data/fashion-mnist-mini/train')

/**
 * @typedef {object} Context
 * @property {string} out folder of the results
 * @property {'cuda' | 'cpu'} device what is measured
 * @property {boolean} quick few and short rounds
 * @property {number} seconds that the part may take
 * @property {string[]} extra arguments given with the part
 */

/** Seconds that everything may take, where nothing is said. */
const USUAL_SECONDS = 600
/** Seconds that the build may take of them. */
const BUILD_SECONDS = 300

/**
 * A part: its command, how long it may take and must have (seconds, of the usual total; with more time it may take more), and what is said of its end.
 * @typedef {object} Part
 * @property {number} limit
 * @property {number} least
 * @property {string} [file] of the package that it needs
 * @property {boolean} [needsDevice] skipped where there is no device to measure
 * @property {(context: Context) => string[]} command arguments of node
 * @property {(context: Context) => string} [detail]
 */

/** @param {string} name @param {{ limit: number, least: number, takesDevice?: boolean }} options @returns {Part} */
const bench = (name, { limit, least, takesDevice = true }) => ({
  limit,
  least,
  file: `bench/${name}.mjs`,
  needsDevice: true,
  command: ({ device, quick, seconds, extra, out }) => [
    join(ROOT, 'bench/run.mjs'), name, ...(takesDevice ? ['--device', device, '--seconds', String(Math.floor(seconds * 0.95))] : []),
    ...(quick ? ['--quick'] : []), '--results', out, '--write', ...extra
  ]
})

/** @type {Record<string, Part>} */
const PARTS = {
  tests: {
    limit: 200,
    least: 30,
    command: ({ out, extra }) => [
      vitest, 'run', '--root', ROOT, '--reporter=verbose', '--reporter=json', `--outputFile=${join(out, 'tests.json')}`,
      ...(extra.length > 0 ? extra : cudaTests(ROOT))
    ],
    detail({ out }) {
      const report = readText(join(out, 'tests.json'))
      if (report === '') return 'no report'
      const { passed, failed, skipped } = readReport(report)
      return [`${passed.length} passed, ${failed.length} failed, ${skipped.length} skipped`, ...failed.slice(0, 10)].join('\n    ')
    }
  },
  train: {
    limit: 120,
    least: 40,
    command: ({ out, device, quick, extra }) => [
      join(ROOT, 'dist/cli/main.js'), 'pretrain', images, '--out', join(out, 'train'), '--device', device, '--log-every', '2',
      ...(quick ? ['--model', 'vit_micro', '--limit', '512', '--epochs', '1'] : ['--model', 'vit_tiny', '--epochs', '5']), ...extra
    ],
    detail({ out }) {
      const lines = readText(join(out, 'train/metrics.jsonl')).trim().split('\n').flatMap((line) => (line ? [JSON.parse(line)] : []))
      const losses = lines.flatMap(({ loss }) => (typeof loss === 'number' ? [loss] : []))
      return losses.length > 0 ? `loss ${losses[0].toFixed(3)} to ${losses.at(-1).toFixed(3)}` : 'no losses'
    }
  },
  'bench:ops': bench('ops', { limit: 90, least: 30 }),
  // Measures on a GPU where there is one.
  'bench:fused': bench('fused', { limit: 90, least: 30, takesDevice: false }),
  'bench:step': bench('step', { limit: 540, least: 60 })
}

const USAGE = `./run.sh [--out FOLDER] [--seconds N] [--device cuda|cpu] [--quick] [PART ...]

  Builds the addon, then runs the parts in this order: ${Object.keys(PARTS).join(', ')} (all, where none is named).
  A part can have arguments of its own: ./run.sh 'bench:step --only 224/16 --sides gmml,compile'
  --out       where JSON and logs go (default: results)
  --seconds   for everything (default: ${USUAL_SECONDS}); parts for which too little is left are skipped by name
  --device    what is measured (default: cuda; without a GPU nothing is, unless cpu is asked for)
  --quick     short and few, to see that it runs`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: 'results' }, seconds: { type: 'string', default: String(USUAL_SECONDS) }, device: { type: 'string' },
    quick: { type: 'boolean', default: false }, help: { type: 'boolean', default: false }
  }
})
const wanted = (positionals.length > 0 ? positionals : Object.keys(PARTS)).map((text) => {
  const [name = '', ...extra] = text.trim().split(/\s+/)
  return { name, extra }
})
const unknown = wanted.filter(({ name }) => !(name in PARTS))
const total = Number(values.seconds)
if (values.help || unknown.length > 0 || !(total > 0) || !['cuda', 'cpu', undefined].includes(values.device)) {
  console.log(USAGE)
  process.exit(values.help ? 0 : 2)
}

const started = Number(process.env.GMML_RUN_STARTED ?? Date.now() / 1000)
const scale = Math.max(1, total / USUAL_SECONDS)
const remaining = () => started + total - Date.now() / 1000
const out = resolve(values.out)
mkdirSync(out, { recursive: true })

/** @type {{ part: string, status: 'passed' | 'failed' | 'timed out' | 'skipped', seconds: number, detail: string, command?: string }[]} */
const results = []
/** @param {typeof results[number]} result */
function report(result) {
  results.push(result)
  console.log(`== ${result.part}: ${result.status}, ${result.seconds.toFixed(0)} s${result.detail ? `\n    ${result.detail}` : ''}`)
}

/** @param {string} name @param {string[]} args @param {number} seconds @param {() => string} detail */
async function execute(name, args, seconds, detail) {
  const log = join(out, `${name.replace(':', '-')}.log`)
  writeFileSync(log, '')
  console.log(`== ${name}: at most ${seconds.toFixed(0)} s`)
  const outcome = await runTimed(node, args, { log, seconds, cwd: out })
  const status = outcome.code === 0 ? 'passed' : outcome.timedOut ? 'timed out' : 'failed'
  // What failed shows why, and a benchmark its tables.
  if (status !== 'passed' || name.startsWith('bench:')) console.log(readText(log).trimEnd().split('\n').slice(-60).join('\n'))
  report({ part: name, status, seconds: outcome.seconds, detail: detail(), command: ['node', ...args].join(' ') })
  return status === 'passed'
}

/** What of the machine decides the numbers, from a process that loads the addon. */
function inspect() {
  const { stdout } = spawnSync(node, [join(ROOT, 'dist/cli/main.js'), 'inspect', '--json'], { encoding: 'utf8' })
  try {
    return JSON.parse(stdout)
  } catch {
    return undefined
  }
}

/** Whether there is a torch: installing one is not for here. */
function hasLibtorch() {
  try {
    findLibtorch()
    return true
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    report({ part: 'build', status: 'failed', seconds: 0, detail: error.message })
    return false
  }
}

const built = hasLibtorch() && await execute('build', [join(ROOT, 'scripts/install.mjs')], Math.min(BUILD_SECONDS * scale, remaining()), () => {
  const line = readText(join(out, 'build.log')).split('\n').findLast((text) => text.startsWith('gmml: '))
  return line?.slice('gmml: '.length) ?? ''
})
const installation = built ? inspect() : undefined
const hasGpu = (installation?.devices ?? []).some((/** @type {string} */ name) => name.startsWith('cuda'))
const measures = values.device === 'cpu' || hasGpu
const device = hasGpu && values.device !== 'cpu' ? 'cuda' : 'cpu'

for (const [name, part] of Object.entries(PARTS)) {
  for (const { extra } of wanted.filter((entry) => entry.name === name)) {
    /** @param {string} detail */
    const skip = (detail) => report({ part: name, status: 'skipped', seconds: 0, detail })
    if (!built) skip('the addon was not built')
    else if (part.file && !existsSync(join(ROOT, part.file))) skip(`there is no ${part.file}`)
    else if (part.needsDevice && !measures) skip('libtorch sees no CUDA device')
    else if (remaining() < part.least) skip(`${Math.max(0, remaining()).toFixed(0)} s are left, it needs ${part.least}`)
    else {
      // A little stays for the summary.
      const seconds = Math.min(part.limit * scale, remaining() - 5)
      const context = { out, device: /** @type {'cuda' | 'cpu'} */ (device), quick: values.quick || !hasGpu, seconds, extra }
      await execute(name, part.command(context), seconds, () => part.detail?.(context) ?? '')
    }
  }
}

const bundle = join(ROOT, '../bundle.json')
const summary = {
  date: new Date().toISOString(), seconds: Date.now() / 1000 - started, device: built ? device : null, results, installation,
  bundle: existsSync(bundle) ? JSON.parse(readFileSync(bundle, 'utf8')) : null
}
writeFileSync(join(out, 'summary.json'), `${JSON.stringify(summary, null, 2)}\n`)
if (existsSync(join(out, 'train/metrics.jsonl'))) copyFileSync(join(out, 'train/metrics.jsonl'), join(out, 'train-metrics.jsonl'))

console.log(`\n${'part'.padEnd(14)} ${'status'.padEnd(10)} ${'seconds'.padStart(7)}`)
for (const { part, status, seconds } of results) console.log(`${part.padEnd(14)} ${status.padEnd(10)} ${seconds.toFixed(0).padStart(7)}`)
const count = (/** @type {string[]} */ ...kinds) => results.filter(({ status }) => kinds.includes(status)).length
const names = readdirSync(out).filter((name) => /\.(json|jsonl|log)$/.test(name))
console.log(`\n${summary.seconds.toFixed(0)} s; in ${out}: ${names.join(', ')}`)
if (!hasGpu && built) console.log('libtorch sees no CUDA device: what needs one was skipped, and CUDA tests were skipped by name')
console.log(`${count('passed')} passed, ${count('failed', 'timed out')} failed${count('skipped') ? `, ${count('skipped')} skipped` : ''}`)
process.exitCode = count('failed', 'timed out') > 0 ? 1 : 0
