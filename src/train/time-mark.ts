/** A moment. */
export class TimeMark {
  readonly #time = performance.now()

  /** Milliseconds that had passed since an earlier one. */
  since(earlier: TimeMark): number {
    return this.#time - earlier.#time
  }
}
