import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { Dropout, Linear, requireInteger, requireProbability } from './layers.js'
import { Module } from './module.js'

/** Sizes and parts of an {@link Attention}. */
export interface AttentionOptions {
  readonly qkvBias?: boolean
  /** Dropout of the attention weights. */
  readonly attnDrop?: number
  /** Dropout of the output. */
  readonly projDrop?: number
}

/** Multi-head self-attention with one joint projection, as vision transformers have it (keys `qkv`, `proj`). Paper: arXiv 2010.11929. */
export class Attention extends Module {
  readonly qkv: Linear
  readonly proj: Linear
  readonly projDrop: Dropout
  readonly #attnDrop: number

  constructor(readonly dim: number, readonly numHeads: number, options: AttentionOptions = {}) {
    super()
    if (requireInteger(dim, 'dim') % requireInteger(numHeads, 'numHeads')) {
      throw expected(`a divisor of the width ${dim}`, 'numHeads', numHeads)
    }
    this.qkv = new Linear(dim, 3 * dim, { bias: options.qkvBias ?? true })
    this.proj = new Linear(dim, dim)
    this.projDrop = new Dropout(options.projDrop ?? 0)
    this.#attnDrop = requireProbability(options.attnDrop ?? 0, 'attnDrop')
  }

  /** @param x - [B, N, dim]. @returns [B, N, dim]. */
  override forward(x: Tensor): Tensor {
    const [batch, length] = x.shape as [number, number]
    const qkv = this.qkv.call(x).reshape([batch, length, 3, this.numHeads, this.dim / this.numHeads]).permute([2, 0, 3, 1, 4])
    const [query, key, value] = qkv.unbind() as [Tensor, Tensor, Tensor]
    const dropoutP = this.training ? this.#attnDrop : 0
    const mixed = torch.scaledDotProductAttention(query, key, value, { dropoutP })
    return this.projDrop.call(this.proj.call(mixed.transpose(1, 2).reshape([batch, length, this.dim])))
  }
}
