import { counts, forbidWaiting, problems, reset, simulated } from '../simulated-cuda/index.js'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'

import { type Augmentation, gmmlAugmentation, Loader, openImages, type ImageSource } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { pretrain } from '../../src/train/index.js'
import type * as stepQueue from '../../src/train/step-queue.js'
import { cifar, folderWith, noise } from '../data/support.js'
import { stripeFiles } from '../evaluate/support.js'
import { type Line, newestCheckpoint, reproducible } from '../train/support.js'

torch.setNumThreads(1)

const ahead = vi.hoisted(() => ({ steps: null as number | null }))
vi.mock('../../src/train/step-queue.js', async (original) => {
  const module = await original<typeof stepQueue>()
  return { ...module, stepsAhead: (device: torch.Device) => ahead.steps ?? module.stepsAhead(device) }
})

// On a real GPU as well: there convolutions round to ten bits, and nobody counts.
const available = torch.cuda.isAvailable()
const TOLERANCE = simulated ? 1e-5 : 2e-2

afterEach(() => {
  ahead.steps = null
  if (simulated) forbidWaiting(false)
})

/** Runs with a GPU that may not make the host wait. @returns What it copied. */
async function withoutWaiting<T>(run: () => Promise<T>): Promise<{ result: T; toDevice: number }> {
  if (!simulated) return { result: await run(), toDevice: 0 }
  reset()
  forbidWaiting(true)
  const result = await run()
  forbidWaiting(false)
  const { toDevice, toHost, waits } = counts()
  expect([toHost, waits, problems()]).toEqual([0, 0, []])
  return { result, toDevice }
}

const everything: Augmentation = {
  ...gmmlAugmentation, cropPadding: 3, jitter: { ...gmmlAugmentation.jitter, probability: 0.7 }, blur: { probability: 0.5, sigma: [0.1, 2] },
  solarize: { probability: 0.5, threshold: 0.5 }, randAugment: { ops: 3 }, erasing: { probability: 0.5 }
}

const sources: Record<string, () => Promise<ImageSource>> = {
  'in memory': async () => {
    const pixel = (image: number, c: number, y: number, x: number) => (37 * image + 11 * c + 5 * y * (image % 3) + 7 * x) % 256
    return openImages(await folderWith({ 'data_batch_1.bin': cifar(Array.from({ length: 24 }, (_, i) => [i % 10]), pixel) }))
  },
  'in files': async () => {
    const files = Array.from({ length: 24 }, async (_, i) => [`${i}.png`, await noise(30 + i, 40 - i).png().toBuffer()] as const)
    return openImages(await folderWith(Object.fromEntries(await Promise.all(files))))
  }
}

interface Run {
  readonly lines: readonly Line[]
  readonly checkpoint: Readonly<Record<string, string>>
}

/** The batches of an epoch; each is used, and freed before the device has come to it, as a training does. */
async function epochOf(source: ImageSource, device: torch.Device, augmentation: Augmentation): Promise<torch.Tensor[]> {
  const loader = new Loader(source, { size: { height: 24, width: 24 }, device, workers: 2 })
  const used: torch.Tensor[] = []
  try {
    for await (const { images } of loader.epoch({ seed: 1, epoch: 0, batchSize: 8, views: 2, augmentation })) {
      used.push(images.mul(2))
      images.dispose()
    }
  } finally {
    loader.dispose()
  }
  return used
}

describe.skipIf(!available)('batches for a GPU', () => {
  const cases = Object.entries(sources).flatMap(([name, open]) => [
    [`of images ${name}, as GMML has them`, open, gmmlAugmentation, 17], [`of images ${name}, changed in every way`, open, everything, 80]
  ] as const)

  it.each(cases)('%s, are those of the CPU; nothing waits for the GPU on the way', async (_, open, augmentation, copies) => {
    const source = await open()
    const { tensors } = torch.memory()
    const wanted = await epochOf(source, 'cpu', augmentation)
    const { result: received, toDevice } = await withoutWaiting(() => epochOf(source, 'cuda', augmentation))
    expect(received).toHaveLength(3)
    expect(toDevice / received.length).toBeLessThanOrEqual(copies)
    for (const [i, images] of received.entries()) {
      // A real GPU has noise of its own, and what is near a threshold falls to one side or the other.
      if (simulated || augmentation === gmmlAugmentation) {
        expect(torch.scope(() => images.cpu().sub(wanted[i]!).abs().max().item())).toBeLessThan(TOLERANCE)
      }
      images.dispose()
      wanted[i]!.dispose()
    }
    // The same again, bit for bit.
    const again = await epochOf(source, 'cuda', augmentation)
    const once = await epochOf(source, 'cuda', augmentation)
    for (const [i, images] of again.entries()) {
      expect(torch.equal(images, once[i]!)).toBe(true)
      images.dispose()
      once[i]!.dispose()
    }
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('are usable on the stream that is current when they are given', async () => {
    const source = await sources['in memory']!()
    const loader = new Loader(source, { size: { height: 24, width: 24 }, device: 'cuda' })
    await withoutWaiting(async () => {
      for await (const { images } of loader.all(8)) {
        images.mean()
        images.dispose()
      }
    })
    loader.dispose()
  })
})

describe.skipIf(!available)('a training on a GPU', () => {
  it('is the same whether its outcomes are known at once or three steps late', async () => {
    const images = await folderWith(stripeFiles(64))
    const folder = await folderWith()
    const runs: Run[] = []
    for (const steps of [3, 0]) {
      ahead.steps = steps
      if (simulated) reset()
      const out = join(folder, String(steps))
      await pretrain({ images, out, model: 'vit_micro', patchSize: 4, epochs: 2, batchSize: 8, logEvery: 1, threads: 1, amp: 'off', device: 'cuda', checkpointSteps: 3 })
      if (simulated) expect(problems()).toEqual([])
      runs.push({ lines: await reproducible(out), checkpoint: await newestCheckpoint(out) })
    }
    const [late, wanted] = runs as [Run, Run]
    if (simulated) expect(late).toEqual(wanted)
    // A real GPU adds in the order that its threads come.
    for (const [i, { loss }] of late.lines.entries()) if (loss !== undefined) expect(loss).toBeCloseTo(wanted.lines[i]!['loss']!, 3)
    expect(late.lines.map(({ step }) => step)).toEqual(wanted.lines.map(({ step }) => step))
  })
})
