import { readFile, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { type MemorySource, openImages } from '../../src/data/index.js'

const root = fileURLToPath(new URL('../../data/fashion-mnist-mini/', import.meta.url))

async function open(split: string): Promise<MemorySource> {
  const source = await openImages(root + split)
  if (source.kind !== 'memory') throw new Error('Not IDX files')
  return source
}

const pictures = ({ images, length }: MemorySource): string[] =>
  Array.from({ length }, (_, index) => Buffer.from(images.subarray(index * 784, (index + 1) * 784)).toString('latin1'))

describe('the embedded images', () => {
  it.each([['train', 1000], ['held-out', 200]] as const)('%s has %d images of each class', async (split, each) => {
    const source = await open(split)
    expect(source).toMatchObject({ length: each * 10, height: 28, width: 28, channels: 1, path: root + split })
    expect(source.images.length).toBe(each * 10 * 784)
    expect(source.classes).toEqual(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
    const counts = new Array<number>(10).fill(0)
    for (const label of source.labels!) counts[label]!++
    expect(counts).toEqual(new Array(10).fill(each))
    // Not sorted by class: a part of them is a fair part.
    expect(new Set(source.labels!.subarray(0, 100)).size).toBe(10)
  })

  it('has no image twice, neither within nor between the parts', async () => {
    const all = [...pictures(await open('train')), ...pictures(await open('held-out'))]
    expect(new Set(all).size).toBe(12_000)
  })

  it('shows what its labels say', async () => {
    const source = await open('train')
    const brightness = new Float64Array(10)
    source.labels!.forEach((label, index) => {
      for (const value of source.images.subarray(index * 784, (index + 1) * 784)) brightness[label]! += value / (784 * 1000)
    })
    // The mean brightness of each class in the whole original training split; labels that do not belong to their images would level it.
    const originals = [83.0, 56.8, 96.1, 66.0, 98.3, 34.9, 84.6, 42.8, 90.2, 76.8]
    originals.forEach((value, label) => expect(Math.abs(brightness[label]! - value), `class ${label}`).toBeLessThan(4))
  })

  it('is small, and carries its licence', async () => {
    const files = ['train', 'held-out'].flatMap((split) => [`${split}/images-idx3-ubyte.gz`, `${split}/labels-idx1-ubyte.gz`])
    const sizes = await Promise.all(files.map(async (file) => (await stat(root + file)).size))
    expect(sizes.reduce((a, b) => a + b)).toBeLessThan(6e6)
    for (const file of files) {
      // No time and no operating system in the gzip header: the same bytes from every machine.
      expect([...(await readFile(root + file)).subarray(4, 10)]).toEqual([0, 0, 0, 0, 2, 255])
    }
    expect(await readFile(`${root}LICENSE`, 'utf8')).toMatch(/MIT License[^]*2017 Zalando SE/)
  })

  it('opened by the folder above says which one to name', async () => {
    await expect(openImages(root)).rejects.toThrow(/IDX files in its sub-folder train/)
  })
})
