// Asks python3 what it can import, and installs packages into folders of the user's cache without touching Python itself.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import envPaths from 'env-paths'
import { SetupError, TOOLS, findOnPath, installCommands, readText, runLogged } from './tools.mjs'

/** Where downloaded packages live: shared by all projects of the user, so that libtorch is fetched once. */
export const cacheFolder = () => envPaths('gmml', { suffix: '' }).cache

// An empty entry of sys.path is the working directory: a folder `torch` that happens to lie there is not the package.
// find_spec does not import, so that a torch of gigabytes costs no seconds.
const PROBE = `
import importlib.util, json, sys, sysconfig
sys.path[:] = [p for p in sys.path if p]
def origin(name):
    spec = importlib.util.find_spec(name)
    return spec.origin if spec else None
print(json.dumps({
    'executable': sys.executable,
    'version': '%d.%d.%d' % sys.version_info[:3],
    'tag': 'cp%d%d%s' % (*sys.version_info[:2], 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''),
    'modules': {name: origin(name) for name in sys.argv[1:]}}))
`

/**
 * @typedef {object} Python
 * @property {string} executable path of the interpreter itself, behind any shim
 * @property {string} version such as 3.11.7
 * @property {string} tag such as cp311: what compiled packages are built for
 * @property {Record<string, string | null>} modules file that each name asked for would be imported from, null where there is none
 */

/**
 * What `python3` is and which of the modules it finds; undefined where there is no python3 that runs.
 * @param {string[]} modules
 * @param {{ python?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Python | undefined}
 */
export function probePython(modules, { python = 'python3', env = process.env } = {}) {
  if (!existsSync(python) && !findOnPath(python)) return undefined
  const { status, stdout } = spawnSync(python, ['-c', PROBE, ...modules], { encoding: 'utf8', env })
  if (status !== 0) return undefined
  try {
    return JSON.parse(stdout)
  } catch {
    return undefined
  }
}

/**
 * Makes `folder` unless it is there. Everything happens in a sibling that is renamed at the end: a folder under its final name
 * is complete, whatever was interrupted, and of two installs at once the first to end wins.
 * @param {string} folder
 * @param {(temporary: string, log: string) => void} install fills the sibling; `log` is a file for what it prints, removed afterwards
 */
export function installOnce(folder, install) {
  if (existsSync(folder)) return
  const temporary = join(folder, '..', `.${basename(folder)}.${process.pid}.tmp`)
  const log = `${temporary}.log`
  // What installs gets the interrupt from the terminal too and ends: staying alive here is what removes the gigabytes it leaves.
  const outlive = () => {}
  process.on('SIGINT', outlive)
  try {
    mkdirSync(temporary, { recursive: true })
    install(temporary, log)
    try {
      renameSync(temporary, folder)
    } catch (error) {
      if (!existsSync(folder)) throw error
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true })
    rmSync(log, { force: true })
    process.off('SIGINT', outlive)
  }
}

/**
 * Installs packages into `folder` unless it is there.
 * @param {{ python: Python, folder: string, packages: string[], dependencies: boolean, remedies?: string[] }} options
 *   `remedies`: what else the user can do when pip fails
 */
export function installPackages({ python, folder, packages, dependencies, remedies = [] }) {
  if (existsSync(folder)) return
  if (probePython(['pip'], { python: python.executable })?.modules.pip == null) {
    const lines = [`missing ${TOOLS.pip.what}, needed to install ${packages.join(', ')}.`, ...installCommands([TOOLS.pip]), ...remedies]
    throw new SetupError(lines.join('\n'))
  }
  installOnce(folder, (temporary, log) => {
    const quiet = ['--no-input', '--disable-pip-version-check', '--progress-bar', 'off']
    const args = ['-m', 'pip', 'install', '--target', temporary, ...quiet, ...(dependencies ? [] : ['--no-deps']), ...packages]
    // PIP_USER: some distributions make --user the default, which contradicts --target.
    const env = { ...process.env, PIP_USER: '0' }
    if (!runLogged(python.executable, args, { log, env })) {
      const mend = ['  Check the network and the proxy settings of pip, then run the same command again.', ...remedies]
      const lines = [`pip could not install ${packages.join(', ')}; what it printed is above.`, ...mend]
      throw new SetupError(lines.join('\n'), { log: readText(log) })
    }
  })
}
