import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import type { ImageReport } from '../../src/train/index.js'
import { serve } from '../data/server.js'
import { folderWith, paint } from '../data/support.js'
import { tar } from '../data/tar.js'
import { gmml, temporaryFolder } from './support.js'

const usual = ['--device', 'cpu', '--threads', '1']

/** Two shards of six images each, of classes 0 to 2; one image of the second is broken if it is said so. */
async function shards(broken = false): Promise<Record<string, Buffer>> {
  const image = (i: number) => (broken && i === 8 ? Buffer.from('no image') : paint(40 + i, 40, (x, y) => [x, y, 20 * i]).png().toBuffer())
  const shard = async (first: number) => {
    const files = await Promise.all([0, 1, 2, 3, 4, 5].map(async (i) => [[`${i}.cls`, String(i % 3)], [`${i}.png`, await image(first + i)]] as const))
    return tar(files.flat())
  }
  return { 'photos-000.tar': await shard(0), 'photos-001.tar': await shard(6) }
}

describe('gmml data of shards', () => {
  it('shows what is in them, and a preview', async () => {
    const folder = await folderWith(await shards(true))
    const out = join(await temporaryFolder(), 'preview.png')
    const pattern = join(folder, 'photos-{000..001}.tar')
    const { code, stdout, stderr } = await gmml(['data', pattern, '--preview', out, '--image-size', '32', '--batch-size', '4', ...usual])
    expect(code, stderr).toBe(0)
    expect(stdout).toContain(`images    12 in ${pattern}, `)
    expect(stdout).toContain('examined  all, decoded\nclasses   3 of 4 each\nformats   png 11\nsizes     smallest 40 x 40, ')
    expect(stdout).toContain('broken    1\n          photos-001.tar/2.png: ')
    expect(stdout).not.toContain('no classes')
  })

  it('says the same of a server, and ends', async () => {
    const server = await serve(await shards())
    const folder = await folderWith(Object.fromEntries(server.files))
    const [remote, local] = await Promise.all([`${server.address}photos-{000..001}.tar`, folder].map(async (images) => {
      const { code, stdout, stderr } = await gmml(['data', images, '--image-size', '32', '--batch-size', '4', '--json', ...usual])
      expect(code, stderr).toBe(0)
      return { ...(JSON.parse(stdout) as ImageReport), loading: null, settings: null, path: null }
    }))
    expect(remote).toEqual(local)
    expect(remote!.images).toBe(12)
  })

  it('says what a server refuses', async () => {
    const server = await serve({})
    const { code, stdout, stderr } = await gmml(['data', `${server.address}photos.tar`, ...usual])
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toBe(`gmml: Expected a file that may be read for '${server.address}photos.tar', received 'HTTP 404 Not Found'\n`)
  })
})

describe('gmml pretrain on shards', () => {
  it('trains and measures on local ones as on the same of a server', async () => {
    const server = await serve(await shards())
    const folder = await folderWith(Object.fromEntries(server.files))
    const runs = await Promise.all([`${server.address}photos-{000..001}.tar`, join(folder, 'photos-{000..001}.tar')].map(async (images) => {
      const out = join(await temporaryFolder(), 'run')
      const flags = ['--model', 'vit_micro', '--image-size', '32', '--batch-size', '4', '--amp', 'off', '--epochs', '1', '--log-every', '1', '--threads', '1']
      const { code, stderr } = await gmml(['pretrain', images, '--out', out, '--device', 'cpu', ...flags])
      expect(code, stderr).toBe(0)
      return (await readFile(join(out, 'metrics.jsonl'), 'utf8')).trim().split('\n').map((line) => (JSON.parse(line) as { loss?: number }).loss)
    }))
    expect(runs[0]).toEqual(runs[1])
    expect(runs[0]!.length).toBeGreaterThan(2)
  })
})
