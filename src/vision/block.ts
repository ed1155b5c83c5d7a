import { addLayerNorm, Attention, DropPath, GELU, Identity, LayerNorm, Linear, linearGelu, Module, newParameter } from '../nn/index.js'
import type { Parameter } from '../nn/index.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'

export const LAYER_NORM_EPS = 1e-6 // timm's for vision transformers, not PyTorch's 1e-5

/** The two linear layers of a block, with GELU between them. */
export class Mlp extends Module {
  readonly fc1: Linear
  readonly act = new GELU()
  readonly fc2: Linear

  constructor(dim: number, hidden: number) {
    super()
    this.fc1 = new Linear(dim, hidden)
    this.fc2 = new Linear(hidden, dim)
  }

  override forward(x: Tensor): Tensor {
    return this.fc2.call(linearGelu(x, this.fc1, this.act))
  }
}

/** The ratio that gives a hidden layer of this width, although the product is truncated. */
export function mlpRatioFor(hidden: number, dim: number): number {
  const ratio = hidden / dim
  return Math.trunc(dim * ratio) === hidden ? ratio : ratio * (1 + Number.EPSILON)
}

/** A learned factor for each element of a token. Paper: arXiv 2103.17239. */
export class LayerScale extends Module {
  readonly gamma: Parameter

  constructor(dim: number, value: number) {
    super()
    this.gamma = newParameter(() => torch.full([dim], value))
  }

  override forward(x: Tensor): Tensor {
    return x.mul(this.gamma)
  }
}

/** What `VisionTransformerOptions` say of a block. */
export interface BlockOptions {
  readonly mlpRatio?: number
  readonly qkvBias?: boolean
  readonly initValues?: number | null
  readonly normEps?: number
  /** Probability that the block drops a sample's branch. Default 0. */
  readonly dropPath?: number
}

/** A pre-norm transformer block. */
export class Block extends Module {
  readonly norm1: LayerNorm
  readonly attn: Attention
  readonly ls1: LayerScale | Identity
  readonly norm2: LayerNorm
  readonly mlp: Mlp
  readonly ls2: LayerScale | Identity
  readonly dropPath: DropPath

  constructor(dim: number, numHeads: number, options: BlockOptions = {}) {
    super()
    const { mlpRatio = 4, qkvBias = true, initValues = null, normEps = LAYER_NORM_EPS, dropPath = 0 } = options
    const scale = () => (initValues === null ? new Identity() : new LayerScale(dim, initValues))
    this.norm1 = new LayerNorm(dim, normEps)
    this.attn = new Attention(dim, numHeads, { qkvBias })
    this.ls1 = scale()
    this.norm2 = new LayerNorm(dim, normEps)
    this.mlp = new Mlp(dim, Math.trunc(dim * mlpRatio)) // truncated as timm does, or the keys' shapes would differ
    this.ls2 = scale()
    this.dropPath = new DropPath(dropPath)
  }

  /**
   * Attention and the two linear layers, each added to what came in.
   *
   * @param x - [B, N, D].
   */
  override forward(x: Tensor): Tensor {
    return this.advance(x, this.norm1.call(x))[0]
  }

  /**
   * {@link forward}, where its first norm has been computed before, and that of the next block is computed along: a sum and the norm that
   * follows it are one pass over the tokens, where they are fused.
   *
   * @param x - [B, N, D].
   * @param normalised - What this block's `norm1` makes of x.
   * @param next - The norm that the result goes to, if it is to be computed.
   * @returns The result [B, N, D], and what `next` makes of it.
   */
  advance(x: Tensor, normalised: Tensor, next?: LayerNorm): [x: Tensor, normalised?: Tensor] {
    return torch.scope(() => {
      const [attended, inner] = addLayerNorm(x, this.ls1.call(this.attn.call(normalised)), this.dropPath, this.norm2)
      const branch = this.ls2.call(this.mlp.call(inner))
      return next ? addLayerNorm(attended, branch, this.dropPath, next) : [attended.add(this.dropPath.call(branch))]
    })
  }
}
