/** Measures images per second, and how much of the time went into waiting for them. */
export class StepClock {
  #wanted = performance.now()
  #lapStart = this.#wanted
  #waited = 0
  #images = 0

  /** From now on the network has nothing to do. */
  wantBatch(): void {
    this.#wanted = performance.now()
  }

  gotBatch(): void {
    this.#waited += performance.now() - this.#wanted
  }

  endStep(images: number): void {
    this.#images += images
  }

  lap(): { imagesPerSecond: number; dataShare: number } {
    const now = performance.now()
    const elapsed = now - this.#lapStart
    const result = { imagesPerSecond: (1000 * this.#images) / elapsed, dataShare: this.#waited / elapsed }
    this.#lapStart = now
    this.#waited = this.#images = 0
    return result
  }
}
