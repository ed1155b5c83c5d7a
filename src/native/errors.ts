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
