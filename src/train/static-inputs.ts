import { expected } from '../errors.js'
import { empty, fromTypedArray, keep, noGrad, scope, type Device, type DType, type Shape, type Tensor, type TypedArray } from '../torch/index.js'

/**
 * What changes from step to step, in tensors that stay where they are in memory: written before a step, and all that the step's function
 * reads. That is what makes the function one that can be captured as a CUDA graph, since a replay reads the same memory again.
 */
export class StaticInputs {
  readonly #tensors = new Map<string, Tensor>()
  #changes = 0

  constructor(readonly device: Device) {}

  /** How often a tensor was made, because there was none of this name, shape and dtype: a graph captured before then reads memory that is gone. */
  get changes(): number {
    return this.#changes
  }

  /** @throws InputError for what was never written. */
  get(name: string): Tensor {
    const tensor = this.#tensors.get(name)
    if (!tensor) throw expected(`one of ${[...this.#tensors.keys()].join(', ')}`, 'the name of an input', name)
    return tensor
  }

  /** Copies a tensor, which may be changed or freed afterwards. On a GPU nothing waits, unless it lies in memory that is not pinned. */
  write(name: string, value: Tensor): void {
    const { shape, dtype } = value
    let kept = this.#tensors.get(name)
    if (!kept || kept.dtype !== dtype || String(kept.shape) !== String(shape)) {
      kept?.dispose()
      this.#tensors.set(name, (kept = keep(noGrad(() => empty(shape, { dtype, device: this.device })))))
      this.#changes++
    }
    const target = kept
    noGrad(() => void target.copy_(value, { nonBlocking: true }))
  }

  /** The same with numbers, through pinned memory. @param dtype - As for `fromTypedArray`. */
  writeArray(name: string, array: TypedArray, shape: Shape, dtype?: DType): void {
    scope(() => {
      const values = fromTypedArray(array, shape, dtype ? { dtype } : {})
      this.write(name, this.device.startsWith('cuda') ? values.pinMemory() : values)
    })
  }

  dispose(): void {
    for (const tensor of this.#tensors.values()) tensor.dispose()
    this.#tensors.clear()
  }
}
