import { existsSync } from 'node:fs'
import { appendFile, mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'

import type { ListingCache } from '../data/index.js'
import { InputError } from '../errors.js'
import { isTemporary, writeFileAtomic } from '../io/index.js'

/** Runs `write`; where the disk refuses, the error says what could not be written and what that means for the run. */
export async function writing<T>(what: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    const remedy = 'Checkpoints that are there are intact: once that is mended, --resume goes on'
    throw new InputError(`Cannot write ${what}: ${(error as Error).message}. ${remedy}`, { cause: error })
  }
}

/** Writes the listings of a run's images, if they can be written: without them the next start takes longer, and that is all. */
export async function keepListings(listings: ListingCache, { onNotice }: { readonly onNotice?: (message: string) => void }): Promise<void> {
  await listings.save().catch((error: Error) => onNotice?.(`The listing of the images cannot be kept: ${error.message}`))
}

export const cannotWrite = ({ path }: RunFolder, error: Error): InputError =>
  new InputError(`Cannot write the run folder '${path}': ${error.message}`, { cause: error })

/** Paths of a run. */
export class RunFolder {
  readonly config: string
  readonly metrics: string
  readonly checkpoints: string
  readonly reconstructions: string
  readonly exported: string
  /** What became of it, for people. */
  readonly report: string
  /** Listings of folders with many images. */
  readonly index: string

  constructor(readonly path: string) {
    this.config = join(path, 'config.json')
    this.metrics = join(path, 'metrics.jsonl')
    this.checkpoints = join(path, 'checkpoints')
    this.reconstructions = join(path, 'reconstructions')
    this.exported = join(path, 'exported')
    this.report = join(path, 'report.html')
    this.index = join(path, 'index')
  }

  /** True if a run has been started here. */
  get exists(): boolean {
    return existsSync(this.config)
  }

  /** Makes the folders and writes the settings. Nothing else that is there is touched. @throws InputError if it cannot be done. */
  async create(config: unknown): Promise<void> {
    try {
      for (const folder of [this.checkpoints, this.exported]) await mkdir(folder, { recursive: true })
      await writeFileAtomic(this.config, `${JSON.stringify(config, null, 2)}\n`)
    } catch (error) {
      throw cannotWrite(this, error as Error)
    }
  }

  /** Settings of the run. @throws InputError if they are not there or no JSON. */
  async readConfig(): Promise<Record<string, unknown>> {
    let text: string
    try {
      text = await readFile(this.config, 'utf8')
    } catch {
      throw new InputError(`'${this.path}' holds no run: there is no config.json in it`)
    }
    let parsed: unknown
    try {
      parsed = JSON.parse(text)
    } catch {
      throw new InputError(`'${this.config}' is no JSON`)
    }
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed as Record<string, unknown>
    throw new InputError(`'${this.config}' holds no settings: expected names with values`)
  }

  /** Temporary files: what is being written, or what a process that was killed left half-written. */
  async listTemporary(): Promise<string[]> {
    const folders = [this.path, this.checkpoints, this.reconstructions, this.exported, this.index].filter((folder) => existsSync(folder))
    const files = folders.map(async (folder) => (await readdir(folder)).filter(isTemporary).map((name) => join(folder, name)))
    return (await Promise.all(files)).flat()
  }

  /** Removes what a process that was killed left half-written. */
  async removeUnfinished(): Promise<void> {
    for (const path of await this.listTemporary()) await rm(path, { force: true })
  }

  /** Adds a line to metrics.jsonl. */
  async appendMetrics(line: Readonly<Record<string, unknown>>): Promise<void> {
    await writing(`'${this.metrics}'`, () => appendFile(this.metrics, `${JSON.stringify(line)}\n`))
  }

  /** Forgets metrics after a step, which a resumed run will measure again. */
  async truncateMetrics(step: number): Promise<void> {
    if (!existsSync(this.metrics)) return
    const kept = (await readFile(this.metrics, 'utf8')).split('\n').filter((line) => {
      try {
        return (JSON.parse(line) as { step: number }).step <= step
      } catch {
        return false // the empty end, or a line that a crash cut short
      }
    })
    await writing(`'${this.metrics}'`, () => writeFileAtomic(this.metrics, kept.map((line) => `${line}\n`).join('')))
  }

  /** Path of the checkpoint after a step. */
  checkpoint(step: number): string {
    return join(this.checkpoints, `step-${String(step).padStart(8, '0')}.safetensors`)
  }

  /** Checkpoints in the order of their steps. */
  async listCheckpoints(): Promise<string[]> {
    const names = existsSync(this.checkpoints) ? await readdir(this.checkpoints) : []
    return names.filter((name) => /^step-\d{8}\.safetensors$/.test(name)).sort().map((name) => join(this.checkpoints, name))
  }
}
