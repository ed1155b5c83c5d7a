import { SHARE_ENV, Worker } from 'node:worker_threads'

/** A thread has ended with this task not done: out of memory, a fault in native code, or somebody has ended it. */
export class ThreadEndedError extends Error {
  override readonly name = 'ThreadEndedError'
}

/** What goes to a thread, and what comes back. */
export interface Request<Task> {
  readonly id: number
  readonly task: Task
}

export type Reply<Result> = { readonly id: number } & ({ readonly result: Result } | { readonly error: unknown })

interface Job<Task, Result> {
  readonly task: Task
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}

/** One at work and the next at hand: no thread waits for a message to go to and fro. */
const JOBS_PER_THREAD = 2

/** Threads without work end after so many milliseconds. */
const IDLE = 10_000

/**
 * Threads that do tasks, begun when they are needed. They do not keep the process alive: whoever waits for a task has to. The well-known pools leave tasks waiting for
 * ever when a thread ends while it starts: here whoever waits is told of every thread that ends, and a new one takes its place.
 */
export class WorkerPool<Task, Result> {
  readonly #threads = new Set<Thread<Task, Result>>()
  readonly #queue: Job<Task, Result>[] = []
  #works = false

  /** @param file - A module that answers each {@link Request} with a {@link Reply}. @param size - Threads at most. */
  constructor(readonly file: URL, readonly size: number) {}

  /** Whether a thread has ever answered: else none can start. */
  get works(): boolean {
    return this.#works
  }

  /** How many tasks are worth being given at a time. */
  get capacity(): number {
    return JOBS_PER_THREAD * this.size
  }

  get threads(): readonly Worker[] {
    return [...this.#threads].map(({ worker }) => worker)
  }

  /** @throws ThreadEndedError (rejected) if its thread has ended, and what the task itself throws. */
  run(task: Task): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ task, resolve, reject })
      this.#dispatch()
    })
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const thread = this.#free()
      if (!thread) return
      thread.start(this.#queue.shift()!)
    }
  }

  /** The thread with the fewest tasks; a new one, while there may be more, rather than one that has something to do. */
  #free(): Thread<Task, Result> | null {
    const [best] = [...this.#threads].sort((a, b) => a.jobs - b.jobs)
    if (best && best.jobs === 0) return best
    if (this.#threads.size < this.size) {
      const onFree = () => {
        this.#works = true
        this.#dispatch()
      }
      const thread = new Thread<Task, Result>(this.file, onFree, () => {
        this.#threads.delete(thread)
        this.#dispatch()
      })
      this.#threads.add(thread)
      return thread
    }
    return best && best.jobs < JOBS_PER_THREAD ? best : null
  }
}

class Thread<Task, Result> {
  readonly worker: Worker
  readonly #jobs = new Map<number, Job<Task, Result>>()
  #next = 0
  #idle: NodeJS.Timeout | undefined

  constructor(file: URL, readonly onFree: () => void, onEnd: () => void) {
    let reason = ''
    // Without Node's own options: --input-type, for one, keeps a file from being run.
    this.worker = new Worker(file, { env: SHARE_ENV, execArgv: [] })
    this.worker.on('message', (reply: Reply<Result>) => this.#settle(reply))
    this.worker.on('error', (error) => (reason = error.message))
    this.worker.on('exit', (code) => {
      clearTimeout(this.#idle)
      const error = new ThreadEndedError(reason || `exit code ${code}`)
      // First out of the pool: whoever is told may give the task again at once.
      onEnd()
      for (const { reject } of this.#jobs.values()) reject(error)
    })
    this.worker.unref() // last: to listen refs it again
  }

  get jobs(): number {
    return this.#jobs.size
  }

  start(job: Job<Task, Result>): void {
    const id = this.#next++
    try {
      this.worker.postMessage({ id, task: job.task } satisfies Request<Task>)
    } catch (error) {
      job.reject(error) // nothing that can be sent
      return
    }
    clearTimeout(this.#idle)
    this.#jobs.set(id, job)
  }

  #settle(reply: Reply<Result>): void {
    const job = this.#jobs.get(reply.id)!
    this.#jobs.delete(reply.id)
    if (this.#jobs.size === 0) this.#idle = setTimeout(() => void this.worker.terminate(), IDLE).unref()
    if ('error' in reply) job.reject(reply.error)
    else job.resolve(reply.result)
    this.onFree()
  }
}
