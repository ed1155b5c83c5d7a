import { chmod, mkdir, readdir, readFile, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

import { ListingCache, openImages, type Random, randomFor } from '../../src/data/index.js'
import { openFolder } from '../../src/data/folder.js'
import { filesOf, folderWith } from './support.js'

// Folders that were changed in the last two seconds are not trusted: without this each test would have to wait for them.
beforeEach(() => {
  const now = Date.now.bind(Date)
  vi.spyOn(Date, 'now').mockImplementation(() => now() + 60_000)
})
afterEach(() => void vi.restoreAllMocks())

/** Longer than a file system's clock goes from one tick to the next. */
const tick = () => wait(20)

const cached = async (path: string, cache: ListingCache) => {
  const source = await openFolder(path, cache)
  await cache.save()
  return [filesOf(source), source.unreadable, source.classes]
}
const anew = async (path: string) => {
  const source = await openFolder(path)
  return [filesOf(source), source.unreadable, source.classes]
}

async function twoFolders() {
  const path = await folderWith({ 'cat/a.png': '', 'dog/old/b.png': '', 'dog/c.png': '' })
  const index = join(await folderWith(), 'index')
  await tick()
  const notices: string[] = []
  const cache = () => new ListingCache(index, (message) => notices.push(message), 1)
  const file = async () => join(index, (await readdir(index))[0]!)
  return { path, index, notices, cache, file }
}

/** Replaces text in a listing, and keeps its checksum right: what comes back then shows whether it was believed. */
async function edit(file: string, from: string, to: string): Promise<void> {
  const [header, ...lines] = (await readFile(file, 'utf8')).replaceAll(from, to).split('\n')
  const text = lines.join('\n')
  const [format, path] = JSON.parse(header!) as [string, string, number]
  await writeFile(file, `${JSON.stringify([format, path, crc32(text)])}\n${text}`)
}

describe('the listing of a folder', () => {
  it('is believed as long as its folders are as they were, and each for itself', async () => {
    const { path, cache, file, notices } = await twoFolders()
    expect(await cached(path, cache())).toEqual(await anew(path))
    await edit(await file(), 'a.png', 'invented.png')
    await edit(await file(), 'c.png', 'forgotten.png')
    expect((await cached(path, cache()))[0]).toEqual(['cat/invented.png', 'dog/forgotten.png', 'dog/old/b.png'])
    await writeFile(join(path, 'dog/d.png'), '')
    expect((await cached(path, cache()))[0]).toEqual(['cat/invented.png', 'dog/c.png', 'dog/d.png', 'dog/old/b.png'])
    expect(notices).toEqual([])
    // The folder of images is not told by its files: nothing was added, renamed or removed.
    await writeFile(join(path, 'cat/a.png'), 'other content')
    expect((await cached(path, cache()))[0]).toContain('cat/invented.png')
  })

  it('is not believed where the time of a folder was set back, or its rights changed', async () => {
    const { path, cache, file } = await twoFolders()
    await utimes(join(path, 'cat'), 1e9, 1e9)
    await tick()
    await cached(path, cache())
    await edit(await file(), 'a.png', 'invented.png')
    await writeFile(join(path, 'cat/new.png'), '')
    await utimes(join(path, 'cat'), 1e9, 1e9)
    expect(await cached(path, cache())).toEqual(await anew(path))
    await edit(await file(), 'a.png', 'invented.png')
    await tick()
    await chmod(join(path, 'cat'), 0o700)
    expect(await cached(path, cache())).toEqual(await anew(path))
  })

  it('is not kept of folders that were changed just before', async () => {
    vi.restoreAllMocks()
    const { path, cache, file } = await twoFolders()
    await cached(path, cache())
    expect((await readFile(await file(), 'utf8')).split('\n')).toEqual([expect.stringContaining('listing'), ''])
  })

  it('is written once, and then only if something is new', async () => {
    const { path, cache, index, file } = await twoFolders()
    await openFolder(path, cache())
    await expect(readdir(index)).rejects.toThrow(/ENOENT/)
    await cached(path, cache())
    const before = await readFile(await file())
    await writeFile(await file(), Buffer.concat([before]))
    await utimes(await file(), 1, 1)
    await cached(path, cache())
    expect((await readFile(await file())).equals(before)).toBe(true)
    await rm(join(path, 'cat'), { recursive: true })
    await cached(path, cache())
    expect(await readFile(await file(), 'utf8')).not.toMatch(/a\.png/)
    expect(await readdir(index)).toHaveLength(1)
  })

  it('is kept only of folders with many images', async () => {
    const { path, index } = await twoFolders()
    await cached(path, new ListingCache(index, undefined, 4))
    await expect(readdir(index)).rejects.toThrow(/ENOENT/)
    await cached(path, new ListingCache(index))
    await expect(readdir(index)).rejects.toThrow(/ENOENT/)
  })

  it('is left aside with a notice where it is damaged, and then written anew', async () => {
    const { path, cache, file, notices } = await twoFolders()
    await cached(path, cache())
    const whole = await readFile(await file())
    const random = randomFor(0)
    const damages = Array.from({ length: 60 }, (_, i) => {
      const damaged = Buffer.from(whole)
      damaged[random.integer(0, whole.length)]! ^= 1 << random.integer(0, 8)
      return i % 2 ? damaged : damaged.subarray(0, random.integer(0, whole.length))
    })
    for (const damaged of [Buffer.alloc(0), Buffer.from('{}\n'), Buffer.from('[]\n'), ...damages]) {
      if (damaged.equals(whole)) continue
      notices.length = 0
      await writeFile(await file(), damaged)
      expect(await cached(path, cache())).toEqual(await anew(path))
      expect(notices).toEqual([expect.stringMatching(/^The listing '.*\.jsonl' cannot be used \(.*\): '.*' is listed anew$/)])
      expect(await readFile(await file())).toEqual(whole)
    }
  })

  it('of an image folder spares looking for packed files, which are found where they come', async () => {
    const { path, cache } = await twoFolders()
    const own = cache()
    await openImages(path, { cache: own })
    await own.save()
    expect(await cache().knows(path)).toBe(true)
    expect((await openImages(path, { cache: cache() })).length).toBe(3)
    await tick()
    await writeFile(join(path, 'train.parquet'), 'no table')
    await expect(openImages(path, { cache: cache() })).rejects.toThrow(/a whole Parquet file/)
  })

  it('gives the same as without it, whatever is changed', async () => {
    const { path, cache } = await twoFolders()
    const elsewhere = await folderWith({ 'x.png': '', 'sub/y.png': '', 'z.txt': '' })
    const random = randomFor(7, 'tree')
    for (let round = 0; round < 60; round++) {
      expect(await cached(path, cache()), `round ${round}`).toEqual(await anew(path))
      await tick()
      for (let changes = random.integer(0, 4); changes > 0; changes--) await change(path, elsewhere, random)
    }
  }, 60_000)
})

const names = ['a.png', 'b.jpg', 'c', 'd.txt', 'e.png', '.f.png']

/** Some path in the tree, which may be there or not. */
const somewhere = (random: Random): string => Array.from({ length: random.integer(1, 4) }, () => names[random.integer(0, names.length)]!).join('/')

async function change(path: string, elsewhere: string, random: Random): Promise<void> {
  const place = join(path, somewhere(random))
  const targets = [join(elsewhere, 'x.png'), join(elsewhere, 'sub'), join(elsewhere, 'nowhere.png'), path, '.']
  const changes = [
    () => writeFile(place, ''),
    () => mkdir(place, { recursive: true }),
    () => rm(place, { recursive: true, force: true }),
    () => rename(place, join(path, somewhere(random))),
    () => symlink(targets[random.integer(0, targets.length)]!, place),
    // What links lead to comes, goes and becomes something else.
    () => (random.chance(0.5) ? writeFile(join(elsewhere, 'nowhere.png'), '') : rm(join(elsewhere, 'nowhere.png'), { force: true })),
    () => (random.chance(0.5) ? mkdir(join(elsewhere, 'x.png')) : rm(join(elsewhere, 'x.png'), { recursive: true, force: true })),
    () => writeFile(join(elsewhere, 'sub', names[random.integer(0, names.length)]!), '')
  ]
  // Some of them cannot be done where they are tried.
  await changes[random.integer(0, changes.length)]!().catch(() => undefined)
}
