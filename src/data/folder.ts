import type { Dirent, Stats } from 'node:fs'
import { opendir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type EncodedSource, fileSource, numberClasses } from './encoded.js'

/** The endings of the files that are taken for images, in any case. */
export const imageExtensions = ['jpg', 'jpeg', 'png', 'webp', 'avif', 'gif', 'tif', 'tiff'] as const

const isImage = new RegExp(`\\.(?:${imageExtensions.join('|')})$`, 'i')

/** Lists the image files of a folder and of all folders in it; no file is opened. Names that begin with a dot are passed over. */
export async function openFolder(path: string): Promise<EncodedSource> {
  const { files, unreadable }: Found = { files: [], unreadable: [] }
  await list(path, '', [], { files, unreadable })
  files.sort()
  const inFolders = files.length > 0 && files.every((file) => file.includes('/'))
  const classes = inFolders ? numberClasses(files.map((file) => file.slice(0, file.indexOf('/')))) : { classes: null, labels: null }
  return fileSource({ path, root: path, files, unreadable: unreadable.sort(), ...classes })
}

interface Found {
  readonly files: string[]
  readonly unreadable: string[]
}

/** Adds what lies in one folder; `ancestors` are the identities of the folders above it, by which a link in a circle is known. */
async function list(root: string, inside: string, ancestors: readonly string[], found: Found): Promise<void> {
  const folders: string[] = []
  const links: string[] = []
  try {
    const { dev, ino } = await stat(join(root, inside), { bigint: true })
    const identity = `${dev}:${ino}`
    if (ancestors.includes(identity)) throw new Error('A link to a folder above it')
    ancestors = [...ancestors, identity]
    for await (const entry of await opendir(join(root, inside), { bufferSize: 1024 })) {
      if (entry.name.startsWith('.')) continue
      const path = inside + entry.name
      if (!entry.isFile() && !entry.isDirectory()) links.push(path)
      else put(path, entry, folders, found)
    }
    await follow(root, links, (path, kind) => put(path, kind, folders, found))
  } catch (error) {
    if (inside === '') throw error
    found.unreadable.push(inside.slice(0, -1))
  }
  for (const folder of folders) await list(root, folder, ancestors, found)
}

/** Puts a path where it belongs, by what is there. What is neither file nor folder (a pipe would block) is passed over. */
function put(path: string, kind: Pick<Dirent, 'isFile' | 'isDirectory'> | null, folders: string[], found: Found): void {
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
