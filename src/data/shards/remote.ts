import { setMaxListeners } from 'node:events'
import pLimit from 'p-limit'
import { HttpFile, type HttpOptions } from './http.js'
import { SampleReader, type ShardImages } from './samples.js'
import { type ByteRange, walkTar } from './tar.js'

/** Shards listed at a time. */
const SHARDS = 8

export interface RemoteIndex {
  readonly file: HttpFile
  readonly images: ShardImages
}

async function indexUrl(url: string, name: string, pieceBytes: number, options: HttpOptions, signal: AbortSignal): Promise<RemoteIndex> {
  const { file, first } = await HttpFile.open(url, pieceBytes, options, signal)
  let [start, bytes] = [0, Buffer.from(first.buffer)]
  const read = async ({ offset, length }: ByteRange): Promise<Buffer> => {
    if (offset < start || offset + length > start + bytes.length) {
      bytes = Buffer.from((await file.read({ offset, length: Math.max(length, pieceBytes) }, signal)).buffer)
      start = offset
    }
    return bytes.subarray(offset - start, offset - start + length)
  }
  const samples = new SampleReader(name)
  const walk = walkTar(name, file.size, samples.visit)
  let step = walk.next()
  while (!step.done) step = walk.next(await read(step.value))
  return { file, images: samples.finish() }
}

/**
 * The images of shards on servers. Some megabytes are asked for at a time, and what lies between headers comes along: an image is shorter
 * than what a server sends in the time of a request for the next header. What is longer than that is leapt over.
 */
export async function indexUrls(
  urls: readonly string[], names: readonly string[], pieceBytes: number, options: HttpOptions
): Promise<RemoteIndex[]> {
  const limit = pLimit(SHARDS)
  const ended = new AbortController()
  setMaxListeners(0, ended.signal)
  try {
    return await Promise.all(urls.map((url, i) => limit(() => {
      ended.signal.throwIfAborted()
      return indexUrl(url, names[i]!, pieceBytes, options, ended.signal)
    })))
  } finally {
    // The first error ends the others.
    ended.abort()
  }
}
