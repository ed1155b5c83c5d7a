import { describe, expect, it } from 'vitest'

import { fingerprintOf, joinSources, openImages, selectImages } from '../../src/data/index.js'
import { stripeFiles } from '../evaluate/support.js'
import { photos } from '../train/support.js'
import { folderWith } from './support.js'

const png = (await import('sharp')).default({ create: { width: 4, height: 4, channels: 3, background: '#804020' } }).png().toBuffer()

/** The fingerprint of a folder with such files. */
async function ofFolder(...names: string[]): Promise<string> {
  const content = await png
  return fingerprintOf(await openImages(await folderWith(Object.fromEntries(names.map((name) => [name, content])))))
}

describe('fingerprintOf', () => {
  it('is the same wherever the images are', async () => {
    const [here, there] = await Promise.all([photos(), photos()])
    expect(here).not.toBe(there)
    expect(await fingerprintOf(await openImages(here))).toBe(await fingerprintOf(await openImages(there)))
    const [one, two] = await Promise.all([photos(), photos()])
    const joined = async (...paths: string[]) => fingerprintOf(joinSources(await Promise.all(paths.map((path) => openImages(path)))))
    expect(await joined(here, there)).toBe(await joined(one, two))
    const [flat, moved] = await Promise.all([0, 0].map(() => folderWith(stripeFiles(3))))
    expect(await joined(flat!, flat!)).toBe(await joined(flat!, moved!))
  })

  it('tells other names, classes, numbers and orders', async () => {
    const found = await Promise.all([
      ofFolder('a/0.png', 'b/1.png'), ofFolder('a/0.png', 'b/2.png'), ofFolder('a/0.png', 'c/1.png'), ofFolder('a/0.png', 'a/1.png'),
      ofFolder('0.png', '1.png'), ofFolder('a/0.png', 'b/1.png', 'b/2.png')
    ])
    expect(new Set(found).size).toBe(found.length)
    const source = await openImages(await photos())
    const orders = [[0, 1, 2], [0, 2, 1], [0, 2, 4]].map((indices) => fingerprintOf(selectImages(source, indices)))
    expect(new Set(await Promise.all(orders)).size).toBe(3)
  })

  it('tells images in memory by what they show', async () => {
    const files = stripeFiles(6)
    const name = Object.keys(files).find((file) => file.includes('images'))!
    const changed = { ...files, [name]: Uint8Array.from(files[name] as Uint8Array) }
    changed[name]![changed[name]!.length - 1]! ^= 1
    const [first, again, other] = await Promise.all([files, files, changed].map(async (all) => fingerprintOf(await openImages(await folderWith(all)))))
    expect(first).toBe(again)
    expect(first).not.toBe(other)
  })
})
