import { expected, InputError } from '../errors.js'
import { type BrokenImageError, printable } from './broken.js'

export interface BrokenOptions {
  /** Part of the images that may be broken before loading stops: at least one may be, unless it is 0. Default 0.01. */
  readonly maxBroken?: number
  /** Called once for each broken image. */
  readonly onBroken?: (error: BrokenImageError) => void
}

/** The broken images of a source, as they are found. */
export class BrokenList {
  readonly #found = new Map<number, BrokenImageError>()
  readonly #allowed: number

  /** @throws InputError if `maxBroken` is no part. */
  constructor(readonly images: number, readonly options: BrokenOptions) {
    const { maxBroken = 0.01 } = options
    if (!(maxBroken >= 0 && maxBroken <= 1)) throw expected('a number from 0 to 1', 'maxBroken', maxBroken)
    this.#allowed = maxBroken === 0 ? 0 : Math.max(1, Math.floor(maxBroken * images))
  }

  has(index: number): boolean {
    return this.#found.has(index)
  }

  /** In the source's order: the order in which they are met varies, since files are decoded side by side. */
  get inOrder(): readonly BrokenImageError[] {
    return [...this.#found].sort(([a], [b]) => a - b).map(([, error]) => error)
  }

  /** @throws InputError with their list if there are too many now. */
  add(index: number, error: BrokenImageError): void {
    if (this.#found.has(index)) return
    this.#found.set(index, error)
    this.options.onBroken?.(error)
    if (this.#found.size <= this.#allowed) return
    const list = this.inOrder.map(({ file, reason }) => `  ${printable(file)}: ${reason}`).join('\n')
    const found = `${this.#found.size} of ${this.images} images are broken`
    throw new InputError(`${found}, and at most ${this.#allowed} may be (maxBroken). Mend or remove them:\n${list}`)
  }
}
