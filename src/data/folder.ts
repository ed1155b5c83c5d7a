import type { BigIntStats, Stats } from 'node:fs'
import { opendir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import pLimit from 'p-limit'
import { type EncodedSource, fileSource, numberClasses } from './encoded.js'
import type { FolderEntries, Listing, ListingCache } from './listing-cache.js'

/** The endings of the files that are taken for images, in any case. */
export const imageExtensions = ['jpg', 'jpeg', 'png', 'webp', 'avif', 'gif', 'tif', 'tiff'] as const

const isImage = new RegExp(`\\.(?:${imageExtensions.join('|')})$`, 'i')

/**
 * Lists the image files of a folder and of all folders in it; no file is opened. Names that begin with a dot are passed over.
 *
 * @param cache - Listings of other times, by which only folders that have changed are read.
 */
export async function openFolder(path: string, cache?: ListingCache): Promise<EncodedSource> {
  const { files, unreadable }: Found = { files: [], unreadable: [] }
  const listing = (await cache?.open(path)) ?? null
  await list({ root: path, listing, limit: pLimit(FOLDERS), found: { files, unreadable } }, '', [])
  files.sort()
  cache?.count(path, files.length)
  const inFolders = files.length > 0 && files.every((file) => file.includes('/'))
  const classes = inFolders ? numberClasses(files.map((file) => file.slice(0, file.indexOf('/')))) : { classes: null, labels: null }
  return fileSource({ path, root: path, files, unreadable: unreadable.sort(), ...classes })
}

interface Found {
  readonly files: string[]
  readonly unreadable: string[]
}

interface Walk {
  readonly root: string
  readonly listing: Listing | null
  readonly limit: ReturnType<typeof pLimit>
  readonly found: Found
}

/** How many folders are read at a time: over a network, one waits for each answer. */
const FOLDERS = 32

/** Adds what lies in one folder; `ancestors` are the identities of the folders above it, by which a link in a circle is known. */
async function list(walk: Walk, inside: string, ancestors: readonly string[]): Promise<void> {
  const { root, found } = walk
  const folders: string[] = []
  try {
    const { state, entries } = await walk.limit(() => readEntries(walk, inside, ancestors))
    ancestors = [...ancestors, identityOf(state)]
    for (const file of entries.files) found.files.push(inside + file)
    for (const folder of entries.folders) folders.push(`${inside + folder}/`)
    await follow(root, entries.links.map((link) => inside + link), (path, kind) => put(path, kind, folders, found))
  } catch (error) {
    if (inside === '') throw error
    found.unreadable.push(inside.slice(0, -1))
  }
  await Promise.all(folders.map((folder) => list(walk, folder, ancestors)))
}

const identityOf = ({ dev, ino }: BigIntStats): string => `${dev}:${ino}`

async function readEntries(
  { root, listing }: Walk, inside: string, ancestors: readonly string[]
): Promise<{ state: BigIntStats; entries: FolderEntries }> {
  const state = await stat(join(root, inside), { bigint: true })
  if (ancestors.includes(identityOf(state))) throw new Error('A link to a folder above it')
  const known = listing?.get(inside, state)
  if (known) return { state, entries: known }
  const now = Date.now()
  const entries = { files: [] as string[], folders: [] as string[], links: [] as string[] }
  for await (const entry of await opendir(join(root, inside), { bufferSize: 1024 })) {
    if (entry.name.startsWith('.')) continue
    if (entry.isDirectory()) entries.folders.push(entry.name)
    else if (!entry.isFile()) entries.links.push(entry.name)
    else if (isImage.test(entry.name)) entries.files.push(entry.name)
  }
  listing?.note(inside, state, entries, now)
  return { state, entries }
}

/** Puts a path where it belongs, by what is there. What is neither file nor folder (a pipe would block) is passed over. */
function put(path: string, kind: Stats | null, folders: string[], found: Found): void {
  if (kind === null) found.unreadable.push(path)
  else if (kind.isDirectory()) folders.push(`${path}/`)
  else if (kind.isFile() && isImage.test(path)) found.files.push(path)
}

/** How many links are followed at a time: one by one, a million would take a minute. */
const LINKS = 256

/** Links are followed, as torchvision's ImageFolder does. `null` is one that leads nowhere. */
async function follow(root: string, links: readonly string[], use: (path: string, kind: Stats | null) => void): Promise<void> {
  for (let first = 0; first < links.length; first += LINKS) {
    const some = links.slice(first, first + LINKS)
    const kinds = await Promise.all(some.map((path) => stat(join(root, path)).catch(() => null)))
    for (const [i, path] of some.entries()) use(path, kinds[i]!)
  }
}
