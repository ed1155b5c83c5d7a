import { open, readFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { vi } from 'vitest'

import { loadSafetensors } from '../../src/io/index.js'
import { pretrain, RunFolder, type PretrainConfigInput, type PretrainHooks, type PretrainResult } from '../../src/train/index.js'
import { folderWith, paint } from '../data/support.js'
import { stripes } from '../evaluate/support.js'

/** The class of file handles, which Node does not export. */
const probe = await open(import.meta.filename)
const handles = Object.getPrototypeOf(probe) as FileHandle
await probe.close()

/** From now on files of tensors find the disk full after some writes. `vi.restoreAllMocks` makes room again. */
export function fillDisk(writes = 0): void {
  const write = Reflect.get(handles, 'write') as (...given: unknown[]) => Promise<never>
  let count = 0
  vi.spyOn(handles, 'write').mockImplementation(function (this: FileHandle, ...args: unknown[]) {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
    return count++ >= writes ? Promise.reject(full) : write.apply(this, args)
  })
}

/** Six colour photographs in two classes. */
export async function photos(): Promise<string> {
  const files: Record<string, Uint8Array> = {}
  for (let i = 0; i < 6; i++) {
    const wave = (x: number, y: number) => [128 + 100 * Math.sin(x / (2 + i)), 128 + 100 * Math.cos(y / 3), 40 * i].map(Math.round)
    files[`${i % 2 ? 'odd' : 'even'}/${i}.png`] = await paint(20 + i, 18, wave).png().toBuffer()
  }
  return folderWith(files)
}

export type Line = Readonly<Record<string, number>>

/** What a run left behind. */
export async function metricsOf(run: string): Promise<Line[]> {
  const text = await readFile(new RunFolder(run).metrics, 'utf8')
  return text.trimEnd().split('\n').map((line) => JSON.parse(line) as Line)
}

/** The figures that must not depend on when and how fast a run was. */
export async function reproducible(run: string): Promise<Line[]> {
  const names = ['step', 'epoch', 'loss', 'lr', 'weightDecay', 'epochLoss', 'knn', 'accuracy']
  return (await metricsOf(run)).map((line) => Object.fromEntries(Object.entries(line).filter(([name]) => names.includes(name))))
}

/** Weights, moments, counters and everything else of the newest checkpoint, as text. */
export async function newestCheckpoint(run: string): Promise<Record<string, string>> {
  const path = (await new RunFolder(run).listCheckpoints()).at(-1)!
  const { tensors, metadata } = await loadSafetensors(path)
  const bytes = Object.entries(tensors).map(([name, tensor]) => [name, Buffer.from(tensor.toTypedArray().buffer).toString('base64')])
  for (const tensor of Object.values(tensors)) tensor.dispose()
  return { ...(Object.fromEntries(bytes) as Record<string, string>), ...metadata }
}

/** Runs as they are fast: 24 images of 8 x 8 pixels, three steps in an epoch. */
export async function small(): Promise<{ images: string; out: (name: string) => string; settings: Partial<PretrainConfigInput> }> {
  const [images, folder] = [await stripes(24), await folderWith()]
  const settings = {
    model: 'vit_micro', patchSize: 4, batchSize: 8, epochs: 2, lr: 0.01, amp: 'off', threads: 1, logEvery: 1, device: 'cpu'
  } as const
  return { images, out: (name) => join(folder, name), settings }
}

/** A run that is interrupted once this many steps are done; 0 before the first. */
export async function interrupted(config: PretrainConfigInput, steps: number, hooks: PretrainHooks = {}): Promise<PretrainResult> {
  const controller = new AbortController()
  if (steps === 0) controller.abort()
  return pretrain(config, { ...hooks, signal: controller.signal, onStep: ({ step }) => void (step >= steps && controller.abort()) })
}
