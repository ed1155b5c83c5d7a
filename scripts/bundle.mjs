// npm run bundle [-- --out FOLDER] [--tar FILE]: one folder that builds, tests and measures gmml on a GPU host without Node and without a
// network. Only run.sh in it has to be started: see docs/guides/gpu.md.
import { spawnSync } from 'node:child_process'
import {
  chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { copyPackages } from './bundle/packages.mjs'
import { cacheFolder, installOnce } from './pip.mjs'
import { SetupError, findOnPath, main } from './tools.mjs'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
/** Most that a bundle may weigh. */
const LIMIT = 60 * 2 ** 20
/** What of the package goes along. Records of measurements stay: what the host measures is new. */
const CONTENTS = [
  'package.json', 'LICENSE', 'CMakeLists.txt', 'binding.gyp', 'tsconfig.json', 'vitest.config.ts', 'native', 'src', 'dist', 'scripts', 'data',
  'bench', 'test'
]
const LEFT_OUT = /^(bench\/results|dist\/.*\.(d\.ts|map)|.*__pycache__)$/
/**
 * A third of the packages' size that no part of run.sh needs, loaded where it is used: charts, which evaluations draw, and vite's style sheets.
 */
const WITHOUT = ['@napi-rs/canvas', 'vega', '@expo-google-fonts/inter', 'lightningcss']
/** Libraries that every Linux has on which libtorch runs. */
const EVERYWHERE = /^(lib(c|m|dl|pthread|rt|gcc_s|stdc\+\+|atomic)|ld-linux-x86-64)\.so\.\d+$/

/** @param {string} command @param {string[]} args */
function run(command, ...args) {
  if (!command.includes('/') && !findOnPath(command)) throw new SetupError(`missing ${command}, needed to make a bundle`)
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 26 })
  if (status !== 0) throw new SetupError(`${command} ${args.join(' ')} failed:\n${stderr}`)
  return stdout
}

/** Everything but Node, as it lies on the host. @param {string} folder */
export function stage(folder) {
  for (const name of CONTENTS) {
    const source = join(ROOT, name)
    if (!existsSync(source)) throw new SetupError(`${name} is missing${name === 'dist' ? ': npm run build:ts' : ''}`)
    cpSync(source, join(folder, name), { recursive: true, filter: (path) => !LEFT_OUT.test(path.slice(ROOT.length + 1)) })
  }
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  return copyPackages(ROOT, folder, { roots: [...Object.keys(dependencies), 'vitest', 'fast-check', 'hyparquet-writer'], without: WITHOUT })
}

/** This Node without its symbols, compressed: made once, since it takes a minute. @returns {string} its path */
function packedNode() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new SetupError(`expected Linux on x64, as the host of a bundle is, received ${process.platform} on ${process.arch}`)
  }
  const needed = [...run('readelf', '-d', process.execPath).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map((match) => match[1] ?? '')
  const foreign = needed.filter((name) => !EVERYWHERE.test(name))
  if (foreign.length > 0) {
    throw new SetupError(`${process.execPath} needs ${foreign.join(', ')}, which other machines lack: make the bundle with Node from nodejs.org`)
  }
  const folder = join(cacheFolder(), `bundle-node-${process.version}-linux-x64`)
  installOnce(folder, (temporary) => {
    const node = join(temporary, 'node')
    run('strip', '-o', node, process.execPath)
    chmodSync(node, 0o755)
    run(node, '--version')
    run('xz', '-6', '-T0', node)
  })
  return join(folder, 'node.xz')
}

/** @param {string} folder */
const sizes = (folder) => Object.fromEntries(readdirSync(folder).map((name) => [name, statSync(join(folder, name)).size]))

/**
 * Makes the folder. @param {string} out must not be there, or be a bundle
 * @returns {{ files: Record<string, number>, bytes: number, packages: number }}
 */
export function makeBundle(out) {
  if (existsSync(out) && !existsSync(join(out, 'run.sh'))) throw new SetupError(`${out} is there and is no bundle`)
  const node = packedNode()
  const staging = mkdtempSync(join(tmpdir(), 'gmml-bundle-'))
  try {
    const packages = stage(join(staging, 'gmml')).length
    rmSync(out, { recursive: true, force: true })
    mkdirSync(out, { recursive: true })
    copyFileSync(node, join(out, 'node.xz'))
    const plain = join(staging, 'gmml.tar')
    run('tar', '--sort=name', '--owner=0', '--group=0', '--numeric-owner', '-C', staging, '-cf', plain, 'gmml')
    run('xz', '-6', '-T0', plain)
    copyFileSync(`${plain}.xz`, join(out, 'gmml.tar.xz'))
    for (const name of ['LICENSE', 'scripts/bundle/run.sh']) copyFileSync(join(ROOT, name), join(out, name.split('/').at(-1) ?? name))
    chmodSync(join(out, 'run.sh'), 0o755)
    // Node's licence wants to be where Node is; where it lies depends on who packed it.
    const prefix = join(dirname(process.execPath), '..')
    const licence = ['LICENSE', 'share/doc/nodejs/LICENSE', 'share/doc/nodejs/copyright'].map((name) => join(prefix, name)).find(existsSync)
    if (licence) copyFileSync(licence, join(out, 'LICENSE.node'))
    const git = spawnSync('git', ['-C', ROOT, 'describe', '--always', '--dirty'], { encoding: 'utf8' })
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
    const commit = git.status === 0 ? git.stdout.trim() : null
    const facts = { gmml: version, node: process.version, commit, made: new Date().toISOString() }
    writeFileSync(join(out, 'bundle.json'), `${JSON.stringify(facts, null, 2)}\n`)
    const files = sizes(out)
    return { files, bytes: Object.values(files).reduce((sum, size) => sum + size, 0), packages }
  } finally {
    rmSync(staging, { recursive: true, force: true })
  }
}

main(import.meta.url, () => {
  const { values } = parseArgs({ options: { out: { type: 'string', default: 'bundle' }, tar: { type: 'string' } } })
  const out = resolve(values.out)
  const { files, bytes, packages } = makeBundle(out)
  /** @param {number} size */
  const mib = (size) => `${(size / 2 ** 20).toFixed(1)} MiB`
  for (const [name, size] of Object.entries(files)) console.log(`${name.padEnd(14)} ${mib(size).padStart(10)}`)
  console.log(`gmml: ${out}: ${mib(bytes)}, ${packages} packages. On the host: ${out.split('/').at(-1)}/run.sh`)
  if (values.tar) run('tar', '-C', dirname(out), '-cf', resolve(values.tar), out.split('/').at(-1) ?? '')
  if (bytes > LIMIT) throw new SetupError(`expected at most ${mib(LIMIT)} for the bundle, received ${mib(bytes)}`)
})
