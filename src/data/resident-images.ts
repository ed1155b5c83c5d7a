import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Device, type Tensor } from '../torch/index.js'
import type { Size } from './crop.js'
import { type CropPlan, planCrops } from './draw.js'
import type { MemorySource } from './memory.js'
import { resampleCrops } from './resample.js'
import type { Staging } from './staging.js'
import { upload } from './upload.js'

/** Bytes of images as float32 that are resampled at a time: a batch of photographs can be many gigabytes of them. */
const AT_A_TIME = 2 ** 29

/** Decoded images, all of them: one tensor on the device, on which crops are cut. There is no loading at all. */
export class ResidentImages {
  readonly #size: Size
  /** uint8 [N, C, H, W]. */
  readonly #images: Tensor
  readonly #sizeOf: (index: number) => Size
  readonly #staging: Staging

  /**
   * @param images - uint8 [N, C, H, W] on the device, of the current stream: from here on it is disposed of here. Each image begins at the
   * upper left corner; what lies beyond its size is never looked at.
   * @param sizeOf - The size of an image, at most W by H.
   * @param size - Of the views.
   */
  constructor(images: Tensor, sizeOf: (index: number) => Size, size: Size, staging: Staging) {
    this.#images = staging.lend(images)
    this.#sizeOf = sizeOf
    this.#size = size
    this.#staging = staging
  }

  static of(source: MemorySource, size: Size, device: Device, staging: Staging): ResidentImages {
    const { images, length, channels, height, width } = source
    const tensor = scope(() => keep(torch.fromTypedArray(images, [length, channels, height, width]).to(device)))
    return new ResidentImages(tensor, () => source, size, staging)
  }

  /**
   * Views of some images.
   *
   * @param plans - One for each index.
   * @returns [views * B, C, H, W] in [0, 1], as resizing leaves them: first view 0 of all images, then view 1.
   */
  cut(indices: readonly number[], plans: readonly CropPlan[]): { views: Tensor; shifts: (readonly [x: number, y: number] | null)[] } {
    const planned = plans.map((plan, i) => {
      const { width, height } = this.#sizeOf(indices[i]!)
      return planCrops(plan, width, height, this.#size)
    })
    const count = planned[0]?.length ?? 0
    const crops = Array.from({ length: count }, (_, view) => planned.map((own, i) => ({ ...own[view]!, index: indices[i]! }))).flat()
    const values = this.#images.shape.slice(1).reduce((a, b) => a * b, 1)
    const part = Math.max(1, Math.floor(AT_A_TIME / (4 * values)))
    const resample = (first: number): Tensor => {
      const own = crops.slice(first, first + part)
      const rows = upload(Int32Array.from(own, ({ index }) => index), [own.length], this.#images.device)
      const chosen = this.#images.indexSelect(0, rows).to('float32').div(255)
      return resampleCrops(chosen, own, own.map(({ flip }) => flip), this.#size)
    }
    const resampled = (): Tensor => {
      if (crops.length <= part) return resample(0)
      return torch.cat(Array.from({ length: Math.ceil(crops.length / part) }, (_, i) => scope(() => resample(i * part))))
    }
    const views = this.#staging.run(() => noGrad(() => scope(resampled)))
    return { views, shifts: crops.map(({ shift }) => shift ?? null) }
  }

  dispose(): void {
    this.#images.dispose()
  }
}
