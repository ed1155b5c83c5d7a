import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { expect, it } from 'vitest'

import { TensorBoardWriter } from '../../src/io/index.js'
import { pretrain, RunFolder } from '../../src/train/index.js'
import { runPython } from '../parity/python.js'
import { temporaryFolder } from '../support/folder.js'
import { interrupted, metricsOf, small } from '../train/support.js'

interface Events {
  readonly scalars: Readonly<Record<string, [step: number, value: number][]>>
  readonly images: Readonly<Record<string, [step: number, width: number, height: number, size: [number, number]][]>>
}

/** What TensorBoard itself finds. */
const read = async (folder: string): Promise<Events> =>
  JSON.parse(await runPython(join(import.meta.dirname, 'read_events.py'), folder)) as Events

it('writes events that TensorBoard reads: figures, pictures, and what a resumed run forgets', async () => {
  const folder = join(await temporaryFolder(), 'new/events')
  const first = await TensorBoardWriter.open(folder)
  await first.scalars(1, { 'step/loss': 0.5, 'step/lr': 1e-30 })
  await first.scalars(2, { 'step/loss': -0 })
  await first.scalars(3, { 'step/loss': -2.5 })
  await first.scalars(2 ** 40, { far: 1 })
  const png = await sharp({ create: { width: 7, height: 5, channels: 3, background: 'red' } }).png().toBuffer()
  await first.image(3, 'pictures', { png, width: 7, height: 5 })
  expect(await read(folder)).toMatchObject({
    scalars: { 'step/loss': [[1, 0.5], [2, -0], [3, -2.5]], 'step/lr': [[1, Math.fround(1e-30)]], far: [[2 ** 40, 1]] },
    images: { pictures: [[3, 7, 5, [7, 5]]] }
  })
  const second = await TensorBoardWriter.open(folder, 2)
  await second.scalars(3, { 'step/loss': 7 })
  expect((await read(folder)).scalars['step/loss']).toEqual([[1, 0.5], [2, -0], [3, 7]])
  await expect(second.scalars(4, { loss: '1' as unknown as number })).rejects.toThrow(/a number for 'loss', received '1'/)
})

it('a damaged event is found by its checksum', async () => {
  const folder = await temporaryFolder()
  const writer = await TensorBoardWriter.open(folder)
  await writer.scalars(1, { loss: 1 })
  const [name] = await readdir(folder)
  const before = (await stat(join(folder, name!))).size
  await writer.scalars(2, { loss: 2 })
  const bytes = await readFile(join(folder, name!))
  bytes[before + 14]! ^= 1
  await writeFile(join(folder, name!), bytes)
  expect((await read(folder)).scalars['loss']).toEqual([[1, 1]])
})

it('a run writes what metrics.jsonl holds, also over an interruption', async () => {
  const { images, out, settings } = await small()
  const config = { ...settings, images, out: out('a'), tensorboard: true, knnEvery: 1 }
  await interrupted({ ...config, checkpointSteps: 1 }, 2)
  await pretrain({ images, out: out('a'), resume: true })
  const { scalars, images: pictures } = await read(join(new RunFolder(out('a')).path, 'tensorboard'))
  const lines = await metricsOf(out('a'))
  for (const [tag, name] of [['step/loss', 'loss'], ['step/lr', 'lr'], ['epoch/epochLoss', 'epochLoss'], ['epoch/knn', 'knn']] as const) {
    const wanted = lines.filter((line) => name in line).map((line) => [line['step'], Math.fround(line[name]!)])
    expect(wanted.length).toBeGreaterThan(1)
    expect(scalars[tag], tag).toEqual(wanted)
  }
  expect(pictures['reconstructions']!.map(([step]) => step)).toEqual([3, 6])
})
