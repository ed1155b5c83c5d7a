// npm run bench -- [ops] [step] [zoo] [types] [checkpoint] [--quick] [--write] [--only TEXT]: see README.md
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const BENCHMARKS = ['ops', 'step', 'zoo', 'types', 'checkpoint']
const USUAL = ['ops', 'step']
const ROOT = fileURLToPath(new URL('..', import.meta.url))
const USAGE = `npm run bench -- [${BENCHMARKS.join('] [')}] [--quick] [--write] [--only TEXT]

  --quick   few and short rounds, to see that it runs; no record unless --write is given
  --write   a record in bench/results (the default without --quick)
  --only    step, zoo, checkpoint: the cases whose name has TEXT in it; no record unless --write is given`

function parse() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: 'boolean', default: false }, write: { type: 'boolean' }, only: { type: 'string' }, help: { type: 'boolean' }
      }
    })
    const unknown = positionals.filter((name) => !BENCHMARKS.includes(name))
    if (unknown.length) throw new Error(`expected ${BENCHMARKS.join(' or ')}, received ${unknown.join(' ')}`)
    return { ...values, write: values.write ?? !(values.quick || values.only), names: positionals.length ? positionals : USUAL }
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`)
    process.exit(2)
  }
}

const git = (...args) => {
  try {
    return execFileSync('git', ['-C', ROOT, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return null // not a checkout
  }
}

/** The machine, as far as it decides the numbers. `load` tells a reader whether anything else was running. */
const describeDevice = () => ({
  cpu: cpus()[0].model.trim(), cores: availableParallelism(), memoryMiB: Math.round(totalmem() / 2 ** 20), kernel: release(),
  load: loadavg()[0]
})

function writeRecord(result, device, command) {
  const folder = new URL('results/', import.meta.url)
  mkdirSync(folder, { recursive: true })
  const date = new Date().toISOString()
  const cpu = device.cpu.toLowerCase().replace(/\(\w+\)|processor|cpu|@.*/g, '').match(/[a-z0-9]+/g).join('-')
  const path = fileURLToPath(new URL(`${date.slice(0, 10)}-${result.name}-${cpu}.json`, folder))
  const commit = git('rev-parse', 'HEAD')
  const modified = commit && git('status', '--porcelain', '--', 'src', 'native', 'bench') !== ''
  const record = { date, command, commit, modified, device, ...result }
  writeFileSync(path, JSON.stringify(record, null, 2) + '\n')
  console.log(`\nwritten: ${relative(process.cwd(), path)}`)
}

const options = parse()
if (options.help) {
  console.log(USAGE)
} else {
  const command = ['npm run bench --', ...process.argv.slice(2)].join(' ')
  for (const name of options.names) {
    const device = describeDevice()
    const { run, print } = await import(`./${name}.mjs`)
    const result = await run(options)
    print(result)
    if (options.write) writeRecord(result, device, command)
  }
}
