import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { call, keep, noGrad, operator, scope, type Tensor } from '../torch/index.js'

const foreachLerp = operator('aten::_foreach_lerp_', 'Scalar')

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

  /** Takes the parameters' present values into the means. */
  update(): void {
    noGrad(() => {
      scope(() => {
        if (this.#means.length) call(foreachLerp, this.#means, this.#parameters.map((parameter) => parameter.detach()), 1 - this.decay)
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
