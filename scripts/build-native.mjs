// Builds the addon from native/*.cc:  node scripts/build-native.mjs cmake|gyp
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describeLibtorch, findLibtorch } from './libtorch.mjs'
import { SetupError, TOOLS, findTool, installCommands, main, readText, runLogged } from './tools.mjs'

/** @typedef {'cmake' | 'gyp'} System */
/** @typedef {import('./libtorch.mjs').Libtorch} Libtorch */

/**
 * What is written beside the addon, for `gmml inspect` and to see whether it is up to date.
 * @typedef {object} BuildInfo
 * @property {System} system
 * @property {Pick<Libtorch, 'path' | 'version' | 'source' | 'cuda'>} libtorch
 * @property {string} compiler
 * @property {string[]} flags
 * @property {number} seconds
 * @property {string} date
 * @property {string} sources hash of all that it was built from
 */

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const FOLDERS = { cmake: join(ROOT, 'build-cmake'), gyp: join(ROOT, 'build') }
const require = createRequire(import.meta.url)

/** Where the build writes. @param {System} system @param {string} [folder] instead of the package's own, as in `buildNative` */
export function outputs(system, folder = FOLDERS[system]) {
  const release = join(folder, 'Release')
  return { addon: join(release, 'gmml.node'), info: join(release, 'build-info.json'), log: join(folder, 'build.log') }
}

/** @param {System} system @param {string} [folder] @returns {BuildInfo | undefined} undefined where nothing has been built */
export function readBuildInfo(system, folder) {
  const { addon, info } = outputs(system, folder)
  return existsSync(addon) && existsSync(info) ? JSON.parse(readFileSync(info, 'utf8')) : undefined
}

/** Hash of everything in the package that the addon is made from. */
export function hashSources() {
  const native = readdirSync(join(ROOT, 'native'), { recursive: true, withFileTypes: true })
  const files = native.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  const hash = createHash('sha256')
  for (const file of [...files.sort(), join(ROOT, 'CMakeLists.txt'), join(ROOT, 'binding.gyp')]) {
    hash.update(file.slice(ROOT.length)).update('\0').update(readFileSync(file)).update('\0')
  }
  return hash.digest('hex')
}

/** The tools that the build needs; one error names all that are missing. @param {System} system */
function checkTools(system) {
  // cmake-js looks for these two names; CXX is what cmake and make follow.
  const compiler = findTool(...(process.env.CXX ? [process.env.CXX] : []), 'g++', 'clang++', 'c++')
  const missing = [
    ...(compiler ? [] : [TOOLS.compiler]),
    ...(findTool('make') || (system === 'cmake' && findTool('ninja')) ? [] : [TOOLS.make]),
    ...(system === 'gyp' || findTool('cmake') ? [] : [TOOLS.cmake]),
    ...(system === 'cmake' || findTool('python3') ? [] : [TOOLS.python])
  ]
  if (missing.length > 0 || !compiler) {
    const what = missing.map((tool) => tool.what).join(', ')
    throw new SetupError([`missing ${what}, needed to build the addon. To install:`, ...installCommands(missing)].join('\n'))
  }
  return compiler
}

/**
 * Whether a program with libjpeg-turbo in it compiles and links: its header and library are optional, and other kinds of libjpeg do not
 * have the functions that skip rows and columns.
 * @param {string} compiler
 */
export function hasJpeg(compiler) {
  const program = `#include <cstdio>
    #include <jpeglib.h>
    int main() { return !&jpeg_crop_scanline + !&jpeg_skip_scanlines + !&jpeg_read_icc_profile + !LIBJPEG_TURBO_VERSION_NUMBER; }`
  const folder = mkdtempSync(join(tmpdir(), 'gmml-jpeg-'))
  try {
    const args = ['-x', 'c++', '-', '-o', join(folder, 'program'), '-ljpeg']
    return spawnSync(compiler, args, { input: program, stdio: ['pipe', 'ignore', 'ignore'] }).status === 0
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/**
 * Where node-gyp is to work: it builds in the folder build/ beside binding.gyp, and nowhere else. For a build in another folder,
 * which must have that name, links beside it stand for the package.
 * @param {string} folder
 */
function gypRoot(folder) {
  const root = dirname(folder)
  if (root === ROOT) return root
  mkdirSync(root, { recursive: true })
  for (const name of ['binding.gyp', 'native', 'node_modules', 'package.json']) {
    rmSync(join(root, name), { force: true })
    symlinkSync(join(ROOT, name), join(root, name))
  }
  return root
}

/** As in CMakeLists.txt: reading libtorch's headers takes far longer than compiling our own lines. */
const FILES_OF_A_UNIT = 6

/**
 * node-gyp knows no unity builds: files that include some sources each, in units/ of the folder where it builds. Files that are right already
 * stay as they are, so that nothing is compiled again.
 * @param {string} folder
 */
function writeUnits(folder) {
  const units = join(folder, 'units')
  mkdirSync(units, { recursive: true })
  const sources = readdirSync(join(ROOT, 'native')).filter((name) => name.endsWith('.cc')).sort()
  const texts = new Map()
  for (let i = 0; i < sources.length; i += FILES_OF_A_UNIT) {
    const lines = sources.slice(i, i + FILES_OF_A_UNIT).map((name) => `#include "../../native/${name}"\n`)
    texts.set(`unit${i / FILES_OF_A_UNIT}.cc`, lines.join(''))
  }
  for (const name of readdirSync(units)) if (!texts.has(name)) rmSync(join(units, name))
  for (const [name, text] of texts) if (readText(join(units, name)) !== text) writeFileSync(join(units, name), text)
}

/** The two commands of a build, both run by node. */
const STEPS = {
  /** @param {Libtorch} libtorch @param {boolean} jpeg @param {string} jobs @param {string} folder */
  cmake(libtorch, jpeg, jobs, folder) {
    const cli = join(dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js')
    const { path, cuda, cudaInclude } = libtorch
    const [withCuda, withJpeg] = [cuda, jpeg].map((there) => (there ? 'ON' : 'OFF'))
    const defines = { GMML_LIBTORCH: path, GMML_CUDA: withCuda, GMML_JPEG: withJpeg, GMML_CUDA_INCLUDE: cudaInclude.join(';') }
    const options = ['--directory', ROOT, '--out', folder, '--config', 'Release', '--log-level', 'warn']
    return {
      configure: [cli, 'configure', ...options, ...Object.entries(defines).map(([name, value]) => `--CD${name}=${value}`)],
      compile: [cli, 'build', ...options, '--parallel', jobs]
    }
  },
  /** @param {Libtorch} libtorch @param {boolean} jpeg @param {string} jobs @param {string} folder */
  gyp(libtorch, jpeg, jobs, folder) {
    const cli = require.resolve('node-gyp/bin/node-gyp.js')
    const { path, cuda, cudaInclude } = libtorch
    writeUnits(folder)
    const variables = { libtorch: path, sources: 'build/units', cuda: cuda ? 1 : 0, jpeg: jpeg ? 1 : 0, cuda_include: cudaInclude[0] ?? '' }
    // Node's headers, where they are installed with it: node-gyp would otherwise download them.
    const prefix = join(dirname(process.execPath), '..')
    const major = /^#define NODE_MAJOR_VERSION (\d+)/m.exec(readText(join(prefix, 'include/node/node_version.h')))?.[1]
    const local = major === process.versions.node.split('.')[0]
    const options = ['--directory', gypRoot(folder), ...(local ? ['--nodedir', prefix] : [])]
    return {
      configure: [cli, 'configure', ...options, '--', ...Object.entries(variables).map(([name, value]) => `-D${name}=${value}`)],
      compile: [cli, 'build', ...options, '--jobs', jobs]
    }
  }
}

/** Compiler flags as the log of the build shows them, without paths; none where nothing had to be compiled. @param {string} log */
function flagsOf(log) {
  const command = log.split('\n').find((line) => /\s-c(\s|$)/.test(line) && /-std=/.test(line)) ?? ''
  const words = command.replaceAll("'", '').split(/\s+/)
  return [...new Set(words.filter((word) => /^-(std=|O|f|m|W|DGMML|DNAPI|DNDEBUG)/.test(word)))]
}

/**
 * @param {System} system
 * @param {{ log?: (line: string) => void, libtorch?: Libtorch, folder?: string }} [options] `folder`: where to build, instead of
 *   the package's own folder, from which the addon is loaded; for node-gyp it has to be called build
 * @returns {BuildInfo}
 */
export function buildNative(system, { log = console.log, libtorch, folder = FOLDERS[system] } = {}) {
  if (system === 'gyp' && basename(folder) !== 'build') throw new SetupError(`expected a folder called build for node-gyp, received ${folder}`)
  const compiler = checkTools(system)
  const found = libtorch ?? findLibtorch({ install: true, log })
  log(`gmml: ${describeLibtorch(found)}`)

  if (found.cuda && found.cudaInclude.length === 0) {
    log('gmml: no headers of the CUDA of this torch, beside it or in a toolkit (CUDA_HOME): no CUDA graphs, fused kernels or pinned memory')
  }
  const started = performance.now()
  const jpeg = hasJpeg(compiler.name)
  if (!jpeg) log('gmml: no libjpeg-turbo with headers, such as libjpeg62-turbo-dev: JPEG files are left to sharp, a fifth as fast')
  const { addon, info, log: logFile } = outputs(system, folder)
  const sources = hashSources()
  const previous = readBuildInfo(system, folder)
  // An addon that is left from before must not pass for the result of a build that failed.
  rmSync(info, { force: true })
  const { configure, compile } = STEPS[system](found, jpeg, String(availableParallelism()), folder)
  const env = { ...process.env, VERBOSE: '1', V: '1' }
  /** @param {string[]} args @param {boolean} [append] */
  const step = (args, append = false) => runLogged(process.execPath, args, { log: logFile, append, cwd: ROOT, env })
  let ok = step(configure)
  if (!ok && existsSync(join(folder, 'CMakeCache.txt'))) {
    // The folder remembers another compiler, generator or place.
    rmSync(folder, { recursive: true })
    ok = step(configure)
  }
  ok &&= step(compile, true)
  if (!ok || !existsSync(addon)) {
    const printed = readText(logFile)
    const first = printed.split('\n').find((line) => /\berror\b/i.test(line))?.trim()
    const message = `the addon could not be built with ${system}; the log is above.`
    throw new SetupError(first ? `${message} The first error:\n  ${first}` : message, { log: printed })
  }

  const { path, version, source, cuda } = found
  const flags = flagsOf(readText(logFile))
  const seconds = Number(((performance.now() - started) / 1000).toFixed(1))
  /** @type {BuildInfo} */
  const result = {
    system,
    libtorch: { path, version, source, cuda },
    compiler: compiler.version,
    flags: flags.length > 0 ? flags : (previous?.flags ?? []),
    seconds,
    date: new Date().toISOString(),
    sources
  }
  mkdirSync(dirname(info), { recursive: true })
  writeFileSync(`${info}.tmp`, `${JSON.stringify(result, null, 2)}\n`)
  renameSync(`${info}.tmp`, info)
  log(`gmml: built ${folder === FOLDERS[system] ? relative(ROOT, addon) : addon} with ${system}, ${compiler.version}, in ${seconds} s`)
  return result
}

main(import.meta.url, () => {
  const system = process.argv[2]
  if (system !== 'cmake' && system !== 'gyp') throw new SetupError(`expected cmake or gyp, received ${system ?? 'nothing'}`)
  buildNative(system)
})
