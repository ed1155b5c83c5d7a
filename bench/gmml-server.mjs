// The gmml side: a script of this folder in a Node process of its own, and what it says of itself.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import * as torch from 'gmml/torch'
import { startServer } from './json-lines.mjs'

/** @param {'ops' | 'step' | 'device/step'} script @param {string} [name] @param {string[]} [args] */
export function startGmml(script, name = 'gmml', args = []) {
  return startServer(name, process.execPath, [fileURLToPath(new URL(`${script}-server.mjs`, import.meta.url)), ...args])
}

/** Version and commit of the libtorch that this process has loaded, from the version.py beside it. */
function loadedLibtorch() {
  const path = readFileSync('/proc/self/maps', 'utf8').match(/\S+(?=\/lib\/libtorch_cpu\.so)/)?.[0]
  if (!path) throw new Error('libtorch_cpu.so is not among the files that this process has mapped')
  const text = readFileSync(`${path}/version.py`, 'utf8')
  const field = (name) => text.match(new RegExp(`^${name}\\b[^=]*=\\s*'([^']*)'`, 'm'))?.[1]
  return { version: field('__version__'), git: field('git_version') }
}

/** What a record of a measurement has to say of the gmml that was measured. */
export function runtime() {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  const { compiler } = torch.buildInfo()
  return { gmml: version, node: process.versions.node, libtorch: loadedLibtorch(), threads: torch.getNumThreads(), compiler }
}

/** Resident memory in MiB, now and at its highest, from the kernel's count for this process. */
export function memory() {
  const status = readFileSync('/proc/self/status', 'utf8')
  const mib = (key) => Number(status.match(new RegExp(`^${key}:\\s*(\\d+) kB`, 'm'))[1]) / 1024
  return { rss_mb: mib('VmRSS'), peak_rss_mb: mib('VmHWM') }
}
