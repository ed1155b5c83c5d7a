import { noGrad, scope, tensor, type Tensor } from '../torch/index.js'

/** Fills from a uniform distribution. PyTorch: `nn.init.uniform_`. */
export function uniform_(target: Tensor, low: number, high: number): Tensor {
  return noGrad(() => target.uniform_({ from: low, to: high }))
}

export function zeros_(target: Tensor): Tensor {
  return noGrad(() => target.zero_())
}

export function ones_(target: Tensor): Tensor {
  return noGrad(() => target.fill_(1))
}

export function normal_(target: Tensor, mean = 0, std = 1): Tensor {
  return noGrad(() => target.normal_({ mean, std }))
}

/**
 * Fills from a normal distribution cut off at `low` and `high` (absolute values, not multiples of `std`), by the inverse of its distribution
 * function. PyTorch: `nn.init.trunc_normal_`.
 */
export function truncNormal_(target: Tensor, { mean = 0, std = 1, low = -2, high = 2 } = {}): Tensor {
  return noGrad(() => {
    const [from, to] = scope(() =>
      tensor([(low - mean) / std, (high - mean) / std], { dtype: 'float64' }).div(Math.SQRT2).erf().toArray()
    ) as [number, number]
    return target.uniform_({ from, to }).erfinv_().mul_(std * Math.SQRT2).add_(mean).clamp_({ min: low, max: high })
  })
}

/** Uniform within 1 / sqrt(fanIn), what PyTorch's Linear and convolutions start from. */
export function fanInUniform_(target: Tensor, fanIn: number): Tensor {
  const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0
  return uniform_(target, -bound, bound)
}
