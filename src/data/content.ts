import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { BrokenImageError } from './broken.js'

/** Where the bytes of an encoded image are: a file, or a part of one. */
export interface FilePart {
  readonly path: string
  /** The first byte; default 0. */
  readonly offset?: number
  /** How many bytes; default: all that follow. */
  readonly length?: number
}

/** An encoded image: its place, or its bytes themselves. */
export type Content = FilePart | Uint8Array<ArrayBuffer>

const isBytes = (content: Content): content is Uint8Array<ArrayBuffer> => content instanceof Uint8Array

/** Larger files are no images that anybody trains on, and more than one read gives. */
const LARGEST = 2 ** 31 - 1

/** The part that is to be read of a file. */
function partOf({ offset = 0, length }: FilePart, stat: { isFile(): boolean; size: number }, name: string): { offset: number; length: number } {
  // A pipe would be waited for without end.
  if (!stat.isFile()) throw new BrokenImageError(name, 'it is no file')
  const found = length ?? stat.size - offset
  if (offset + found > stat.size) throw new BrokenImageError(name, 'the file is cut short')
  if (found > LARGEST) throw new BrokenImageError(name, 'the file has 2 GiB or more')
  return { offset, length: found }
}

function unreadable(error: unknown, name: string): BrokenImageError {
  if (error instanceof BrokenImageError) return error
  const { code } = error as NodeJS.ErrnoException
  // Such a name comes from a list of files with a replacement character, under which there is no file.
  const misnamed = code === 'ENOENT' && name.includes('\ufffd')
  return new BrokenImageError(name, misnamed ? 'its name is not in UTF-8' : `the file cannot be read (${code})`, { cause: error })
}

function complete(bytes: Uint8Array<ArrayBuffer>, read: number, name: string): Uint8Array<ArrayBuffer> {
  if (read < bytes.length) throw new BrokenImageError(name, 'the file is cut short')
  return bytes
}

// O_NONBLOCK, or opening a pipe would wait for somebody who writes.
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK

/** The bytes of an image. @throws BrokenImageError if its file cannot be read. */
export async function readContent(content: Content, name: string): Promise<Uint8Array<ArrayBuffer>> {
  if (isBytes(content)) return content
  try {
    await using file = await open(content.path, FLAGS)
    const { offset, length } = partOf(content, await file.stat(), name)
    const bytes = new Uint8Array(length)
    const { bytesRead } = await file.read(bytes, 0, length, offset)
    return complete(bytes, bytesRead, name)
  } catch (error) {
    throw unreadable(error, name)
  }
}

/** {@link readContent} on the calling thread, which waits. */
export function readContentSync(content: Content, name: string): Uint8Array<ArrayBuffer> {
  if (isBytes(content)) return content
  try {
    const file = openSync(content.path, FLAGS)
    try {
      const { offset, length } = partOf(content, fstatSync(file), name)
      const bytes = new Uint8Array(length)
      return complete(bytes, length > 0 ? readSync(file, bytes, 0, length, offset) : 0, name)
    } finally {
      closeSync(file)
    }
  } catch (error) {
    throw unreadable(error, name)
  }
}
