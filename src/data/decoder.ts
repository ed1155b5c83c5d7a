import { decodeCropsInto } from './decode.js'
import { type DecodeOutcome, type DecodeTask, runTask } from './decode-task.js'
import { ThreadEndedError, WorkerPool } from './worker-pool.js'

/** Decodes images, some at a time. */
export interface Decoder {
  /** How many images are worth being asked for at a time. */
  readonly concurrency: number
  decode(task: DecodeTask): Promise<DecodeOutcome>
}

/** The compiled file, also where this one runs as TypeScript. */
const workerFile = new URL(import.meta.url.endsWith('.ts') ? '../../dist/data/decode-worker.js' : 'decode-worker.js', import.meta.url)

/** How often an image may have been in a thread that ended. */
const ATTEMPTS = 3

const pools = new Map<number, WorkerPool<DecodeTask, DecodeOutcome>>()

/** The pool of so many threads, which all loaders share. */
export function poolOf(threads: number): WorkerPool<DecodeTask, DecodeOutcome> {
  const pool = pools.get(threads) ?? new WorkerPool<DecodeTask, DecodeOutcome>(workerFile, threads)
  pools.set(threads, pool)
  return pool
}

/**
 * Threads that read files and decode them. One that ends is replaced, and its images are decoded again.
 *
 * @param threads - At least 1.
 * @param onEnded - Called with the reason for each image whose thread ended.
 */
export function threadDecoder(threads: number, onEnded?: (name: string, reason: string) => void): Decoder {
  const pool = poolOf(threads)
  return {
    concurrency: pool.capacity,
    async decode(task) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await pool.run(task)
        } catch (error) {
          if (!(error instanceof ThreadEndedError)) throw error
          if (!pool.works && attempt === ATTEMPTS) throw new Error(`Decoding threads cannot start: ${error.message}`, { cause: error })
          onEnded?.(task.name, error.message)
          if (attempt < ATTEMPTS) continue
          return { broken: { file: task.name, reason: `the thread that decoded it has ended ${attempt} times (${error.message})` } }
        }
      }
    }
  }
}

/** Decodes on libuv's threads, of which a process has four unless `UV_THREADPOOL_SIZE` says otherwise. */
export function libuvDecoder(): Decoder {
  return { concurrency: Math.max(1, Math.floor(Number(process.env['UV_THREADPOOL_SIZE'])) || 4), decode: (task) => runTask(task, decodeCropsInto) }
}
