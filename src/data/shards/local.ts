import { constants, read as readFile } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { promisify } from 'node:util'
import pLimit from 'p-limit'
import { expected } from '../../errors.js'
import { SampleReader, type ShardImages } from './samples.js'
import { type ByteRange, walkTar } from './tar.js'

/** Read at once: the header of an image, and before it the description of the one before. */
const WINDOW = 4096

/**
 * Shards read at a time. A header is found by the one before it, so of a single shard one read follows the other, and a disk or a server of
 * files has nothing to do between them.
 */
const SHARDS = 16

// The handle's own method takes longer than the read.
const read = promisify(readFile)

/** Bytes of a file, by way of a part of it that is in memory. */
class FileWindow {
  #start = 0
  #bytes: Buffer
  readonly #buffer = Buffer.allocUnsafe(WINDOW)

  constructor(private readonly file: FileHandle) {
    this.#bytes = this.#buffer.subarray(0, 0)
  }

  /** Fewer bytes than asked for at the end of the file. They are good until the next call. */
  async read({ offset, length }: ByteRange): Promise<Buffer> {
    if (length > WINDOW) return this.#fill(Buffer.allocUnsafe(length), offset)
    const held = this.held({ offset, length })
    if (held) return held
    this.#bytes = await this.#fill(this.#buffer, offset)
    this.#start = offset
    return this.#bytes.subarray(0, length)
  }

  /** As {@link read}, of what is in memory; null if not all of it is. */
  held({ offset, length }: ByteRange): Buffer | null {
    const first = offset - this.#start
    return first >= 0 && first + length <= this.#bytes.length ? this.#bytes.subarray(first, first + length) : null
  }

  async #fill(buffer: Buffer, offset: number): Promise<Buffer> {
    let filled = 0
    while (filled < buffer.length) {
      const { bytesRead } = await read(this.file.fd, buffer, filled, buffer.length - filled, offset + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return buffer.subarray(0, filled)
  }
}

async function indexFile(path: string, shard: string): Promise<ShardImages> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK) // a pipe would be waited for without end
  const stat = await file.stat()
  if (!stat.isFile()) throw expected('a tar file', `shard '${shard}'`, 'no file')
  const window = new FileWindow(file)
  const samples = new SampleReader(shard)
  const walk = walkTar(shard, stat.size, samples.visit)
  let step = walk.next()
  while (!step.done) step = walk.next(window.held(step.value) ?? (await window.read(step.value)))
  return samples.finish()
}

/**
 * The images of local shards. Of each image the header is read and the content is leapt over, of some shards at a time.
 *
 * @throws InputError for the first shard that cannot be read, in the order of `paths`.
 */
export async function indexFiles(paths: readonly string[], names: readonly string[]): Promise<ShardImages[]> {
  const limit = pLimit(SHARDS)
  let failed = false
  const settled = await Promise.allSettled(paths.map((path, i) => limit(async () => {
    // Those before it have begun: the first in order that failed is among them.
    if (failed) throw new Error('not read')
    try {
      return await indexFile(path, names[i]!)
    } catch (error) {
      failed = true
      const { code } = error as NodeJS.ErrnoException
      if (code === undefined) throw error
      throw expected('a shard that can be read', `'${path}'`, code === 'ENOENT' ? 'nothing of that name' : code)
    }
  })))
  return settled.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason
    return outcome.value
  })
}
