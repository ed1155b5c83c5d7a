// The Python that the addon is compared with: python3 with the very torch that the addon is linked to.
//   node scripts/python.mjs --ensure             makes it ready
//   node scripts/python.mjs script.py args...    runs Python in it
import { spawnSync } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { readBuildInfo } from './build-native.mjs'
import { findLibtorch } from './libtorch.mjs'
import { cacheFolder, installPackages, probePython } from './pip.mjs'
import { SetupError, TOOLS, installCommands, main } from './tools.mjs'

/** What the reference scripts import beside torch, pinned; the name of the folder changes with them. */
const REFERENCE = {
  name: 'python-reference-3',
  packages: [
    'numpy==2.2.6; python_version < "3.11"', 'numpy==2.4.6; python_version >= "3.11"', 'safetensors==0.8.0', 'pillow==12.3.0',
    'onnx==1.23.1', 'protobuf==7.36.2', 'ml_dtypes==0.6.0', 'tensorboard==2.21.0', 'absl-py==2.5.0'
  ],
  modules: ['numpy', 'safetensors', 'PIL', 'onnx', 'tensorboard']
}

/**
 * Python to run the reference scripts with: `spawn(python, [script, ...], { env })`.
 * Throws a SetupError where there is none, or where its torch is not the addon's.
 * @param {{ ensure?: boolean, modules?: readonly string[], log?: (line: string) => void }} [options] `ensure`: install with pip what is
 *   missing; `modules`: what the scripts import beside torch
 * @returns {{ python: string, env: NodeJS.ProcessEnv, torch: string }}
 */
export function pythonEnvironment({ ensure = false, modules = REFERENCE.modules, log = () => {} } = {}) {
  const libtorch = (readBuildInfo('cmake') ?? readBuildInfo('gyp'))?.libtorch ?? findLibtorch({ install: ensure, log })
  const plain = probePython(['torch', ...REFERENCE.modules])
  if (!plain) throw new SetupError(['missing python3, needed to compare with PyTorch.', ...installCommands([TOOLS.python])].join('\n'))

  // Bytecode of the packages is written when they are installed; what is left are the scripts of the caller.
  /** @type {NodeJS.ProcessEnv} */
  let env = { ...process.env, PYTHONDONTWRITEBYTECODE: '1' }
  let python = plain
  /** @param {string} folder */
  const add = (folder) => {
    env = { ...env, PYTHONPATH: [folder, env.PYTHONPATH].filter(Boolean).join(delimiter) }
    python = probePython(['torch', ...REFERENCE.modules], { env }) ?? plain
  }
  const samePlace = () => {
    const file = python.modules.torch
    return file != null && existsSync(libtorch.path) && realpathSync(dirname(file)) === realpathSync(libtorch.path)
  }
  const lacking = () => modules.filter((name) => python.modules[name] == null)

  if (lacking().length > 0) {
    const folder = join(cacheFolder(), `${REFERENCE.name}-${plain.tag}`)
    if (ensure && !existsSync(folder)) {
      log(`gmml: installing ${lacking().join(', ')} into ${folder} with pip`)
      installPackages({ python: plain, folder, packages: REFERENCE.packages, dependencies: false })
    }
    add(folder)
  }
  if (!samePlace()) add(dirname(libtorch.path))

  if (!samePlace()) {
    const reason = `python3 ${plain.version} cannot import the torch that the addon is linked to, ${libtorch.version} in ${libtorch.path}.`
    const mend = '  npm run build:native with LIBTORCH unset, or set to the folder of a torch that python3 can import.'
    throw new SetupError(`${reason}\n${mend}`)
  }
  if (lacking().length > 0) {
    throw new SetupError(`python3 lacks ${lacking().join(', ')}, needed to compare with PyTorch.\n  node scripts/python.mjs --ensure`)
  }
  return { python: plain.executable, env, torch: libtorch.version }
}

main(import.meta.url, () => {
  const [first, ...rest] = process.argv.slice(2)
  if (first === undefined) throw new SetupError('expected --ensure or a Python script, received nothing')
  const ensure = first === '--ensure'
  const { python, env, torch } = pythonEnvironment({ ensure, log: console.error })
  if (ensure) console.log(`gmml: Python reference is ready: torch ${torch}, ${REFERENCE.modules.join(', ')} with ${python}`)
  else return spawnSync(python, [first, ...rest], { env, stdio: 'inherit' }).status ?? 1
})
