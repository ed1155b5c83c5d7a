import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

import { type ImageSource, joinSources, Loader, openImages, selectImages } from '../../src/data/index.js'
import { InputError } from '../../src/errors.js'
import { filesOf, folderWith, idx, paint, ramp, red } from './support.js'

const table = fileURLToPath(new URL('../fixtures/parquet/zstd.parquet', import.meta.url))
const contents = (source: ImageSource) => {
  if (source.kind !== 'encoded') throw new Error('in memory')
  return Promise.all(Array.from({ length: source.length }, async (_, i) => source.content(i)))
}

const digits = (count: number, side: number, first: number, labels?: readonly number[]) => folderWith({
  'images-idx3-ubyte': idx([count, side, side], ramp(count * side * side).map((value) => value + first)),
  ...(labels && { 'labels-idx1-ubyte': idx([count], labels) })
})

describe('several sources as one', () => {
  it('are a folder, a list and a table, one after the other', async () => {
    const folder = await folderWith({ 'cat/a.png': '', 'fox/b.png': '', 'list.csv': 'path,label\nfox/b.png,fox\ncat/a.png,owl\n' })
    const paths = [folder, table, join(folder, 'list.csv')]
    const source = await openImages(paths)
    const own = await Promise.all(paths.map((path) => openImages(path)))
    expect(source).toMatchObject({ kind: 'encoded', length: 16, path: paths.join(', '), channels: 3, parts: undefined })
    expect(filesOf(source)).toEqual(own.flatMap((one) => filesOf(one).map((name) => `${one.path}: ${name}`)))
    expect(await contents(source)).toEqual((await Promise.all(own.map(contents))).flat())
    // A class of the same name is the same class.
    expect(source.classes).toEqual(['cat', 'fox', 'owl', 'dog', 'ant'])
    const names = (one: ImageSource) => [...one.labels!].map((label) => one.classes![label])
    expect(names(source)).toEqual(own.flatMap(names))
    // Row groups of five; of the others each image for itself.
    expect([...(source.kind === 'encoded' ? source.blocks! : [])]).toEqual([0, 1, 2, 7, 12, 14, 15])
    expect(() => source.name(16)).toThrow(/from 0 to 15 for index/)
    expect(() => source.kind === 'encoded' && source.content(-1)).toThrow(InputError)
  })

  it('have no classes where one of them has none, and no blocks where none has some', async () => {
    const source = await openImages([await folderWith({ 'cat/a.png': '' }), await folderWith({ 'b.png': '' })])
    expect(source).toMatchObject({ length: 2, classes: null, labels: null, blocks: null })
  })

  it('are copied together where they are in memory', async () => {
    const paths = [await digits(2, 2, 0, [1, 0]), await digits(3, 2, 100, [1, 2, 2])]
    const source = await openImages(paths)
    if (source.kind !== 'memory') throw new Error('not in memory')
    expect(source).toMatchObject({ length: 5, width: 2, height: 2, channels: 1, classes: ['0', '1', '2'] })
    expect([...source.labels!]).toEqual([1, 0, 1, 2, 2])
    expect([...source.images]).toEqual([...ramp(8), ...ramp(12).map((value) => value + 100)])
    const loader = new Loader(source, { size: { width: 2, height: 2 }, device: 'cpu' })
    for await (const { indices, images } of loader.all(5)) {
      expect(indices).toEqual([0, 1, 2, 3, 4])
      images.dispose()
    }
    loader.dispose()
  })

  it('are decoded as if each were alone', async () => {
    const folder = await folderWith({ 'a.png': await paint(2, 2, () => red).png().toBuffer() })
    const loader = new Loader(await openImages([folder, table]), { size: { width: 2, height: 2 }, device: 'cpu' })
    for await (const { indices, images } of loader.all(20)) {
      expect(indices).toHaveLength(13)
      images.dispose()
    }
  })

  it('have parts with weights; those that are not given are 1', async () => {
    const [one, two] = await Promise.all([openImages(table), openImages(await folderWith({ 'a.png': '', 'b.png': '', 'c.png': '' }))])
    expect(joinSources([one, two], [2.5]).parts).toEqual([{ first: 0, length: 12, weight: 2.5 }, { first: 12, length: 3, weight: 1 }])
    expect(joinSources([one, two], [undefined, undefined]).parts).toBeUndefined()
    expect(joinSources([one], [3])).toBe(one)
    const joined = joinSources([one, two], [1, 4])
    expect(selectImages(joined, [1, 2, 12, 14]).parts).toEqual([{ first: 0, length: 2, weight: 1 }, { first: 2, length: 2, weight: 4 }])
    expect(selectImages(joined, [13]).parts).toEqual([{ first: 0, length: 1, weight: 4 }])
    expect(selectImages(joined, [12, 0, 13]).parts).toBeUndefined()
    const folder = await folderWith({ 'x.png': '', 'y.png': '', 'z.png': '' })
    const opened = await openImages([{ path: table, weight: 3 }, folder], { limit: 10 })
    expect(opened.length).toBe(10)
    expect(opened.parts!.reduce((sum, { length }) => sum + length, 0)).toBe(10)
  })

  it('are refused where they do not go together', async () => {
    const [small, large] = [await digits(1, 2, 0), await digits(1, 3, 0)]
    const refused = (images: unknown) => openImages(images as string).then(() => 'opened', (error: unknown) => {
      expect(error).toBeInstanceOf(InputError)
      return (error as Error).message
    })
    expect(await refused([small, table])).toMatch(/image files and tables only, or IDX and CIFAR files only, .* and '.*zstd\.parquet', received 'both'/)
    expect(await refused([small, large])).toMatch(/images of 2 x 2 in 1 channels, as '.*' has them, .*received '3 x 3 in 1 channels'/)
    expect(await refused([table, table])).toMatch(/each path once \(a weight repeats images\) for images/)
    expect(await refused([])).toMatch(/the path of a folder, a list, a table or a shard, or several of them, for images, received \[\]/)
    for (const entry of ['', 1, null, {}, { path: '' }]) expect(await refused([table, entry])).toMatch(/or several of them, for images/)
    for (const weight of [0, -1, NaN, Infinity, '2']) {
      expect(await refused([{ path: table, weight }, small])).toMatch(/a number above 0 for the weight of '.*zstd\.parquet'/)
    }
    expect(await refused([table, { path: await folderWith({ 'a.png': '' }), weight: 1e-6 }])).toMatch(/a weight that gives at least one of 13 images/)
    expect(await refused([table, join(small, 'absent')])).toMatch(/a folder that exists/)
    expect(() => joinSources([])).toThrow(/at least one source/)
  })

  it('keep what cannot be read apart', async () => {
    const read = await readFile(table)
    const folder = await folderWith({ 'x.parquet': read })
    expect(filesOf(await openImages([table, join(folder, 'x.parquet')]))[12]).toBe(`${join(folder, 'x.parquet')}: x.parquet#0`)
  })
})
