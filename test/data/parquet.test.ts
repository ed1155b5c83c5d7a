import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { setImmediate as breathe } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { describe, expect, it } from 'vitest'

import { BrokenImageError, decodeCrops, type EncodedSource, Loader, namedContent, openImages, permutation, randomFor } from '../../src/data/index.js'
import { keptPages } from '../../src/data/parquet.js'
import { PageCache } from '../../src/data/parquet-cache.js'
import { ColumnReader, type Page } from '../../src/data/parquet-column.js'
import { leafOf, readParquetFile } from '../../src/data/parquet-file.js'
import { InputError } from '../../src/errors.js'
import * as torch from '../../src/torch/index.js'
import { filesOf, folderWith } from './support.js'

torch.setNumThreads(1)

const folder = fileURLToPath(new URL('../fixtures/parquet/', import.meta.url))
const made = JSON.parse(await readFile(join(folder, 'images.json'), 'utf8')) as { images: string[]; pixels: number[][]; labels: number[] }
const images = made.images.map((hex) => Buffer.from(hex, 'hex'))

async function open(path: string, options = {}): Promise<EncodedSource> {
  const source = await openImages(path, options)
  if (source.kind !== 'encoded') throw new Error('Not encoded')
  return source
}

const fixture = (name: string) => open(join(folder, `${name}.parquet`))
const bytesOf = async (source: EncodedSource, index: number) => Buffer.from((await source.content(index)) as Uint8Array)
const allOf = (source: EncodedSource) => Promise.all(Array.from({ length: source.length }, (_, i) => bytesOf(source, i)))

async function refusal(path: string): Promise<string> {
  const error: unknown = await openImages(path).then(() => null, (reason: unknown) => reason)
  expect(error).toBeInstanceOf(InputError)
  return (error as Error).message
}

/** A table of rows with these bytes, written by another library than the fixtures. */
const table = (rows: readonly (Uint8Array | null)[], options: { rowGroupSize?: number; codec?: 'SNAPPY' | 'UNCOMPRESSED'; pageSize?: number } = {}) =>
  Buffer.from(parquetWriteBuffer({ columnData: [{ name: 'image', data: [...rows], type: 'BYTE_ARRAY' }], codec: 'SNAPPY', ...options }))

describe('a Parquet table', () => {
  it.each(['none', 'snappy', 'gzip', 'zstd', 'brotli', 'lz4', 'plain', 'plain-v2', 'dictionary-v2', 'delta', 'unchecked'])(
    'as Hugging Face writes it: %s', async (name) => {
      const source = await fixture(name)
      expect(source).toMatchObject({ kind: 'encoded', length: 12, channels: 3, unreadable: [], classes: ['owl', 'cat', 'dog', 'ant'] })
      expect([...source.labels!]).toEqual(made.labels)
      expect([...source.blocks!]).toEqual([0, 5, 10])
      expect(source.name(11)).toBe(`${name}.parquet#11`)
      expect(await allOf(source)).toEqual(images)
      // In another order, with what is kept.
      for (const i of permutation(12, randomFor(0, name))) expect(await bytesOf(source, i)).toEqual(images[i])
    }
  )

  it('of plain bytes, with texts for labels', async () => {
    const source = await fixture('texts')
    expect(source).toMatchObject({ length: 12, classes: ['c0', 'c1', 'c2'] })
    expect([...source.labels!]).toEqual(made.labels)
    expect(await allOf(source)).toEqual(images)
  })

  it('with numbers for labels, in their order', async () => {
    const source = await fixture('numbers')
    expect(source.classes).toEqual(['2', '9', '10'])
    expect([...source.labels!]).toEqual([2, 1, 2, 0])
  })

  it('has no classes where no row has a label, -1 is all there is, or labels are lists', async () => {
    for (const name of ['nulls', 'unlabelled', 'beside-mask']) expect(await fixture(name)).toMatchObject({ classes: null, labels: null })
  })

  it('of several columns of bytes: the one that is called image', async () => {
    expect(await allOf(await fixture('beside-mask'))).toEqual(images)
    expect(await refusal(join(folder, 'several.parquet')))
      .toMatch(/^Expected a single column of images, or a single one called image, .* for the table '.*', received \[ 'before', 'after' \]$/)
  })

  it('hands on copies, which may be changed and handed over', async () => {
    const source = await fixture('plain')
    const first = (await source.content(0)) as Uint8Array<ArrayBuffer>
    expect(first.byteLength).toBe(first.buffer.byteLength)
    first.fill(0)
    structuredClone(first, { transfer: [first.buffer] })
    expect(await allOf(source)).toEqual(images)
  })

  it('takes a file where a row has no bytes, and calls a row without both broken', async () => {
    const files = { 'beside.png': images[7]!, 'nulls.parquet': await readFile(join(folder, 'nulls.parquet')) }
    const source = await open(join(await folderWith(files), 'nulls.parquet'))
    expect(await bytesOf(source, 0)).toEqual(images[0])
    expect(await bytesOf(source, 1)).toEqual(images[7])
    expect(await bytesOf(source, 4)).toEqual(images[4])
    for (const row of [2, 3]) {
      await expect(source.content(row)).rejects.toMatchObject({ name: 'BrokenImageError', file: `nulls.parquet#${row}`, reason: 'the row has no image' })
    }
    await expect((await fixture('nulls')).content(1)).rejects.toThrow(BrokenImageError)
  })

  it('is decoded, and told by its rows in a loader', async () => {
    const source = await fixture('snappy')
    const size = { width: 2, height: 2 }
    const [planes] = await decodeCrops(await namedContent(source, 3), [{ left: 0, top: 0, ...size }], size)
    expect([0, 4, 8].map((i) => planes![i])).toEqual(made.pixels[3])
    const loader = new Loader(await fixture('nulls'), { size, device: 'cpu', maxBroken: 1 })
    for await (const { indices, images: batch } of loader.all(5)) {
      expect(indices).toEqual([0, 4])
      batch.dispose()
    }
    expect(loader.broken.map(({ file }) => file)).toEqual(['nulls.parquet#1', 'nulls.parquet#2', 'nulls.parquet#3'])
  })

  it('refuses an index that there is not, and stops where nobody waits', async () => {
    const source = await fixture('snappy')
    for (const index of [-1, 12, 0.5]) {
      expect(() => source.content(index)).toThrow(/from 0 to 11 for index/)
      expect(() => source.name(index)).toThrow(InputError)
    }
    await expect(source.content(0, AbortSignal.abort())).rejects.toMatchObject({ name: 'AbortError' })
  })

  it('can be limited, and the blocks stay those of the row groups', async () => {
    const source = await open(join(folder, 'zstd.parquet'), { limit: 7 })
    expect(source).toMatchObject({ length: 7, classes: ['owl', 'cat', 'dog', 'ant'] })
    const rows = filesOf(source).map((name) => Number(name.split('#')[1]))
    expect(await allOf(source)).toEqual(rows.map((row) => images[row]))
    expect([...source.blocks!].map((first) => Math.floor(rows[first]! / 5))).toEqual([...new Set(rows.map((row) => Math.floor(row / 5)))])
  })

  it('holds any bytes, of any length, in any row groups, with nulls', async () => {
    const rows = fc.array(fc.option(fc.uint8Array({ minLength: 1, maxLength: 300 }), { freq: 6 }), { minLength: 1, maxLength: 40 })
    const options = fc.record({
      rowGroupSize: fc.integer({ min: 1, max: 50 }), codec: fc.constantFrom('SNAPPY' as const, 'UNCOMPRESSED' as const), pageSize: fc.constantFrom(50, 1000, 1e6)
    })
    await fc.assert(fc.asyncProperty(rows, options, async (values, how) => {
      const source = await open(join(await folderWith({ 'x.parquet': table(values, how) }), 'x.parquet'))
      const found = await Promise.all(values.map((_, i) => (source.content(i) as Promise<Uint8Array>).then((bytes) => [...bytes], () => null)))
      expect(found).toEqual(values.map((value) => value && [...value]))
      expect([...source.blocks!]).toEqual(Array.from({ length: Math.ceil(values.length / how.rowGroupSize) }, (_, i) => i * how.rowGroupSize))
    }), { numRuns: 60 })
  })
})

describe('the pages of a column', () => {
  class Counting extends PageCache<Page> {
    reads = 0
    override get(...[page, bytes, read]: Parameters<PageCache<Page>['get']>) {
      return super.get(page, bytes, () => {
        this.reads++
        return read()
      })
    }
  }

  async function column(name: string, limit: number) {
    const file = await readParquetFile(join(folder, `${name}.parquet`))
    const image = file.columns.find(({ element }) => element.name === 'image')!
    const cache = new Counting(limit)
    return { cache, reader: new ColumnReader(file.chunk(0, leafOf([image, image.children[0]!])!), cache) }
  }

  const rows = [0, 1, 2, 3, 4]

  it('are read once, however many ask at a time', async () => {
    const { cache, reader } = await column('zstd', Infinity)
    for (let again = 0; again < 2; again++) {
      expect(await Promise.all(rows.map(async (row) => Buffer.from((await reader.cell(row)) as Uint8Array)))).toEqual(images.slice(0, 5))
    }
    // The dictionary, and the places in it.
    expect(cache.reads).toBe(2)
  })

  it('are read one by one where there are several', async () => {
    const { cache, reader } = await column('plain', Infinity)
    await reader.cell(4)
    expect(cache.reads).toBe(1)
    await reader.all()
    expect(cache.reads).toBe(3)
  })

  it('are forgotten beyond the limit, the least used first, and a page that is larger than it is still read', async () => {
    const { cache, reader } = await column('plain', 0)
    for (const row of [0, 4, 0, 0]) expect(Buffer.from((await reader.cell(row)) as Uint8Array)).toEqual(images[row])
    expect(cache.reads).toBe(3)
  })

  it('are kept as long as something in them was not asked for: an epoch in any order reads each once', async () => {
    const data = Array.from({ length: 40 }, (_, i) => new Uint8Array(1000).fill(i))
    const path = join(await folderWith({ 'x.parquet': table(data, { codec: 'UNCOMPRESSED', rowGroupSize: 10 }) }), 'x.parquet')
    const file = await readParquetFile(path)
    // Three of four pages; at no time more is waiting.
    const cache = new Counting(3.2 * 10_100)
    const readers = [0, 1, 2, 3].map((group) => new ColumnReader(file.chunk(group, leafOf([file.columns[0]!])!), cache))
    const read = async (i: number) => expect(((await readers[Math.floor(i / 10)]!.cell(i % 10)) as Uint8Array)[999]).toBe(i)
    const order = [...permutation(20, randomFor(1)), ...permutation(20, randomFor(2)).map((i) => i + 20)]
    // One of each of the first blocks is left over until the end.
    const late = [3, 13].flatMap((i) => order.splice(order.indexOf(i), 1))
    for (const i of [...order, ...late]) await read(i)
    expect(cache.reads).toBe(4)
    // What was forgotten is read again.
    for (const i of order) await read(i)
    expect(cache.reads).toBeGreaterThan(4)
  })
})

describe('tables that share what they keep', () => {
  const collect = (): void => {
    setFlagsFromString('--expose-gc')
    ;(runInNewContext('gc') as () => void)()
  }

  it('have one limit for all of them, as much as they want together and no more than there may be', async () => {
    const cache = new PageCache<{ page: number }>(200, 400)
    const reads: number[] = []
    const keys = Array.from({ length: 9 }, (_, page) => ({ page }))
    const tables = [cache.share(150)]
    const read = async (table: number, page: number) => {
      await tables[table]!.get(keys[page]!, 100, () => {
        reads.push(page)
        return Promise.resolve({ cells: [new Uint8Array(100)], coded: false })
      })
    }
    expect(cache.limit).toBe(200)
    tables.push(cache.share(150))
    expect(cache.limit).toBe(300)
    for (const [table, page] of [[0, 0], [0, 1], [1, 5]] as const) await read(table, page)
    // The first table's oldest page makes room for the second's.
    await read(1, 6)
    expect(cache.bytes).toBe(300)
    reads.length = 0
    for (const [table, page] of [[0, 1], [1, 5], [1, 6]] as const) await read(table, page)
    expect(reads).toEqual([])
    await read(0, 0)
    expect(reads).toEqual([0])
    tables.push(cache.share(1e9))
    expect(cache.limit).toBe(400)
    // Of a table that nobody holds nothing is kept, and its part of the limit goes.
    tables.splice(1)
    const before = cache.bytes
    for (let i = 0; i < 50 && cache.limit > 200; i++) {
      collect()
      await breathe()
    }
    expect([cache.limit, before > cache.bytes, cache.bytes]).toEqual([200, true, 100])
    reads.length = 0
    await read(0, 0)
    expect(reads).toEqual([])
  })

  it('are all that are open', async () => {
    const before = keptPages.limit
    const data = Array.from({ length: 40 }, (_, i) => new Uint8Array(400_000).fill(i))
    const own = await folderWith({ 'a/x.parquet': table(data, { codec: 'UNCOMPRESSED' }), 'b/x.parquet': table(data, { codec: 'UNCOMPRESSED' }) })
    // Each wants many times its 16 MB, which as one table alone it would have.
    const sources = [await open(join(own, 'a')), await open(join(own, 'b'))]
    expect(keptPages.limit).toBeGreaterThan(before)
    expect(keptPages.limit).toBeLessThanOrEqual(totalmem() / 4)
    const kept = keptPages.bytes
    for (const source of sources) expect((await bytesOf(source, 7))[0]).toBe(7)
    expect(keptPages.bytes - kept).toBeGreaterThanOrEqual(2 * 400_000)
  })
})

describe('a folder of Parquet files', () => {
  const copy = async (names: Record<string, string>): Promise<string> => {
    const own = await folderWith()
    for (const [to, from] of Object.entries(names)) await copyFile(join(folder, `${from}.parquet`), join(own, to))
    return own
  }
  const parts = {
    'train-00000-of-00002.parquet': 'split-train-00000-of-00002',
    'train-00001-of-00002.parquet': 'split-train-00001-of-00002',
    'test-00000-of-00001.parquet': 'split-test-00000-of-00001'
  }

  it('is one table of each split', async () => {
    const path = await copy(parts)
    const train = await open(path)
    expect(await allOf(train)).toEqual(images)
    expect([...train.labels!]).toEqual(made.labels)
    expect([...train.blocks!]).toEqual([0, 4, 7, 11])
    expect([6, 7].map((i) => train.name(i))).toEqual(['train-00000-of-00002.parquet#6', 'train-00001-of-00002.parquet#0'])
    expect(train.path).toBe(path)
    const test = await open(path, { split: 'test' })
    expect(await allOf(test)).toEqual(images.slice(2, 4))
    await expect(openImages(await copy({ 'train.parquet': 'zstd', 'x.parquet': 'zstd' }), { split: 'test' })).rejects.toThrow(/of the split 'test'/)
  })

  it('of other names is one table, and of several splits that are not meant none', async () => {
    expect(await allOf(await open(await copy({ 'b.parquet': 'zstd', 'a.PARQUET': 'none', 'metadata.parquet': 'no-images' })))).toEqual([...images, ...images])
    await expect(openImages(await copy({ 'validation-00000-of-00001.parquet': 'zstd', 'dev-00000-of-00001.parquet': 'zstd' })))
      .rejects.toThrow(/of a split train, or of a single one/)
  })

  it('has labels in all of its files or in none', async () => {
    expect(await refusal(await copy({ 'a.parquet': 'zstd', 'b.parquet': 'beside-mask' }))).toMatch(/labels, as in the table '.*a\.parquet', .*received 'none'/)
    expect(await refusal(await copy({ 'a.parquet': 'beside-mask', 'b.parquet': 'zstd' }))).toMatch(/no labels, as in .*received 'labels'/)
  })

  it('is found below a folder that was named instead', async () => {
    const path = await folderWith({ 'data/x.parquet': await readFile(join(folder, 'zstd.parquet')) })
    expect(await refusal(path)).toMatch(/there are Parquet files in its sub-folder data/)
  })
})

describe('a Parquet file that cannot be used', () => {
  it.each([
    ['encrypted', /a Parquet file without encryption for the table .*received 'an encrypted one'/],
    ['encrypted-column', /a column without encryption for column image\.bytes .*received 'an encrypted one'/],
    ['no-images', /a column of images .*received \[ 'text', 'label' \]/],
    ['list', /a column of images .*received \[ 'images' \]/],
    ['empty', /at least one row .*received 'none'/],
    ['some-labels', /a label in each row, or in none, .*received 'none after others'/],
    ['strange-label', /labels from 0 to 3, of the named classes, .*received 4/]
  ])('%s', async (name, message) => {
    expect(await refusal(join(folder, `${name}.parquet`))).toMatch(message)
  })

  it('is another file, or cut short', async () => {
    const whole = await readFile(join(folder, 'zstd.parquet'))
    const path = join(await folderWith(), 'x.parquet')
    const message = async (bytes: Uint8Array | string) => {
      await writeFile(path, bytes)
      return refusal(path)
    }
    expect(await message('')).toMatch(/a whole Parquet file.*a file of 0 bytes/)
    expect(await message('x'.repeat(100))).toMatch(/received 'another file'/)
    expect(await message(Buffer.concat([Buffer.from('PAR1'), Buffer.alloc(20), Buffer.from([255, 255, 0, 0]), Buffer.from('PAR1')])))
      .toMatch(/a footer of 65535 bytes in a file of 32/)
    expect(await message(Buffer.concat([Buffer.from('PAR1'), Buffer.alloc(20, 0xff), Buffer.from([20, 0, 0, 0]), Buffer.from('PAR1')])))
      .toMatch(/an intact footer/)
    for (let length = 12; length < whole.length; length += 37) expect(await message(whole.subarray(0, length))).toMatch(/received 'a file that is cut short'/)
    expect(await refusal(`${path}.absent.parquet`)).toMatch(/a table that exists/)
  })

  it('is gone or replaced when an image is asked for', async () => {
    const path = join(await folderWith({ 'x.parquet': await readFile(join(folder, 'zstd.parquet')) }), 'x.parquet')
    const source = await open(path)
    await writeFile(path, 'PAR1')
    await expect(source.content(0)).rejects.toMatchObject({ name: 'BrokenImageError', reason: expect.stringContaining('cut short') as string })
    // What could not be read is read again.
    await copyFile(join(folder, 'zstd.parquet'), path)
    expect(await bytesOf(source, 0)).toEqual(images[0])
  })
})

describe('flipped bits and bytes', () => {
  // With checksums: what is damaged is known to be.
  it.each(['snappy', 'zstd', 'gzip', 'brotli', 'lz4', 'plain', 'plain-v2', 'dictionary-v2', 'delta'])('of %s: errors or the right images', async (name) => {
    const whole = await readFile(join(folder, `${name}.parquet`))
    const path = join(await folderWith(), 'x.parquet')
    const random = randomFor(1, name)
    let found = 0
    for (let trial = 0; trial < 250; trial++) {
      const damaged = Buffer.from(whole)
      // Headers and pages are in front, the footer behind.
      const at = random.integer(4, whole.length - 8)
      damaged[at] = trial % 3 === 0 ? random.integer(0, 256) : damaged[at]! ^ (1 << random.integer(0, 8))
      await writeFile(path, damaged)
      const outcome = await open(path).catch((error: unknown) => error as Error)
      if (outcome instanceof Error) {
        expect(outcome).toBeInstanceOf(InputError)
        found++
        continue
      }
      for (let i = 0; i < Math.min(12, outcome.length); i++) {
        const content = await Promise.resolve(outcome.content(i) as Promise<Uint8Array>).catch((error: unknown) => error as Error)
        if (content instanceof Error) {
          expect(content).toBeInstanceOf(BrokenImageError)
          found++
        } else if (at < whole.length - 8 - whole.readUInt32LE(whole.length - 8)) {
          expect(images.some((image) => image.equals(content)), `byte ${at}`).toBe(true)
        }
      }
    }
    expect(found).toBeGreaterThan(50)
  }, 120_000)

  it('without checksums and in whole stretches: never a hang, never another error', async () => {
    const whole = await readFile(join(folder, 'unchecked.parquet'))
    const path = join(await folderWith(), 'x.parquet')
    const random = randomFor(2)
    for (let trial = 0; trial < 400; trial++) {
      const damaged = Buffer.from(whole)
      const at = random.integer(4, whole.length - 8)
      for (let i = at; i < Math.min(at + random.integer(1, 12), whole.length - 8); i++) damaged[i] = random.integer(0, 256)
      await writeFile(path, damaged)
      const source = await open(path).catch((error: unknown) => error as Error)
      if (source instanceof Error) expect(source).toBeInstanceOf(InputError)
      else for (let i = 0; i < Math.min(12, source.length); i++) {
        const content = await Promise.resolve(source.content(i) as Promise<Uint8Array>).catch((error: unknown) => error)
        if (!(content instanceof Uint8Array)) expect(content).toBeInstanceOf(BrokenImageError)
      }
    }
  }, 120_000)
})
