import { readFileSync, rmSync } from 'node:fs'
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout } from 'node:timers/promises'
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

// Milliseconds in which a lock without content may get some, and those after which it is looked at again.
const PATIENCE = 500
const WAIT = 50

// Of this process: a lock with its number that is not among them was left by an earlier one.
const held = new Set<string>()

/** Keeps two trainings from writing into one folder. A process that was killed leaves the lock behind, which holds nobody up. */
export class RunLock {
  private constructor(readonly path: string) {}

  /** @throws InputError if another training is at work in the folder, or the disk does not take the lock. */
  static async take(folder: RunFolder): Promise<RunLock> {
    const path = resolve(join(folder.path, 'run.lock'))
    const owner: Owner = { pid: process.pid, host: hostname(), began: beginningOf(process.pid), since: new Date().toISOString() }
    await mkdir(folder.path, { recursive: true }).catch((error: Error) => {
      throw cannotWrite(folder, error)
    })
    for (let waited = 0; ; waited += WAIT) {
      try {
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
      // Another process may be about to write who it is.
      if (!before && waited < PATIENCE) await setTimeout(WAIT)
      else await RunLock.#removeDead(path, text)
    }
  }

  /**
   * Removes the lock that a dead process left behind, if it is still that one: whoever was faster may have taken the folder. Only one process
   * looks and removes at a time, or one could remove what another has just taken.
   */
  static async #removeDead(path: string, text: string): Promise<void> {
    const removing = `${path}.removing`
    try {
      await writeFile(removing, '', { flag: 'wx' })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      // That of a process which died in these few microseconds must not hold anybody up.
      const since = await stat(removing).then(({ mtimeMs }) => mtimeMs, () => Infinity)
      if (Date.now() - since > 20 * PATIENCE) await rm(removing, { force: true })
      await setTimeout(WAIT)
      return
    }
    try {
      if ((await readFile(path, 'utf8').catch(() => null)) === text) await rm(path, { force: true })
    } finally {
      await rm(removing, { force: true })
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
