import pLimit from 'p-limit'

import { noGrad, scope, type Device, type Tensor } from '../torch/index.js'
import { type BatchMemory, BatchMemoryPool } from './batch-memory.js'
import { BrokenImageError } from './broken.js'
import type { BrokenList } from './broken-list.js'
import type { Size } from './crop.js'
import type { Decoder } from './decoder.js'
import type { CropPlan } from './draw.js'
import { type EncodedSource, namedContent } from './encoded.js'
import type { Staging } from './staging.js'
import type { StallWatch } from './stall.js'
import { upload } from './upload.js'

/** The place of an image in a batch. */
export interface Slot {
  readonly plan: CropPlan
  /** Which image is taken if the ones tried before are broken; null: none, the place is left out. */
  candidate(tried: number): number | null
}

/** Images of a batch, decoded and cut. */
export interface DecodedBatch {
  /** Of the places that are not left out, in order. */
  readonly indices: readonly number[]
  /** By how much each view is moved, in the order of the views. */
  readonly shifts: readonly (readonly [x: number, y: number] | null)[]
  /** uint8 [views * B, 3, H, W] on the device: first view 0 of all images, then view 1. */
  readonly views: Tensor
}

type Decoded = { readonly index: number; readonly shifts: DecodedBatch['shifts'] } | null

export interface DecodingTools {
  readonly decoder: Decoder
  readonly broken: BrokenList
  readonly watch: StallWatch
  readonly staging: Staging
}

/** Images that are decoded when asked for, into memory that threads share: nothing is copied on the way but into the tensor. */
export class EncodedImages {
  readonly #source: EncodedSource
  readonly #size: Size
  readonly #device: Device
  readonly #tools: DecodingTools
  readonly #limit: ReturnType<typeof pLimit>
  readonly #memory: BatchMemoryPool

  constructor(source: EncodedSource, size: Size, device: Device, tools: DecodingTools) {
    this.#source = source
    this.#size = size
    this.#device = device
    this.#tools = tools
    this.#limit = pLimit(tools.decoder.concurrency)
    this.#memory = new BatchMemoryPool(device)
  }

  /**
   * @param slots - The places of the batch.
   * @param count - Views of each image, as many as the plans have.
   * @param signal - Aborted when nobody waits for the batch any more: what is not begun is not done.
   */
  async decode(slots: readonly Slot[], count: number, signal: AbortSignal): Promise<DecodedBatch> {
    const length = count * 3 * this.#size.height * this.#size.width
    const memory = this.#memory.take(slots.length * length)
    const planes = slots.map((_, i) => new Uint8Array(memory.buffer, i * length, length))
    // All are waited for, also if one fails: the memory is not free before.
    const settled = await Promise.allSettled(slots.map((slot, i) => this.#decodeSlot(slot, planes[i]!, signal)))
    try {
      const decoded = settled.map((outcome) => {
        if (outcome.status === 'rejected') throw outcome.reason
        return outcome.value
      })
      return this.#gather(decoded, memory, count)
    } finally {
      this.#memory.give(memory)
    }
  }

  /** Gives back memory that is pinned. */
  dispose(): void {
    this.#memory.dispose()
  }

  /** The image of a place, or the next that is not broken; null if there is none. */
  async #decodeSlot(slot: Slot, planes: Uint8Array, signal: AbortSignal): Promise<Decoded> {
    for (let tried = 0; ; tried++) {
      const index = slot.candidate(tried)
      if (index === null) return null
      const shifts = this.#tools.broken.has(index) ? null : await this.#decodeImage(index, slot.plan, planes, signal)
      if (shifts) return { index, shifts }
    }
  }

  async #decodeImage(index: number, plan: CropPlan, planes: Uint8Array, signal: AbortSignal): Promise<DecodedBatch['shifts'] | null> {
    const { decoder, broken, watch } = this.#tools
    const decode = async () => {
      const image = await namedContent(this.#source, index, signal)
      return decoder.decode({ ...image, plan, size: this.#size, planes })
    }
    try {
      const outcome = await this.#limit(() => {
        signal.throwIfAborted()
        return watch.image(this.#source.name(index), decode)
      })
      if ('shifts' in outcome) return outcome.shifts
      const { file, reason } = outcome.broken
      broken.add(index, new BrokenImageError(file, reason))
    } catch (error) {
      if (!(error instanceof BrokenImageError)) throw error
      broken.add(index, error)
    }
    return null
  }

  /** From the order in memory, image by image, to view by view. */
  #gather(decoded: readonly Decoded[], memory: BatchMemory, count: number): DecodedBatch {
    const { height, width } = this.#size
    const good = decoded.flatMap((image, slot) => (image ? [{ ...image, slot }] : []))
    const gather = (): Tensor => {
      const all = memory.toTensor([decoded.length, count, 3, height, width])
      const slots = BigInt64Array.from(good, ({ slot }) => BigInt(slot))
      const chosen = good.length === decoded.length ? all : all.indexSelect(0, upload(slots, [good.length], this.#device))
      return chosen.transpose(0, 1).reshape([count * good.length, 3, height, width])
    }
    const views = this.#tools.staging.run(() => noGrad(() => scope(gather)))
    const shifts = Array.from({ length: count }, (_, view) => good.map((image) => image.shifts[view]!)).flat()
    return { indices: good.map(({ index }) => index), shifts, views }
  }
}
