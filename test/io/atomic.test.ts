import { open, readdir, readFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'

import { afterEach, describe, expect, it, vi } from 'vitest'

import { loadSafetensors, saveSafetensors, writeAtomic, writeFileAtomic } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import { temporaryFolder } from '../support/folder.js'

const full = () => Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })

/** The class of file handles, which Node does not export. */
const probe = await open(import.meta.filename)
const handles = Object.getPrototypeOf(probe) as FileHandle
await probe.close()

type Write = (this: FileHandle, ...args: unknown[]) => Promise<never>

/** Every file handle writes by `replacement`, which is given the true function. */
function replaceWrite(replacement: (write: Write, file: FileHandle, args: unknown[]) => Promise<never>): void {
  const write = Reflect.get(handles, 'write') as Write
  vi.spyOn(handles, 'write').mockImplementation(function (this: FileHandle, ...args: unknown[]) {
    return replacement(write, this, args)
  })
}

afterEach(() => {
  vi.restoreAllMocks()
})

describe('a write that fails leaves the earlier file and nothing else', () => {
  async function withEarlier(write: (path: string) => Promise<void>, reason: RegExp) {
    const folder = await temporaryFolder()
    const path = join(folder, 'state')
    await writeFileAtomic(path, 'earlier')
    await expect(write(path)).rejects.toThrow(reason)
    vi.restoreAllMocks()
    expect(await readFile(path, 'utf8')).toBe('earlier')
    expect(await readdir(folder)).toEqual(['state'])
  }

  it('when the callback throws', () => withEarlier((path) => writeAtomic(path, () => Promise.reject(full())), /ENOSPC/))

  it('when the callback throws after a part is written', () =>
    withEarlier((path) => writeAtomic(path, async (file) => {
      await file.write('half of it')
      throw full()
    }), /ENOSPC/))

  it('when the disk is full at the third write of a file of tensors', () =>
    withEarlier((path) => {
      let count = 0
      replaceWrite((write, file, args) => (++count > 2 ? Promise.reject(full()) : write.apply(file, args)))
      return saveSafetensors(path, { a: torch.ones([100]), b: torch.ones([100]) })
    }, /ENOSPC/))

  it('when the data cannot be brought to the disk', () =>
    withEarlier((path) => {
      vi.spyOn(handles, 'sync').mockRejectedValueOnce(Object.assign(new Error('EIO: i/o error, fsync'), { code: 'EIO' }))
      return writeFileAtomic(path, 'later')
    }, /EIO/))

  it('when there is no earlier file', async () => {
    const folder = await temporaryFolder()
    await expect(writeAtomic(join(folder, 'state'), () => Promise.reject(full()))).rejects.toThrow(/ENOSPC/)
    expect(await readdir(folder)).toEqual([])
  })

  it('when the folder is missing', async () => {
    const folder = await temporaryFolder()
    await expect(writeFileAtomic(join(folder, 'none', 'state'), 'x')).rejects.toThrow(/ENOENT/)
    expect(await readdir(folder)).toEqual([])
  })
})

describe('a write', () => {
  it('replaces the earlier file, with text or bytes', async () => {
    const path = join(await temporaryFolder(), 'state')
    await writeFileAtomic(path, 'earlier')
    await writeFileAtomic(path, Uint8Array.of(104, 105))
    expect(await readFile(path, 'utf8')).toBe('hi')
  })

  it('is not seen before it is whole', async () => {
    const folder = await temporaryFolder()
    const path = join(folder, 'state')
    await writeFileAtomic(path, 'earlier')
    await writeAtomic(path, async (file) => {
      await file.write('later')
      expect(await readFile(path, 'utf8')).toBe('earlier')
      expect(await readdir(folder)).toHaveLength(2)
    })
    expect(await readFile(path, 'utf8')).toBe('later')
    expect(await readdir(folder)).toEqual(['state'])
  })

  it('of a disk that takes a few bytes at a time is whole all the same', async () => {
    const path = join(await temporaryFolder(), 'a.safetensors')
    let count = 0
    replaceWrite((write, file, [bytes, offset = 0]) => {
      count++
      return write.call(file, bytes, offset, Math.min(5, (bytes as Uint8Array).length - (offset as number)))
    })
    const tensor = torch.randn([3, 7])
    await saveSafetensors(path, { tensor }, { note: 'x' })
    const { tensors, metadata } = await loadSafetensors(path)
    expect(tensors['tensor']!.equal(tensor)).toBe(true)
    expect(metadata).toEqual({ note: 'x' })
    expect(count).toBeGreaterThan(20)
  })

  it('at the same time as others of the same file leaves one of them whole', async () => {
    const folder = await temporaryFolder()
    const path = join(folder, 'state')
    const texts = Array.from({ length: 8 }, (_, i) => String(i).repeat(10_000))
    await Promise.all(texts.map((text) => writeFileAtomic(path, text)))
    expect(texts).toContain(await readFile(path, 'utf8'))
    expect(await readdir(folder)).toEqual(['state'])
  })
})
