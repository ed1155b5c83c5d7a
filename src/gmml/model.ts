import { expected } from '../errors.js'
import { ConvTranspose2d, GELU, isFused, Linear, linearGelu, maskedL1, Module, Sequential } from '../nn/index.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { initialise, patchify, requireBlocks, unpatchify, type VisionTransformer } from '../vision/index.js'

/** Turns tokens into pixels: three times (linear, GELU), then one transposed convolution. Keys are the authors'. */
export class ReconstructionHead extends Module {
  readonly mlp: Sequential
  readonly convTrans: ConvTranspose2d
  readonly #layers: readonly (readonly [Linear, GELU])[]

  constructor(dim: number, channels: number, readonly patchSize: number) {
    super()
    this.#layers = Array.from({ length: 3 }, () => [new Linear(dim, dim), new GELU()] as const)
    this.mlp = new Sequential(...this.#layers.flat())
    this.convTrans = new ConvTranspose2d(dim, channels, patchSize, { stride: patchSize })
    initialise(this)
  }

  /** @param tokens - [B, N, D]. @returns Pixels by patch [B, N, C p p], see {@link patchify}. */
  override forward(tokens: Tensor): Tensor {
    // Kernel and stride are equal, so no two patches overlap: a matrix product per token, with the convolution's weights.
    const { weight, bias } = this.convTrans
    const hidden = this.#layers.reduce((x, [linear, gelu]) => linearGelu(x, linear, gelu), tokens)
    return torch.linear(hidden, weight.flatten({ startDim: 1 }).t(), { bias: bias!.repeatInterleave(this.patchSize ** 2) })
  }
}

/** The blocks that the reconstruction sees: 6, 8, 10 and 12 of 12, in proportion for other depths. */
export function reconstructionBlocks(depth: number): number[] {
  return [...new Set([1 / 2, 2 / 3, 5 / 6, 1].map((part) => Math.max(1, Math.round(part * depth))))]
}

/** What a {@link GroupMaskedModel} reconstructs from, and what counts in its loss. */
export interface GroupMaskedModelOptions {
  /** Blocks (counted from 1) whose token maps are averaged for the reconstruction. Default {@link reconstructionBlocks}. */
  readonly blocks?: readonly number[]
  /** Loss over the corrupted pixels only, or over all. Default true. */
  readonly maskedOnly?: boolean
}

/** Group masked model learning: an encoder sees a corrupted image, and a head reconstructs the clean one. Paper: arXiv 2205.14986. */
export class GroupMaskedModel extends Module {
  readonly head_recons: ReconstructionHead
  readonly blocks: readonly number[]
  readonly maskedOnly: boolean

  /** @throws InputError for a block that the backbone does not have. */
  constructor(readonly backbone: VisionTransformer, options: GroupMaskedModelOptions = {}) {
    super()
    this.head_recons = new ReconstructionHead(backbone.embedDim, backbone.channels, backbone.patchSize)
    this.blocks = options.blocks ?? reconstructionBlocks(backbone.depth)
    requireBlocks(this.blocks, backbone.depth)
    this.maskedOnly = options.maskedOnly ?? true
  }

  /** @param corrupted - [B, C, H, W]. @returns Predicted pixels by patch [B, N, C p p]. */
  override forward(corrupted: Tensor): Tensor {
    const tokens = this.backbone.call(corrupted, this.blocks)
    return this.head_recons.call(this.backbone.patchTokens(tokens))
  }

  /** The image that the model sees behind the corruption. @param corrupted - [B, C, H, W]. @returns [B, C, H, W]. */
  reconstruct(corrupted: Tensor): Tensor {
    return torch.scope(() => unpatchify((this as GroupMaskedModel).call(corrupted), this.backbone.patchSize, ...this.backbone.imageSize))
  }

  /**
   * L1 in normalised pixels, averaged over the corrupted elements of the batch.
   *
   * @param corrupted - [B, C, H, W].
   * @param clean - [B, C, H, W].
   * @param mask - True where corrupted: [B, 1, H, W].
   * @returns One number, float32 (float64 for a float64 model).
   * @throws InputError for shapes that do not belong together.
   */
  loss(corrupted: Tensor, clean: Tensor, mask: Tensor): Tensor {
    const { shape } = clean
    if (String(corrupted.shape) !== String(shape)) {
      throw expected(`the shape of corrupted, [${corrupted.shape.join(', ')}]`, 'clean', `shape [${shape.join(', ')}]`)
    }
    const maskShape = [shape[0], 1, ...shape.slice(2)]
    if (String(mask.shape) !== String(maskShape)) {
      throw expected(`shape [${maskShape.join(', ')}]`, 'mask', `shape [${mask.shape.join(', ')}]`)
    }
    return torch.scope(() => {
      const { patchSize, channels } = this.backbone
      // Compared by patch: the target is cut into patches, which needs no gradient, instead of the prediction put together.
      const prediction = (this as GroupMaskedModel).call(corrupted)
      if (isFused('maskedL1', prediction) && !clean.requiresGrad && !mask.requiresGrad) {
        return maskedL1(prediction, clean, this.maskedOnly ? mask : null, patchSize)
      }
      // A sum of many 16-bit numbers would be worth little.
      const precise = prediction.dtype.endsWith('float16') ? prediction.to('float32') : prediction
      const distance = precise.sub(patchify(clean, patchSize)).abs()
      if (!this.maskedOnly) return distance.mean()
      const weight = patchify(mask.to(distance.dtype), patchSize)
      const byChannel = distance.unflatten(-1, [channels, patchSize ** 2])
      return byChannel.mul(weight.unsqueeze(2)).sum().div(weight.sum().mul(channels).clamp({ min: 1 }))
    })
  }
}
