import { cuda, isCudaDevice, type Device, type Shape, type Tensor } from '../torch/index.js'
import { upload } from './upload.js'

/** Memory that threads decode the images of a batch into, and that a GPU copies from by itself. */
export class BatchMemory {
  readonly buffer: SharedArrayBuffer
  readonly #device: Device
  readonly #pinned: cuda.PinnedMemory | null

  constructor(bytes: number, device: Device) {
    this.buffer = new SharedArrayBuffer(bytes)
    this.#device = device
    this.#pinned = isCudaDevice(device) ? pinned(this.buffer) : null
  }

  /** A new tensor on the device with all bytes. The copy may still be under way: see {@link isIdle}. */
  toTensor(shape: Shape): Tensor {
    if (this.#pinned && isCudaDevice(this.#device)) return this.#pinned.toTensor(0, 'uint8', shape, this.#device)
    return upload(new Uint8Array(this.buffer), shape, this.#device)
  }

  /** Whether it may be written again. */
  get isIdle(): boolean {
    return this.#pinned?.isIdle ?? true
  }

  dispose(): void {
    this.#pinned?.unpin()
  }
}

/**
 * Registered in place, since threads write here already: a copy into memory that libtorch has pinned would take the main thread some
 * milliseconds for each batch. Where it cannot be registered (a limit of locked memory, an addon built without CUDA's headers) it is
 * copied that way.
 */
function pinned(buffer: SharedArrayBuffer): cuda.PinnedMemory | null {
  try {
    return cuda.pinSharedMemory(buffer)
  } catch {
    return null
  }
}

/** Memory of batches that are done: taken again, for new memory has to be cleared, and is collected when it pleases. */
export class BatchMemoryPool {
  #spare: BatchMemory[] = []

  constructor(readonly device: Device) {}

  take(bytes: number): BatchMemory {
    const other = this.#spare.filter(({ buffer }) => buffer.byteLength !== bytes)
    if (other.length > 0) {
      this.#spare = this.#spare.filter((memory) => !other.includes(memory))
      for (const memory of other) memory.dispose()
    }
    const free = this.#spare.findIndex(({ isIdle }) => isIdle)
    return free < 0 ? new BatchMemory(bytes, this.device) : this.#spare.splice(free, 1)[0]!
  }

  give(memory: BatchMemory): void {
    this.#spare.push(memory)
  }

  dispose(): void {
    for (const memory of this.#spare.splice(0)) memory.dispose()
  }
}
