// What run.sh does on a GPU host once Node is unpacked: builds the addon, then runs the parts that were asked for, each with a limit.
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
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
 * @property {string} name of the part, with a number where it is not the first of its kind: what its files are called
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
 * A part: its command, how long it may take, and what is kept for it by the parts before it, without which it is not begun (seconds, of the
 * usual total; with more time it may take more), and what is said of its end.
 * @typedef {object} Part
 * @property {number} limit
 * @property {number} least
 * @property {string} [file] of the package that it needs
 * @property {boolean} [needsDevice] skipped where there is no device to measure
 * @property {(context: Context) => string[]} command arguments of node
 * @property {(context: Context) => string} [detail]
 */

/** @param {string} name */
const fileName = (name) => name.replace(':', '-')

/** @param {string} name @param {{ limit: number, least: number, takesDevice?: boolean }} options @returns {Part} */
const bench = (name, { limit, least, takesDevice = true }) => ({
  limit,
  least,
  file: `bench/${name}.mjs`,
  needsDevice: true,
  command: ({ name: part, device, quick, seconds, extra, out }) => [
    join(ROOT, 'bench/run.mjs'), name, ...(takesDevice ? ['--device', device] : []), '--seconds', String(Math.floor(seconds * 0.95)),
    ...(quick ? ['--quick'] : []), '--results', /-\d+$/.test(part) ? join(out, fileName(part)) : out, '--write', ...extra
  ]
})

/** @type {Record<string, Part>} */
const PARTS = {
  tests: {
    limit: 200,
    least: 30,
    command: ({ name, out, extra }) => [
      vitest, 'run', '--root', ROOT, '--reporter=verbose', '--reporter=json', `--outputFile=${join(out, `${name}.json`)}`,
      ...(extra.length > 0 ? extra : cudaTests(ROOT))
    ],
    detail({ name, out }) {
      const report = readText(join(out, `${name}.json`))
      if (report === '') return 'no report'
      const { passed, failed, skipped } = readReport(report)
      return [`${passed.length} passed, ${failed.length} failed, ${skipped.length} skipped`, ...failed.slice(0, 10)].join('\n    ')
    }
  },
  train: {
    limit: 120,
    least: 40,
    command: ({ name, out, device, quick, extra }) => [
      join(ROOT, 'dist/cli/main.js'), 'pretrain', images, '--out', join(out, name), '--device', device, '--log-every', '2',
      ...(quick ? ['--model', 'vit_micro', '--limit', '512', '--epochs', '1'] : ['--model', 'vit_tiny', '--epochs', '5']), ...extra
    ],
    detail({ name, out }) {
      const text = readText(join(out, name, 'metrics.jsonl'))
      // Beside the others: the run's folder is large.
      if (text) writeFileSync(join(out, `${name}-metrics.jsonl`), text)
      const lines = text.trim().split('\n').flatMap((line) => (line ? [JSON.parse(line)] : []))
      const losses = lines.flatMap(({ loss }) => (typeof loss === 'number' ? [loss] : []))
      return losses.length > 0 ? `loss ${losses[0].toFixed(3)} to ${losses.at(-1).toFixed(3)}` : 'no losses'
    }
  },
  'bench:ops': bench('ops', { limit: 90, least: 30 }),
  // Measures on a GPU where there is one.
  'bench:fused': bench('fused', { limit: 90, least: 30, takesDevice: false }),
  'bench:step': bench('step', { limit: 540, least: 150 })
}

const USAGE = `./run.sh [--out FOLDER] [--seconds N] [--device cuda|cpu] [--quick] [PART ...]

  Builds the addon, then runs the parts in the order in which they are named; where none is: ${Object.keys(PARTS).join(', ')}.
  A part can have arguments of its own, and come more than once: ./run.sh 'bench:step --only 224/16 --sides gmml,compile'
  --out       where JSON and logs go (default: results)
  --seconds   for everything (default: ${USUAL_SECONDS}); each part leaves time to those after it, and one for which too little is left is
              skipped by name
  --device    what is measured (default: cuda; without a GPU nothing is, unless cpu is asked for)
  --quick     short and few, to see that it runs`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: 'results' }, seconds: { type: 'string', default: String(USUAL_SECONDS) }, device: { type: 'string' },
    quick: { type: 'boolean', default: false }, help: { type: 'boolean', default: false }
  }
})
/** @type {Map<string, number>} */
const times = new Map()
const wanted = (positionals.length > 0 ? positionals : Object.keys(PARTS)).map((text) => {
  const [kind = '', ...extra] = text.trim().split(/\s+/)
  const number = (times.get(kind) ?? 0) + 1
  times.set(kind, number)
  return { part: Object.hasOwn(PARTS, kind) ? PARTS[kind] : undefined, name: number > 1 ? `${kind}-${number}` : kind, extra }
})
const unknown = wanted.filter(({ part }) => !part)
const total = Number(values.seconds)
if (values.help || unknown.length > 0 || !(total > 0) || !['cuda', 'cpu', undefined].includes(values.device)) {
  console.log(USAGE)
  process.exit(values.help ? 0 : 2)
}

const started = Number(process.env.GMML_RUN_STARTED ?? Date.now() / 1000)
const scale = Math.max(1, total / USUAL_SECONDS)
const elapsed = () => Date.now() / 1000 - started
const remaining = () => total - elapsed()
const out = resolve(values.out)
mkdirSync(out, { recursive: true })

let built = false
/** @type {{ devices?: string[] } | undefined} */
let installation
/** @type {'cuda' | 'cpu'} */
let device = 'cpu'
/** @type {{ part: string, status: 'passed' | 'failed' | 'timed out' | 'skipped', seconds: number, detail: string, command?: string }[]} */
const results = []
/** @param {typeof results[number]} result */
function report(result) {
  results.push(result)
  writeSummary()
  console.log(`== ${result.part}: ${result.status}, ${result.seconds.toFixed(0)} s${result.detail ? `\n    ${result.detail}` : ''}`)
}

/** @param {string} name @param {string[]} args @param {number} seconds @param {() => string} detail */
async function execute(name, args, seconds, detail) {
  const log = join(out, `${fileName(name)}.log`)
  writeFileSync(log, '')
  console.log(`== ${name}: at most ${seconds.toFixed(0)} s`)
  const outcome = await runTimed(node, args, { log, seconds, cwd: out })
  const status = outcome.code === 0 ? 'passed' : outcome.timedOut ? 'timed out' : 'failed'
  // What failed shows why, and a benchmark its tables.
  if (status !== 'passed' || name.startsWith('bench:')) console.log(readText(log).trimEnd().split('\n').slice(-60).join('\n'))
  report({ part: name, status, seconds: outcome.seconds, detail: detail(), command: ['node', ...args].join(' ') })
  return status === 'passed'
}

/** What of the machine decides the numbers, from a process that loads the addon. @returns {{ devices?: string[] } | undefined} */
function inspect() {
  const { stdout } = spawnSync(node, [join(ROOT, 'dist/cli/main.js'), 'inspect', '--json'], { encoding: 'utf8' })
  try {
    return JSON.parse(stdout)
  } catch {
    return undefined
  }
}

/** After each part: what ends this program must not take along what is known. */
function writeSummary() {
  const bundle = join(ROOT, '../bundle.json')
  const summary = {
    date: new Date().toISOString(), seconds: elapsed(), device: built ? device : null, results, installation,
    bundle: existsSync(bundle) ? JSON.parse(readFileSync(bundle, 'utf8')) : null
  }
  writeFileSync(join(out, 'summary.json.tmp'), `${JSON.stringify(summary, null, 2)}\n`)
  renameSync(join(out, 'summary.json.tmp'), join(out, 'summary.json'))
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

built = hasLibtorch() && await execute('build', [join(ROOT, 'scripts/install.mjs')], Math.min(BUILD_SECONDS * scale, remaining()), () => {
  const lines = readText(join(out, 'build.log')).split('\n').filter((text) => text.startsWith('gmml: '))
  return lines.map((line) => line.slice('gmml: '.length)).join('\n    ')
})
installation = built ? inspect() : undefined
const hasGpu = (installation?.devices ?? []).some((name) => name.startsWith('cuda'))
const measures = values.device === 'cpu' || hasGpu
if (hasGpu && values.device !== 'cpu') device = 'cuda'
const quick = values.quick || !hasGpu
/** @param {Part} part */
const least = (part) => (quick ? Math.min(part.least, 30) : part.least)

for (const [i, { part, name, extra }] of wanted.entries()) {
  if (!part) continue
  /** @param {string} detail */
  const skip = (detail) => report({ part: name, status: 'skipped', seconds: 0, detail })
  const runs = (/** @type {Part} */ one) => (!one.file || existsSync(join(ROOT, one.file))) && (!one.needsDevice || measures)
  if (!built) skip('the addon was not built')
  else if (part.file && !existsSync(join(ROOT, part.file))) skip(`there is no ${part.file}`)
  else if (!runs(part)) skip('libtorch sees no CUDA device')
  else if (remaining() < least(part)) skip(`${Math.max(0, remaining()).toFixed(0)} s are left, it needs ${least(part)}`)
  else {
    const kept = wanted.slice(i + 1).reduce((sum, later) => sum + (later.part && runs(later.part) ? least(later.part) : 0), 0)
    // A little stays for the summary; and what is kept for others is no reason to do nothing.
    const seconds = Math.min(part.limit * scale, Math.max(least(part), remaining() - kept) - 5)
    const context = { name, out, device, quick, seconds, extra }
    await execute(name, part.command(context), seconds, () => part.detail?.(context) ?? '')
  }
}
writeSummary()

console.log(`\n${'part'.padEnd(14)} ${'status'.padEnd(10)} ${'seconds'.padStart(7)}`)
for (const { part, status, seconds } of results) console.log(`${part.padEnd(14)} ${status.padEnd(10)} ${seconds.toFixed(0).padStart(7)}`)
const count = (/** @type {string[]} */ ...kinds) => results.filter(({ status }) => kinds.includes(status)).length
const names = readdirSync(out).filter((name) => /\.(json|jsonl|log)$/.test(name))
console.log(`\n${elapsed().toFixed(0)} s; in ${out}: ${names.join(', ')}`)
if (!hasGpu && built) console.log('libtorch sees no CUDA device: what needs one was skipped, and CUDA tests were skipped by name')
console.log(`${count('passed')} passed, ${count('failed', 'timed out')} failed${count('skipped') ? `, ${count('skipped')} skipped` : ''}`)
process.exitCode = count('failed', 'timed out') > 0 ? 1 : 0
