import type { LimitFunction } from 'p-limit'
import { lastAtMost } from '../search.js'
import type { HttpFile } from './http.js'
import type { ShardImages } from './samples.js'
import { SharedWork } from './shared.js'

type Bytes = Uint8Array<ArrayBuffer>

type Places = Pick<ShardImages, 'offsets' | 'lengths'>

/** Some neighbouring images that came in one answer, without those that have been asked for since. */
interface Piece {
  readonly waiting: Map<number, Bytes>
  /** How many there were. */
  readonly images: number
  drop(): void
}

/** Where of an answer less than this part was of use, it is not worth asking for more than an image. */
const WORTHWHILE = 0.5
/** Every so often it is tried again. */
const TRIAL = 64
/** As many pieces decide what is expected of the next. */
const MEMORY = 16

const bytesOf = (piece: Piece): number => [...piece.waiting.values()].reduce((sum, bytes) => sum + bytes.length, 0)

/**
 * Images that came before they were asked for, of all shards of a source. An image is handed out once and is then forgotten: an epoch asks
 * for none twice. So in steady state there are as many as the order's shuffle buffer holds. Beyond the limit the oldest pieces go.
 */
export class Shelf {
  readonly #pieces = new Set<Piece>()
  #bytes = 0
  /** The part of a piece that was asked for before it went: a running mean. */
  #use = 1
  #refused = 0

  /** @param limit - Bytes. */
  constructor(private readonly limit: number) {}

  get bytes(): number {
    return this.#bytes
  }

  /** Whether to ask for a whole piece: not if few of its images were wanted lately (a small part of a source), or went before they were. */
  get worthwhile(): boolean {
    return this.#use >= WORTHWHILE || ++this.#refused % TRIAL === 0
  }

  add(piece: Piece): void {
    this.#pieces.add(piece)
    this.#bytes += bytesOf(piece)
    for (const oldest of this.#pieces) {
      if (this.#bytes <= this.limit) break
      this.#remove(oldest)
    }
  }

  take(piece: Piece, image: number): Bytes | null {
    const bytes = piece.waiting.get(image)
    if (bytes === undefined) return null
    piece.waiting.delete(image)
    this.#bytes -= bytes.length
    if (piece.waiting.size === 0) this.#remove(piece)
    return bytes
  }

  #remove(piece: Piece): void {
    this.#use += (1 - piece.waiting.size / piece.images - this.#use) / MEMORY
    this.#bytes -= bytesOf(piece)
    this.#pieces.delete(piece)
    piece.drop()
  }
}

/** The first image of each piece: neighbours that come in one answer of at most so many bytes, without large gaps between them. */
function cutPieces({ offsets, lengths }: Places, pieceBytes: number): Int32Array {
  const firsts: number[] = []
  let begin = -Infinity
  let end = -Infinity
  for (const [image, offset] of offsets.entries()) {
    const last = offset + lengths[image]!
    if (last - begin > pieceBytes || offset - end > pieceBytes / 16) {
      firsts.push(image)
      begin = offset
    }
    end = last
  }
  return Int32Array.from(firsts)
}

export interface ReadAheadOptions {
  readonly shelf: Shelf
  /** How many requests go at a time, of all shards of a source. */
  readonly limit: LimitFunction
  /** What is asked for at once, at most, but an image that is larger. */
  readonly pieceBytes: number
}

/**
 * The images of a shard on a server. Who asks for an image gets it alone; who then asks for one near it gets it with all its neighbours,
 * for those who come later: a sample from here and there costs no more than its images, an epoch one request more for every piece.
 */
export class RemoteShard {
  readonly #firsts: Int32Array
  readonly #pieces = new Map<number, Piece>()
  readonly #loading = new Map<number, SharedWork<void>>()
  /** Of a piece the image that was asked for alone. */
  readonly #alone = new Map<number, number>()

  constructor(private readonly file: HttpFile, private readonly images: Places, private readonly options: ReadAheadOptions) {
    this.#firsts = cutPieces(images, options.pieceBytes)
  }

  async content(image: number, signal?: AbortSignal): Promise<Bytes> {
    signal?.throwIfAborted()
    const number = lastAtMost(this.#firsts, image)
    const there = this.#take(number, image)
    if (there) return there
    const loading = this.#loadingOf(number, image)
    if (loading) {
      await loading.wait(signal)
      const come = this.#take(number, image)
      if (come) return come
    }
    const { offsets, lengths } = this.images
    return this.#read(offsets[image]!, lengths[image]!).wait(signal)
  }

  #take(number: number, image: number): Bytes | null {
    const piece = this.#pieces.get(number)
    return piece ? this.options.shelf.take(piece, image) : null
  }

  /** The request for a piece, if it is under way or should be. */
  #loadingOf(number: number, image: number): SharedWork<void> | null {
    const loading = this.#loading.get(number)
    if (loading && !loading.abandoned) return loading
    // What is not there any more was handed out.
    if (this.#pieces.has(number)) return null
    const alone = this.#alone.get(number)
    if (alone === undefined || alone === image || !this.options.shelf.worthwhile) {
      this.#alone.set(number, image)
      return null
    }
    this.#alone.delete(number)
    return this.#load(number, alone)
  }

  #load(number: number, alone: number): SharedWork<void> {
    const work: SharedWork<void> = new SharedWork(async (signal) => {
      try {
        this.#keep(number, await this.#fetchPiece(number, alone, signal))
      } finally {
        if (this.#loading.get(number) === work) this.#loading.delete(number)
      }
    })
    this.#loading.set(number, work)
    return work
  }

  async #fetchPiece(number: number, alone: number, signal: AbortSignal): Promise<Map<number, Bytes>> {
    const [first, end] = [this.#firsts[number]!, this.#firsts[number + 1] ?? this.images.offsets.length]
    const { offsets, lengths } = this.images
    const begin = offsets[first]!
    const bytes = await this.#read(begin, offsets[end - 1]! + lengths[end - 1]! - begin).wait(signal)
    const waiting = new Map<number, Bytes>()
    for (let image = first; image < end; image++) {
      // Copies: the whole answer would stay as long as one of its images.
      if (image !== alone) waiting.set(image, bytes.slice(offsets[image]! - begin, offsets[image]! - begin + lengths[image]!))
    }
    return waiting
  }

  // By itself, or what the piece refers to would keep the answer that it came in.
  #keep(number: number, waiting: Map<number, Bytes>): void {
    const piece = { waiting, images: waiting.size, drop: () => this.#pieces.delete(number) }
    this.#pieces.set(number, piece)
    this.options.shelf.add(piece)
  }

  #read(offset: number, length: number): SharedWork<Bytes> {
    return new SharedWork((signal) => this.options.limit(() => {
      signal.throwIfAborted()
      return this.file.read({ offset, length }, signal)
    }))
  }
}
