import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import * as init from './init.js'
import { Module } from './module.js'
import { newParameter, type Parameter } from './parameter.js'

// aten::linear, by a faster matrix product where there is one: native/linear.cc.
const linear = torch.operator('gmml::linear')

/** @throws InputError unless `value` is an integer of at least `least`. */
export function requireInteger(value: unknown, name: string, least = 1): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= least) return value
  throw expected(`an integer of at least ${least}`, name, value)
}

/** @throws InputError unless `value` is a probability. */
export function requireProbability(value: unknown, name: string): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value
  throw expected('a probability between 0 and 1', name, value)
}

/** `x W^T + b` on the last dimension. PyTorch: `nn.Linear`. */
export class Linear extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | null

  constructor(inFeatures: number, outFeatures: number, options: { readonly bias?: boolean } = {}) {
    super()
    requireInteger(inFeatures, 'inFeatures')
    requireInteger(outFeatures, 'outFeatures')
    this.weight = newParameter(() => init.fanInUniform_(torch.empty([outFeatures, inFeatures]), inFeatures))
    this.bias = (options.bias ?? true) ? newParameter(() => init.fanInUniform_(torch.empty([outFeatures]), inFeatures)) : null
  }

  /** @param x - [..., inFeatures]. @returns [..., outFeatures]. */
  override forward(x: Tensor): Tensor {
    return torch.call<Tensor>(linear, x, this.weight, this.bias)
  }

  /** {@link forward} without the bias. */
  product(x: Tensor): Tensor {
    return torch.call<Tensor>(linear, x, this.weight, null)
  }
}

/** Normalisation over the last dimension. PyTorch: `nn.LayerNorm`. */
export class LayerNorm extends Module {
  readonly weight: Parameter
  readonly bias: Parameter

  constructor(readonly size: number, readonly eps = 1e-5) {
    super()
    requireInteger(size, 'size')
    this.weight = newParameter(() => torch.ones([size]))
    this.bias = newParameter(() => torch.zeros([size]))
  }

  override forward(x: Tensor): Tensor {
    return torch.layerNorm(x, [this.size], { weight: this.weight, bias: this.bias, eps: this.eps })
  }
}

type Pair = number | readonly [number, number]
const pair = (value: Pair): readonly [number, number] => (typeof value === 'number' ? [value, value] : value)

/** How a convolution moves over its input. PyTorch: `torch.nn.Conv2d`. */
export interface ConvOptions {
  readonly stride?: Pair
  readonly padding?: Pair
  readonly dilation?: Pair
  readonly groups?: number
  readonly bias?: boolean
}

/** Convolution of images [B, C, H, W]. PyTorch: `nn.Conv2d`. */
export class Conv2d extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | null
  readonly #options: ConvOptions

  constructor(inChannels: number, outChannels: number, kernelSize: Pair, options: ConvOptions = {}) {
    super()
    const [height, width] = pair(kernelSize)
    const groups = requireInteger(options.groups ?? 1, 'groups')
    if (requireInteger(inChannels, 'inChannels') % groups || requireInteger(outChannels, 'outChannels') % groups) {
      throw expected('a divisor of inChannels and outChannels', 'groups', groups)
    }
    const fanIn = (inChannels / groups) * requireInteger(height, 'kernelSize') * requireInteger(width, 'kernelSize')
    this.#options = options
    this.weight = newParameter(() => init.fanInUniform_(torch.empty([outChannels, inChannels / groups, height, width]), fanIn))
    this.bias = (options.bias ?? true) ? newParameter(() => init.fanInUniform_(torch.empty([outChannels]), fanIn)) : null
  }

  /**
   * The convolution with the bias added.
   *
   * @param x - [B, inChannels, H, W].
   */
  override forward(x: Tensor): Tensor {
    const { stride = 1, padding = 0, dilation = 1, groups = 1 } = this.#options
    return torch.conv2d(x, this.weight, { bias: this.bias, stride, padding: pair(padding), dilation, groups })
  }
}

/** Transposed convolution of images [B, C, H, W]. PyTorch: `nn.ConvTranspose2d`. */
export class ConvTranspose2d extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | null
  readonly #options: ConvOptions & { readonly outputPadding?: Pair }

  constructor(inChannels: number, outChannels: number, kernelSize: Pair, options: ConvOptions & { readonly outputPadding?: Pair } = {}) {
    super()
    const [height, width] = pair(kernelSize)
    const groups = requireInteger(options.groups ?? 1, 'groups')
    if (requireInteger(inChannels, 'inChannels') % groups || requireInteger(outChannels, 'outChannels') % groups) {
      throw expected('a divisor of inChannels and outChannels', 'groups', groups)
    }
    const fanIn = (outChannels / groups) * requireInteger(height, 'kernelSize') * requireInteger(width, 'kernelSize')
    this.#options = options
    this.weight = newParameter(() => init.fanInUniform_(torch.empty([inChannels, outChannels / groups, height, width]), fanIn))
    this.bias = (options.bias ?? true) ? newParameter(() => init.fanInUniform_(torch.empty([outChannels]), fanIn)) : null
  }

  /**
   * The convolution with the bias added.
   *
   * @param x - [B, inChannels, H, W].
   */
  override forward(x: Tensor): Tensor {
    const { stride = 1, padding = 0, outputPadding = 0, dilation = 1, groups = 1 } = this.#options
    return torch.convTranspose2d(x, this.weight, { bias: this.bias, stride, padding, outputPadding, groups, dilation })
  }
}

/** Gaussian error linear unit, exact (erf) unless `approximate` is 'tanh'. PyTorch: `nn.GELU`. */
export class GELU extends Module {
  constructor(readonly approximate: 'none' | 'tanh' = 'none') {
    super()
  }

  override forward(x: Tensor): Tensor {
    return torch.gelu(x, { approximate: this.approximate })
  }
}

/** Sets elements to zero with probability `p` in training and scales the others. PyTorch: `nn.Dropout`. */
export class Dropout extends Module {
  constructor(readonly p = 0.5) {
    super()
    requireProbability(p, 'p')
  }

  override forward(x: Tensor): Tensor {
    return this.training && this.p > 0 ? torch.dropout(x, this.p, true) : x
  }
}

/** Stochastic depth: drops a whole sample of a residual branch with probability `p` in training. Paper: arXiv 1603.09382. */
export class DropPath extends Module {
  constructor(readonly p = 0) {
    super()
    requireProbability(p, 'p')
  }

  /** What each sample of x is multiplied by, drawn anew: [B, 1, ...]. Null where all are kept. */
  factor(x: Tensor): Tensor | null {
    if (!this.training || this.p === 0) return null
    const { shape, dtype, device } = x
    const kept = torch.empty([shape[0]!, ...shape.slice(1).map(() => 1)], { dtype, device }).bernoulli_({ p: 1 - this.p })
    return this.p < 1 ? kept.div_(1 - this.p) : kept
  }

  /**
   * In training some rows of the batch are 0, and the others greater in turn.
   *
   * @param x - [B, ...].
   */
  override forward(x: Tensor): Tensor {
    const factor = this.factor(x)
    return factor ? x.mul(factor) : x
  }
}

/** Gives back its input. */
export class Identity extends Module {
  override forward(x: Tensor): Tensor {
    return x
  }
}
