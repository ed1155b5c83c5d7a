import { execFile } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

// The examples import `gmml` like any user: through the package's own exports, from what `npm run build:ts` made.
beforeAll(async () => {
  await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.examples.json'], { cwd: root })
})

async function example(name: string, ...args: string[]): Promise<string> {
  return (await run(process.execPath, [join('build-examples', `${name}.js`), ...args], { cwd: root })).stdout
}

describe('examples', () => {
  it('are all run here', async () => {
    expect((await readdir(join(root, 'examples'))).sort()).toEqual(['indexing.ts', 'pretrain.ts', 'regression.ts', 'tensors.ts'])
  })

  it('tensors', async () => {
    const output = await example('tensors')
    // log(8) + log(11) + log(16) + log(23)
    expect(Number(/y = ([\d.]+)/.exec(output)?.[1])).toBeCloseTo(Math.log(8 * 11 * 16 * 23), 4)
    expect(output).toContain('[ 2, 4 ]')
  })

  it('indexing', async () => {
    const output = await example('indexing')
    expect(output).toContain('x[0, 1:3] = tensor([[ 4,  5,  6,  7],\n        [ 8,  9, 10, 11]])')
    expect(output).toContain('even ones: [')
    expect(output).toContain('sums of the rows: [ 11, 25, 39 ]\nsums of the rows: [ 23, 37, 51 ]')
    expect(output).toContain('y = tensor([1., 1.], grad_fn=<IndexBackward0>)')
    expect(output).toContain('dy/dw = tensor([1., 0., 1.])')
  })

  it('regression', async () => {
    const output = await example('regression')
    expect(Number(/sine without noise: ([\d.]+)/.exec(output)?.[1])).toBeLessThan(0.15)
  })

  it('pretrain', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gmml-example-'))
    try {
      const images = join(root, 'data/fashion-mnist-mini/held-out')
      const output = await example('pretrain', images, join(folder, 'run'))
      expect(output).toMatch(/step 10\/16: loss \d\.\d+/)
      expect(await readdir(join(folder, 'run/exported'))).toEqual(['backbone.safetensors'])
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
