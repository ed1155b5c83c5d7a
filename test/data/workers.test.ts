import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import type { Worker } from 'node:worker_threads'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'

import { poolOf, threadDecoder } from '../../src/data/decoder.js'
import {
  type Batch, BrokenImageError, type EncodedSource, type EpochOptions, type FilePart, gmmlAugmentation, type ImageSource, Loader,
  type LoaderOptions, openImages
} from '../../src/data/index.js'
import { WorkerPool } from '../../src/data/worker-pool.js'
import * as torch from '../../src/torch/index.js'
import { clean, root, runChild } from '../native/support.js'
import { folderWith, noise } from './support.js'

torch.setNumThreads(1)

const SIZE = { height: 24, width: 24 }
const epochOf = (options: Partial<EpochOptions> = {}): EpochOptions =>
  ({ seed: 3, epoch: 1, batchSize: 5, views: 2, augmentation: gmmlAugmentation, ...options })

/** JPEG and PNG files, so that both decoders have work. */
async function mixedFolder(count = 33): Promise<string> {
  const files = await Promise.all(Array.from({ length: count }, async (_, i) => {
    const image = noise(30 + (i % 7), 26 + (i % 5))
    return i % 3 === 0 ? [`${i}.png`, await image.png().toBuffer()] : [`${i}.jpg`, await image.jpeg().toBuffer()]
  }))
  return folderWith(Object.fromEntries(files) as Record<string, Uint8Array>)
}

const checksum = ({ indices, images }: Batch): string => {
  const hash = createHash('sha256').update(String(indices)).update(images.toTypedArray() as Float32Array).digest('hex')
  images.dispose()
  return hash
}

async function checksums(source: ImageSource, options: Partial<EpochOptions> = {}, own: Partial<LoaderOptions> = {}): Promise<string[]> {
  const loader = new Loader(source, { size: SIZE, device: 'cpu', ...own })
  const sums: string[] = []
  for await (const batch of loader.epoch(epochOf(options))) sums.push(checksum(batch))
  return sums
}

describe('the sequence of an epoch', () => {
  let source: EncodedSource
  let wanted: string[]

  it('is equal to the bit for 0, 1, 3 and 8 workers, and from any step on', async () => {
    source = (await openImages(await mixedFolder())) as EncodedSource
    wanted = await checksums(source, {}, { workers: 0 })
    expect(new Set(wanted).size).toBe(6)
    for (const workers of [1, 3, 8]) {
      expect(await checksums(source, {}, { workers })).toEqual(wanted)
      expect(await checksums(source, { firstStep: 2 }, { workers })).toEqual(wanted.slice(2))
    }
    expect(await checksums(source, { epoch: 2 })).not.toEqual(wanted)
    expect(await checksums(source, { seed: 4 })).not.toEqual(wanted)
  })

  it('is that of one process, split over ranks without overlap', async () => {
    source = (await openImages(await mixedFolder())) as EncodedSource
    const all: Batch[] = []
    for await (const batch of new Loader(source, { size: SIZE, device: 'cpu' }).epoch(epochOf({ batchSize: 3 }))) all.push(batch)
    for (const ranks of [2, 3]) {
      const seen: number[] = []
      for (let rank = 0; rank < ranks; rank++) {
        const loader = new Loader(source, { size: SIZE, device: 'cpu', workers: rank })
        let step = 0
        for await (const { indices, images } of loader.epoch(epochOf({ batchSize: 3, share: { rank, ranks } }))) {
          const same = all[step++ * ranks + rank]!
          expect(indices).toEqual(same.indices)
          expect(torch.equal(images, same.images)).toBe(true)
          seen.push(...indices)
          images.dispose()
        }
        expect(step).toBe(loader.steps(3, ranks))
      }
      expect(new Set(seen).size).toBe(seen.length)
      expect(seen.length).toBe(Math.floor(33 / (3 * ranks)) * 3 * ranks)
    }
    const loader = new Loader(source, { size: SIZE, device: 'cpu' })
    for (const share of [{ rank: 2, ranks: 2 }, { rank: -1, ranks: 2 }, { rank: 0, ranks: 0 }, { rank: 0.5, ranks: 2 }]) {
      await expect(loader.epoch(epochOf({ share })).next(), JSON.stringify(share)).rejects.toThrow(/for rank/)
    }
    expect(() => loader.steps(17, 2)).toThrow(/at most the number of images, 33 by 2 ranks, for batchSize, received 17/)
    for (const workers of [-1, 1.5, NaN]) expect(() => new Loader(source, { size: SIZE, device: 'cpu', workers })).toThrow(/for workers/)
  })
})

describe('a thread that ends', () => {
  // A number of threads that no other test has.
  const workers = 2
  const pool = poolOf(workers)

  it('is replaced, and its images are decoded once more', async () => {
    const source = await openImages(await mixedFolder())
    const wanted = await checksums(source, {}, { workers: 0 })
    const notices: string[] = []
    const loader = new Loader(source, { size: SIZE, device: 'cpu', workers, onNotice: (message) => notices.push(message) })
    for (let round = 0; round < 20 && notices.length === 0; round++) {
      const killing = setTimeout(2 * round).then(() => pool.threads[0]?.terminate())
      const sums: string[] = []
      for await (const batch of loader.epoch(epochOf())) sums.push(checksum(batch))
      expect(sums).toEqual(wanted)
      await killing
    }
    expect(notices[0]).toMatch(/^A thread has ended \(.*\): '.*\d\.(jpg|png)' is decoded once more$/)
    expect(loader.broken).toEqual([])
  })

  const large = sharp({ create: { width: 4000, height: 3000, channels: 3, background: '#804020' } })

  it('again and again at the same image makes that one broken', async () => {
    const file = join(await folderWith({ 'large.png': await large.png().toBuffer() }), 'large.png')
    const planes = new Uint8Array(new SharedArrayBuffer(3 * 24 * 24))
    const ended: string[] = []
    // Threads that never answered would be taken for such that cannot start.
    await threadDecoder(workers).decode({ content: { path: file }, name: file, plan: 'whole', size: SIZE, planes })
    // None lives long enough to come to the end.
    const killed = new Set<Worker>()
    const kill = (thread: Worker) => {
      if (!killed.has(thread)) void thread.terminate()
      killed.add(thread)
    }
    const killing = setInterval(() => pool.threads.forEach(kill), 2)
    const decoder = threadDecoder(workers, (name) => ended.push(name))
    const outcome = await decoder.decode({ content: { path: file }, name: file, plan: 'whole', size: SIZE, planes })
    clearInterval(killing)
    expect(outcome).toEqual({ broken: { file, reason: expect.stringMatching(/^the thread that decoded it has ended 3 times \(.*\)$/) as string } })
    expect(ended).toEqual([file, file, file])
    expect(await decoder.decode({ content: { path: file }, name: file, plan: 'whole', size: SIZE, planes })).toEqual({ shifts: [null], imageSize: { width: 4000, height: 3000 } })
  })

  it('before it can answer anything is an error, not a wait', async () => {
    const none = new WorkerPool<number, number>(pathToFileURL('/nowhere/worker.js'), 2)
    const all = await Promise.allSettled([1, 2, 3, 4, 5, 6].map((task) => none.run(task)))
    expect(all.map(({ status }) => status)).toEqual(Array(6).fill('rejected'))
    await expect(none.run(7)).rejects.toThrow(/Cannot find module '\/nowhere\/worker\.js'/)
    expect([none.works, none.threads]).toEqual([false, []])
  })

  it('is not what a mistake in the request looks like', async () => {
    const content = Uint8Array.from(await noise(8, 8).png().toBuffer())
    const task = { content, name: 'x', plan: 'whole' as const, planes: new Uint8Array(1) }
    await expect(threadDecoder(workers).decode({ ...task, size: { height: 0, width: 3 } })).rejects.toThrow(/at least 1 pixel for the size of the crops/)
    await expect(threadDecoder(workers).decode({ ...task, size: SIZE, planes: (() => 0) as never })).rejects.toThrow(/could not be cloned/)
  })
})

describe('images that do not come', () => {
  const never = () => new Promise<Uint8Array<ArrayBuffer>>(() => undefined)

  async function stalledAt(index: number, own: Partial<LoaderOptions>): Promise<{ loader: Loader; notices: string[] }> {
    const whole = (await openImages(await mixedFolder(12))) as EncodedSource
    const source: EncodedSource = { ...whole, content: (i, signal) => (i === index ? never() : whole.content(i, signal)) }
    const notices: string[] = []
    return { loader: new Loader(source, { size: SIZE, device: 'cpu', onNotice: (message) => notices.push(message), ...own }), notices }
  }

  it('are named after a while, and end the loading after a longer one', async () => {
    const { loader, notices } = await stalledAt(7, { dataTimeout: 1 })
    const seen: number[] = []
    const read = async () => {
      for await (const { indices, images } of loader.all(4)) {
        seen.push(...indices)
        images.dispose()
      }
    }
    const start = performance.now()
    await expect(read()).rejects.toThrow(/^No image has come for 1 s; waiting for '.*\.(jpg|png)'\. The disk or the network stalls \(dataTimeout\)$/)
    expect(performance.now() - start).toBeLessThan(5000)
    expect(seen).toEqual([0, 1, 2, 3])
    expect(notices.length).toBeGreaterThanOrEqual(5)
    expect(notices.at(-1)).toMatch(/^No image has come for 0\.\d+ s; waiting for '.*': the disk or the network stalls\. This ends after 1 s$/)
  })

  it('are no stall where others come, or the caller is busy', async () => {
    const whole = (await openImages(await mixedFolder(12))) as EncodedSource
    const slow: EncodedSource = { ...whole, content: async (i) => {
      await setTimeout(150 * (i + 1))
      return Uint8Array.from(await readFile((whole.content(i) as FilePart).path))
    } }
    const loader = new Loader(slow, { size: SIZE, device: 'cpu', workers: 8, dataTimeout: 1 })
    const sizes: number[] = []
    for await (const { indices, images } of loader.all(12)) {
      sizes.push(indices.length)
      images.dispose()
    }
    expect(sizes).toEqual([12])
    const busy = new Loader(whole, { size: SIZE, device: 'cpu', dataTimeout: 0.5 })
    for await (const { images } of busy.all(3)) {
      images.dispose()
      const end = performance.now() + 700
      while (performance.now() < end) void 0
    }
    for (const wrong of [0, -1, NaN]) expect(() => new Loader(whole, { size: SIZE, device: 'cpu', dataTimeout: wrong })).toThrow(/for dataTimeout/)
  })

  it('do not hold up a caller that leaves', async () => {
    const { loader } = await stalledAt(7, {})
    const start = performance.now()
    for await (const { images } of loader.all(4)) {
      images.dispose()
      break
    }
    expect(performance.now() - start).toBeLessThan(2000 + 1500)
  })

  it('are given up at once when the signal comes, however long they would take', async () => {
    const { loader, notices } = await stalledAt(7, {})
    const stop = new AbortController()
    const seen: number[] = []
    const reading = async () => {
      for await (const { indices, images } of loader.epoch(epochOf({ batchSize: 12, signal: stop.signal }))) {
        seen.push(...indices)
        images.dispose()
      }
    }
    const start = performance.now()
    const done = reading()
    await setTimeout(200)
    stop.abort()
    await done
    expect(performance.now() - start).toBeLessThan(2000)
    expect([seen, notices]).toEqual([[], []])
    expect(await loader.epoch(epochOf({ signal: stop.signal })).next()).toEqual({ value: undefined, done: true })
  })

  it('are broken, not waited for, where a list names a pipe', async () => {
    const folder = await folderWith({ 'list.csv': 'path\npipe.jpg\ngood.png\n', 'good.png': await noise(9, 9).png().toBuffer() })
    execFileSync('mkfifo', [join(folder, 'pipe.jpg')])
    for (const workers of [0, 2]) {
      const loader = new Loader(await openImages(join(folder, 'list.csv')), { size: SIZE, device: 'cpu', workers, maxBroken: 0.5 })
      for await (const { indices, images } of loader.all(2)) {
        expect(indices).toEqual([1])
        images.dispose()
      }
      expect(loader.broken).toMatchObject([{ file: join(folder, 'pipe.jpg'), reason: 'it is no file' }])
      expect(loader.broken[0]).toBeInstanceOf(BrokenImageError)
    }
  })
})

describe('a process', () => {
  const script = (end: string) => `
    const { Loader, openImages, gmmlAugmentation } = await import(process.env.DATA)
    const loader = new Loader(await openImages(process.env.IMAGES), { size: { height: 24, width: 24 }, device: 'cpu', workers: 3 })
    const epoch = loader.epoch({ seed: 0, epoch: 0, batchSize: 4, views: 2, augmentation: gmmlAugmentation })
    for (let step = 0; step < 2; step++) (await epoch.next()).value.images.dispose()
    print(1)
    ${end}`
  const dataModule = pathToFileURL(`${root}/dist/data/index.js`).href

  it.each([['leaves the epoch', 'await epoch.return()'], ['forgets it', ''], ['is told to exit', 'process.exit(0)']])(
    'that %s ends at once, with its threads', async (_, end) => {
      const start = performance.now()
      expect(runChild(script(end), { env: { IMAGES: await mixedFolder(), DATA: dataModule } })).toEqual(clean(1))
      // Threads without work would end by themselves after ten seconds.
      expect(performance.now() - start).toBeLessThan(9000)
    })
})
