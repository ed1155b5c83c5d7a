import { appendFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { finetune, pretrain, RunFolder, writeRunReport } from '../../src/train/index.js'
import * as torch from '../../src/torch/index.js'
import { version } from '../../src/version.js'
import { interrupted, small } from './support.js'

torch.setNumThreads(1)

/** Names and values of the page's tables, without the tags. */
async function factsOf(report: string): Promise<Record<string, string>> {
  const rows = (await readFile(report, 'utf8')).matchAll(/<tr><th>(.*?)<\/th><td>(.*?)<\/td><\/tr>/g)
  return Object.fromEntries([...rows].map(([, name, value]) => [name!, value!]))
}

const titlesOf = (text: string) => [...text.matchAll(/<img src="data:[^"]*" alt="([^"]*)"/g)].map(([, title]) => title)

describe('writeRunReport', () => {
  it('shows the course of a pretraining, and what was set', async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('a'), epochs: 2, knnEvery: 1 })
    const report = await writeRunReport(out('a'))
    expect(report).toBe(join(out('a'), 'report.html'))
    const text = await readFile(report, 'utf8')
    expect(titlesOf(text)).toEqual([
      'Loss', 'Accuracy on held-out images', 'Learning rate', 'Speed', 'Time spent waiting for images', 'after epoch 1', 'after epoch 2'
    ])
    const lines = (await readFile(new RunFolder(out('a')).metrics, 'utf8')).trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, number>)
    const losses = lines.flatMap(({ epochLoss }) => epochLoss ?? []).map((loss) => loss.toFixed(4))
    const knn = lines.flatMap((line) => line['knn'] ?? [])
    expect(await factsOf(report)).toMatchObject({
      progress: 'done: 2 epochs, 6 steps', encoder: 'vit_micro, images of 8 x 8, patches of 4', 'number of images': '24', precision: 'float32',
      loss: `${losses[0]} in the first epoch, ${losses[1]} in the last`,
      'kNN accuracy on held-out images': expect.stringMatching(new RegExp(`^${(100 * knn[1]!).toFixed(2)} %, the best ${(100 * Math.max(...knn)).toFixed(2)} %`)) as string,
      versions: `gmml ${version}, libtorch ${torch.buildInfo().torch}`, lr: '<strong>0.01</strong>', minLr: '0.000001'
    })
    expect(text).toContain(`gmml pretrain --config ${out('a')}/config.json --out ${out('a')}-again`)
    expect(text).not.toContain('skipped')
  })

  it('of a run at work, whose last line is not whole, with a name that is no HTML', async () => {
    const { images, out, settings } = await small()
    const path = out(`<b>&'a"`)
    await interrupted({ ...settings, images, out: path, epochs: 3 }, 4)
    await appendFile(new RunFolder(path).metrics, '{"step":5,"epo')
    const text = await readFile(await writeRunReport(path), 'utf8')
    expect(await factsOf(new RunFolder(path).report)).toMatchObject({ progress: 'step 4 of 9, epoch 1.33 of 3' })
    expect(text).toContain('&lt;b&gt;&amp;&apos;a&quot;</h1>')
    expect(text).not.toContain('<b>')
    // As a shell has it: the quotation mark ends the quoted part, stands for itself, and begins the next.
    expect(text).toMatch(/<pre>gmml pretrain --out &apos;.*&lt;b&gt;&amp;&apos;\\&apos;&apos;a&quot;&apos; --resume<\/pre>/)
    await rm(new RunFolder(path).metrics)
    await rm(new RunFolder(path).reconstructions, { recursive: true })
    const none = await readFile(await writeRunReport(path), 'utf8')
    expect([titlesOf(none), await factsOf(new RunFolder(path).report)]).toEqual([[], expect.objectContaining({ progress: 'no step is done yet' })])
  })

  it('shows what a finetuning found', async () => {
    const { images, out, settings } = await small()
    const { results } = await finetune({ ...settings, from: 'random', train: images, validation: 0.25, out: out('f') })
    const text = await readFile(await writeRunReport(out('f')), 'utf8')
    const { accuracy } = results!.scores['classifier']!
    expect(text).toContain(`<strong>${(100 * accuracy).toFixed(2)} %`)
    expect(titlesOf(text)).toEqual([
      'confusion matrix', 'Loss', 'Accuracy on held-out images', 'Learning rate', 'Speed', 'Time spent waiting for images'
    ])
  })

  it('says what is no run, and what cannot be written', async () => {
    const { images, out, settings } = await small()
    await expect(writeRunReport(out('none'))).rejects.toThrow(/holds no run: there is no config.json in it/)
    await mkdir(out('other'))
    await writeFile(join(out('other'), 'config.json'), '{"epochs":"many"}')
    await expect(writeRunReport(out('other'))).rejects.toThrow(/no settings of a training: expected a number of epochs, received many/)
    await interrupted({ ...settings, images, out: out('a') }, 1)
    const { report } = new RunFolder(out('a'))
    await mkdir(report)
    await expect(writeRunReport(out('a'))).rejects.toThrow(/Cannot write '.*report.html'/)
    await rename(report, `${report}.folder`)
    expect(await writeRunReport(out('a'))).toBe(report)
  })
})
