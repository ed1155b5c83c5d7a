import { expected } from '../errors.js'
import * as native from '../native/cuda.js'
import type { Tensor } from './tensor.js'
import { requireCudaDevice, requireDType, type CudaDevice, type DType, type Shape } from './types.js'

/**
 * A SharedArrayBuffer that GPUs copy from by themselves. Made by {@link pinSharedMemory}. The buffer is referenced until it is unpinned;
 * what is not unpinned is so when this object is collected.
 */
export class PinnedMemory extends native.PinnedHandle {
  /** @internal */
  constructor(readonly buffer: SharedArrayBuffer) {
    super(new Uint8Array(buffer))
  }

  /**
   * A new tensor on a GPU with elements of the memory. The copy is put on the current stream and not waited for: until it is done
   * ({@link isIdle}, or an event recorded behind it), the memory must not be written.
   *
   * @param byteOffset - Where the elements begin.
   * @throws InputError for what is no dtype, shape or device. TorchError where the elements do not lie inside the memory.
   */
  toTensor(byteOffset: number, dtype: DType, shape: Shape, device: CudaDevice = 'cuda'): Tensor {
    if (!Number.isSafeInteger(byteOffset) || byteOffset < 0) throw expected('a non-negative integer', 'byteOffset', byteOffset)
    requireDType(dtype)
    if (!Array.isArray(shape)) throw expected('an array of sizes', 'shape', shape)
    return native.fromPinned(this, byteOffset, dtype, shape, requireCudaDevice(device)) as Tensor
  }

  /** True if every copy that was started by {@link toTensor} is done: the memory may be written again. */
  get isIdle(): boolean {
    return native.pinnedIsIdle(this)
  }

  /** Waits for copies under way and gives the memory back. Doing it twice is harmless. */
  unpin(): void {
    native.unpin(this)
  }

  /** What `using` calls at the end of its block: {@link unpin}. */
  [Symbol.dispose](): void {
    this.unpin()
  }
}

/**
 * Registers the memory of a SharedArrayBuffer with CUDA, in place (`cudaHostRegister`): copies from it to a GPU then run beside all other
 * work. Worker threads may go on writing to it. Registering takes about as long as clearing the memory: keep it for a run.
 *
 * @throws InputError for what is no SharedArrayBuffer with bytes. TorchError with the reason where there is no GPU, and where a part of the
 *   memory is registered already.
 */
export function pinSharedMemory(buffer: SharedArrayBuffer): PinnedMemory {
  if (!(buffer instanceof SharedArrayBuffer) || buffer.byteLength === 0) throw expected('a SharedArrayBuffer with bytes', 'buffer', buffer)
  return new PinnedMemory(buffer)
}
