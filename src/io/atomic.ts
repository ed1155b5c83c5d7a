import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { threadId } from 'node:worker_threads'

let count = 0

/** Whether a file's name is one that {@link writeAtomic} writes under before it renames: without a living writer, what a crash left. */
export const isTemporary = (name: string): boolean => /\.\d+-\d+-\d+\.tmp$/.test(name)

/**
 * Writes a file under a temporary name and renames it when it is complete and on disk, so that no reader and no crash ever sees half of it.
 * If `write` fails (a full disk, say), what stood at `path` before is untouched.
 */
export async function writeAtomic(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  // Two writers of one file at once, also from worker threads, must not write into each other's.
  const temporary = `${path}.${process.pid}-${threadId}-${count++}.tmp`
  try {
    const file = await open(temporary, 'w')
    try {
      await write(file)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  // The rename itself is on disk only with its folder.
  const folder = await open(dirname(path), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Writes a whole file of text or bytes by {@link writeAtomic}. */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  await writeAtomic(path, (file) => file.writeFile(content))
}
