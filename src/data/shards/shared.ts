import { setMaxListeners } from 'node:events'

/** Work that several wait for. It is given up when the last of them has gone. */
export class SharedWork<T> {
  readonly #controller = new AbortController()
  readonly #result: Promise<T>
  #waiting = 0

  /** @param start - Is handed the signal that nobody waits any more. */
  constructor(start: (signal: AbortSignal) => Promise<T>) {
    this.#result = start(this.#controller.signal)
    // Whoever waits is told; without anybody it must not count as unhandled.
    this.#result.catch(() => undefined)
  }

  get abandoned(): boolean {
    return this.#controller.signal.aborted
  }

  /** The result, or the signal's reason as soon as it is given. */
  async wait(signal?: AbortSignal): Promise<T> {
    this.#waiting++
    let leave = (): void => undefined
    try {
      signal?.throwIfAborted()
      // Many images are waited for under one signal, which Node would take for a leak.
      if (signal) setMaxListeners(0, signal)
      const left = new Promise<never>((_, reject) => {
        leave = () => reject(signal!.reason as Error)
        signal?.addEventListener('abort', leave, { once: true })
      })
      return await Promise.race([this.#result, left])
    } finally {
      signal?.removeEventListener('abort', leave)
      if (--this.#waiting === 0) this.#controller.abort()
    }
  }
}
