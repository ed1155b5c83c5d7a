// npm run check:cuda [-- --only VERSION|cmake|gyp|kernels]: what can be known of CUDA on a machine without a GPU. For each supported end of the
// versions of torch: builds the addon against its CUDA build, looks at what is linked, and runs it; and the kernels that NVRTC compiles. See docs/guides/gpu.md.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { buildNative, outputs } from './build-native.mjs'
import { cudaTests, readReport } from './cuda-tests.mjs'
import { findLibtorch, inspectFolder } from './libtorch.mjs'
import { cacheFolder, installPackages, probePython } from './pip.mjs'
import { pythonEnvironment } from './python.mjs'
import { SetupError, main } from './tools.mjs'

/** @typedef {import('./libtorch.mjs').Libtorch} Libtorch */
/** @typedef {'passed' | 'failed' | 'not checked'} Status */

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const SYSTEMS = /** @type {const} */ (['cmake', 'gyp'])
/** The oldest and the newest that are supported, as PyPI has them: with CUDA 13 both. */
const VERSIONS = ['2.11.0', '2.14.1']
const LIBRARIES = ['libtorch_cuda.so', 'libc10_cuda.so']
/** Hidden where there is one: the same is checked everywhere. */
const WITHOUT_GPU = { ...process.env, CUDA_VISIBLE_DEVICES: '' }

/** @type {{ what: string, status: Status, detail: string }[]} */
const results = []
/** @param {string} what @param {Status} status @param {string} detail */
function report(what, status, detail) {
  results.push({ what, status, detail })
  console.log(`${status.padEnd(12)} ${what}: ${detail}`)
}

/**
 * A check that passes with what it returns and fails with what it throws.
 * @param {string} what @param {() => string} body
 */
function check(what, body) {
  try {
    report(what, 'passed', body())
    return true
  } catch (error) {
    if (error instanceof SetupError && error.log) console.log(error.log)
    report(what, 'failed', error instanceof Error ? error.message : String(error))
    return false
  }
}

/** @param {string[]} args @param {NodeJS.ProcessEnv} env */
function runNode(args, env) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, env, encoding: 'utf8', maxBuffer: 2 ** 26 })
  if (status !== 0) throw new Error(`ended with ${signal ?? status}\n${stdout}${stderr}`)
  return stdout
}

/** torch of a version, in a folder of the cache that no other search looks at; a text where pip has none. @param {string} version */
function fetchTorch(version) {
  const python = probePython(['pip'])
  if (!python) return 'there is no python3'
  const folder = join(cacheFolder(), `check-cuda-${version}-${python.tag}`)
  if (!existsSync(folder)) {
    const { stdout } = spawnSync(python.executable, ['-m', 'pip', 'index', 'versions', 'torch'], { encoding: 'utf8' })
    const there = /^Available versions: (.*)$/m.exec(stdout)?.[1]?.split(/,\s*/) ?? []
    if (!there.includes(version)) return `pip for Python ${python.version} has ${there.length > 0 ? there.join(', ') : 'none'}`
    console.log(`gmml: installing torch ${version} into ${folder}, several GB`)
    try {
      installPackages({ python, folder, packages: [`torch==${version}`], dependencies: true })
    } catch (error) {
      return error instanceof SetupError ? error.message : String(error)
    }
  }
  return inspectFolder(join(folder, 'torch'), 'cache')
}

/** What to check, by name: the torch of LIBTORCH, or those of the versions. @returns {{ name: string, libtorch: Libtorch | string }[]} */
function candidates() {
  if (process.env.LIBTORCH) {
    const libtorch = findLibtorch()
    const others = VERSIONS.filter((version) => libtorch.version.split('+')[0] !== version)
    return [{ name: libtorch.version, libtorch }, ...others.map((name) => ({ name, libtorch: 'LIBTORCH is set to another' }))]
  }
  return VERSIONS.map((version) => ({ name: version, libtorch: fetchTorch(version) }))
}

/** @param {string} addon */
function checkLinked(addon) {
  const { status, stdout, stderr } = spawnSync('readelf', ['-d', addon], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`readelf: ${stderr}`)
  const needed = [...stdout.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map((match) => match[1])
  const missing = LIBRARIES.filter((name) => !needed.includes(name))
  if (missing.length > 0) throw new Error(`${missing.join(' and ')} not among NEEDED: ${needed.join(', ')}`)
  return `NEEDED ${LIBRARIES.join(', ')}`
}

/**
 * Runs test files without a GPU.
 * @param {string[]} tests @param {string} folder for the report @param {NodeJS.ProcessEnv} [env]
 */
function runTests(tests, folder, env = {}) {
  const file = join(folder, 'tests.json')
  rmSync(file, { force: true })
  const args = [join(ROOT, 'node_modules/vitest/vitest.mjs'), 'run', '--reporter=json', `--outputFile=${file}`, ...tests]
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, env: { ...WITHOUT_GPU, ...env }, encoding: 'utf8', maxBuffer: 2 ** 26 })
  if (!existsSync(file)) throw new Error(`vitest left no report\n${stdout}${stderr}`)
  const { passed, failed, skipped } = readReport(readFileSync(file, 'utf8'))
  if (failed.length > 0) throw new Error(`${failed.length} tests failed: ${failed.join('; ')}`)
  if (passed.length === 0) throw new Error('no test ran')
  return { passed, skipped }
}

/** @param {string} addon @param {string} folder */
function checkTests(addon, folder) {
  // Some compare with PyTorch.
  pythonEnvironment({ ensure: true, log: console.log })
  const { passed, skipped } = runTests(cudaTests(ROOT), folder, { GMML_ADDON: addon })
  const counts = `${passed.length} passed, ${skipped.length} skipped`
  if (skipped.length === 0) throw new Error(`${counts}: some of both were expected`)
  for (const name of skipped) console.log(`             skipped: ${name}`)
  return `${counts} by name for want of a device`
}

/** @param {'cmake' | 'gyp'} system @param {Libtorch} libtorch */
function checkBuild(system, libtorch) {
  const name = `torch ${libtorch.version}, ${system}`
  const folder = join(cacheFolder(), 'check-cuda', libtorch.version, system, 'build')
  const { addon } = outputs(system, folder)
  mkdirSync(folder, { recursive: true })
  const built = check(`${name}: builds`, () => {
    const { compiler, seconds } = buildNative(system, { libtorch, folder, log: () => {} })
    return `${compiler}, ${seconds} s, ${libtorch.cudaInclude.length > 0 ? 'with' : 'without'} CUDA's headers`
  })
  if (!built) return
  check(`${name}: links CUDA`, () => checkLinked(addon))
  check(`${name}: loads`, () => {
    const said = runNode([join(ROOT, 'scripts/check-cuda-child.mjs')], { ...WITHOUT_GPU, GMML_ADDON: addon }).trim().split('\n')
    for (const line of said.slice(0, -1)) console.log(`             ${line}`)
    return said.at(-1) ?? ''
  })
  // The tests are the same for both; cmake's is what is installed.
  if (system === 'cmake') check(`${name}: tests`, () => checkTests(addon, folder))
}

main(import.meta.url, () => {
  const { values } = parseArgs({ options: { only: { type: 'string', default: '' } } })
  const { only } = values
  if (!existsSync(join(ROOT, 'dist/index.js'))) throw new SetupError('dist is missing: npm run build:ts')
  // Torch is fetched for what is checked only.
  for (const { name, libtorch } of only === 'kernels' ? [] : candidates()) {
    if (typeof libtorch === 'string') report(`torch ${name}`, 'not checked', libtorch)
    else if (!libtorch.cuda) report(`torch ${name}`, 'not checked', `${libtorch.path} is a build without CUDA`)
    else for (const system of SYSTEMS) if (`${name} ${system}`.includes(only)) checkBuild(system, libtorch)
  }
  if ('kernels'.includes(only)) {
    check('kernels', () => {
      const { passed, skipped } = runTests(['test/native/fused-kernels.test.ts'], cacheFolder())
      return `${passed.length} tests passed${skipped.length > 0 ? `; skipped: ${skipped.join('; ')}` : ''}`
    })
  }

  const width = Math.max(...results.map(({ what }) => what.length))
  console.log('')
  for (const { what, status, detail } of results) console.log(`${what.padEnd(width)}   ${status.padEnd(11)}   ${detail.split('\n')[0]}`)
  const count = (/** @type {Status} */ status) => results.filter((result) => result.status === status).length
  const unchecked = count('not checked')
  console.log(`\n${count('passed')} passed, ${count('failed')} failed${unchecked ? `, ${unchecked} not checked` : ''}`)
  writeFileSync(join(cacheFolder(), 'check-cuda.json'), `${JSON.stringify({ date: new Date().toISOString(), results }, null, 2)}\n`)
  return count('failed') > 0 || count('passed') === 0 ? 1 : 0
})
