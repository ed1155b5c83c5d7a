import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Device, type Tensor } from '../torch/index.js'
import type { Size } from './crop.js'
import { type CropPlan, planCrops } from './draw.js'
import type { MemorySource } from './memory.js'
import { resampleCrops } from './resample.js'
import type { Staging } from './staging.js'
import { upload } from './upload.js'

/** Images that fit into memory: one tensor on the device, on which crops are cut. There is no loading at all. */
export class ResidentImages {
  readonly #source: MemorySource
  readonly #size: Size
  /** uint8 [N, C, H, W]. */
  readonly #images: Tensor
  readonly #staging: Staging

  constructor(source: MemorySource, size: Size, device: Device, staging: Staging) {
    const { images, length, channels, height, width } = source
    this.#source = source
    this.#size = size
    this.#images = staging.lend(scope(() => keep(torch.fromTypedArray(images, [length, channels, height, width]).to(device))))
    this.#staging = staging
  }

  /**
   * Views of some images.
   *
   * @param plans - One for each index.
   * @returns [views * B, C, H, W] in [0, 1], as resizing leaves them: first view 0 of all images, then view 1.
   */
  cut(indices: readonly number[], plans: readonly CropPlan[]): { views: Tensor; shifts: (readonly [x: number, y: number] | null)[] } {
    const { width, height } = this.#source
    const planned = plans.map((plan) => planCrops(plan, width, height, this.#size))
    const count = planned[0]!.length
    const crops = Array.from({ length: count }, (_, view) => planned.map((own) => own[view]!)).flat()
    const resample = (): Tensor => {
      const rows = upload(Int32Array.from(indices), [indices.length], this.#images.device)
      const chosen = this.#images.indexSelect(0, rows).to('float32').div(255)
      return resampleCrops(chosen.repeat([count, 1, 1, 1]), crops, crops.map(({ flip }) => flip), this.#size)
    }
    const views = this.#staging.run(() => noGrad(() => scope(resample)))
    return { views, shifts: crops.map(({ shift }) => shift ?? null) }
  }

  dispose(): void {
    this.#images.dispose()
  }
}
