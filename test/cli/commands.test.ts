import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'

import { embedded, gmml, quick, root, temporaryFolder } from './support.js'

/** Ctrl-C after the first epoch. */
function stopOnce(child: ChildProcess, output: string): void {
  if (!child.killed && output.includes('epoch 1:')) child.kill('SIGINT')
}

const train = join(embedded, 'train')
const heldOut = join(embedded, 'held-out')

describe('gmml', () => {
  it('shows its help: 0 when asked, 2 when not', async () => {
    for (const args of [['--help'], ['data', '--help'], ['pretrain', '--help'], ['knn', '--help'], ['probe', '--help'], ['finetune', '--help'], ['experiment', '--help'], ['inspect', '--help'], ['demo', '--help']]) {
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
      '--mask-budget', '--alien', '--align', '--fill', '--seed', '--device', '--amp', '--workers', '--max-broken', '--threads', '--limit', '--knn-every', '--resume', '--config', '--init <file>']
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
      jpeg: expect.stringMatching(/^(libjpeg-turbo \d+\.\d+|sharp alone: )/) as string,
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
    expect(await gmml(['knn', 'pixels', '--test', heldOut])).toMatchObject({ code: 2, stderr: expect.stringMatching(/--train/) as string })
    expect(await gmml(['knn', 'random', ...images, '--device', 'tpu'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/auto, cpu or cuda\[:N\] for --device, received 'tpu'/) as string })
    expect(await gmml(['knn', 'pixels', ...images, '--k', '0'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/at least 1 for --k, received '0'/) as string })
    expect(await gmml(['knn', join(root, 'src'), ...images])).toMatchObject({ code: 1, stderr: expect.stringMatching(/has no weights/) as string })
  })

  it('measures pixels, a random encoder, a run and its files', async () => {
    const run = join(await temporaryFolder(), 'run')
    expect((await gmml(['pretrain', train, '--out', run, ...quick])).code).toBe(0)
    const images = ['--train', train, '--test', heldOut, '--limit', '500', '--json', '--k', '5']
    const accuracy = async (...what: string[]) => {
      const out = join(run, '../results')
      const { code, stdout, stderr } = await gmml(['knn', ...what, ...images, '--out', out])
      expect(code, stderr).toBe(0)
      expect(JSON.parse(stdout)).toEqual(JSON.parse(await readFile(join(out, 'results.json'), 'utf8')))
      const { scores } = JSON.parse(stdout) as { scores: Record<string, { accuracy: number }> }
      return Object.fromEntries(Object.entries(scores).map(([name, score]) => [name, score.accuracy]))
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

describe('images that cannot be read', () => {
  it('are named and left out up to --max-broken by gmml knn', async () => {
    const picture = (value: number) => sharp({ create: { width: 8, height: 8, channels: 3, background: { r: value, g: 40, b: 40 } } }).png().toBuffer()
    const folder = await temporaryFolder()
    for (const [name, value] of [['dark', 20], ['light', 220]] as const) {
      await mkdir(join(folder, name))
      for (let i = 0; i < 10; i++) await writeFile(join(folder, name, `${i}.png`), await picture(value + i))
    }
    await writeFile(join(folder, 'dark/broken.png'), (await picture(20)).subarray(0, 60))
    const command = ['knn', 'pixels', '--train', folder, '--validation', '0.2', '--k', '3', '--out', join(await temporaryFolder(), 'knn')]
    const measured = await gmml(command)
    expect(measured).toMatchObject({ code: 0, stdout: expect.stringMatching(/^pixels +100\.00 %/m) as string })
    expect(measured.stderr.match(/left out: .*broken\.png/g)).toHaveLength(1)
    const refused = await gmml([...command, '--max-broken', '0'])
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/1 of \d+ images are broken, and at most 0 may be/) as string })
    expect(await gmml([...command, '--max-broken', '2'])).toMatchObject({ code: 2, stderr: expect.stringContaining('from 0 to 1 for --max-broken') as string })
  })
})

describe('gmml probe', () => {
  it('measures what is held out, prints it for people, and writes into the run', async () => {
    const run = join(await temporaryFolder(), 'run')
    expect((await gmml(['pretrain', train, '--out', run, ...quick])).code).toBe(0)
    const { code, stdout, stderr } = await gmml(['probe', run, '--train', train, '--limit', '300', '--features', 'mean', '--block', '2', '--weight-decays', '0.01,1'])
    expect(code, stderr).toBe(0)
    expect(stdout).toMatch(/^mean +\d+\.\d\d % \(95 %: \d+\.\d\d to \d+\.\d\d\), top-5 \d+\.\d\d %, 30 images$/m)
    expect(stderr).toContain(`validation images; results.json and confusion matrices in ${join(run, 'probe')}`)
    expect((await readdir(join(run, 'probe'))).sort()).toEqual(['confusion.png', 'results.json'])
    for (const [flag, value] of [['--weight-decays', '1,x'], ['--weight-decays', '-1'], ['--epochs', '0'], ['--method', 'adam']] as const) {
      expect(await gmml(['probe', run, '--train', train, flag, value])).toMatchObject({ code: 2, stderr: expect.stringContaining(flag) as string })
    }
  })
})

describe('gmml finetune', () => {
  it('stops at Ctrl-C, goes on, and prints what came of it', async () => {
    const out = join(await temporaryFolder(), "the user's classifier")
    const flags = ['--train', train, '--test', heldOut, '--out', out, '--model', 'vit_micro', '--limit', '96', '--batch-size', '16', '--amp', 'off', '--epochs', '4', '--log-every', '1', '--threads', '1']
    const stopped = await gmml(['finetune', 'random', ...flags], (child, output) => stopOnce(child, output))
    expect(stopped.code).toBe(130)
    expect(stopped.stderr).toContain(`Go on with: gmml finetune random --out '${out.replace("'", `'\\''`)}' --resume`)
    expect(existsSync(join(out, 'results.json'))).toBe(false)
    const resumed = await gmml(['finetune', 'random', '--out', out, '--resume'])
    expect(resumed.code, resumed.stderr).toBe(0)
    expect(resumed.stderr).toMatch(/going on after step \d+/)
    expect(resumed.stderr).toMatch(/classifier in .*classifier\.safetensors\ntest: \d+\.\d\d % \(95 %: .*\), top-5 .*, 96 images/)
    const refused = await gmml(['finetune', 'nowhere', ...flags.map((flag) => flag.replace('classifier', 'other'))])
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/a run's folder, a file of weights or 'random' for from, received 'nowhere'/) as string })
    expect((await gmml(['finetune', '--print-config', 'random', '--train', train, '--out', out])).stdout).toMatch(/^layerDecay: 0.75$/m)
  })
})

describe('gmml experiment', () => {
  it('stops at Ctrl-C and goes on with the same command', async () => {
    const folder = await temporaryFolder()
    const out = join(folder, 'experiment')
    await writeFile(join(folder, 'quick.yaml'), '{ pretrain: { batchSize: 16, amp: off, logEvery: 1 }, finetune: { batchSize: 8, amp: off } }')
    const command = [
      'experiment', train, '--test', heldOut, '--out', out, '--model', 'vit_micro', '--limit', '48', '--pretrain-epochs', '2', '--labels', '50%',
      '--finetune-epochs', '1', '--seeds', '1', '--total-seeds', '0', '--threads', '1', '--config', join(folder, 'quick.yaml')
    ]
    const stopped = await gmml(command, (child, output) => stopOnce(child, output))
    expect(stopped).toMatchObject({ code: 130, stderr: expect.stringContaining('The same command goes on where it stopped.') as string })
    const done = await gmml(command)
    expect(done.code, done.stderr).toBe(0)
    expect(done.stderr).toContain(`${out}/report.md`)
    expect(done.stderr).toMatch(/\[1\/4\] pretraining, seed 0\n.*going on after step/)
    expect(await readFile(join(out, 'report.md'), 'utf8')).toContain('| 50% ')
    expect((await gmml([...command, '--pretrain-epochs', '3']))).toMatchObject({ code: 2, stderr: expect.stringContaining('other settings of pretrainEpochs') as string })
    expect((await gmml(['experiment', train, '--out', out, '--print-config'])).stdout).toMatch(/^seeds: 3$/m)
  })
})
