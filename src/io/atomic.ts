import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { threadId } from 'node:worker_threads'

let count = 0

/** Whether a file's name is one that {@link writeAtomic} writes under before it renames: without a living writer, what a crash left. */
export const isTemporary = (name: string): boolean => /\.\d+-\d+-\d+\.tmp$/.test(name)

/** A file that is still to be written. */
export interface Writing {
  readonly path: string
  readonly write: (file: FileHandle) => Promise<void>
}

// The renames themselves are on disk only with their folders.
async function syncFolders(files: readonly Writing[]): Promise<void> {
  for (const path of new Set(files.map(({ path }) => dirname(path)))) {
    const folder = await open(path, 'r')
    try {
      await folder.sync()
    } finally {
      await folder.close()
    }
  }
}

/**
 * Writes files that belong together under temporary names and renames them when all are complete and on disk. If one fails (a full disk,
 * say), what stood at their paths before is untouched.
 *
 * @param files - The last is the one that speaks of the others: what stood there before is removed before the first rename, and it is
 *   renamed last, so that at no time it speaks of files that are missing or of another writing.
 */
export async function writeTogether(files: readonly Writing[]): Promise<void> {
  // Two writers of one file at once, also from worker threads, must not write into each other's.
  const written = files.map(({ path, write }) => ({ path, write, temporary: `${path}.${process.pid}-${threadId}-${count++}.tmp` }))
  try {
    for (const { temporary, write } of written) {
      const file = await open(temporary, 'w')
      try {
        await write(file)
        await file.sync()
      } finally {
        await file.close()
      }
    }
    if (files.length > 1) await rm(files.at(-1)!.path, { force: true })
    for (const { temporary, path } of written) await rename(temporary, path)
  } catch (error) {
    for (const { temporary } of written) await rm(temporary, { force: true })
    throw error
  }
  await syncFolders(files)
}

/**
 * Writes a file under a temporary name and renames it when it is complete and on disk, so that no reader and no crash ever sees half of it.
 * If `write` fails (a full disk, say), what stood at `path` before is untouched.
 */
export async function writeAtomic(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  await writeTogether([{ path, write }])
}

/** Writes a whole file of text or bytes by {@link writeAtomic}. */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  await writeAtomic(path, (file) => file.writeFile(content))
}
