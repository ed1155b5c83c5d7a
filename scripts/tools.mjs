// What the set-up scripts share: errors that name a remedy, finding tools, running commands quietly.
import { spawnSync } from 'node:child_process'
import { accessSync, closeSync, constants, mkdirSync, openSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A set-up step that cannot go on. The message is complete: what is missing and what mends it. It is shown without a stack. */
export class SetupError extends Error {
  /** @param {string} message @param {{ tried?: import('./libtorch.mjs').Refusal[], log?: string }} [details] */
  constructor(message, { tried = [], log = '' } = {}) {
    super(message)
    this.name = 'SetupError'
    /** What a search refused before it gave up. */
    this.tried = tried
    /** All that the command which failed has printed. */
    this.log = log
  }
}

/**
 * A tool that must be there, and the package that brings it, by package manager.
 * @typedef {{ what: string, apt: string, dnf: string, brew: string }} Tool
 */

/** @satisfies {Record<string, Tool>} */
export const TOOLS = {
  compiler: { what: 'a C++ compiler (g++ or clang++)', apt: 'g++', dnf: 'gcc-c++', brew: 'llvm' },
  make: { what: 'make', apt: 'make', dnf: 'make', brew: 'make' },
  cmake: { what: 'cmake', apt: 'cmake', dnf: 'cmake', brew: 'cmake' },
  python: { what: 'python3', apt: 'python3', dnf: 'python3', brew: 'python' },
  pip: { what: 'pip for python3', apt: 'python3-pip', dnf: 'python3-pip', brew: 'python' }
}

const MANAGERS = /** @type {const} */ ([
  { manager: 'apt', where: 'Debian, Ubuntu', command: 'sudo apt-get install' },
  { manager: 'dnf', where: 'Fedora, RHEL', command: 'sudo dnf install' },
  { manager: 'brew', where: 'macOS', command: 'brew install' }
])

/** The package manager of this machine, as far as it can be told: its command is shown first. */
function likelyManager() {
  if (process.platform === 'darwin') return 'brew'
  return findOnPath('dnf') && !findOnPath('apt-get') ? 'dnf' : 'apt'
}

/**
 * The command that installs the tools, one line per package manager, the likeliest first.
 * @param {Tool[]} tools
 */
export function installCommands(tools) {
  const likely = likelyManager()
  const sorted = [...MANAGERS].sort((a, b) => Number(b.manager === likely) - Number(a.manager === likely))
  return sorted.map(({ manager, where, command }) => {
    // On macOS Apple's own tools bring compiler and make together, and they are what people have.
    const apple = manager === 'brew' && tools.some((tool) => tool === TOOLS.compiler || tool === TOOLS.make)
    const others = tools.filter((tool) => !apple || (tool !== TOOLS.compiler && tool !== TOOLS.make))
    const packages = [...new Set(others.map((tool) => tool[manager]))]
    const parts = [...(apple ? ['xcode-select --install'] : []), ...(packages.length > 0 ? [`${command} ${packages.join(' ')}`] : [])]
    return `  ${`${where}:`.padEnd(16)} ${parts.join(' && ')}`
  })
}

/** @param {string} name */
export function findOnPath(name) {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder || '.', name)
    try {
      accessSync(path, constants.X_OK)
      if (statSync(path).isFile()) return path
    } catch {
      // Not in this folder.
    }
  }
  return undefined
}

/**
 * The first of the named tools that is there and runs. A tool that is on the path and does not run (a shim
 * without the program behind it) counts as missing.
 * @param {string[]} names
 */
export function findTool(...names) {
  for (const name of names) {
    if (!findOnPath(name)) continue
    const { status, stdout } = spawnSync(name, ['--version'], { encoding: 'utf8' })
    if (status === 0) return { name, version: stdout.split('\n')[0]?.trim() ?? '' }
  }
  return undefined
}

/**
 * Runs a command with all it prints going to a file: a build that works has nothing to say, one that fails is shown whole.
 * @param {string} command @param {string[]} args
 * @param {{ log: string, append?: boolean, cwd?: string, env?: NodeJS.ProcessEnv }} options
 * @returns {boolean} whether it ended with 0
 */
export function runLogged(command, args, { log, append = false, cwd, env = process.env }) {
  mkdirSync(dirname(log), { recursive: true })
  const file = openSync(log, append ? 'a' : 'w')
  try {
    return spawnSync(command, args, { ...(cwd === undefined ? {} : { cwd }), env, stdio: ['ignore', file, file] }).status === 0
  } finally {
    closeSync(file)
  }
}

/** The file's text, or '' where there is none. @param {string} path */
export function readText(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/**
 * Runs a script's body where the script is what was started, not where it is imported. A SetupError is printed as it is;
 * anything else is a defect and keeps its stack.
 * @param {string} url the script's import.meta.url
 * @param {() => number | void} body returns the exit code, 0 when left out
 */
export function main(url, body) {
  if (!process.argv[1] || realpathSync(process.argv[1]) !== fileURLToPath(url)) return
  try {
    process.exitCode = body() ?? 0
  } catch (error) {
    // The message comes last: that is what a terminal shows of a long log.
    console.error(error instanceof SetupError ? `${error.log}gmml: ${error.message}` : error)
    process.exitCode = 1
  }
}
