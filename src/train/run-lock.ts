import { readFileSync, rmSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { z } from 'zod'

import { InputError } from '../errors.js'
import { cannotWrite, type RunFolder } from './run-folder.js'

const ownerSchema = z.object({
  pid: z.int(),
  host: z.string(),
  /** What tells a process from a later one of the same number; null where the system does not say. */
  began: z.string().nullable(),
  since: z.string()
})

type Owner = z.infer<typeof ownerSchema>

/** Clock ticks from the start of the system to that of a process, which Linux tells. */
function beginningOf(pid: number): string | null {
  try {
    // The name in parentheses may hold anything, also spaces.
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ')[19] ?? null
  } catch {
    return null
  }
}

/** Whether the process that took the lock is at work. Of another machine's nothing is known: a run that moved on must not be held up. */
function isAtWork({ pid, host, began }: Owner): boolean {
  if (host !== hostname()) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false // EPERM: there is one, somebody else's
  }
  return began === null || began === beginningOf(pid)
}

// Of this process: a lock with its number that is not among them was left by an earlier one.
const held = new Set<string>()

/** Keeps two trainings from writing into one folder. A process that was killed leaves the lock behind, which holds nobody up. */
export class RunLock {
  private constructor(readonly path: string) {}

  /** @throws InputError if another training is at work in the folder, or the disk does not take the lock. */
  static async take(folder: RunFolder): Promise<RunLock> {
    const path = resolve(join(folder.path, 'run.lock'))
    const owner: Owner = { pid: process.pid, host: hostname(), began: beginningOf(process.pid), since: new Date().toISOString() }
    for (;;) {
      try {
        await mkdir(folder.path, { recursive: true })
        await writeFile(path, JSON.stringify(owner), { flag: 'wx' })
        held.add(path)
        return new RunLock(path)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw cannotWrite(folder, error as Error)
      }
      const text = await readFile(path, 'utf8').catch(() => '')
      const before = ownerSchema.safeParse(parse(text)).data
      const own = before?.pid === process.pid && before.host === hostname()
      if (before && (own ? held.has(path) : isAtWork(before))) {
        const who = `process ${before.pid} on ${before.host}, since ${before.since}`
        throw new InputError(`'${folder.path}' is being written to by another training (${who}). Wait for it, stop it, or choose another folder`)
      }
      await rm(path, { force: true })
    }
  }

  release(): void {
    held.delete(this.path)
    rmSync(this.path, { force: true })
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
