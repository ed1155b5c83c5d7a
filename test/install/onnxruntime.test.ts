import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Machine } from './machine.js'

let machine: Machine
beforeEach(() => void (machine = new Machine()))
afterEach(() => machine.remove())

const ensure = () => machine.run('onnxruntime.mjs', ['--ensure'])
const folder = () => join(machine.cache, 'onnxruntime-node-1.30.0')

/** An npm that makes the package in the folder that it is told, slowly enough for two installs to overlap. */
const npm = (end = '') =>
  machine.tool('npm', `echo "$@" >> '${machine.pipLog}'; mkdir -p "$3/node_modules/onnxruntime-node/dist"; sleep 0.5; ${end}
touch "$3/node_modules/onnxruntime-node/dist/index.js"`)

describe('ONNX Runtime', () => {
  it('is installed once into the cache, without its install script', async () => {
    npm()
    const [first, second] = await Promise.all([ensure(), ensure()])
    for (const { code, stdout } of [first, second, await ensure()]) {
      expect(code).toBe(0)
      expect(stdout).toContain(join(folder(), 'node_modules/onnxruntime-node/dist/index.js'))
    }
    expect(readdirSync(machine.cache)).toEqual(['onnxruntime-node-1.30.0'])
    const calls = readFileSync(machine.pipLog, 'utf8').trim().split('\n')
    expect(calls).toHaveLength(2)
    for (const call of calls) expect(call).toMatch(/^install --prefix .*\.tmp --ignore-scripts .*onnxruntime-node@1\.30\.0$/)
  })

  it.each([
    ['fails', () => npm('echo "npm error network" >&2; exit 1'), /npm error network\n+gmml: npm could not install onnxruntime-node 1.30.0/],
    ['is missing', () => undefined, /gmml: npm could not install/]
  ])('is all there or not at all: npm %s', async (_, prepare, message) => {
    prepare()
    const { code, stderr } = await ensure()
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
    expect(stderr).not.toContain('    at ')
    expect(existsSync(folder())).toBe(false)
    expect(readdirSync(machine.cache)).toEqual([])
  })

  it('is asked for by --ensure', async () => {
    const { code, stderr } = await machine.run('onnxruntime.mjs')
    expect(code).toBe(1)
    expect(stderr).toContain('expected --ensure, received nothing')
  })
})
