import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Machine } from './machine.js'

let machine: Machine
beforeEach(() => void (machine = new Machine()))
afterEach(() => machine.remove())

const inRoot = (name: string) => join(machine.root, name)
const cached = (name: string, version = '2.13.0') => machine.libtorch(join(machine.cache, name, 'torch'), version)

describe('LIBTORCH', () => {
  it('comes before everything else', async () => {
    const given = machine.libtorch(inRoot('given'), '2.12.1', { bare: true })
    machine.python({ torch: machine.libtorch(inRoot('site/torch'), '2.13.0') })
    expect(await machine.search([], { LIBTORCH: given })).toMatchObject({ found: true, source: 'LIBTORCH', path: given, version: '2.12.1' })
  })

  it('is refused when it holds no libtorch, and nothing else is taken in its place', async () => {
    machine.python({ torch: machine.libtorch(inRoot('site/torch'), '2.13.0') })
    const { code, stderr } = await machine.run('libtorch.mjs', [], { LIBTORCH: machine.work })
    expect(code).toBe(1)
    expect(stderr).toContain(`LIBTORCH is set to ${machine.work}: not a libtorch folder`)
    expect(stderr).toContain('include/ATen/ATen.h')
    expect(stderr).not.toContain('    at ')
  })

  it('is refused when its version is not supported', async () => {
    const given = machine.libtorch(inRoot('given'), '2.10.0', { bare: true })
    const { error } = await machine.search([], { LIBTORCH: given })
    expect(error).toContain('version 2.10.0 is not supported, 2.11 to 2.14 are')
  })

  it('has its version read from the header where no file names it', async () => {
    const given = machine.libtorch(inRoot('given'), '', { bare: true })
    const header = join(given, 'include/torch/headeronly/version.h')
    mkdirSync(join(header, '..'), { recursive: true })
    writeFileSync(header, '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 14\n#define TORCH_VERSION_PATCH 1\n')
    expect(await machine.search([], { LIBTORCH: given })).toMatchObject({ found: true, version: '2.14.1' })
  })
})

describe('the search', () => {
  it('takes the torch of python3 before the cache', async () => {
    const torch = machine.libtorch(inRoot('site/torch'), '2.14.0+cu130')
    machine.python({ torch })
    cached('torch-2.13.0-cp311')
    expect(await machine.search()).toMatchObject({ source: 'python', path: torch, version: '2.14.0+cu130' })
  })

  it.each(['2.10.1', '2.15.0', '1.13.1', '3.12.0'])('passes over torch %s of python3, says so, and goes on', async (version) => {
    machine.python({ torch: machine.libtorch(inRoot('site/torch'), version) })
    const copy = cached('torch-2.13.0-cp311')
    const found = await machine.search()
    expect(found).toMatchObject({ source: 'cache', path: copy })
    const reason = `version ${version} is not supported, 2.11 to 2.14 are`
    expect(found.tried).toContainEqual(expect.objectContaining({ source: 'python', reason }))
  })

  it.each(['2.11.0', '2.14.9+cu130', '2.13.0a0+git1234'])('supports %s', async (version) => {
    machine.python({ torch: machine.libtorch(inRoot('site/torch'), version) })
    expect(await machine.search()).toMatchObject({ source: 'python', version })
  })

  it('takes a cached copy for this Python only, the pinned version first', async () => {
    machine.python()
    cached('torch-2.13.0-cp312')
    expect(await machine.search()).toMatchObject({ found: false })
    cached('torch-2.14.0-cp311', '2.14.0')
    expect(await machine.search()).toMatchObject({ source: 'cache', version: '2.14.0' })
    cached('torch-2.13.0-cp311')
    expect(await machine.search()).toMatchObject({ source: 'cache', version: '2.13.0' })
  })

  it('takes any cached copy where there is no python3', async () => {
    const copy = cached('torch-2.13.0-cp312')
    expect(await machine.search()).toMatchObject({ source: 'cache', path: copy })
  })

  it('does not take a folder named torch in the working directory for the package', async () => {
    // The real python3 here, as it is what has the working directory on its path.
    const real = execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim()
    machine.tool('python3', `exec '${real}' "$@"`)
    const trap = machine.libtorch(join(machine.work, 'torch'), '2.13.0')
    const { path, tried } = await machine.search()
    expect([path, ...tried.map((refusal) => refusal.path)]).not.toContain(trap)
    expect(await machine.search([], { PYTHONPATH: machine.work })).toMatchObject({ source: 'python', path: trap })
  })

  it('is not fooled by an install that was cut short', async () => {
    machine.python()
    machine.libtorch(join(machine.cache, '.torch-2.13.0-cp311.77.tmp/torch'), '2.13.0')
    expect(await machine.search()).toMatchObject({ found: false })
  })

  it('does not install unless it is asked to', async () => {
    machine.python()
    const { found, error, tried } = await machine.search()
    expect(found).toBe(false)
    expect(error).toContain('libtorch was not found')
    expect(error).toContain('LIBTORCH')
    expect(tried.map(({ source }) => source)).toEqual(['LIBTORCH', 'python', 'cache'])
    expect(readdirSync(machine.cache)).toEqual([])
  })

  it('sees CUDA, and its headers: those that pip puts beside torch, else a toolkit of the same major version', async () => {
    machine.python({ torch: machine.libtorch(inRoot('site/torch'), '2.14.1+cu130', { cuda: true }) })
    const headers = (home: string, version: number, { whole = true, libraries = true } = {}) => {
      const include = inRoot(`${home}/include`)
      mkdirSync(join(include, 'crt'), { recursive: true })
      if (whole) writeFileSync(join(include, 'crt/host_config.h'), '')
      if (libraries) for (const name of ['cublas_v2', 'cublasLt', 'cusparse', 'cusolverDn']) writeFileSync(join(include, `${name}.h`), '')
      writeFileSync(join(include, 'cuda_runtime_api.h'), `#define CUDART_VERSION  ${version}\n`)
      return include
    }
    const old = headers('cuda-12', 12040)
    expect((await machine.search([], { CUDA_HOME: inRoot('cuda-12') })).cudaInclude).not.toContain(old)
    const same = headers('cuda-13', 13010)
    const env = { CUDA_HOME: inRoot('cuda-13') }
    expect(await machine.search([], env)).toMatchObject({ cuda: true, cudaInclude: [same] })
    // Some have the compiler and the runtime alone, and the nvcc on the path is a shim.
    const small = headers('cuda-small', 13010, { libraries: false })
    const shim = { CUDA_HOME: inRoot('cuda-small') }
    expect(await machine.search([], shim)).toMatchObject({ cudaInclude: [] })
    const beside = headers('site/nvidia/cu13', 13000, { whole: false })
    expect(await machine.search([], env)).toMatchObject({ cudaInclude: [same, beside] })
    expect(await machine.search([], shim)).toMatchObject({ cudaInclude: [small, beside] })
    machine.tool('nvcc', `echo '#$ TOP=${inRoot('cuda-small')}/bin/..' >&2`)
    expect(await machine.search()).toMatchObject({ cudaInclude: [small, beside] })
    headers('site/nvidia/cu13', 13000)
    expect(await machine.search([], env)).toMatchObject({ cuda: true, cudaInclude: [beside] })
  })
})

describe('pip', () => {
  it('installs the pinned torch with its dependencies, once', async () => {
    machine.python()
    const path = join(machine.cache, 'torch-2.13.0-cp311/torch')
    expect(await machine.search(['--install'])).toMatchObject({ source: 'pip', path })
    expect(await machine.search(['--install'])).toMatchObject({ source: 'cache', path })
    const calls = readFileSync(machine.pipLog, 'utf8').trim().split('\n')
    expect(calls).toHaveLength(1)
    expect(calls[0]).toMatch(/^-m pip install --target .* torch==2\.13\.0$/)
    expect(calls[0]).not.toContain('--no-deps')
  })

  it('may run twice at once: both get the same complete folder, and nothing is left over', async () => {
    machine.python()
    const results = await Promise.all([machine.search(['--install']), machine.search(['--install'])])
    const path = join(machine.cache, 'torch-2.13.0-cp311/torch')
    for (const result of results) expect(result).toMatchObject({ found: true, path })
    expect(readFileSync(machine.pipLog, 'utf8').trim().split('\n')).toHaveLength(2)
    expect(readdirSync(machine.cache)).toEqual(['torch-2.13.0-cp311'])
    expect(readdirSync(join(path, '..'))).toEqual(['torch'])
  })

  it('that fails shows what it printed, then the remedies, and leaves nothing', async () => {
    machine.python({ pip: 'fails' })
    const { code, stderr } = await machine.run('libtorch.mjs', ['--install'])
    expect(code).toBe(1)
    expect(stderr).toContain('ERROR: no route to the index')
    expect(stderr.indexOf('pip could not install torch==2.13.0')).toBeGreaterThan(stderr.indexOf('ERROR'))
    expect(stderr).toContain('set LIBTORCH')
    expect(readdirSync(machine.cache)).toEqual([])
  })

  it('that is interrupted leaves nothing', async () => {
    machine.python()
    const { child, result } = machine.start('libtorch.mjs', ['--install'])
    // The interrupt comes while pip runs: its folder is there, the final one is not.
    await expect.poll(() => readdirSync(machine.cache), { timeout: 10_000, interval: 20 }).toContain(`.torch-2.13.0-cp311.${child.pid}.tmp`)
    process.kill(-child.pid!, 'SIGINT')
    expect((await result).code).toBe(1)
    expect(readdirSync(machine.cache)).toEqual([])
  })

  it('that is missing is named, with the command that installs it', async () => {
    machine.python({ pip: 'missing' })
    const { code, stderr } = await machine.run('libtorch.mjs', ['--install'])
    expect(code).toBe(1)
    expect(stderr).toContain('missing pip for python3')
    expect(stderr).toContain('apt-get install python3-pip')
    expect(stderr).toContain('set LIBTORCH')
  })

  it('and python3 both missing: the remedies name both', async () => {
    const { code, stderr } = await machine.run('libtorch.mjs', ['--install'])
    expect(code).toBe(1)
    expect(stderr).toContain('apt-get install python3 python3-pip')
  })
})
