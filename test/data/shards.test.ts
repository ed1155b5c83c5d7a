import { execFile } from 'node:child_process'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { decodeCrops, type EncodedSource, namedContent, openImages, openShards, readContent, selectImages } from '../../src/data/index.js'
import { expandBraces } from '../../src/data/shards/index.js'
import { filesOf, folderWith, paint } from './support.js'
import { END, member, octal, pax, tar } from './tar.js'

const run = promisify(execFile)

async function shard(content: Uint8Array): Promise<string> {
  return join(await folderWith({ 'a.tar': content }), 'a.tar')
}

const open = async (content: Uint8Array): Promise<EncodedSource> => openShards(await shard(content))
const refused = async (content: Uint8Array): Promise<string> => open(content).then((source) => `opened ${source.length}`, (error: Error) => `${error.name}: ${error.message}`)

async function contentsOf(source: EncodedSource): Promise<string[]> {
  const bytes = async (index: number) => {
    const { content, name } = await namedContent(source, index)
    return Buffer.from(await readContent(content, name)).toString('latin1')
  }
  return Promise.all(Array.from({ length: source.length }, (_, index) => bytes(index)))
}

const classOf = ({ classes, labels }: EncodedSource): string[] => Array.from(labels!, (label) => classes![label]!)

// Names that need every trick of the formats: long, in folders, in other scripts, with line breaks and blanks.
const long = 'long-name-'.repeat(12)
const usual = ['000.jpg', `${long.slice(0, 90)}.jpg`, 'folder/of/some depth/001.png']
const hard = [...usual, `${long}.jpg`, `${'folders-'.repeat(20)}/${long}/002.JPEG`, 'größe/写真 1.jpg', 'two\nlines/a\tb.jpg']

describe('shards of Debian tar and of Python', () => {
  const packers: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ['tar --format=v7', ['tar', '--format=v7', '-cf'], usual],
    ['tar --format=ustar', ['tar', '--format=ustar', '-cf'], usual],
    ['tar --format=oldgnu', ['tar', '--format=oldgnu', '-cf'], hard],
    ['tar --format=gnu', ['tar', '--format=gnu', '-cf'], hard],
    ['tar --format=pax', ['tar', '--format=pax', '-cf'], hard],
    ...(['USTAR', 'GNU', 'PAX'] as const).map((format) => {
      const program = `import sys, tarfile
with tarfile.open(sys.argv[1], 'w', format=tarfile.${format}_FORMAT) as tar:
    for name in sys.argv[2:]: tar.add(name)`
      return [`tarfile.${format}_FORMAT`, ['python3', '-c', program], format === 'USTAR' ? usual : hard] as const
    })
  ]

  it.each(packers)('%s', async (_, [program, ...args], names) => {
    const files = Object.fromEntries(names.map((name, i) => [name, `content ${i} of ${name}`]))
    const folder = await folderWith(files)
    const path = join(await folderWith(), 'a.tar')
    await run(program!, [...args, path, ...names], { cwd: folder })
    const source = await openShards(path)
    expect(filesOf(source)).toEqual(names.map((name) => `a.tar/${name}`))
    expect(await contentsOf(source)).toEqual(names.map((name) => Buffer.from(files[name]!).toString('latin1')))
    expect([...source.blocks!]).toEqual([0])
  })

  it('leaves out folders and links, and takes `./` from names', async () => {
    const folder = await folderWith({ 'a/1.jpg': 'one', 'a/2.jpg': 'two' })
    await run('ln', ['-s', '1.jpg', 'a/3.jpg'], { cwd: folder })
    await run('ln', ['a/2.jpg', 'a/4.jpg'], { cwd: folder })
    await run('tar', ['--sort=name', '-cf', 'all.tar', './a'], { cwd: folder })
    const source = await openShards(join(folder, 'all.tar'))
    expect(filesOf(source)).toEqual(['all.tar/a/1.jpg', 'all.tar/a/2.jpg'])
  })

  it('that are damaged: the first of them is named, however many are read at a time, and a pipe is not waited for', async () => {
    const samples = (count: number) => Array.from({ length: count }, (_, i) => [`${i}.jpg`, `${i}`] as const)
    const late = Buffer.concat([...samples(300).map(([name, content]) => member(name, content)), Buffer.alloc(512, 1), END])
    const files = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`${10 + i}.tar`, i === 3 ? late : i > 3 ? 'no tar file' : tar(samples(2))]))
    const folder = await folderWith(files)
    await expect(openShards(join(folder, '{10..49}.tar'))).rejects.toThrow(/ shard '13.tar' at byte 307200, /)
    expect((await openShards(join(folder, '{10..12}.tar'))).length).toBe(6)
    await run('mkfifo', ['pipe.tar'], { cwd: folder })
    await expect(openShards(join(folder, 'pipe.tar'))).rejects.toThrow(/a tar file for shard 'pipe.tar', received 'no file'/)
  })

  it('refuses sparse files, whatever the format', async () => {
    for (const format of ['gnu', 'pax']) {
      const folder = await folderWith()
      await run('truncate', ['-s', '1M', 'hole.jpg'], { cwd: folder })
      await run('tar', [`--format=${format}`, '--sparse', '-cf', 'a.tar', 'hole.jpg'], { cwd: folder })
      await expect(openShards(join(folder, 'a.tar'))).rejects.toThrow(/files with all their bytes for shard 'a.tar' at byte \d+, received 'a sparse file/)
    }
  })

  it('reads names and descriptions of many kilobytes', async () => {
    const name = `${'deep/'.repeat(3000)}0.jpg`
    const words = JSON.stringify({ caption: 'word '.repeat(5000), label: 'long' })
    const bytes = Buffer.concat([pax({ path: name }), member('short.jpg', 'x'), pax({ path: name.replace('jpg', 'json') }), member('short.json', words), END])
    const source = await open(bytes)
    expect([filesOf(source), classOf(source), await contentsOf(source)]).toEqual([[`a.tar/${name}`], ['long'], ['x']])
  })

  it('reads lengths of 8 GiB and more', async () => {
    // Base 256 of GNU, and pax; the file is a hole but for its headers.
    const length = 9 * 2 ** 30
    const size = Buffer.alloc(12)
    size[0] = 0x80
    size.writeBigUInt64BE(BigInt(length), 4)
    for (const [name, header] of [['gnu', member('0.bin', '', { size })], ['pax', Buffer.concat([pax({ size: String(length) }), member('0.bin')])]] as const) {
      const path = await shard(header)
      const after = Buffer.concat([member('1.jpg', 'far away'), END])
      const program = 'import os, sys; f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); f.write(bytes.fromhex(sys.argv[3]))'
      await run('python3', ['-c', program, path, String(header.length + length), after.toString('hex')])
      const source = await openShards(path)
      expect(filesOf(source), name).toEqual(['a.tar/1.jpg'])
      expect(await contentsOf(source), name).toEqual(['far away'])
    }
  })
})

describe('samples', () => {
  it('have an image and a class, in any order; other members are passed over', async () => {
    const source = await open(tar([
      ['a/0.cls', ' cat\n'], ['a/0.jpg', 'A'], ['a/0.txt', 'a cat'], ['b/0.PNG', 'B'], ['b/0.cls', 'dog'], ['b/0.seg.png', 'mask'],
      ['README', 'no ending'], ['.hidden.jpg', 'no key'], ['c/7.json', '{"class": "cat", "width": 3}'], ['c/7.webp', 'C'], ['d/1.txt', 'no image']
    ]))
    expect(filesOf(source)).toEqual(['a.tar/a/0.jpg', 'a.tar/b/0.PNG', 'a.tar/c/7.webp'])
    expect([source.classes, classOf(source)]).toEqual([['cat', 'dog'], ['cat', 'dog', 'cat']])
    expect(await contentsOf(source)).toEqual(['A', 'B', 'C'])
    expect([source.kind, source.channels, source.unreadable]).toEqual(['encoded', 3, []])
  })

  it('take the class from .cls before .json, and numbers from either', async () => {
    expect(classOf(await open(tar([['0.jpg', ''], ['0.cls', '5'], ['0.json', '{"label": 6}'], ['1.jpg', ''], ['1.json', '{"label": 7}']])))).toEqual(['5', '7'])
  })

  it('number classes in the order of numbers if they are 0 to K - 1, else of texts', async () => {
    const labelled = (labels: readonly string[]) => tar(labels.flatMap((label, i) => [[`${i}.cls`, label], [`${i}.jpg`, 'x']] as const))
    const twelve = Array.from({ length: 12 }, (_, i) => String((i * 5) % 12))
    const numbers = await open(labelled(twelve))
    expect(numbers.classes).toEqual(Array.from({ length: 12 }, (_, i) => String(i)))
    expect([...numbers.labels!]).toEqual(twelve.map(Number))
    const gap = await open(labelled(['0', '2', '10']))
    expect([gap.classes, [...gap.labels!]]).toEqual([['0', '10', '2'], [0, 2, 1]])
    expect((await open(labelled(['0', '01']))).classes).toEqual(['0', '01'])
  })

  it('have no class if none has', async () => {
    const source = await open(tar([['0.jpg', ''], ['0.json', '{"label": null}'], ['1.jpg', ''], ['1.json', '[]'], ['2.jpg', '']]))
    expect([source.classes, source.labels]).toEqual([null, null])
  })

  it.each<[string, Parameters<typeof tar>[0], RegExp]>([
    ['two images', [['k.jpg', ''], ['k.png', '']], /^InputError: Expected one image for sample 'k' of shard 'a.tar', received 'jpg and png'$/],
    ['the same image twice', [['k.jpg', ''], ['k.jpg', '']], /Expected one image for sample 'k'/],
    ['two classes', [['k.cls', 'a'], ['k.jpg', ''], ['k.cls', 'b']], /Expected one \.cls for sample 'k' of shard 'a.tar', received 'two'/],
    ['some classes', [['k.jpg', ''], ['k.cls', 'a'], ['m.jpg', '']], /Expected a class, as 'a.tar\/k.jpg' has, for 'a.tar\/m.jpg', received 'none'/],
    ['an empty class', [['k.jpg', ''], ['k.cls', ' \n']], /Expected a class for the \.cls of sample 'k' of shard 'a.tar', received 'nothing'/],
    ['what is no JSON', [['k.jpg', ''], ['k.json', '{']], /Expected JSON for the \.json of sample 'k' of shard 'a.tar', received '{'/],
    ['a list as label', [['k.jpg', ''], ['k.json', '{"label": [1]}']], /Expected a text or a number as label for the \.json of sample 'k'/],
    ['label and class', [['k.jpg', ''], ['k.json', '{"label": 1, "class": 2}']], /Expected one of label, class .* received 'label and class'/],
    ['classes apart from images', [['0.jpg', ''], ['1.jpg', ''], ['0.cls', 'a'], ['1.cls', 'b']], /Expected the members of a sample one after the other for shard 'a.tar'/],
    ['no image', [['0.txt', ''], ['0.cls', 'a']], /Expected samples with an image .* received 'none'/],
    ['nothing', [], /Expected samples with an image/]
  ])('refuses %s', async (_, files, message) => {
    expect(await refused(tar(files))).toMatch(message)
  })
})

describe('hostile shards', () => {
  const good = tar([['0.cls', 'a'], ['0.jpg', 'x'.repeat(700)], ['1.cls', 'b'], ['1.jpg', 'y'.repeat(10)]])

  it('cut short anywhere are refused, with the offset', async () => {
    const path = await shard(good)
    const lengths = new Set([...Array.from({ length: good.length / 64 }, (_, i) => 64 * i), ...Array.from({ length: good.length / 512 }, (_, i) => 512 * i + 511)])
    // One block of the two at the end is enough.
    for (const length of [...lengths].filter((length) => length < good.length - 512)) {
      await writeFile(path, good.subarray(0, length))
      await expect(openShards(path), `${length} bytes`).rejects.toThrow(/for shard 'a.tar' at byte \d+, received '.*cut short'/)
    }
    await writeFile(path, good.subarray(0, good.length - 512))
    expect((await openShards(path)).length).toBe(2)
  })

  it('with a changed bit in a header are refused, or read as they say', async () => {
    const path = await shard(good)
    await fc.assert(fc.asyncProperty(fc.nat(511), fc.nat(7), async (byte, bit) => {
      const bytes = Buffer.from(good)
      bytes[1024 + byte]! ^= 1 << bit
      await writeFile(path, bytes)
      // The checksum has blanks and zeros that count for nothing.
      if (byte >= 148 && byte < 156) return
      await expect(openShards(path)).rejects.toThrow(/a header of tar for shard 'a.tar' at byte 1024, received 'other bytes: it is damaged/)
    }), { numRuns: 60 })
  })

  it('of random bytes are refused', async () => {
    const path = await shard(good)
    await fc.assert(fc.asyncProperty(fc.uint8Array({ minLength: 0, maxLength: 2000 }), async (bytes) => {
      await writeFile(path, bytes)
      await expect(openShards(path)).rejects.toThrow(/^Expected /)
    }))
  })

  it('with any records of pax are read or refused, without end never', async () => {
    const path = await shard(good)
    const text = fc.array(fc.constantFrom('0', '1', '9', ' ', '=', '\n', '\0', '-', 'path', 'size', 'é', '12 path=ab\n'), { maxLength: 12 })
    await fc.assert(fc.asyncProperty(text, fc.constantFrom('x', 'g', 'L', 'K'), async (parts, type) => {
      await writeFile(path, Buffer.concat([member('p', parts.join(''), { type }), good]))
      const message = await openShards(path).then(() => '', (error: Error) => `${error.name}: ${error.message}`)
      expect(message).toMatch(/^(?:$|InputError: Expected )/)
    }), { numRuns: 200 })
  })

  it.each<[string, () => Uint8Array, RegExp]>([
    ['a wrong checksum', () => Buffer.concat([member('0.jpg', 'x', { checksum: '000001\0 ' }), END]), /a header of tar for shard 'a.tar' at byte 0, received 'other bytes/],
    ['a length beyond the file', () => Buffer.concat([member('0.jpg', 'x', { size: octal(99999) }), END]), /a member that ends by byte 2048, .* at byte 0, received 'one of 99999 bytes: it is cut short'/],
    ['the largest octal length', () => Buffer.concat([member('0.jpg', 'x', { size: '777777777777' }), END]), /received 'one of 68719476735 bytes/],
    ['a negative length', () => Buffer.concat([member('0.jpg', 'x', { size: Buffer.alloc(12, 0xff) }), END]), /a length from 0 on for shard 'a.tar' at byte 0, received -1/],
    ['a length of 95 bits', () => Buffer.concat([member('0.jpg', 'x', { size: Buffer.from([0x80, ...Array<number>(11).fill(0xff)]) }), END]), /a length from 0 on/],
    ['a length that is no number', () => Buffer.concat([member('0.jpg', 'x', { size: '12x' }), END]), /a length from 0 on .* received NaN/],
    ['a negative length of pax', () => Buffer.concat([pax({ size: '-5' }), member('0.jpg'), END]), /a length from 0 on .* received NaN/],
    ['records that are none', () => Buffer.concat([member('p', 'what is this', { type: 'x' }), member('0.jpg'), END]), /records of pax for shard 'a.tar' at byte 0/],
    ['a record longer than all', () => Buffer.concat([member('p', '99 path=a\n', { type: 'x' }), member('0.jpg'), END]), /records of pax/],
    ['a record of no length', () => Buffer.concat([member('p', '0 path=a\n', { type: 'x' }), member('0.jpg'), END]), /records of pax/],
    ['records of megabytes', () => Buffer.concat([member('p', Buffer.alloc(2 ** 21), { type: 'x' }), member('0.jpg'), END]), /at most 1048576 bytes of names and records/],
    ['gzip', () => Buffer.from('1f8b0800000000000003'.padEnd(1200, '0'), 'hex'), /received 'a file packed by gzip: unpack it \(gunzip\)'/],
    ['an empty file', () => Buffer.alloc(0), /a header or the mark of the end for shard 'a.tar' at byte 0, received 'the end: it is cut short'/],
    ['another archive after the end', () => Buffer.concat([good, good]), /zeros for shard 'a.tar' at byte \d+, after the mark of its end, received 'other bytes: two archives/],
    ['a file made large before it was filled', () => Buffer.concat([good, Buffer.alloc(2 ** 21)]), /at most 1048576 bytes for shard .* it was not written to its end/]
  ])('%s', async (_, bytes, message) => {
    expect(await refused(bytes())).toMatch(message)
  })

  it('with odd but legal members are read', async () => {
    const signed = member('é.jpg', 'old')
    // The sum of bytes with a sign, as some old programs have it.
    const sum = signed.subarray(0, 512).fill(' ', 148, 156).reduce((total, byte) => total + (byte << 24 >> 24), 0)
    signed.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
    const source = await open(Buffer.concat([
      pax({ comment: 'of all', 'SCHILY.x': 'a=b\nc' }, 'g'), member('folder/', '', { type: '5', size: octal(4096) }), signed,
      member('l.jpg', '', { type: '2', size: octal(77) }), member('h.jpg', '', { type: '1', size: octal(77) }),
      member('/abs/0.jpg', '1'), member('../up/0.jpg', '2'), member('empty.jpg', ''), member('7.jpg', '3', { type: '7' }),
      member('nul.jpg', '4', { type: '\0' }), member('x.jpg', '5', { prefix: 'p' }), member('gnu.jpg', '6', { magic: 'ustar  \0', prefix: 'times' }),
      member('K', 'where it leads\0', { type: 'K' }), member('z.jpg', '7'), member('future.jpg', 'skipped', { type: 'Q' }), member('9.jpg', '8'), END
    ]))
    expect(filesOf(source).map((name) => name.slice('a.tar/'.length))).toEqual([
      'é.jpg', '/abs/0.jpg', '../up/0.jpg', 'empty.jpg', '7.jpg', 'nul.jpg', 'p/x.jpg', 'gnu.jpg', 'z.jpg', '9.jpg'
    ])
    expect(await contentsOf(source)).toEqual(['old', '1', '2', '', '3', '4', '5', '6', '7', '8'])
    await expect(decodeCrops(await namedContent(source, 3), [], { width: 1, height: 1 })).rejects.toThrow("Cannot use the image 'a.tar/empty.jpg': the file is empty")
  })
})

describe('expandBraces', () => {
  it.each<[string, string[]]>([
    ['a.tar', ['a.tar']],
    ['p-{8..11}.tar', ['p-8.tar', 'p-9.tar', 'p-10.tar', 'p-11.tar']],
    ['p-{08..11}', ['p-08', 'p-09', 'p-10', 'p-11']],
    ['p-{0..010..5}', ['p-000', 'p-005', 'p-010']],
    ['{2..0}', ['2', '1', '0']],
    ['{-1..1}', ['-1', '0', '1']],
    ['{a,bc,}-{0..1}/{x,y}', ['a-0/x', 'a-0/y', 'a-1/x', 'a-1/y', 'bc-0/x', 'bc-0/y', 'bc-1/x', 'bc-1/y', '-0/x', '-0/y', '-1/x', '-1/y']],
    ['{a}-{}-{a..c}-{0..}', ['{a}-{}-{a..c}-{0..}']],
    ['C:\\d\\{0..1}.tar', ['C:\\d\\0.tar', 'C:\\d\\1.tar']]
  ])('%s', (pattern, paths) => {
    expect(expandBraces(pattern)).toEqual(paths)
  })
})

describe('openImages of shards', () => {
  const files = (first: number, count: number) => tar(Array.from({ length: count }, (_, i) => [`${first + i}.jpg`, `image ${first + i}`] as const))

  it('takes a shard, a pattern, or a folder of them', async () => {
    const folder = await folderWith({ 'p-00.tar': files(0, 3), 'p-01.tar': tar([]), 'p-02.tar': files(3, 2), 'q.tar': files(5, 1), 'notes.txt': '' })
    const expected = [0, 1, 2, 3, 4].map((i) => `p-0${i < 3 ? 0 : 2}.tar/${i}.jpg`)
    const pattern = (await openImages(join(folder, 'p-{00..02}.tar'))) as EncodedSource
    expect(filesOf(pattern)).toEqual(expected)
    expect([...pattern.blocks!]).toEqual([0, 3])
    const whole = (await openImages(folder)) as EncodedSource
    expect([filesOf(whole), [...whole.blocks!], whole.path]).toEqual([[...expected, 'q.tar/5.jpg'], [0, 3, 5], folder])
    expect(await contentsOf(whole)).toEqual([0, 1, 2, 3, 4, 5].map((i) => `image ${i}`))
    const listed = await openImages(join(folder, '{q,p-00}.tar'))
    expect(filesOf(listed)).toEqual(['q.tar/5.jpg', 'p-00.tar/0.jpg', 'p-00.tar/1.jpg', 'p-00.tar/2.jpg'])
    expect(filesOf(await openImages(join(folder, 'q.tar')))).toEqual(['q.tar/5.jpg'])
    expect(() => whole.content(6)).toThrow(/from 0 to 5 for index, received 6/)
    expect(() => whole.name(-1)).toThrow(/from 0 to 5 for index/)
  })

  it('names shards by their paths where their file names are the same', async () => {
    const folder = await folderWith({ 'a/0.tar': files(0, 1), 'b/0.tar': files(1, 1) })
    expect(filesOf(await openImages(join(folder, '{a,b}/0.tar')))).toEqual([join(folder, 'a/0.tar/0.jpg'), join(folder, 'b/0.tar/1.jpg')])
  })

  it('prefers a file that has braces in its name', async () => {
    const folder = await folderWith({ 'p-{0..1}.tar': files(0, 1) })
    expect(filesOf(await openImages(join(folder, 'p-{0..1}.tar')))).toEqual(['p-{0..1}.tar/0.jpg'])
  })

  it('takes a limit, the smaller a part of the larger, and parts', async () => {
    const folder = await folderWith({ '0.tar': files(0, 20), '1.tar': files(20, 20) })
    const [few, more] = await Promise.all([5, 15].map((limit) => openImages(folder, { limit })))
    expect(filesOf(more!)).toEqual(expect.arrayContaining(filesOf(few!)))
    const some = selectImages(await openImages(folder), [1, 2, 25, 3]) as EncodedSource
    expect([...some.blocks!]).toEqual([0, 2, 3])
    expect(await contentsOf(some)).toEqual(['image 1', 'image 2', 'image 25', 'image 3'])
  })

  it('takes images before shards, as folders were always read', async () => {
    const folder = await folderWith({ 'a.tar': files(0, 2), 'sub/0.png': '' })
    expect(filesOf(await openImages(folder))).toEqual(['sub/0.png'])
  })

  it.each<[string, RegExp]>([
    ['p.tar', /^Expected a shard that exists for images '.*p\.tar', received 'nothing of that name'$/],
    ['p-{0..2}.tar', /^Expected a shard that can be read for '.*p-1\.tar', received 'nothing of that name'$/],
    ['packed.tar.gz', /^Expected an unpacked tar file \(in one packed by gzip no image can be read alone; unpack it: gunzip\) for a shard/],
    ['packed', /^Expected an unpacked tar file \(in one packed by gzip/],
    ['{q,q}.tar', /^Expected each shard once for the shards, received '.*q.tar' twice'$/],
    ['p-{0..99999999}.tar', /^Expected at most 1000000 shards/]
  ])('refuses %s', async (path, message) => {
    const folder = await folderWith({ 'p-0.tar': files(0, 1), 'q.tar': files(0, 1), 'packed.tar.gz': '', 'packed/x.tgz': '' })
    await expect(openImages(join(folder, path))).rejects.toThrow(message)
  })

  it('refuses addresses of other kinds', async () => {
    await expect(openImages('s3://bucket/photos-{0..1}.tar')).rejects.toThrow(/a local path or an address of http or https for a shard, received 's3:/)
    await expect(openImages('https://me:secret@host/p.tar')).rejects.toThrow(/an address without user name and password .* received 'https:\/\/host\/p.tar'$/)
    await expect(openImages('http://host:bad/p.tar')).rejects.toThrow(/an address for a shard/)
    await expect(openImages('https://host/p.tar.gz?secret=1')).rejects.toThrow(/packed by gzip .* received 'https:\/\/host\/p.tar.gz'$/)
  })

  it('gives the pixels of the same images in a folder', async () => {
    const folder = await folderWith()
    await mkdir(join(folder, 'images'))
    for (let i = 0; i < 6; i++) {
      const image = paint(30 + i, 20, (x, y) => [8 * x, 12 * y, 40 * i])
      await (i % 2 ? image.png() : image.jpeg()).toFile(join(folder, `images/${i}.${i % 2 ? 'png' : 'jpg'}`))
    }
    await run('tar', ['--sort=name', '-cf', '../a.tar', '.'], { cwd: join(folder, 'images') })
    const [packed, loose] = await Promise.all([openImages(join(folder, 'a.tar')), openImages(join(folder, 'images'))])
    const pixels = async (source: EncodedSource, index: number) =>
      decodeCrops(await namedContent(source, index), (width, height) => [{ left: 0, top: 0, width, height }], { width: 24, height: 16 })
    expect(packed.length).toBe(6)
    for (let i = 0; i < 6; i++) expect(await pixels(packed as EncodedSource, i)).toEqual(await pixels(loose as EncodedSource, i))
  })

  it('tells of a shard that became shorter since', async () => {
    const path = await shard(files(0, 3))
    const source = (await openImages(path)) as EncodedSource
    const short = (await readFile(path)).subarray(0, 600)
    await writeFile(`${path}.new`, short)
    await rename(`${path}.new`, path)
    expect((await contentsOf(selectImages(source, [0]) as EncodedSource))[0]).toBe('image 0')
    await expect(contentsOf(source)).rejects.toThrow(/Cannot use the image 'a.tar\/[12].jpg': the file is cut short/)
  })
})
