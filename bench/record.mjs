// Records of what was measured: device, versions, date, command.
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const git = (...args) => {
  try {
    return execFileSync('git', ['-C', ROOT, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return null // not a checkout
  }
}

/** The machine, as far as it decides the numbers. `load` tells a reader whether anything else was running. */
export const describeDevice = () => ({
  cpu: cpus()[0].model.trim(), cores: availableParallelism(), memoryMiB: Math.round(totalmem() / 2 ** 20), kernel: release(),
  load: loadavg()[0]
})

/** Writes a record into bench/results, under the date, its name and the processor. */
export function writeRecord(result, device, command) {
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
