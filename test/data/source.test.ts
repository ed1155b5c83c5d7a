import { chmod, mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openFolder } from '../../src/data/folder.js'
import { type EncodedSource, openImages } from '../../src/data/index.js'
import { InputError } from '../../src/errors.js'
import { filesOf, folderWith, idx, ramp } from './support.js'

async function openFiles(path: string, limit?: number): Promise<EncodedSource> {
  const source = await openImages(path, { limit })
  if (source.kind !== 'encoded') throw new Error('Not a folder of image files')
  return source
}

describe('openImages', () => {
  it('opens IDX files where there are any, else image files', async () => {
    const folder = await folderWith({ 'images-idx3-ubyte': idx([1, 2, 2], ramp(4)), 'cover.jpg': '' })
    expect(await openImages(folder)).toMatchObject({ kind: 'memory', length: 1 })
    expect(await openImages(await folderWith({ 'cover.jpg': '' }))).toMatchObject({ kind: 'encoded', length: 1, channels: 3 })
  })

  it('says what is wrong with a folder', async () => {
    const folder = await folderWith({ 'file.jpg': 'x', 'notes/read me.txt': 'no image' })
    const refused = async (path: string) => openImages(path).then(() => 'opened', (error: unknown) => {
      expect(error).toBeInstanceOf(InputError)
      return (error as Error).message
    })
    expect(await refused(join(folder, 'absent'))).toMatch(/^Expected a folder that exists for images '.*absent', received 'nothing of/)
    expect(await refused(join(folder, 'file.jpg', 'below'))).toMatch(/folder that exists/)
    expect(await refused(join(folder, 'file.jpg'))).toMatch(
      /^Expected a folder, a list \(csv, jsonl\), a table \(parquet\) or a shard \(tar\), for images '.*file\.jpg', received 'another file'$/
    )
    expect(await refused(join(folder, 'notes'))).toMatch(
      /^Expected image files \(jpg, .*\), IDX, CIFAR or Parquet files, or shards \(tar\) for images '.*', received 'none'$/
    )
    expect(await refused('')).toMatch(/the path of a folder, a list, a table or a shard, .* for images, received ''/)
    await mkdir(join(folder, 'empty'))
    expect(await refused(join(folder, 'empty'))).toMatch(/received 'none'$/)
    await symlink(join(folder, 'nowhere'), join(folder, 'empty', 'x.jpg'))
    expect(await refused(join(folder, 'empty'))).toMatch(/received 'none; 1 entries cannot be read'$/)
    const above = await folderWith({ 'held-out/images-idx3-ubyte': '', 'train/images-idx3-ubyte': '', 'zero/text.txt': '' })
    expect(await refused(above)).toMatch(/received 'none; there are IDX files in its sub-folder train'$/)
  })

  it('refuses wrong options', async () => {
    const folder = await folderWith({ 'a.jpg': '' })
    for (const limit of [0, -1, 1.5, NaN]) await expect(openImages(folder, { limit })).rejects.toThrow(/at least 1 for limit/)
    await expect(openImages(folder, { split: 'validation' as 'test' })).rejects.toThrow(/'train' or 'test' for split/)
  })
})

describe('a folder of image files', () => {
  it('takes files by their ending, in order, without opening them', async () => {
    const names = ['b.JPG', 'a.jpeg', 'c.Png', 'd.webp', 'e.avif', 'f.gif', 'g.tif', 'h.TIFF']
    const others = ['.hidden.jpg', 'x.txt', 'jpg', 'y.jpg.bak', 'z.svg', '.thumbs/a.jpg']
    const source = await openFiles(await folderWith(Object.fromEntries([...names, ...others].map((name) => [name, '']))))
    expect(filesOf(source)).toEqual([...names].sort())
    expect(source).toMatchObject({ classes: null, labels: null, unreadable: [], length: 8 })
    expect(source.name(1)).toBe('b.JPG')
    expect(() => source.name(8)).toThrow(/from 0 to 7 for index, received 8/)
    expect(() => source.content(-1)).toThrow(InputError)
  })

  it('hands on why the folder itself cannot be listed', async () => {
    await expect(openFolder(join(await folderWith(), 'absent'))).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('takes the first sub-folder for the class', async () => {
    const source = await openFiles(await folderWith({ 'dog/1.png': '', 'cat/old/2.png': '', 'cat/1.png': '', 'empty/x.txt': '' }))
    expect(filesOf(source)).toEqual(['cat/1.png', 'cat/old/2.png', 'dog/1.png'])
    expect(source.classes).toEqual(['cat', 'dog'])
    expect(source.labels).toEqual(Int32Array.of(0, 0, 1))
  })

  it('has no classes if some images lie outside of all sub-folders', async () => {
    const source = await openFiles(await folderWith({ 'dog/1.png': '', '1.png': '' }))
    expect(source).toMatchObject({ length: 2, classes: null, labels: null })
  })

  it('walks into a folder that is named like an image', async () => {
    const source = await openFiles(await folderWith({ 'x.jpg/1.png': '', 'y.jpg/2.png': '' }))
    expect(filesOf(source)).toEqual(['x.jpg/1.png', 'y.jpg/2.png'])
    expect(source.classes).toEqual(['x.jpg', 'y.jpg'])
  })

  it('follows links, counts those that lead nowhere, and does not run in circles', async () => {
    const folder = await folderWith({ 'a/1.png': '', 'a/sub/2.png': '' })
    const elsewhere = await folderWith({ '3.png': '' })
    await symlink(elsewhere, join(folder, 'linked'))
    await symlink(join(elsewhere, '3.png'), join(folder, 'a', '4.png'))
    await symlink(join(folder, 'nowhere.jpg'), join(folder, 'a', 'dangling.jpg'))
    await symlink(folder, join(folder, 'a', 'sub', 'circle'))
    await symlink('self.jpg', join(folder, 'self.jpg'))
    const source = await openFiles(folder)
    expect(filesOf(source)).toEqual(['a/1.png', 'a/4.png', 'a/sub/2.png', 'linked/3.png'])
    expect(source.unreadable).toEqual(['a/dangling.jpg', 'a/sub/circle', 'self.jpg'])
  })

  it('follows hundreds of links, each to its own end', async () => {
    const elsewhere = await folderWith({ 'a.png': '', 'text.txt': '', 'sub/b.png': '' })
    const folder = await folderWith()
    const ends = ['a.png', 'nowhere.png', 'sub', 'text.txt']
    const names = Array.from({ length: 700 }, (_, i) => `${String(i).padStart(3, '0')}.png`)
    await Promise.all(names.map((name, i) => symlink(join(elsewhere, ends[i % 4]!), join(folder, name))))
    const source = await openFiles(folder)
    // A link to text counts as what it is called, like a file of that name.
    expect(filesOf(source)).toEqual(names.flatMap((name, i) => (i % 4 === 1 ? [] : [i % 4 === 2 ? `${name}/b.png` : name])))
    expect(source.unreadable).toEqual(names.filter((_, i) => i % 4 === 1))
  })

  it.runIf(process.getuid?.() === 0)('counts sub-folders that may not be read, and refuses such a folder', async () => {
    const folder = await folderWith({ 'open/1.png': '' })
    await chmod(folder, 0o755)
    await mkdir(join(folder, 'closed'), { mode: 0o700 })
    process.seteuid!(65534)
    try {
      const source = await openFiles(folder)
      expect(filesOf(source)).toEqual(['open/1.png'])
      expect(source.unreadable).toEqual(['closed'])
      await expect(openImages(join(folder, 'closed'))).rejects.toThrow(/folder that may be read.*EACCES/)
    } finally {
      process.seteuid!(0)
    }
  })

  it('limits to a fixed choice over all classes that keeps labels and names together', async () => {
    const files = Array.from({ length: 200 }, (_, index) => `${index < 100 ? 'cat' : 'dog'}/${index}.png`)
    const folder = await folderWith(Object.fromEntries(files.map((file) => [file, ''])))
    const source = await openFiles(folder, 40)
    expect(source.length).toBe(40)
    expect(filesOf(source)).toEqual([...new Set(filesOf(source))].sort())
    expect([...source.labels!]).toEqual(filesOf(source).map((file) => (file.startsWith('cat') ? 0 : 1)))
    expect(source.labels!.filter((label) => label === 1).length).toBeGreaterThan(8)
    expect(source.labels!.filter((label) => label === 0).length).toBeGreaterThan(8)
    expect(filesOf(source)).toEqual(filesOf(await openFiles(folder, 40)))
    expect(filesOf(source)).toEqual(expect.arrayContaining([...filesOf(await openFiles(folder, 10))]))
    expect((await openFiles(folder, 1)).classes).toEqual(['cat', 'dog'])
  })
})
