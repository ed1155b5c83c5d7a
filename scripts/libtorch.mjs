// Finds libtorch: LIBTORCH, the torch of python3, the user's cache, or pip into that cache.
//   node scripts/libtorch.mjs [--install] [--json]
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { cacheFolder, installPackages, probePython } from './pip.mjs'
import { SetupError, TOOLS, findOnPath, installCommands, main, readText } from './tools.mjs'

/** The version that is installed where there is none. */
export const PINNED = '2.13.0'
/** Minor versions of libtorch 2 that the native core is written for, both ends included. */
const SUPPORTED = { from: 11, to: 14 }
const SUPPORTED_TEXT = `2.${SUPPORTED.from} to 2.${SUPPORTED.to}`
const SUFFIX = process.platform === 'darwin' ? 'dylib' : 'so'

/** @typedef {'LIBTORCH' | 'python' | 'cache' | 'pip'} Source */
/** @typedef {{ source: Source, path?: string, reason: string }} Refusal a place that was looked at, and why it was not taken */

/**
 * @typedef {object} Libtorch
 * @property {string} path folder that holds include/ and lib/
 * @property {string[]} include
 * @property {string} lib
 * @property {string} version such as 2.13.0+cpu
 * @property {Source} source
 * @property {boolean} cuda whether it has the CUDA kernels
 * @property {string[]} cudaInclude CUDA's own headers, where they are found
 * @property {string} [python] interpreter that was asked, if there is one
 * @property {Refusal[]} tried what came before it in the order of search
 */

/** @param {string} version */
function isSupported(version) {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(version) ?? []
  return Number(major) === 2 && Number(minor) >= SUPPORTED.from && Number(minor) <= SUPPORTED.to
}

/** A wheel says its version in version.py, a bare libtorch in build-version, and both in a header. @param {string} path */
function readVersion(path) {
  const wheel = /^__version__ = '([^']+)'/m.exec(readText(join(path, 'version.py')))?.[1]
  const bare = readText(join(path, 'build-version')).trim()
  if (wheel || bare) return wheel ?? bare
  const headers = ['torch/headeronly/version.h', 'torch/csrc/api/include/torch/version.h']
  const text = headers.map((name) => readText(join(path, 'include', name))).join('\n')
  const parts = ['MAJOR', 'MINOR', 'PATCH'].map((part) => new RegExp(`#define TORCH_VERSION_${part} (\\d+)`).exec(text)?.[1])
  return parts.every((part) => part !== undefined) ? parts.join('.') : undefined
}

/** @param {string} path */
const listFolder = (path) => (existsSync(path) ? readdirSync(path).sort() : [])

/** The toolkit of the nvcc on the path, which may be a shim: it says itself where it is. @returns {string[]} */
function toolkitOfCompiler() {
  if (!findOnPath('nvcc')) return []
  const { stderr } = spawnSync('nvcc', ['--dryrun', '-x', 'cu', '-c', '/dev/null', '-o', '/dev/null'], { encoding: 'utf8' })
  const top = /^#\$ TOP=(.+)$/m.exec(stderr ?? '')?.[1]
  return top === undefined ? [] : [resolve(top.trim())]
}

/** Headers of the libraries, which libtorch's own include. */
const LIBRARY_HEADERS = ['cublas_v2.h', 'cublasLt.h', 'cusparse.h', 'cusolverDn.h']

/**
 * The pip packages beside torch bring CUDA's headers; else an installed toolkit, where it is of the same major version.
 * Since CUDA 13 torch's dependencies bring only a part of the runtime's, without crt/, that does not compile, and a small toolkit (a compiler and
 * the runtime) has none of the libraries': what one lacks is taken from the other.
 * @param {string} path @param {string} version such as 2.14.1+cu130
 */
function findCudaHeaders(path, version) {
  const major = /\+cu(\d+)\d$/.exec(version)?.[1]
  const beside = join(path, '..', 'nvidia')
  const packages = listFolder(beside).map((name) => join(beside, name, 'include')).filter((folder) => existsSync(folder))
  const isWhole = (/** @type {string} */ folder) => {
    const found = /^#define CUDART_VERSION\s+(\d+)\d{3}\b/m.exec(readText(join(folder, 'cuda_runtime_api.h')))?.[1]
    return found !== undefined && found === (major ?? found) && existsSync(join(folder, 'crt/host_config.h'))
  }
  const { CUDA_HOME, CUDA_PATH } = process.env
  const homes = () => [CUDA_HOME, CUDA_PATH, ...toolkitOfCompiler(), '/usr/local/cuda'].flatMap((home) => (home ? [join(home, 'include')] : []))
  const whole = packages.find(isWhole) ?? homes().find(isWhole)
  if (whole === undefined) return []
  // Those of the runtime first: they belong together. Until CUDA 12 each library is a package with headers of its own.
  const folders = [whole, ...packages.filter((folder) => folder !== whole)]
  return LIBRARY_HEADERS.every((name) => folders.some((folder) => existsSync(join(folder, name)))) ? folders : []
}

/**
 * What the folder holds, or the reason why it is of no use.
 * @param {string} path @param {Source} source @returns {Libtorch | string}
 */
export function inspectFolder(path, source) {
  const needed = ['include/ATen/ATen.h', `lib/libtorch_cpu.${SUFFIX}`, `lib/libc10.${SUFFIX}`]
  const missing = needed.filter((name) => !existsSync(join(path, name)))
  if (missing.length > 0) return `not a libtorch folder: it has no ${missing.join(', no ')}`
  const version = readVersion(path)
  if (version === undefined) return 'its version cannot be told'
  if (!isSupported(version)) return `version ${version} is not supported, ${SUPPORTED_TEXT} are`
  const cuda = existsSync(join(path, `lib/libtorch_cuda.${SUFFIX}`))
  const include = [join(path, 'include'), join(path, 'include/torch/csrc/api/include')]
  const cudaInclude = cuda ? findCudaHeaders(path, version) : []
  return { path, include, lib: join(path, 'lib'), version, source, cuda, cudaInclude, tried: [] }
}

/**
 * Folders of the cache that may serve, the pinned version first. A compiled torch serves one Python version; where there is no
 * Python at all, any will do for the addon. Installs that were cut short have names that start with a dot.
 * @param {string | undefined} tag
 */
function cachedFolders(tag) {
  const cache = cacheFolder()
  const names = listFolder(cache).filter((name) => name.startsWith('torch-') && name.endsWith(tag ? `-${tag}` : ''))
  const pinned = names.filter((name) => name.startsWith(`torch-${PINNED}-`))
  return [...pinned, ...names.filter((name) => !pinned.includes(name)).reverse()].map((name) => join(cache, name, 'torch'))
}

const OTHER_WAYS = [
  `  Or give python3 a torch of ${SUPPORTED_TEXT} (in the active environment: pip install torch==${PINNED}).`,
  '  Or set LIBTORCH to a libtorch folder that holds include/ and lib/.'
]

/**
 * Searches in the order of preference. Throws a SetupError, with all that was tried, where nothing is found.
 * @param {{ install?: boolean, log?: (line: string) => void }} [options] `install`: let pip fetch it where there is none
 * @returns {Libtorch}
 */
export function findLibtorch({ install = false, log = () => {} } = {}) {
  /** @type {Refusal[]} */
  const tried = []
  const given = process.env.LIBTORCH
  if (given) {
    const found = inspectFolder(resolve(given), 'LIBTORCH')
    if (typeof found !== 'string') return found
    tried.push({ source: 'LIBTORCH', path: resolve(given), reason: found })
    // Whoever sets it wants this one: going on to another would hide the mistake.
    const mend = '  Set it to a folder that holds include/ and lib/, or unset it.'
    throw new SetupError(`LIBTORCH is set to ${given}: ${found}.\n${mend}`, { tried })
  }
  tried.push({ source: 'LIBTORCH', reason: 'not set' })

  const python = probePython(['torch'])
  /** @param {Source} source @param {string} path */
  const take = (source, path) => {
    const found = inspectFolder(path, source)
    if (typeof found !== 'string') return { ...found, ...(python ? { python: python.executable } : {}), tried }
    tried.push({ source, path, reason: found })
    return undefined
  }

  const origin = python?.modules.torch
  const imported = origin ? take('python', dirname(origin)) : undefined
  if (imported) return imported
  if (!origin) tried.push({ source: 'python', reason: python ? `${python.executable} has no torch` : 'no python3 that runs' })

  for (const folder of cachedFolders(python?.tag)) {
    const cached = take('cache', folder)
    if (cached) return cached
  }
  tried.push({ source: 'cache', path: cacheFolder(), reason: `no torch${python ? ` for ${python.tag}` : ''}` })

  if (!install) {
    const lines = ['libtorch was not found.', '  npm rebuild gmml (in a clone: npm install) installs it with pip.', ...OTHER_WAYS]
    throw new SetupError(lines.join('\n'), { tried })
  }
  if (!python) {
    const remedies = [...installCommands([TOOLS.python, TOOLS.pip]), ...OTHER_WAYS]
    throw new SetupError(['libtorch was not found, and there is no python3 to install it with.', ...remedies].join('\n'), { tried })
  }
  const folder = join(cacheFolder(), `torch-${PINNED}-${python.tag}`)
  log(`gmml: installing torch ${PINNED} into ${folder} with pip; about 900 MB, several GB with CUDA`)
  installPackages({ python, folder, packages: [`torch==${PINNED}`], dependencies: true, remedies: OTHER_WAYS })
  const installed = take('pip', join(folder, 'torch'))
  if (installed) return installed
  throw new SetupError(`what pip installed cannot be used: ${tried.at(-1)?.reason}.\n  Remove ${folder} and try again.`, { tried })
}

/** @param {Libtorch} libtorch */
export function describeLibtorch({ version, cuda, source, path }) {
  return `libtorch ${version} (${cuda ? 'CUDA' : 'CPU'}) from ${source}: ${path}`
}

main(import.meta.url, () => {
  const json = process.argv.includes('--json')
  try {
    const found = findLibtorch({ install: process.argv.includes('--install'), log: console.error })
    console.log(json ? JSON.stringify({ found: true, ...found }, null, 2) : describeLibtorch(found))
  } catch (error) {
    if (!json || !(error instanceof SetupError)) throw error
    console.log(JSON.stringify({ found: false, error: error.message, tried: error.tried }, null, 2))
    return 1
  }
})
