import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { setImmediate as breathe } from 'node:timers/promises'
import { expected } from '../../errors.js'
import { SampleReader, type ShardImages } from './samples.js'
import { type ByteRange, walkTar } from './tar.js'

/** Read at once: the header of an image, and before it the description of the one before. */
const WINDOW = 4096

/** Bytes of a file, by way of a part of it that is in memory. */
class FileWindow {
  #start = 0
  #bytes: Buffer
  readonly #buffer = Buffer.allocUnsafe(WINDOW)

  constructor(private readonly file: number) {
    this.#bytes = this.#buffer.subarray(0, 0)
  }

  /** Fewer bytes than asked for at the end of the file. They are good until the next call. */
  read({ offset, length }: ByteRange): Buffer {
    const first = offset - this.#start
    if (first >= 0 && first + length <= this.#bytes.length) return this.#bytes.subarray(first, first + length)
    if (length > WINDOW) return this.#fill(Buffer.allocUnsafe(length), offset)
    this.#bytes = this.#fill(this.#buffer, offset)
    this.#start = offset
    return this.#bytes.subarray(0, length)
  }

  #fill(buffer: Buffer, offset: number): Buffer {
    let filled = 0
    while (filled < buffer.length) {
      const read = readSync(this.file, buffer, filled, buffer.length - filled, offset + filled)
      if (read === 0) break
      filled += read
    }
    return buffer.subarray(0, filled)
  }
}

function indexFile(path: string, shard: string): ShardImages {
  const file = openSync(path, 'r')
  try {
    const stat = fstatSync(file)
    if (!stat.isFile()) throw expected('a tar file', `shard '${shard}'`, 'no file')
    const window = new FileWindow(file)
    const samples = new SampleReader(shard)
    const walk = walkTar(shard, stat.size, samples.visit)
    let step = walk.next()
    while (!step.done) step = walk.next(window.read(step.value))
    return samples.finish()
  } finally {
    closeSync(file)
  }
}

/**
 * The images of local shards. Of each image the header is read and the content is leapt over. The calling thread reads, since a read is far
 * shorter than the way to another thread and back, and other work may have its turn after each shard.
 */
export async function indexFiles(paths: readonly string[], names: readonly string[]): Promise<ShardImages[]> {
  const found: ShardImages[] = []
  for (const [i, path] of paths.entries()) {
    try {
      found.push(indexFile(path, names[i]!))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === undefined) throw error
      throw expected('a shard that can be read', `'${path}'`, code === 'ENOENT' ? 'nothing of that name' : code)
    }
    await breathe()
  }
  return found
}
