import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')
const script = (name: string) => import(join(root, 'scripts', name)) as Promise<Record<string, (...args: unknown[]) => unknown>>

/** Entries of a lock file: a program, what it needs, and what others need. */
const locked = {
  'node_modules/app': { dependencies: { shared: '1', native: '1' }, peerDependencies: { peer: '1', maybe: '1' }, peerDependenciesMeta: { maybe: { optional: true } } },
  'node_modules/shared': { dependencies: { app: '1' } },
  'node_modules/native': { optionalDependencies: { 'native-linux': '1', 'native-mac': '1', 'native-musl': '1' }, dependencies: { shared: '2' } },
  'node_modules/native/node_modules/shared': { dependencies: { peer: '1' } },
  'node_modules/native-linux': { os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
  'node_modules/native-mac': { os: ['darwin'] },
  'node_modules/native-musl': { os: ['linux'], libc: ['musl'] },
  'node_modules/peer': { os: ['!win32'] },
  'node_modules/maybe': {},
  'node_modules/other': {}
}

describe('the packages of a bundle', () => {
  it('are those that a program needs on Linux with glibc, where Node finds them', async () => {
    const { packageFolders } = await script('bundle/packages.mjs')
    const names = ['app', 'native', 'native-linux', 'native/node_modules/shared', 'peer', 'shared']
    expect(packageFolders!(locked, ['app'])).toEqual(names.map((name) => `node_modules/${name}`).sort())
    expect(packageFolders!(locked, ['app'], { without: ['native'] })).toEqual(['app', 'peer', 'shared'].map((name) => `node_modules/${name}`))
  })

  it('one that is not in the lock file is named', async () => {
    const { packageFolders } = await script('bundle/packages.mjs')
    expect(() => packageFolders!(locked, ['nowhere'])).toThrow('no nowhere, which the bundle needs')
  })
})

describe('a bundle, as it lies on the host', () => {
  let folder: string
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'gmml-bundle-test-'))
    const { stage } = await script('bundle.mjs')
    stage!(folder)
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const files = () => readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  // The addon of this checkout stands for the one that the host builds. Nothing may come from this checkout's node_modules.
  const run = (...args: string[]) =>
    spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8', env: { ...process.env, GMML_ADDON: join(root, 'build-cmake/Release/gmml.node') } })

  it('has what the parts of run.sh start, and nothing that only other platforms, people or compilers read', () => {
    const needed = [
      'scripts/install.mjs', 'scripts/bundle/parts.mjs', 'dist/cli/main.js', 'bench/run.mjs', 'bench/pytorch/device_step.py', 'native/addon.cc', 'CMakeLists.txt',
      'test/torch/cuda.test.ts', 'vitest.config.ts', 'data/fashion-mnist-mini/train', 'node_modules/vitest/vitest.mjs', 'node_modules/cmake-js/bin/cmake-js',
      'node_modules/node-api-headers/include/node_api.h', 'node_modules/node-addon-api/napi.h', 'LICENSE'
    ]
    expect(needed.filter((name) => !existsSync(join(folder, name)))).toEqual([])
    const names = files().map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    expect(names.filter((name) => /\.map$|\.d\.ts$|-(darwin|win32|linuxmusl)|\/typescript\/|bench\/results/.test(name))).toEqual([])
  })

  it('stays small: packed it is a third of this, beside the 22 MB of Node', () => {
    const bytes = files().reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
    expect(bytes).toBeLessThan(90 * 2 ** 20)
  })

  it('runs its command line', () => {
    const { status, stdout, stderr } = run('dist/cli/main.js', 'inspect', '--json')
    expect(stderr).toBe('')
    expect(status).toBe(0)
    expect((JSON.parse(stdout) as { addon: { loads: boolean } }).addon.loads).toBe(true)
  })

  it('runs its CUDA tests, which are all that ask for a device', async () => {
    const { cudaTests, readReport } = (await script('cuda-tests.mjs')) as unknown as {
      cudaTests: (root: string) => string[]
      readReport: (json: string) => { passed: string[]; failed: string[]; skipped: string[] }
    }
    expect(cudaTests(folder)).toContain('test/torch/cuda.test.ts')
    const { stderr } = run('node_modules/vitest/vitest.mjs', 'run', '--reporter=json', '--outputFile=tests.json', 'test/torch/cuda.test.ts')
    expect(existsSync(join(folder, 'tests.json')), stderr).toBe(true)
    const { passed, failed } = readReport(readFileSync(join(folder, 'tests.json'), 'utf8'))
    expect(failed).toEqual([])
    expect(passed.length).toBeGreaterThan(0)
  })

  it('refuses a part that it does not have, and says which there are', () => {
    const { status, stdout } = run('scripts/bundle/parts.mjs', 'bench:everything')
    expect(status).toBe(2)
    expect(stdout).toContain('tests, train, bench:ops, bench:fused, bench:step')
  })
})

describe('the report of the tests', () => {
  it('counts a file that does not load as a failure, with the reason', async () => {
    const { readReport } = await script('cuda-tests.mjs')
    const testResults = [
      { name: 'a.test.ts', status: 'passed', assertionResults: [{ status: 'passed', fullName: 'a' }, { status: 'pending', fullName: 'b' }] },
      { name: 'b.test.ts', status: 'failed', message: 'no Python', assertionResults: [] }
    ]
    expect(readReport!(JSON.stringify({ testResults }))).toEqual({ passed: ['a'], failed: ['b.test.ts: no Python'], skipped: ['b'] })
  })
})
