/**
 * An operator or a call of libtorch failed. The message is one sentence: the operator, the reason, and dtype, shape and
 * device of each tensor argument.
 */
export class TorchError extends Error {
  override readonly name: string = 'TorchError'

  /**
   * @param operator - Name and overload of the operator (`aten::add.Tensor`), empty where none was called.
   * @param detail - The whole text of libtorch with its C++ stack.
   */
  constructor(message: string, readonly operator: string = '', readonly detail: string = message) {
    super(message)
  }
}

/** What is known of memory that was not there, in bytes. Of a GPU the figures are those after the failure. */
export interface MemoryShortage {
  /** Where memory was asked for: `cpu`, `cuda:0`. */
  readonly device: string
  /** What was asked for, as libtorch's message says it: for a GPU to two decimals. */
  readonly requestedBytes?: number
  readonly freeBytes?: number
  readonly totalBytes?: number
  /** Held by tensors of this process. */
  readonly allocatedBytes?: number
  /** Held by the caching allocator of this process, tensors included. */
  readonly reservedBytes?: number
}

/**
 * There was not enough memory, on the CPU or a GPU. Nothing else is harmed: tensors and scopes are as they were, and less may be tried.
 * PyTorch: `torch.OutOfMemoryError`.
 */
export class OutOfMemoryError extends TorchError {
  override readonly name: string = 'OutOfMemoryError'
  readonly device: string
  readonly requestedBytes: number | undefined
  readonly freeBytes: number | undefined
  readonly totalBytes: number | undefined
  readonly allocatedBytes: number | undefined
  readonly reservedBytes: number | undefined

  constructor(message: string, operator: string, detail: string, memory: MemoryShortage) {
    super(message, operator, detail)
    this.device = memory.device
    this.requestedBytes = memory.requestedBytes
    this.freeBytes = memory.freeBytes
    this.totalBytes = memory.totalBytes
    this.allocatedBytes = memory.allocatedBytes
    this.reservedBytes = memory.reservedBytes
  }
}
