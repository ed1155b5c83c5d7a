import { createHash } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { mkdir, readFile, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { crc32 } from 'node:zlib'
import { writeFileAtomic } from '../io/index.js'

/** What lies directly in a folder, as far as it matters: names, in no order. */
export interface FolderEntries {
  /** Image files. */
  readonly files: readonly string[]
  readonly folders: readonly string[]
  /** What may be a link: it is looked at anew each time, as nothing here changes when something appears or goes where a link leads. */
  readonly links: readonly string[]
}

const FORMAT = 'gmml listing 1'

/** The state of a folder: another one as soon as an entry is added, renamed or removed, the folder replaced, or its rights changed. */
export const stateOf = ({ dev, ino, mtimeNs, ctimeNs }: BigIntStats): string => `${dev}:${ino}:${mtimeNs}:${ctimeNs}`

/**
 * Nanoseconds. File systems put the same time on two changes that are close to each other (FAT: within two seconds): of a folder that was
 * changed just before it was listed, a later change might not be seen.
 */
const SETTLED = 2_000_000_000n

/** What was known of a folder of images and all folders in it, and what was found this time. */
export class Listing {
  readonly #known: ReadonlyMap<string, { readonly line: string; readonly state: string; readonly entries: FolderEntries }>
  /** Of each folder that is as it was, or was read anew, its line. */
  readonly #lines = new Map<string, string>()
  #changed = false

  /** @param lines - As {@link text} has them. */
  constructor(lines: readonly string[]) {
    this.#known = new Map(lines.map((line) => {
      const [inside, state, files, folders, links] = JSON.parse(line) as [string, string, string[], string[], string[]]
      return [inside, { line, state, entries: { files, folders, links } }]
    }))
  }

  /** What lies in a folder, if it is as it was. @param inside - Its path in the folder that is listed. */
  get(inside: string, stat: BigIntStats): FolderEntries | null {
    const known = this.#known.get(inside)
    if (known?.state !== stateOf(stat)) return null
    this.#lines.set(inside, known.line)
    return known.entries
  }

  /** Takes note of what lies in a folder. @param stat - From before it was read, at the time `now` in milliseconds. */
  note(inside: string, stat: BigIntStats, { files, folders, links }: FolderEntries, now: number): void {
    const changed = stat.mtimeNs > stat.ctimeNs ? stat.mtimeNs : stat.ctimeNs
    this.#changed = true
    if (changed + SETTLED > BigInt(Math.floor(now)) * 1_000_000n) return
    this.#lines.set(inside, JSON.stringify([inside, stateOf(stat), files, folders, links]))
  }

  /** What is to be kept for the next time; null if that is what is there. */
  text(): string | null {
    if (!this.#changed && this.#lines.size === this.#known.size) return null
    return [...this.#lines.values()].sort().map((line) => `${line}\n`).join('')
  }
}

/** Folders with fewer images are listed at once anyhow. */
const WORTH_KEEPING = 10_000

/**
 * Listings of folders of images, kept in files. Listing a million files over a network takes minutes; whether their folders have changed
 * is a look at each of the folders. Folders that have changed are listed anew, links are followed anew. A listing that is damaged is
 * left aside, and written anew.
 *
 * @example
 * const cache = new ListingCache('index')
 * const source = await openImages('photos', { cache })
 * await cache.save()
 */
export class ListingCache {
  readonly #listings = new Map<string, { readonly listing: Listing; length: number }>()

  /**
   * @param folder - Where listings are; made when there is one to write.
   * @param onNotice - Is told of a listing that cannot be used.
   * @param atLeast - Images that a folder has to have, for its listing to be kept.
   */
  constructor(readonly folder: string, readonly onNotice?: (message: string) => void, readonly atLeast = WORTH_KEEPING) {}

  /** The listing of a folder of images: empty where there is none that can be used. */
  async open(path: string): Promise<Listing> {
    const opened = this.#listings.get(path)
    if (opened) return opened.listing
    const listing = await this.#read(path).catch((error: NodeJS.ErrnoException) => {
      const because = `The listing '${this.#file(path)}' cannot be used (${error.message})`
      if (error.code !== 'ENOENT') this.onNotice?.(`${because}: '${path}' is listed anew`)
      return new Listing([])
    })
    this.#listings.set(path, { listing, length: 0 })
    return listing
  }

  /** Whether there is a listing of a folder, and the folder itself is as it was: it holds image files, and no packed ones. */
  async knows(path: string): Promise<boolean> {
    return (await this.open(path)).get('', await stat(path, { bigint: true })) !== null
  }

  /** Takes note of how many images a folder has. */
  count(path: string, length: number): void {
    const opened = this.#listings.get(path)
    if (opened) opened.length = length
  }

  /** Writes the listings that are new. @throws Error if they cannot be written. */
  async save(): Promise<void> {
    for (const [path, { listing, length }] of this.#listings) {
      const text = length < this.atLeast ? null : listing.text()
      if (text === null) continue
      await mkdir(this.folder, { recursive: true })
      await writeFileAtomic(this.#file(path), `${JSON.stringify([FORMAT, resolve(path), crc32(text)])}\n${text}`)
    }
    this.#listings.clear()
  }

  async #read(path: string): Promise<Listing> {
    const bytes = await readFile(this.#file(path))
    const end = bytes.indexOf('\n')
    const [format, of, crc] = JSON.parse(bytes.toString('utf8', 0, end)) as [string, string, number]
    const text = bytes.subarray(end + 1)
    if (format !== FORMAT) throw new Error('it is of another version')
    if (of !== resolve(path)) throw new Error('it is of another folder')
    if (crc32(text) !== crc) throw new Error('it is damaged')
    return new Listing(text.toString('utf8').split('\n').slice(0, -1))
  }

  #file(path: string): string {
    return join(this.folder, `${createHash('sha256').update(resolve(path)).digest('hex').slice(0, 16)}.jsonl`)
  }
}
