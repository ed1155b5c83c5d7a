import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { call, keep, noGrad, operator, scope, type Tensor } from '../torch/index.js'

const foreachLerp = operator('aten::_foreach_lerp_', 'Scalar')
const foreachSubtract = operator('aten::_foreach_sub', 'List')
const foreachMultiply = operator('aten::_foreach_mul_', 'Tensor')
const foreachAdd = operator('aten::_foreach_add_', 'List')

/**
 * A running mean of parameters, which often generalises better than their last values: after each step `mean = decay * mean +
 * (1 - decay) * parameter`. PyTorch: `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(decay)`.
 */
export class ExponentialMovingAverage {
  readonly #parameters: readonly Parameter[]
  readonly #means: readonly Tensor[]

  /**
   * Begins at the parameters' values.
   *
   * @param decay - From 0 to below 1; 0.999 is a mean over about 1,000 steps.
   * @throws InputError for another decay.
   */
  constructor(parameters: Iterable<Parameter>, readonly decay: number) {
    if (!(typeof decay === 'number' && decay >= 0 && decay < 1)) throw expected('a number from 0 to below 1', 'decay', decay)
    this.#parameters = [...parameters]
    this.#means = noGrad(() => this.#parameters.map((parameter) => keep(parameter.clone())))
  }

  /** The means, in the order of the parameters. The tensors themselves, not copies. */
  get means(): readonly Tensor[] {
    return this.#means
  }

  /**
   * Takes the parameters' present values into the means.
   *
   * @param options - `foundInf`: one number on the device, as {@link Optimizer.step} takes it; 1 leaves the means as they are.
   */
  update({ foundInf }: { readonly foundInf?: Tensor } = {}): void {
    if (this.#means.length === 0) return
    noGrad(() => {
      scope(() => {
        const parameters = this.#parameters.map((parameter) => parameter.detach())
        if (!foundInf) {
          call(foreachLerp, this.#means, parameters, 1 - this.decay)
          return
        }
        // In parts: the operator in one takes the same weight only from the host.
        const differences = call<Tensor[]>(foreachSubtract, parameters, this.#means)
        call(foreachMultiply, differences, foundInf.rsub(1))
        call(foreachAdd, this.#means, differences, 1 - this.decay)
      })
    })
  }

  /** Runs `callback` with the means in the parameters' place, and puts the parameters back, also after an error. */
  async applied<T>(callback: () => T | Promise<T>): Promise<T> {
    const own = noGrad(() => this.#parameters.map((parameter) => keep(parameter.clone())))
    const write = (values: readonly Tensor[]) => {
      noGrad(() => {
        for (const [i, parameter] of this.#parameters.entries()) parameter.copy_(values[i]!)
      })
    }
    try {
      write(this.#means)
      return await callback()
    } finally {
      write(own)
      for (const tensor of own) tensor.dispose()
    }
  }

  /** Frees the means. */
  dispose(): void {
    for (const mean of this.#means) mean.dispose()
  }
}
