// Records of what was measured: device, versions, date, command.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const git = (...args) => {
  try {
    return execFileSync('git', ['-C', ROOT, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return null // not a checkout
  }
}

/** The first GPU as its driver describes it: name, driver, memory, and what limits its speed. */
export function describeGpu() {
  const fields = ['name', 'driver_version', 'memory.total', 'clocks.max.sm', 'power.limit', 'ecc.mode.current']
  try {
    const query = [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader', '--id=0']
    const answer = execFileSync('nvidia-smi', query, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim().split(/,\s*/)
    return Object.fromEntries(fields.map((field, i) => [field, answer[i]]))
  } catch {
    return null // no driver, or one that does not say
  }
}

/** The machine, as far as it decides the numbers. `load` tells a reader whether anything else was running. */
export const describeDevice = () => ({
  cpu: cpus()[0].model.trim(), cores: availableParallelism(), memoryMiB: Math.round(totalmem() / 2 ** 20), kernel: release(),
  load: loadavg()[0]
})

/** The commit of what was measured, and whether it was changed; of a bundle, what it says of itself. */
function sources() {
  const bundle = join(ROOT, '../bundle.json')
  if (existsSync(bundle)) {
    const { commit } = JSON.parse(readFileSync(bundle, 'utf8'))
    return { commit: commit?.replace(/-dirty$/, '') ?? null, modified: commit && commit.endsWith('-dirty') }
  }
  const commit = git('rev-parse', 'HEAD')
  return { commit, modified: commit && git('status', '--porcelain', '--', 'src', 'native', 'bench') !== '' }
}

/** Writes a record into a folder (bench/results), under the date, its name and the processor, or the GPU where that was measured. */
export function writeRecord(result, device, command, { folder = fileURLToPath(new URL('results', import.meta.url)), tell = true } = {}) {
  mkdirSync(folder, { recursive: true })
  const date = new Date().toISOString()
  const model = device.gpu?.name ?? device.cpu
  const slug = model.toLowerCase().replace(/\(\w+\)|processor|cpu|@.*/g, '').match(/[a-z0-9]+/g).join('-')
  const path = join(resolve(folder), `${date.slice(0, 10)}-${result.name}-${slug}.json`)
  const record = { date, command, ...sources(), device, ...result }
  writeFileSync(`${path}.tmp`, JSON.stringify(record, null, 2) + '\n')
  renameSync(`${path}.tmp`, path)
  if (tell) console.log(`\nwritten: ${relative(process.cwd(), path)}`)
}
