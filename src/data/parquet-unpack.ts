import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import type { Chunk } from './parquet-file.js'

/** A page as it is stored. */
export interface PackedPage {
  readonly codec: Chunk['codec']
  readonly bytes: Uint8Array<ArrayBuffer>
  /** Bytes in front that are not packed. */
  readonly plain: number
  /** Length of the rest once it is unpacked. */
  readonly size: number
  /** CRC-32 of all bytes, if the page has one. */
  readonly crc: number | null
}

/** The ways of packing that are known. */
export const codecs: readonly Chunk['codec'][] = ['UNCOMPRESSED', 'SNAPPY', 'GZIP', 'ZSTD', 'BROTLI', 'LZ4', 'LZ4_RAW']

const modules = createRequire(import.meta.url)

// A text, as the thread has to run from source and from what is published. Node's own unpackers come first; zstd is among them since 22.15.
// A limit keeps a damaged page from unpacking to gigabytes.
const program = (): string => `
  import * as zlib from 'node:zlib'
  import { parentPort } from 'node:worker_threads'
  import { compressors } from '${pathToFileURL(modules.resolve('hyparquet-compressors')).href}'
  const own = (unpack) => unpack && ((bytes, size) => unpack(bytes, { maxOutputLength: Math.max(1, size) }))
  const unpackers = {
    ...compressors, UNCOMPRESSED: (bytes) => bytes, GZIP: own(zlib.gunzipSync), BROTLI: own(zlib.brotliDecompressSync),
    ZSTD: own(zlib.zstdDecompressSync) ?? ((bytes) => compressors.ZSTD(bytes))
  }
  function unpack({ codec, bytes, plain, size, crc }) {
    if (crc !== null && zlib.crc32(bytes) !== crc >>> 0) throw new Error('its checksum is another')
    const packed = bytes.subarray(plain)
    const body = size === 0 && packed.length === 0 ? packed : unpackers[codec](packed, size)
    if (body?.length !== size) throw new Error('it unpacks to another length')
    // What is handed over is handed over with all of its memory.
    return body.byteLength === body.buffer.byteLength ? body : body.slice()
  }
  parentPort.on('message', ({ id, page }) => {
    try {
      const body = unpack(page)
      parentPort.postMessage({ id, body }, [body.buffer])
    } catch (error) {
      parentPort.postMessage({ id, reason: String(error?.message ?? error) })
    }
  })
`

interface Job {
  readonly resolve: (body: Uint8Array<ArrayBuffer>) => void
  readonly reject: (error: Error) => void
}

type Answer = { readonly id: number; readonly body: Uint8Array<ArrayBuffer> } | { readonly id: number; readonly reason: string }

/** No page takes so long, in milliseconds; a damaged one might never be done. */
const LONGEST = 60_000

/** A thread that unpacks one page after the other. A page of 100 MB takes a tenth of a second, for which nothing else could go on here. */
class Unpacker {
  readonly #jobs = new Map<number, Job>()
  readonly #worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program())}`))
  #count = 0
  #timer: NodeJS.Timeout | null = null

  /** @param onEnd - Called once, when it can unpack no more. */
  constructor(readonly onEnd: (ended: Unpacker) => void) {
    this.#worker.on('message', (answer: Answer) => this.#answer(answer))
    this.#worker.on('error', (error: Error) => this.#end(error))
    this.#worker.on('exit', () => this.#end(new Error('the thread that unpacks has ended')))
    this.#worker.unref()
  }

  unpack(page: PackedPage): Promise<Uint8Array<ArrayBuffer>> {
    return new Promise((resolve, reject) => {
      const id = this.#count++
      this.#jobs.set(id, { resolve, reject })
      this.#worker.ref()
      this.#watch()
      this.#worker.postMessage({ id, page }, [page.bytes.buffer])
    })
  }

  #answer(answer: Answer): void {
    const job = this.#jobs.get(answer.id)
    this.#jobs.delete(answer.id)
    this.#watch()
    if (this.#jobs.size === 0) this.#worker.unref()
    if ('body' in answer) job?.resolve(answer.body)
    else job?.reject(new Error(answer.reason))
  }

  /** The time counts anew from each answer. */
  #watch(): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = this.#jobs.size === 0 ? null : setTimeout(() => void this.#worker.terminate(), LONGEST).unref()
  }

  #end(error: Error): void {
    this.onEnd(this)
    for (const { reject } of this.#jobs.values()) reject(error)
    this.#jobs.clear()
    this.#watch()
  }
}

let unpacker: Unpacker | null = null

/**
 * Unpacks a page in a thread of its own, which is started with the first and does not keep the process alive.
 *
 * @param page - Its bytes are taken away.
 * @throws Error for a page that is damaged.
 */
export function unpackPage(page: PackedPage): Promise<Uint8Array<ArrayBuffer>> {
  if (page.codec === 'UNCOMPRESSED' && page.crc === null) {
    const body = page.bytes.subarray(page.plain)
    return body.length === page.size ? Promise.resolve(body) : Promise.reject(new Error('it has another length'))
  }
  unpacker ??= new Unpacker((ended) => { if (unpacker === ended) unpacker = null })
  return unpacker.unpack(page)
}
