import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { openIdx, readIdx } from '../../src/data/idx.js'
import { type ImageSource, openImages } from '../../src/data/index.js'
import { InputError } from '../../src/errors.js'
import { folderWith, idx, ramp } from './support.js'

const images = idx([4, 2, 3], ramp(24))
const labels = idx([4], [2, 0, 1, 2])

async function read(content: Uint8Array, dimensions = 3) {
  const folder = await folderWith({ 'file.idx': content })
  return readIdx(join(folder, 'file.idx'), dimensions)
}

async function refusal(content: Uint8Array, dimensions = 3): Promise<string> {
  const error: unknown = await read(content, dimensions).then(() => null, (reason: unknown) => reason)
  expect(error).toBeInstanceOf(InputError)
  expect((error as Error).message).toContain('file.idx')
  return (error as Error).message
}

describe('readIdx', () => {
  it.each([['plain', images], ['gzipped', gzipSync(images)]])('reads a %s file', async (_, content) => {
    const { shape, data } = await read(content)
    expect(shape).toEqual([4, 2, 3])
    expect([...data]).toEqual([...ramp(24)])
  })

  it('reads a gzipped file that is larger than the part looked at first', async () => {
    const large = Uint8Array.from({ length: 300 * 28 * 28 }, (_, index) => Math.imul(index, 2654435761) >>> 24)
    expect(Buffer.compare((await read(gzipSync(idx([300, 28, 28], large)))).data, large)).toBe(0)
  })

  const packings: [string, (bytes: Buffer) => Buffer][] = [['plain', (bytes) => bytes], ['gzipped', (bytes) => gzipSync(bytes)]]
  it.each(packings)('refuses wrong content, %s', async (_, pack) => {
    expect(await refusal(pack(images.subarray(0, 30)))).toMatch(/Expected 40 bytes \(4 x 2 x 3 and a header of 16\).*received 30$/)
    expect(await refusal(pack(images.subarray(0, 9)))).toMatch(/Expected a header of 16 bytes.*received 9$/)
    expect(await refusal(pack(images.subarray(0, 3)))).toMatch(/at least 4 bytes.*received 3$/)
    expect(await refusal(pack(Buffer.concat([images, Buffer.alloc(1)])))).toMatch(/Expected 40 bytes.*received (41|'more bytes')$/)
    expect(await refusal(pack(idx([4, 2, 3], ramp(24), 0xd03)))).toMatch(/magic number 0x00000803.*received '0x00000d03'$/)
    expect(await refusal(pack(images), 1)).toMatch(/magic number 0x00000801.*received '0x00000803'$/)
    expect(await refusal(pack(Buffer.from('<html>not found</html>')))).toMatch(/magic number/)
  })

  it('refuses an empty file and one that is not there', async () => {
    expect(await refusal(Buffer.alloc(0))).toMatch(/at least 4 bytes.*received 0$/)
    await expect(readIdx(join(await folderWith(), 'absent.idx'), 3)).rejects.toThrow(/readable file.*absent\.idx.*ENOENT/)
  })

  it('refuses a gzip stream cut short, even in its last bytes', async () => {
    const noise = Uint8Array.from({ length: 64 * 784 }, (_, index) => Math.imul(index + 1, 2246822519) >>> 24)
    const packed = gzipSync(idx([64, 28, 28], noise))
    expect(await refusal(packed.subarray(0, packed.length / 2))).toMatch(/Expected 50192 bytes.*'a gzip stream cut short after \d+ bytes'$/)
    expect(await refusal(packed.subarray(0, packed.length - 3))).toMatch(/cut short after 50192 bytes/)
    expect(await refusal(packed.subarray(0, 5))).toMatch(/received 0$/)
  })

  it('refuses a damaged gzip stream and bytes after its end', async () => {
    const packed = gzipSync(images)
    packed[packed.length - 5]! ^= 1
    expect(await refusal(packed)).toMatch(/intact gzip stream.*check/)
    expect(await refusal(Buffer.concat([gzipSync(images), Buffer.from('more')]))).toMatch(/intact gzip stream/)
    expect(await refusal(Buffer.concat([gzipSync(images), Buffer.alloc(4)]))).toMatch(/nothing after the end.*4 bytes more/)
    expect(await refusal(Buffer.concat([gzipSync(images), gzipSync(images)]))).toMatch(/Expected 40 bytes.*more bytes/)
  })

  it('does not unpack much more than the header promises', async () => {
    const bomb = gzipSync(Buffer.concat([images, Buffer.alloc(200e6)]), { level: 1 })
    const before = process.memoryUsage().arrayBuffers
    const pending = refusal(bomb)
    expect(await pending).toMatch(/Expected 40 bytes.*received 'more bytes'$/)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20e6)
  })
})

describe('openIdx', () => {
  it('opens images with labels by any of the usual names', async () => {
    for (const [prefix, ending] of [['', ''], ['', '.gz'], ['train-', '.gz'], ['t10k-', ''], ['test-', '']] as const) {
      const pack = ending === '.gz' ? gzipSync : (bytes: Buffer): Buffer => bytes
      const folder = await folderWith({
        [`${prefix}images-idx3-ubyte${ending}`]: pack(images), [`${prefix}labels-idx1-ubyte`]: labels, 'notes.txt': ''
      })
      const source = (await openIdx(folder))!
      expect(source).toMatchObject({ kind: 'memory', path: folder, length: 4, channels: 1, height: 2, width: 3, classes: ['0', '1', '2'] })
      expect([...source.images]).toEqual([...ramp(24)])
      expect(source.labels).toEqual(Int32Array.of(2, 0, 1, 2))
      expect(source.name(3)).toBe(`${prefix}images-idx3-ubyte${ending}#3`)
      expect(() => source.name(4)).toThrow(/from 0 to 3.*received 4/)
    }
  })

  it('takes the training pair of two, the test pair if asked', async () => {
    const folder = await folderWith({
      'train-images-idx3-ubyte': images, 'train-labels-idx1-ubyte': labels,
      't10k-images.idx3-ubyte': idx([1, 1, 1], [9]), 't10k-labels.idx1-ubyte': idx([1], [5])
    })
    expect((await openIdx(folder))!.length).toBe(4)
    expect((await openIdx(folder, { split: 'train' }))!.length).toBe(4)
    expect((await openIdx(folder, { split: 'test' }))!.labels).toEqual(Int32Array.of(5))
  })

  it('does not pass one split off as the other', async () => {
    const folder = await folderWith({ 'train-images-idx3-ubyte': images })
    await expect(openIdx(folder, { split: 'test' })).rejects.toThrow(/split 'test'.*train-images/)
    const other = await folderWith({ 't10k-images-idx3-ubyte': images })
    await expect(openIdx(other, { split: 'train' })).rejects.toThrow(/split 'train'.*t10k-images/)
    const unnamed = await folderWith({ 'images-idx3-ubyte': images })
    expect((await openIdx(unnamed, { split: 'test' }))!.length).toBe(4)
  })

  it('does without labels', async () => {
    const source = await openIdx(await folderWith({ 'images-idx3-ubyte': images }))
    expect(source).toMatchObject({ length: 4, labels: null, classes: null })
  })

  it('is null where there are no IDX files', async () => {
    expect(await openIdx(await folderWith({ 'labels-idx1-ubyte': labels, 'my-images-idx3-ubyte': images }))).toBeNull()
  })

  it('refuses labels of another number, empty sets and an unreadable file', async () => {
    const open = async (files: Record<string, Uint8Array>) => openIdx(await folderWith(files))
    await expect(open({ 'images-idx3-ubyte': images, 'labels-idx1-ubyte': idx([3], [0, 1, 2]) })).rejects.toThrow(
      /4 labels, as many as images.*labels-idx1-ubyte.*received 3/
    )
    await expect(open({ 'images-idx3-ubyte': idx([0, 2, 3], []) })).rejects.toThrow(/at least one image.*received \[ 0, 2, 3 \]/)
    await expect(open({ 'images-idx3-ubyte': idx([2, 0, 3], []) })).rejects.toThrow(/at least one image/)
    const folder = await folderWith()
    await mkdir(join(folder, 'images-idx3-ubyte'))
    await expect(openIdx(folder)).rejects.toThrow(/readable file.*EISDIR/)
  })

  it('limits to a fixed choice that keeps images, labels and names together', async () => {
    const all = idx([100, 1, 2], Array.from({ length: 200 }, (_, index) => index >> 1))
    const folder = await folderWith({ 'images-idx3-ubyte': all, 'labels-idx1-ubyte': idx([100], ramp(100)) })
    const inMemory = (source: ImageSource) => (source.kind === 'memory' ? source : expect.fail('not in memory'))
    const source = inMemory(await openImages(folder, { limit: 30 }))
    expect(source.length).toBe(30)
    expect(source.images.length).toBe(60)
    const numbers = Array.from({ length: 30 }, (_, index) => source.images[2 * index]!)
    expect([...source.labels!]).toEqual(numbers)
    expect(numbers.map((_, index) => source.name(index))).toEqual(numbers.map((number) => `images-idx3-ubyte#${number}`))
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b))
    expect(numbers).not.toEqual([...ramp(30)])
    expect(source.classes).toHaveLength(100)
    const fewer = [...(await openImages(folder, { limit: 10 })).labels!]
    expect(numbers).toEqual(expect.arrayContaining(fewer))
    expect((await openImages(folder, { limit: 1000 })).length).toBe(100)
  })
})
