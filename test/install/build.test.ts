import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Machine } from './machine.js'

let machine: Machine
beforeEach(() => void (machine = new Machine()))
afterEach(() => machine.remove())

const build = (system: string) => machine.run('build-native.mjs', [system])

describe('a missing tool', () => {
  it.each([
    ['cmake', 'g++', 'a C++ compiler', 'sudo apt-get install g++', 'xcode-select --install'],
    ['cmake', 'cmake', 'cmake', 'sudo apt-get install cmake', 'brew install cmake'],
    ['cmake', 'make', 'make', 'sudo apt-get install make', 'xcode-select --install'],
    ['gyp', 'g++', 'a C++ compiler', 'sudo dnf install gcc-c++', 'xcode-select --install'],
    ['gyp', 'python3', 'python3', 'sudo apt-get install python3', 'brew install python']
  ])('of the %s build, %s, is named with the commands that install it', async (system, tool, what, ...commands) => {
    for (const name of ['g++', 'make', 'cmake', 'python3'].filter((name) => name !== tool)) machine.tool(name)
    const { code, stdout, stderr } = await build(system)
    expect(code).toBe(1)
    expect(stdout).toBe('')
    expect(stderr).toContain(`gmml: missing ${what}`)
    for (const command of commands) expect(stderr).toContain(command)
    expect(stderr).not.toContain('    at ')
  })

  it('is not the only one: one error names all', async () => {
    const { code, stderr } = await build('cmake')
    expect(code).toBe(1)
    expect(stderr.match(/gmml:/g)).toHaveLength(1)
    expect(stderr).toContain('sudo apt-get install g++ make cmake')
  })

  it('is one that is there and does not run', async () => {
    machine.buildTools()
    machine.tool('cmake', 'exit 127')
    expect((await build('cmake')).stderr).toContain('missing cmake')
  })

  it.each([
    ['clang++ for g++', ['clang++', 'make', 'cmake']],
    ['ninja for make', ['g++', 'ninja', 'cmake']]
  ])('is not missed where another does its work: %s', async (_, tools) => {
    for (const name of tools) machine.tool(name)
    // The tools suffice, so the next thing that this machine lacks is reported.
    expect((await build('cmake')).stderr).toContain('gmml: libtorch was not found')
  })
})

describe('the order of the checks', () => {
  it('looks for the compiler before it lets pip download', async () => {
    machine.python()
    const { code, stderr } = await machine.run('install.mjs')
    expect(code).toBe(1)
    expect(stderr).toContain('missing a C++ compiler')
    expect(stderr).not.toContain('torch')
  })

  it('names a wrong LIBTORCH before anything is built', async () => {
    machine.buildTools()
    const { code, stderr } = await machine.run('build-native.mjs', ['cmake'], { LIBTORCH: join(machine.root, 'nowhere') })
    expect(code).toBe(1)
    expect(stderr).toContain('LIBTORCH is set to')
  })
})

it('GMML_SKIP_BUILD=1 skips the build with a line', async () => {
  const { code, stdout } = await machine.run('install.mjs', [], { GMML_SKIP_BUILD: '1' })
  expect(code).toBe(0)
  expect(stdout).toMatch(/^gmml: GMML_SKIP_BUILD=1.*\n$/)
})

it('a build system of another name is refused', async () => {
  const { code, stderr } = await build('bazel')
  expect(code).toBe(1)
  expect(stderr).toBe('gmml: expected cmake or gyp, received bazel\n')
})

describe('a build', () => {
  const record = () => join(machine.package, 'build-cmake/Release/build-info.json')
  const info = () => JSON.parse(readFileSync(record(), 'utf8')) as Record<string, unknown>
  let LIBTORCH: string
  beforeEach(() => {
    LIBTORCH = machine.libtorch(join(machine.root, 'libtorch'), '2.13.0', { bare: true })
  })

  it('says in a line what was found and in a line what was built, and keeps a record beside the addon', async () => {
    machine.buildTools()
    const { code, stdout } = await machine.run('build-native.mjs', ['cmake'], { LIBTORCH })
    expect(code).toBe(0)
    const lines = stdout.trim().split('\n')
    expect(lines[0]).toBe(`gmml: libtorch 2.13.0 (CPU) from LIBTORCH: ${LIBTORCH}`)
    expect(lines[1]).toMatch(/^gmml: built build-cmake\/Release\/gmml\.node with cmake, g\+\+ 1\.0, in [\d.]+ s$/)
    expect(lines).toHaveLength(2)
    expect(info()).toMatchObject({ libtorch: { path: LIBTORCH, version: '2.13.0', source: 'LIBTORCH' }, compiler: 'g++ 1.0' })
    expect(info().flags).toEqual(['-O3', '-std=c++20'])
  })

  it('is done once, and again after a source or libtorch has changed', async () => {
    machine.buildTools()
    const install = async (libtorch = LIBTORCH) => (await machine.run('install.mjs', [], { LIBTORCH: libtorch })).stdout
    expect(await install()).toContain('gmml: built')
    expect(await install()).toContain('the addon is up to date')
    writeFileSync(join(machine.package, 'native/new.h'), '')
    expect(await install()).toContain('gmml: built')
    expect(await install()).toContain('the addon is up to date')
    expect(await install(machine.libtorch(join(machine.root, 'other'), '2.13.0', { bare: true }))).toContain('gmml: built')
  })

  it('that fails prints its log and the first error, and what was built before does not pass for it', async () => {
    machine.buildTools()
    expect((await machine.run('install.mjs', [], { LIBTORCH })).code).toBe(0)
    machine.buildTools('echo "scanning"; echo "addon.cc:1:1: error: no such thing" >&2; exit 2')
    writeFileSync(join(machine.package, 'native/addon.cc'), 'changed')
    for (let attempt = 0; attempt < 2; attempt++) {
      const { code, stderr } = await machine.run('install.mjs', [], { LIBTORCH })
      expect(code).toBe(1)
      expect(existsSync(record())).toBe(false)
      expect(stderr).toContain('scanning')
      expect(stderr.trim().split('\n').slice(-2)).toEqual([
        'gmml: the addon could not be built with cmake; the log is above. The first error:',
        '  addon.cc:1:1: error: no such thing'
      ])
    }
  })
})

describe('the Python to compare with', () => {
  const built = async (torch: string) => {
    machine.buildTools()
    expect((await machine.run('build-native.mjs', ['cmake'], { LIBTORCH: torch })).code).toBe(0)
  }

  it('must have the torch that the addon is linked to', async () => {
    await built(machine.libtorch(join(machine.root, 'libtorch'), '2.13.0', { bare: true }))
    machine.python({ torch: machine.libtorch(join(machine.root, 'site/torch'), '2.14.0'), modules: ['numpy', 'safetensors', 'PIL'] })
    const { code, stderr } = await machine.run('python.mjs', ['--ensure'])
    expect(code).toBe(1)
    expect(stderr).toContain('cannot import the torch that the addon is linked to')
  })

  it('is python3 itself where it has everything', async () => {
    const torch = machine.libtorch(join(machine.root, 'site/torch'), '2.13.0')
    await built(torch)
    machine.python({ torch, modules: ['numpy', 'safetensors', 'PIL', 'onnx', 'tensorboard'] })
    const { code, stdout } = await machine.run('python.mjs', ['--ensure'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^gmml: Python reference is ready: torch 2\.13\.0, .*\n$/)
    expect(readdirSync(machine.cache)).toEqual([])
  })

  it('gets what it lacks beside torch, and only when that is asked for', async () => {
    const torch = machine.libtorch(join(machine.root, 'site/torch'), '2.13.0')
    await built(torch)
    machine.python({ torch, modules: ['numpy'] })
    const { stderr } = await machine.run('python.mjs', ['script.py'])
    expect(stderr).toContain('python3 lacks safetensors, PIL')
    expect(readdirSync(machine.cache)).toEqual([])
    await machine.run('python.mjs', ['--ensure'])
    const call = readFileSync(machine.pipLog, 'utf8')
    expect(call).toContain('--no-deps')
    expect(call).toContain('safetensors==')
    expect(call).not.toContain('torch==')
  })
})
