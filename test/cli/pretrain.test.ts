import { readFile, readdir, writeFile, mkdir } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'

import { loadSafetensors } from '../../src/io/index.js'
import { embedded, gmml, quick, root, temporaryFolder } from './support.js'

const train = join(embedded, 'train')

async function photos(folder: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const sub = join(folder, i % 2 ? 'odd' : 'even')
    await mkdir(sub, { recursive: true })
    const image = sharp({ create: { width: 40 + i, height: 30, channels: 3, background: { r: 10 * i, g: 200, b: 255 - 10 * i } } })
    await image.jpeg().toFile(join(sub, `photo-${String(i).padStart(2, '0')}.jpg`))
  }
}

async function metrics(run: string): Promise<Record<string, number>[]> {
  const text = await readFile(join(run, 'metrics.jsonl'), 'utf8')
  return text.trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, number>)
}

/** Weights, moments and step counters of the newest checkpoint, as bytes. */
async function newestCheckpoint(run: string): Promise<Record<string, string>> {
  const names = (await readdir(join(run, 'checkpoints'))).sort()
  const { tensors } = await loadSafetensors(join(run, 'checkpoints', names.at(-1)!))
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, Buffer.from(tensor.toTypedArray().buffer).toString('base64')]))
}

describe('gmml pretrain refuses', () => {
  const cases: readonly [name: string, args: readonly string[], code: number, message: RegExp][] = [
    ['an unknown flag', [train, '--nope', '1'], 2, /unknown option '--nope'/],
    ['negative epochs', [train, '--epochs', '-1'], 2, /at least 1 for epochs, received -1/],
    ['epochs that are no number', [train, '--epochs', 'many'], 2, /a number for epochs, received 'many'/],
    ['a missing value', [train, '--epochs'], 2, /argument missing/],
    ['an unknown model', [train, '--model', 'vit_giant'], 2, /one of vit_micro, vit_tiny, vit_small, vit_base, vit_large for model, received 'vit_giant'/],
    ['an unknown device', [train, '--device', 'tpu'], 2, /'cuda:N' for device, received 'tpu'/],
    ['no images', [], 2, /a path, or a list of paths .* for images, received undefined/],
    ['a folder that is missing', ['nowhere'], 1, /a folder that exists for images 'nowhere'/],
    ['a patch that does not divide the image', [train, '--patch-size', '5'], 1, /a divisor of the image size 28 x 28 for patchSize, received 5/],
    ['an image smaller than a patch', [train, '--image-size', '8', '--patch-size', '16'], 1, /at least the patch size, 16, for imageSize, received 8/],
    ['a batch larger than the images', [train, '--limit', '8', '--batch-size', '16'], 1, /at most the number of images, 8, for batchSize, received 16/],
    ['a config file that is missing', [train, '--config', 'nowhere.json'], 2, /Cannot read the config file 'nowhere.json'/],
    ['a GPU that is not there', [train, '--device', 'cuda:63'], 1, /libtorch sees .*for device, received 'cuda:63'/]
  ]
  it.each(cases)('%s', async (_, args, code, message) => {
    const out = join(await temporaryFolder(), 'run')
    const outcome = await gmml(['pretrain', '--out', out, ...args])
    expect(outcome.stderr).toMatch(message)
    expect(outcome.code).toBe(code)
    expect(existsSync(out), 'nothing is written before all is checked').toBe(false)
  })

  it('an empty folder, a truncated IDX file, settings that do not exist', async () => {
    const folder = await temporaryFolder()
    const out = join(folder, 'run')
    await mkdir(join(folder, 'empty'))
    expect(await gmml(['pretrain', join(folder, 'empty'), '--out', out])).toMatchObject({ code: 1, stderr: expect.stringMatching(/image files \(jpg, .*received 'none'/) as string })
    await mkdir(join(folder, 'idx'))
    const whole = await readFile(join(train, 'images-idx3-ubyte.gz'))
    await writeFile(join(folder, 'idx', 'images-idx3-ubyte.gz'), whole.subarray(0, whole.length / 2))
    const cut = await gmml(['pretrain', join(folder, 'idx'), '--out', out])
    expect(cut.code).toBe(1)
    expect(cut.stderr).toMatch(/images-idx3-ubyte\.gz/)
    await writeFile(join(folder, 'config.json'), '{"epoch": 3}')
    const misspelt = await gmml(['pretrain', train, '--out', out, '--config', join(folder, 'config.json')])
    expect(misspelt).toMatchObject({ code: 2, stderr: expect.stringMatching(/There is no setting epoch; there are images, out, model/) as string })
    expect(existsSync(out)).toBe(false)
  })
})

describe('gmml pretrain', () => {
  it('leaves a whole run behind, refuses to overwrite it, and resumes to the same bits', async () => {
    const folder = await temporaryFolder()
    const [whole, halves] = [join(folder, 'whole'), join(folder, 'halves')]
    const outcome = await gmml(['pretrain', train, '--out', whole, ...quick, '--knn-every', '2'])
    expect(outcome.code, outcome.stderr).toBe(0)
    expect(outcome.stderr).toMatch(/48 images in 10 classes, 0\.85 M parameters, 1 CPU threads, float32/)
    expect(outcome.stderr).toMatch(/step 6\/6 .* images\/s .* waiting for data .* left/)
    expect((await readdir(whole)).sort()).toEqual(['checkpoints', 'config.json', 'exported', 'metrics.jsonl', 'reconstructions', 'report.html'])
    expect(await readdir(join(whole, 'reconstructions'))).toEqual(['epoch-0001.png', 'epoch-0002.png'])
    const { width, height } = await sharp(join(whole, 'reconstructions/epoch-0002.png')).metadata()
    expect([width, height]).toEqual([4 * 116 + 4, 8 * 116 + 4]) // four columns, eight images of 4 x 28 pixels, gaps of 4
    const lines = await metrics(whole)
    expect(lines.filter((line) => 'loss' in line).map((line) => line['step'])).toEqual([1, 2, 3, 4, 5, 6])
    expect(lines.at(-1)).toMatchObject({ step: 6, epoch: 2, knn: expect.any(Number) as number })

    const before = await readFile(join(whole, 'config.json'), 'utf8')
    const again = await gmml(['pretrain', train, '--out', whole, ...quick])
    expect(again).toMatchObject({ code: 1, stderr: expect.stringMatching(/already holds a run/) as string })
    expect(await readFile(join(whole, 'config.json'), 'utf8')).toBe(before)

    // Interrupted in the first epoch: the checkpoint lies between two epochs' ends.
    const stopped = await gmml(['pretrain', train, '--out', halves, ...quick], (child, output) => {
      if (/step 1\/6/.test(output) && !child.killed) child.kill('SIGINT')
    })
    expect(stopped.code, stopped.stderr).toBe(130)
    expect(stopped.stderr).toMatch(/Go on with: gmml pretrain \S+ --out \S+ --resume/)
    const changed = await gmml(['pretrain', train, '--out', halves, '--resume', '--lr', '0.1'])
    expect(changed).toMatchObject({ code: 2, stderr: expect.stringMatching(/other settings: lr \(the run has 0\.0005, given is 0\.1\)/) as string })
    const resumed = await gmml(['pretrain', train, '--out', halves, '--resume'])
    expect(resumed.code, resumed.stderr).toBe(0)
    expect(resumed.stderr).toMatch(/going on after step [1-5]/)
    expect(await newestCheckpoint(halves)).toEqual(await newestCheckpoint(whole))
    const losses = async (run: string) => (await metrics(run)).filter((line) => 'loss' in line).map(({ step, loss }) => [step, loss])
    expect(await losses(halves)).toEqual(await losses(whole))
  })

  it('ends within two seconds of Ctrl-C, with its threads, also while images are waited for', async () => {
    const folder = await temporaryFolder()
    // Of a size that a batch of them takes seconds.
    const large = await sharp({ create: { width: 3000, height: 2000, channels: 3, background: '#804020' } }).png({ compressionLevel: 1 }).toBuffer()
    await mkdir(join(folder, 'images'))
    for (let i = 0; i < 48; i++) await writeFile(join(folder, 'images', `${i}.png`), large)
    const run = ['pretrain', join(folder, 'images'), '--out', join(folder, 'run'), ...quick, '--image-size', '32', '--workers', '8']
    let asked = Infinity
    const outcome = await gmml(run, (child, output) => {
      if (child.killed || !output.includes('float32')) return
      child.kill('SIGINT')
      asked = performance.now()
    })
    expect(outcome.code, outcome.stderr).toBe(130)
    expect(performance.now() - asked).toBeLessThan(2000)
    expect(outcome.stderr).not.toContain('step 1/')
    // Of step 0, which is where the run goes on.
    expect(await readdir(join(folder, 'run', 'checkpoints'))).toHaveLength(1)
    expect(outcome.stderr).toContain('Stopped at step 0.')
  })

  it('reads settings from a file, and flags go before it', async () => {
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'settings.yaml'), `images: ${train}\nmodel: vit_micro\nepochs: 7\nlimit: 16\nbatchSize: 16\namp: off\n`)
    const outcome = await gmml(['pretrain', '--config', join(folder, 'settings.yaml'), '--out', join(folder, 'run'), '--epochs', '1'])
    expect(outcome.code, outcome.stderr).toBe(0)
    expect(JSON.parse(await readFile(join(folder, 'run/config.json'), 'utf8'))).toMatchObject({ epochs: 1, batchSize: 16, model: 'vit_micro' })
  })

  it('takes several sources, weighted, and names them where the run can go on', async () => {
    const folder = await temporaryFolder()
    const [own, out] = [join(folder, 'own'), join(folder, 'run')]
    await photos(own, 4)
    const args = [...quick.filter((_, i) => !['--limit', '--patch-size'].includes(quick[i]!) && !['--limit', '--patch-size'].includes(quick[i - 1] ?? ''))]
    const table = join(root, 'test/fixtures/parquet/zstd.parquet')
    const both = await gmml(['pretrain', `${own}=3`, table, '--out', out, ...args, '--image-size', '28', '--patch-size', '4', '--batch-size', '8'])
    expect(both.code, both.stderr).toBe(0)
    expect(both.stderr).toMatch(/16 images in 6 classes/)
    expect(JSON.parse(await readFile(join(out, 'config.json'), 'utf8'))).toMatchObject({ images: [{ path: own, weight: 3 }, table], imageCount: 16 })
    const other = await gmml(['pretrain', own, table, '--out', out, '--resume'])
    expect(other).toMatchObject({ code: 1, stderr: expect.stringMatching(/the weights that the run began with \(.*own=3 .*\) for images/) as string })
    const printed = await gmml(['pretrain', own, `${table}=0.5`, '--out', out, '--print-config'])
    expect((parse(printed.stdout) as { images: unknown }).images).toEqual([own, { path: table, weight: 0.5 }])
    expect(await gmml(['pretrain', `${own}=0`, '--out', join(folder, 'new')])).toMatchObject({ code: 2, stderr: expect.stringMatching(/with weights above 0/) as string })
  })

  it('starts from the weights of a run, and says so where there are none', async () => {
    const folder = await temporaryFolder()
    const [first, second] = [join(folder, 'first'), join(folder, 'second')]
    const one = await gmml(['pretrain', train, '--out', first, ...quick, '--epochs', '1'])
    expect(one.code, one.stderr).toBe(0)
    const missing = await gmml(['pretrain', train, '--out', second, ...quick, '--init', join(folder, 'none.pth')])
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringMatching(/a file of weights or the folder of a run for init/) as string })
    expect(existsSync(second)).toBe(false)
    const two = await gmml(['pretrain', train, '--out', second, ...quick, '--epochs', '1', '--init', first])
    expect(two.code, two.stderr).toBe(0)
    expect(JSON.parse(await readFile(join(second, 'config.json'), 'utf8'))).toMatchObject({ init: first })
    const losses = async (run: string) => (await metrics(run)).filter((line) => 'loss' in line).map(({ loss }) => Number(loss))
    expect((await losses(second))[0]).toBeLessThan((await losses(first))[0]!)
  })

  it('trains on photographs, leaves a broken one out and names it', async () => {
    const folder = await temporaryFolder()
    await photos(join(folder, 'photos'), 12)
    await writeFile(join(folder, 'photos/even/zz.jpg'), 'no image at all')
    const small = ['--model', 'vit_micro', '--image-size', '32', '--batch-size', '6', '--epochs', '1', '--amp', 'off', '--log-every', '1']
    const outcome = await gmml(['pretrain', join(folder, 'photos'), '--out', join(folder, 'run'), ...small])
    expect(outcome.code, outcome.stderr).toBe(0)
    expect(outcome.stderr).toMatch(/left out: Cannot use the image '.*zz\.jpg': the content is not an image/)
    expect(outcome.stderr.match(/left out/g)).toHaveLength(1)
  })

  it('stops with the list where too many images are broken', async () => {
    const folder = await temporaryFolder()
    await photos(join(folder, 'photos'), 6)
    const good = await readFile(join(folder, 'photos/even/photo-00.jpg'))
    await writeFile(join(folder, 'photos/even/a-text.jpg'), 'no image at all')
    await writeFile(join(folder, 'photos/even/b-empty.jpg'), '')
    await writeFile(join(folder, 'photos/odd/c-truncated.jpg'), good.subarray(0, good.length / 2))
    const small = ['--model', 'vit_micro', '--image-size', '32', '--batch-size', '3', '--epochs', '1', '--amp', 'off']
    const outcome = await gmml(['pretrain', join(folder, 'photos'), '--out', join(folder, 'run'), ...small])
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toMatch(/\d of 9 images are broken, and at most 1 may be/)
  })
})

describe('--print-config', () => {
  it('prints every setting as it would be, which --config reads back, and touches nothing', async () => {
    const folder = await temporaryFolder()
    const out = join(folder, 'run')
    const { code, stdout } = await gmml(['pretrain', train, '--out', out, '--lr', '0.25', '--crop-scale', '0.3,0.9', '--tensorboard', '--print-config'])
    expect(code).toBe(0)
    const settings = parse(stdout) as Record<string, unknown>
    expect(settings).toMatchObject({ images: train, out, lr: 0.25, cropScale: [0.3, 0.9], tensorboard: true, model: 'vit_small', maskBudget: 0.75 })
    expect(existsSync(out)).toBe(false)
    const file = join(folder, 'settings.yaml')
    await writeFile(file, stdout)
    const again = await gmml(['pretrain', '--config', file, '--seed', '3', '--print-config'])
    expect(parse(again.stdout)).toEqual({ ...settings, seed: 3 })
    const wrong = await gmml(['pretrain', train, '--out', out, '--lr', '-1', '--print-config'])
    expect(wrong).toMatchObject({ code: 2, stdout: '' })
    expect(wrong.stderr).toMatch(/a number above 0 for lr, received -1/)
  })
})
