import { expected } from '../errors.js'
import { emptyLike, noGrad, scope, tensor, type Tensor } from '../torch/index.js'

/** Fills from a uniform distribution. PyTorch: `nn.init.uniform_`. */
export function uniform_(target: Tensor, low: number, high: number): Tensor {
  return noGrad(() => target.uniform_({ from: low, to: high }))
}

/** Fills with zeros. PyTorch: `nn.init.zeros_`. */
export function zeros_(target: Tensor): Tensor {
  return noGrad(() => target.zero_())
}

/** Fills with ones. PyTorch: `nn.init.ones_`. */
export function ones_(target: Tensor): Tensor {
  return noGrad(() => target.fill_(1))
}

/** Fills from a normal distribution. PyTorch: `nn.init.normal_`. */
export function normal_(target: Tensor, mean = 0, std = 1): Tensor {
  return noGrad(() => target.normal_({ mean, std }))
}

// The largest float32 below 1.
const INSIDE = 1 - 2 ** -24

/**
 * Fills from a normal distribution cut off at `low` and `high` (absolute values, not multiples of `std`), by the inverse of its
 * distribution function. PyTorch: `nn.init.trunc_normal_`.
 *
 * @throws InputError unless `std` is above 0 and `low` below `high`.
 */
export function truncNormal_(target: Tensor, { mean = 0, std = 1, low = -2, high = 2 } = {}): Tensor {
  if (!(std > 0)) throw expected('a number above 0', 'std', std)
  if (!(low < high)) throw expected(`a number above low (${low})`, 'high', high)
  return noGrad(() => {
    if (target.dtype === 'bfloat16' || target.dtype === 'float16') {
      scope(() => target.copy_(truncNormal_(emptyLike(target, { dtype: 'float32' }), { mean, std, low, high })))
      return target
    }
    const [from, to] = scope(() =>
      tensor([(low - mean) / std, (high - mean) / std], { dtype: 'float64' }).div(Math.SQRT2).erf().toArray()
    ) as [number, number]
    // One draw in 2^24 is the interval's end itself. Where that is -1 the inverse is infinite, and the weight `low`, however far away.
    target.uniform_({ from: Math.max(from, -INSIDE), to: Math.min(to, INSIDE) })
    return target.erfinv_().mul_(std * Math.SQRT2).add_(mean).clamp_({ min: low, max: high })
  })
}

/** Uniform within 1 / sqrt(fanIn), what PyTorch's Linear and convolutions start from. */
export function fanInUniform_(target: Tensor, fanIn: number): Tensor {
  const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0
  return uniform_(target, -bound, bound)
}
