import { keep, release } from '../native/tensor-handle.js'
import { scope, Tensor } from '../torch/index.js'

/** A tensor that a module learns: a leaf that requires grad and lives outside every scope. PyTorch: `torch.nn.Parameter`. */
export class Parameter extends Tensor {
  /** @param data - Initial values. Its memory is shared, not copied. */
  constructor(data: Tensor, options: { readonly requiresGrad?: boolean } = {}) {
    super(release(data.detach()))
    keep(this)
    this.requiresGrad_(options.requiresGrad ?? true)
  }

  override toString(): string {
    return `Parameter containing:\n${super.toString()}`
  }
}

/** A parameter of what `make` gives. No second handle of its memory is left behind, so disposing of the parameter frees it. */
export const newParameter = (make: () => Tensor): Parameter => scope(() => new Parameter(make()))
