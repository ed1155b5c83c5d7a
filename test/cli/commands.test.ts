import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { embedded, gmml, quick, root, temporaryFolder } from './support.js'

const train = join(embedded, 'train')
const heldOut = join(embedded, 'held-out')

describe('gmml', () => {
  it('shows its help: 0 when asked, 2 when not', async () => {
    for (const args of [['--help'], ['pretrain', '--help'], ['knn', '--help'], ['inspect', '--help'], ['demo', '--help']]) {
      const { code, stdout } = await gmml(args)
      expect(code, args.join(' ')).toBe(0)
      expect(stdout).toMatch(/^Usage: gmml/)
    }
    expect((await gmml([])).code).toBe(2)
    expect(await gmml(['nope'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/unknown command 'nope'/) as string })
  })

  it('lists every setting of the run in the help of pretrain', async () => {
    const { stdout } = await gmml(['pretrain', '--help'])
    const flags = ['--out', '--model', '--image-size', '--patch-size', '--epochs', '--batch-size', '--lr', '--weight-decay', '--warmup-epochs', '--clip',
      '--mask-budget', '--alien', '--align', '--fill', '--seed', '--device', '--amp', '--workers', '--threads', '--limit', '--knn-every', '--resume', '--config', '--init <file>']
    for (const flag of flags) expect(stdout).toContain(`${flag}`)
  })

  it('prints its version', async () => {
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
    expect(await gmml(['--version'])).toMatchObject({ code: 0, stdout: `${version}\n` })
  })
})

describe('gmml inspect', () => {
  it('names Node, addon, libtorch and its origin, devices, threads and build, also as JSON', async () => {
    const { code, stdout } = await gmml(['inspect', '--json'])
    expect(code).toBe(0)
    const report = JSON.parse(stdout) as Record<string, unknown>
    expect(report).toMatchObject({
      node: process.version,
      addon: { loads: true, napi: 9 },
      libtorch: { version: expect.stringMatching(/^2\.\d+/) as string },
      devices: expect.arrayContaining(['cpu']) as string[],
      threads: expect.any(Number) as number,
      search: { found: true, source: expect.stringMatching(/LIBTORCH|python|cache|pip/) as string }
    })
    expect((await gmml(['inspect'])).stdout).toMatch(/^gmml: .*\nnode: v\d+/)
  })
})

describe('gmml knn', () => {
  it('refuses what it cannot measure', async () => {
    const images = ['--train', train, '--test', heldOut]
    expect(await gmml(['knn', 'nowhere', ...images])).toMatchObject({ code: 1, stderr: expect.stringMatching(/'random' or 'pixels' for what to measure, received 'nowhere'/) as string })
    expect(await gmml(['knn', 'pixels', '--train', train])).toMatchObject({ code: 2, stderr: expect.stringMatching(/--test/) as string })
    expect(await gmml(['knn', 'pixels', ...images, '--k', '0'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/at least 1 for --k, received '0'/) as string })
    expect(await gmml(['knn', join(root, 'src'), ...images])).toMatchObject({ code: 1, stderr: expect.stringMatching(/has no weights/) as string })
  })

  it('measures pixels, a random encoder, a run and its files', async () => {
    const run = join(await temporaryFolder(), 'run')
    expect((await gmml(['pretrain', train, '--out', run, ...quick])).code).toBe(0)
    const images = ['--train', train, '--test', heldOut, '--limit', '500', '--json', '--k', '5']
    const accuracy = async (...what: string[]) => {
      const { code, stdout, stderr } = await gmml(['knn', ...what, ...images])
      expect(code, stderr).toBe(0)
      return (JSON.parse(stdout) as { accuracy: Record<string, number> }).accuracy
    }
    const pixels = await accuracy('pixels')
    expect(pixels['pixels']).toBeGreaterThan(0.6)
    const random = await accuracy('random', '--model', 'vit_micro')
    const byRun = await accuracy(run)
    for (const result of [random, byRun]) {
      expect(Object.keys(result)).toEqual(['cls', 'mean'])
      expect(result['mean']).toBeGreaterThan(0.3) // chance is 0.1
    }
    expect(await accuracy(join(run, 'exported/backbone.safetensors'))).toEqual(byRun)
    expect(await accuracy(join(run, 'checkpoints/step-00000006.safetensors'))).toEqual(byRun)
  })
})
