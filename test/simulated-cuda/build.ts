import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

interface Libtorch { readonly path: string; readonly version: string; readonly cuda: boolean }
interface Build { readBuildInfo(system: string): { libtorch: Libtorch } | undefined }
const build = (await import(new URL('../../scripts/build-native.mjs', import.meta.url).href)) as Build
const run = promisify(execFile)

const SOURCES = ['device', 'runtime', 'kernels']
const CACHE = new URL('../../build-cmake/simulated-cuda/', import.meta.url).pathname

/** The libtorch that the addon was built for. */
export const { libtorch } = (build.readBuildInfo('cmake') ?? build.readBuildInfo('gyp'))!

/** The library of the simulated GPU, built where it is not there yet. */
export async function buildLibrary(): Promise<string> {
  const hash = createHash('sha256').update(libtorch.path).update(libtorch.version)
  for (const name of ['device.h', ...SOURCES.map((source) => `${source}.cc`)]) hash.update(await readFile(join(import.meta.dirname, name)))
  const library = join(CACHE, `${hash.digest('hex').slice(0, 16)}.so`)
  if (existsSync(library)) return library
  await mkdir(CACHE, { recursive: true })
  const folder = await mkdtemp(join(CACHE, 'building-'))
  try {
    const compiler = process.env['CXX'] ?? 'g++'
    const include = ['include', 'include/torch/csrc/api/include'].map((name) => `-I${join(libtorch.path, name)}`)
    await Promise.all(SOURCES.map((name) =>
      run(compiler, ['-std=c++20', '-O1', '-fPIC', '-c', join(import.meta.dirname, `${name}.cc`), '-o', join(folder, `${name}.o`), ...include])
    ))
    const objects = SOURCES.map((name) => join(folder, `${name}.o`))
    await run(compiler, ['-shared', ...objects, '-o', join(folder, 'library.so'), `-L${join(libtorch.path, 'lib')}`, '-ltorch_cpu', '-lc10'])
    // Several test files may build it at the same time: each puts a whole one there.
    await rename(join(folder, 'library.so'), library)
    return library
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
