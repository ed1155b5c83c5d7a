import { link, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { ListingCache, openImages } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { finetune, pretrain } from '../../src/train/index.js'
import { keepListings } from '../../src/train/run-folder.js'
import { folderWith, paint, red } from '../data/support.js'
import { stripes } from '../evaluate/support.js'
import { small } from './support.js'

torch.setNumThreads(1)

/** So many names of one image, in two classes. */
async function manyImages(count: number): Promise<string> {
  const folder = await folderWith({ 'one/first.png': await paint(8, 8, () => red).png().toBuffer() })
  await mkdir(join(folder, 'two'))
  const first = join(folder, 'one/first.png')
  for (let i = 1; i < count; i++) await link(first, join(folder, i % 2 ? 'two' : 'one', `${i}.png`))
  return folder
}

describe('the images of a run', () => {
  it('have their listing beside it where they are many, which is told of if it is damaged and no reason to stop', async () => {
    const { out, settings } = await small()
    const images = await manyImages(10_000)
    const config = { ...settings, imageSize: 8, limit: 8, images, out: out('a'), epochs: 1 }
    await pretrain(config)
    const index = join(out('a'), 'index')
    const [name] = await readdir(index)
    const whole = await readFile(join(index, name!), 'utf8')
    await writeFile(join(index, name!), whole.slice(0, 10))
    const notices: string[] = []
    const result = await pretrain({ ...config, resume: true, epochs: 2 }, { onNotice: (message) => notices.push(message) })
    expect(result.steps).toBe(2)
    expect(notices).toEqual([expect.stringContaining('is listed anew')])
    // By now the folders are old enough to be believed.
    expect((await readFile(join(index, name!), 'utf8')).split('\n').length).toBeGreaterThanOrEqual(2)
    // Where it cannot be written, that is told, and no harm.
    const cache = new ListingCache(join(images, 'one/first.png/index'))
    await openImages(images, { cache })
    await keepListings(cache, { onNotice: (message) => notices.push(message) })
    expect(notices.at(-1)).toMatch(/^The listing of the images cannot be kept: ENOTDIR/)
  }, 60_000)

  it('of a finetuning have theirs, for training and test', async () => {
    const { out } = await small()
    const settings = { model: 'vit_micro', imageSize: 8, patchSize: 4, batchSize: 8, epochs: 1, amp: 'off', threads: 1, device: 'cpu' } as const
    const [train, test] = [await manyImages(10_000), await manyImages(10_001)]
    await finetune({ ...settings, from: 'random', train, test, limit: 16, out: out('f') })
    expect(await readdir(join(out('f'), 'index'))).toHaveLength(2)
  }, 60_000)

  it('may come from several sources, which a continuation may find elsewhere but not weigh otherwise', async () => {
    const { out, settings } = await small()
    const [one, two, moved] = [await stripes(24), await stripes(12, { seed: 3 }), await stripes(24)]
    const config = { ...settings, images: [{ path: one, weight: 1 }, { path: two, weight: 3 }], out: out('a'), epochs: 1 }
    expect(await pretrain(config)).toMatchObject({ status: 'done', steps: 4 })
    const again = { out: out('a'), resume: true, epochs: 2 }
    await expect(pretrain({ ...again, images: [one, two] })).rejects.toThrow(/the weights that the run began with \(.*=1 .*=3\) for images/)
    expect(await pretrain({ ...again, images: [{ path: moved, weight: 1 }, { path: two, weight: 3 }] })).toMatchObject({ steps: 8 })
  })

  it('are one folder where they are learned from by class', async () => {
    const { out, images } = await small()
    await expect(finetune({ from: 'random', train: [images, images] as unknown as string, out: out('a') })).rejects.toThrow(/a string for train/)
  })
})
