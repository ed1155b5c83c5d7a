// npm's install step: builds the addon unless the one that is there was built from these sources with this libtorch.
import { buildNative, hashSources, readBuildInfo } from './build-native.mjs'
import { describeLibtorch, findLibtorch } from './libtorch.mjs'
import { SetupError, main } from './tools.mjs'

/** The libtorch that the addon, as it lies there, was built with; undefined where it is missing or out of date. */
function upToDate() {
  const built = readBuildInfo('cmake')
  if (built?.sources !== hashSources()) return undefined
  try {
    const libtorch = findLibtorch()
    return built.libtorch.path === libtorch.path && built.libtorch.version === libtorch.version ? libtorch : undefined
  } catch (error) {
    // Nothing is installed here: the build does that, after it has seen that the compiler is there.
    if (error instanceof SetupError) return undefined
    throw error
  }
}

main(import.meta.url, () => {
  if (process.env.GMML_SKIP_BUILD === '1') {
    console.log('gmml: GMML_SKIP_BUILD=1, the addon is not built')
    return
  }
  const libtorch = upToDate()
  if (libtorch) console.log(`gmml: the addon is up to date; ${describeLibtorch(libtorch)}`)
  else buildNative('cmake')
})
