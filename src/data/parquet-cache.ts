import type { Cell, Cells } from './parquet-page.js'

/** An unpacked page. */
export class KeptPage {
  readonly coded: boolean
  #cells: readonly (Cell | undefined)[]
  #taken = new Set<number>()
  #takenBytes = 0
  readonly #forgotten = new Set<number>()

  /** @param bytes - What it takes of the memory. */
  constructor({ cells, coded }: Cells, public bytes: number) {
    this.coded = coded
    this.#cells = cells
  }

  /** The value at a position; undefined if it was forgotten. */
  take(i: number): Cell | undefined {
    const cell = this.#cells[i]
    if (cell === undefined && !this.#forgotten.has(i)) throw new Error('a value is missing')
    if (cell instanceof Uint8Array && !this.#taken.has(i)) {
      this.#taken.add(i)
      this.#takenBytes += cell.length
    }
    return cell
  }

  /** Forgets what was taken, where it is most of the page: the rest is copied, as the memory of a page goes as a whole. */
  forgetTaken(): void {
    if (this.#takenBytes * 2 < this.bytes) return
    const taken = this.#taken
    this.#cells = this.#cells.map((cell, i) => (taken.has(i) ? undefined : cell instanceof Uint8Array ? cell.slice() : cell))
    for (const i of taken) this.#forgotten.add(i)
    this.bytes = Math.max(0, this.bytes - this.#takenBytes)
    this.#taken = new Set()
    this.#takenBytes = 0
  }
}

interface Entry {
  readonly page: Promise<KeptPage>
  kept: KeptPage | null
  /** As they were last counted. */
  bytes: number
}

/** Where the pages of a table are kept. */
export type Pages<Key extends object> = Pick<PageCache<Key>, 'get' | 'forget'>

/** What a table has of a cache that several share. */
interface Part<Key extends object> {
  readonly keys: Set<Key>
  /** Bytes that it wants to keep. */
  readonly wanted: number
}

/**
 * Unpacked pages, up to so many bytes. One that is asked for again meanwhile is read once. An epoch asks for each image once, so what was
 * taken goes first, then the pages that were not used for longest. The last one stays, however large it is.
 */
export class PageCache<Key extends object> {
  readonly #entries = new Map<Key, Entry>()
  #bytes = 0
  #wanted = 0
  /** Tables that nobody holds any more. */
  readonly #ended = new FinalizationRegistry<Part<Key>>((part) => this.#leave(part))

  /** @param least - Bytes that it may have at any time. @param most - Bytes that it has at most, however much its tables want. */
  constructor(readonly least: number, readonly most = least) {}

  /** Bytes that it may have now: what all tables want that share it. */
  get limit(): number {
    return Math.min(Math.max(this.least, this.#wanted), this.most)
  }

  /** Bytes that it has. */
  get bytes(): number {
    return this.#bytes
  }

  /**
   * A table that keeps its pages here, as long as somebody holds what is returned.
   *
   * @param wanted - Bytes that it wants to keep. They are not its own: of all tables the pages that were not used for longest go first.
   */
  share(wanted: number): Pages<Key> {
    const part: Part<Key> = { keys: new Set(), wanted }
    this.#wanted += wanted
    const pages: Pages<Key> = {
      get: (key, bytes, read) => {
        part.keys.add(key)
        return this.get(key, bytes, read)
      },
      forget: (key, page) => this.forget(key, page)
    }
    this.#ended.register(pages, part)
    return pages
  }

  #leave({ keys, wanted }: Part<Key>): void {
    this.#wanted -= wanted
    for (const key of keys) {
      const entry = this.#entries.get(key)
      if (entry) this.#drop(key, entry)
    }
  }

  /** @param bytes - What the page will take of the memory. */
  get(key: Key, bytes: number, read: () => Promise<Cells>): Promise<KeptPage> {
    const known = this.#entries.get(key)
    if (known) {
      this.#entries.delete(key)
      this.#entries.set(key, known)
      return known.page
    }
    const page = read().then((cells) => (entry.kept = new KeptPage(cells, bytes)))
    const entry: Entry = { page, kept: null, bytes }
    this.#entries.set(key, entry)
    this.#bytes += bytes
    page.catch(() => this.#drop(key, entry))
    this.#shrink(key)
    return page
  }

  /** Forgets a page of which something was forgotten that is asked for again. */
  forget(key: Key, page: KeptPage): void {
    const entry = this.#entries.get(key)
    if (entry?.kept === page) this.#drop(key, entry)
  }

  #shrink(newest: Key): void {
    const older = () => [...this.#entries].filter(([key]) => key !== newest)
    if (this.#bytes <= this.limit) return
    for (const [, entry] of older()) {
      if (entry.kept === null) continue
      entry.kept.forgetTaken()
      this.#bytes += entry.kept.bytes - entry.bytes
      entry.bytes = entry.kept.bytes
      if (this.#bytes <= this.limit) return
    }
    for (const [key, entry] of older()) {
      this.#drop(key, entry)
      if (this.#bytes <= this.limit) return
    }
  }

  #drop(key: Key, entry: Entry): void {
    if (this.#entries.get(key) !== entry) return
    this.#entries.delete(key)
    this.#bytes -= entry.bytes
  }
}
