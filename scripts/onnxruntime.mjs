// ONNX Runtime, which the tests run exported models with. It lives in the user's cache and not in package.json, because its own install
// script downloads hundreds of megabytes for GPUs; the package itself has all that a CPU needs.
//   node scripts/onnxruntime.mjs --ensure        makes it ready
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { cacheFolder, installOnce } from './pip.mjs'
import { SetupError, main, readText, runLogged } from './tools.mjs'

const PACKAGE = 'onnxruntime-node'
const VERSION = '1.30.0'

/**
 * What to `import()`: the URL of the pinned onnxruntime-node.
 * Throws a SetupError where it is not there or cannot be installed.
 * @param {{ ensure?: boolean, log?: (line: string) => void }} [options] `ensure`: install it with npm if it is missing
 */
export function onnxRuntime({ ensure = false, log = () => {} } = {}) {
  const folder = join(cacheFolder(), `${PACKAGE}-${VERSION}`)
  if (ensure && !existsSync(folder)) {
    log(`gmml: installing ${PACKAGE} ${VERSION} into ${folder} with npm`)
    installOnce(folder, (temporary, log) => {
      const quiet = ['--no-audit', '--no-fund', '--no-save', '--no-package-lock']
      const args = ['install', '--prefix', temporary, '--ignore-scripts', ...quiet, `${PACKAGE}@${VERSION}`]
      if (runLogged('npm', args, { log, cwd: temporary })) return
      const mend = '  Check the network and the registry of npm, then run the same command again.'
      throw new SetupError(`npm could not install ${PACKAGE} ${VERSION}; what it printed is above.\n${mend}`, { log: readText(log) })
    })
  }
  const entry = join(folder, 'node_modules', PACKAGE, 'dist/index.js')
  if (!existsSync(entry)) {
    throw new SetupError(`missing ${PACKAGE} ${VERSION}, needed to run exported models.\n  node scripts/onnxruntime.mjs --ensure`)
  }
  return pathToFileURL(entry).href
}

main(import.meta.url, () => {
  const given = process.argv.slice(2).join(' ')
  if (given !== '--ensure') throw new SetupError(`expected --ensure, received ${given || 'nothing'}`)
  console.log(`gmml: ONNX Runtime is ready: ${onnxRuntime({ ensure: true, log: console.error })}`)
})
