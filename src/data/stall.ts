import { expected, InputError } from '../errors.js'
import { printable } from './broken.js'

export interface StallOptions {
  /**
   * Seconds for which no image may come while one is waited for: then loading ends with an error. After a tenth of them, and each further
   * tenth, there is a notice. Default 300.
   */
  readonly dataTimeout?: number
  /** Told what a person should know: images that do not come, threads that have ended. */
  readonly onNotice?: (message: string) => void
}

/** How often is looked, at most, in seconds. */
const INTERVAL = 1

/** Notices when images do not come any more: a disk or a network that stalls gives no error by itself. */
export class StallWatch {
  /** What is being waited for, the oldest first. */
  readonly #pending = new Map<symbol, string>()
  #arrived = 0
  readonly #timeout: number

  /** @throws InputError if `dataTimeout` is not positive. */
  constructor(readonly options: StallOptions) {
    const { dataTimeout = 300 } = options
    if (!(dataTimeout > 0)) throw expected('a positive number of seconds', 'dataTimeout', dataTimeout)
    this.#timeout = dataTimeout
  }

  /** Does the work on one image. */
  async image<T>(name: string, work: () => Promise<T>): Promise<T> {
    const key = Symbol(name)
    this.#pending.set(key, name)
    try {
      return await work()
    } finally {
      this.#pending.delete(key)
      this.#arrived++
    }
  }

  /**
   * Waits for work on images, and keeps the process alive meanwhile.
   *
   * @returns null if the signal is aborted first.
   * @throws InputError if for too long no image comes.
   */
  async wait<T>(work: Promise<T>, signal?: AbortSignal): Promise<T | null> {
    if (signal?.aborted) return null
    const waiting = new AbortController()
    const otherwise = new Promise<null>((resolve, reject) => {
      signal?.addEventListener('abort', () => resolve(null), { signal: waiting.signal })
      const timer = this.#start(reject)
      waiting.signal.addEventListener('abort', () => clearInterval(timer))
    })
    try {
      return await Promise.race([work, otherwise])
    } finally {
      waiting.abort()
    }
  }

  #start(reject: (error: Error) => void): NodeJS.Timeout {
    const interval = Math.min(INTERVAL, this.#timeout / 20)
    let arrived = this.#arrived
    // In turns of the timer, not of the clock: while a training step blocks the event loop, images come and nobody can see them.
    let turns = 0
    let notices = 0
    return setInterval(() => {
      turns = this.#arrived === arrived ? turns + 1 : 0
      if (turns === 0) notices = 0
      arrived = this.#arrived
      const seconds = turns * interval
      if (seconds >= this.#timeout) reject(new InputError(`${this.#describe(seconds)}. The disk or the network stalls (dataTimeout)`))
      else if (seconds >= ((notices + 1) * this.#timeout) / 10) {
        notices++
        this.options.onNotice?.(`${this.#describe(seconds)}: the disk or the network stalls. This ends after ${this.#timeout} s`)
      }
    }, 1000 * interval)
  }

  #describe(seconds: number): string {
    const [oldest = 'the images'] = this.#pending.values()
    const others = this.#pending.size - 1
    return `No image has come for ${Number(seconds.toPrecision(2))} s; waiting for '${printable(oldest)}'${others > 0 ? ` and ${others} others` : ''}`
  }
}
