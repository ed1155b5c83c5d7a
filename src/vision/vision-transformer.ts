import { expected } from '../errors.js'
import {
  Attention, checkpoint, Conv2d, DropPath, GELU, init, LayerNorm, Linear, Module, ModuleList, newParameter, type Parameter
} from '../nn/index.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'

/** Height and width in pixels; one number for both. */
export type ImageSize = number | readonly [height: number, width: number]

export interface VisionTransformerOptions {
  /** Pixels; the patch size must divide it. Default 224. */
  readonly imageSize?: ImageSize
  /** Side of a patch in pixels. Default 16. */
  readonly patchSize?: number
  /** Channels of the image. Default 3. */
  readonly channels?: number
  /** Width of the tokens. */
  readonly embedDim: number
  /** Number of blocks. */
  readonly depth: number
  /** Attention heads of a block; must divide `embedDim`. */
  readonly numHeads: number
  /** Width of the MLP's hidden layer by the width of the tokens. Default 4. */
  readonly mlpRatio?: number
  /** Whether the joint projection of query, key and value has a bias. Default true. */
  readonly qkvBias?: boolean
  /** Probability that the last block drops a sample's branch; it rises linearly from 0 at the first. Default 0. */
  readonly dropPath?: number
}

const LAYER_NORM_EPS = 1e-6 // timm's for vision transformers, not PyTorch's 1e-5
const INIT_STD = 0.02

const positive = (value: unknown, name: string): number => {
  if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value
  throw expected('a positive integer', name, value)
}

/** Cuts an image into patches and projects each. */
export class PatchEmbed extends Module {
  readonly proj: Conv2d

  constructor(readonly channels: number, readonly patchSize: number, embedDim: number) {
    super()
    this.proj = new Conv2d(channels, embedDim, patchSize, { stride: patchSize })
  }

  /** @param images - [B, C, H, W]. @returns [B, N, D], patches row by row. */
  override forward(images: Tensor): Tensor {
    // The convolution's stride is its kernel, so it is a matrix product per patch, which is faster than a convolution on every device.
    const { weight, bias } = this.proj
    return torch.linear(patchify(images, this.patchSize), weight.flatten({ startDim: 1 }), { bias })
  }
}

/**
 * Pixels by patch.
 *
 * @param images - [B, C, H, W].
 * @returns [B, N, C p p], patches row by row, a patch as channel, row, column.
 * @throws InputError for a patch that does not divide the image.
 */
export function patchify(images: Tensor, patchSize: number): Tensor {
  positive(patchSize, 'patchSize')
  const [batch, channels, height, width] = images.shape as [number, number, number, number]
  if (images.ndim !== 4) throw expected('a batch of images [B, C, H, W]', 'images', `shape [${images.shape.join(', ')}]`)
  if (height % patchSize || width % patchSize) throw expected(`a divisor of the image size ${height} x ${width}`, 'patchSize', patchSize)
  const [rows, columns] = [height / patchSize, width / patchSize]
  return images
    .reshape([batch, channels, rows, patchSize, columns, patchSize])
    .permute([0, 2, 4, 1, 3, 5])
    .reshape([batch, rows * columns, channels * patchSize * patchSize])
}

/** Inverse of {@link patchify}. @param patches - [B, N, C p p]. @returns [B, C, H, W]. @throws InputError for another shape. */
export function unpatchify(patches: Tensor, patchSize: number, height: number, width: number): Tensor {
  positive(patchSize, 'patchSize')
  const { shape } = patches
  const [batch, length, size] = shape as [number, number, number]
  const area = patchSize ** 2
  if (shape.length !== 3 || size % area || length * area !== height * width || height % patchSize || width % patchSize) {
    throw expected(`patches [B, N, C p p] of an image of ${height} x ${width}, p = ${patchSize}`, 'patches', `shape [${shape.join(', ')}]`)
  }
  const [rows, columns, channels] = [height / patchSize, width / patchSize, size / area]
  return patches
    .reshape([batch, rows, columns, channels, patchSize, patchSize])
    .permute([0, 3, 1, 4, 2, 5])
    .reshape([batch, channels, height, width])
}

class Mlp extends Module {
  readonly fc1: Linear
  readonly act = new GELU()
  readonly fc2: Linear

  constructor(dim: number, hidden: number) {
    super()
    this.fc1 = new Linear(dim, hidden)
    this.fc2 = new Linear(hidden, dim)
  }

  override forward(x: Tensor): Tensor {
    return this.fc2.call(this.act.call(this.fc1.call(x)))
  }
}

/** A pre-norm transformer block. */
export class Block extends Module {
  readonly norm1: LayerNorm
  readonly attn: Attention
  readonly norm2: LayerNorm
  readonly mlp: Mlp
  readonly dropPath: DropPath

  constructor(dim: number, numHeads: number, mlpRatio: number, qkvBias: boolean, dropPath: number) {
    super()
    this.norm1 = new LayerNorm(dim, LAYER_NORM_EPS)
    this.attn = new Attention(dim, numHeads, { qkvBias })
    this.norm2 = new LayerNorm(dim, LAYER_NORM_EPS)
    this.mlp = new Mlp(dim, Math.round(dim * mlpRatio))
    this.dropPath = new DropPath(dropPath)
  }

  /** @param x - [B, N, D]. */
  override forward(x: Tensor): Tensor {
    const attended = x.add(this.dropPath.call(this.attn.call(this.norm1.call(x))))
    return attended.add(this.dropPath.call(this.mlp.call(this.norm2.call(attended))))
  }
}

/** @throws InputError unless `blocks` are different integers from 1 to `depth`, at least one. */
export function requireBlocks(blocks: readonly number[], depth: number): void {
  const legal = (block: unknown) => Number.isInteger(block) && (block as number) >= 1 && (block as number) <= depth
  if (Array.isArray(blocks) && blocks.length > 0 && blocks.every(legal) && new Set(blocks).size === blocks.length) return
  throw expected(`different blocks between 1 and ${depth}`, 'blocks', blocks)
}

/**
 * The vision transformer of arXiv 2010.11929 with a CLS token, without a classifier. State-dict keys are timm's, which is why some
 * properties are in snake case.
 */
export class VisionTransformer extends Module {
  readonly cls_token: Parameter
  readonly pos_embed: Parameter
  readonly patch_embed: PatchEmbed
  readonly blocks: ModuleList<Block>
  readonly norm: LayerNorm
  /** [height, width] in pixels. */
  readonly imageSize: readonly [number, number]
  readonly patchSize: number
  readonly channels: number
  readonly embedDim: number
  readonly depth: number
  /** Whether blocks keep only their inputs in training and compute the rest again in backward: see `checkpoint` of `gmml/nn`. */
  gradCheckpointing = false

  /**
   * @throws InputError for a patch that does not divide the image, a width that the heads do not divide, a size below 1, a drop path that
   *   is no probability.
   */
  constructor(options: VisionTransformerOptions) {
    super()
    const { imageSize = 224, patchSize = 16, channels = 3, embedDim, depth, numHeads, mlpRatio = 4, qkvBias = true, dropPath = 0 } = options
    const size = typeof imageSize === 'number' ? ([imageSize, imageSize] as const) : imageSize
    this.imageSize = [positive(size[0], 'imageSize'), positive(size[1], 'imageSize')]
    this.patchSize = positive(patchSize, 'patchSize')
    this.channels = positive(channels, 'channels')
    this.embedDim = positive(embedDim, 'embedDim')
    this.depth = positive(depth, 'depth')
    if (!(dropPath >= 0 && dropPath <= 1)) throw expected('a probability between 0 and 1', 'dropPath', dropPath)
    if (this.imageSize.some((side) => side % patchSize)) {
      throw expected(`a divisor of the image size ${this.imageSize.join(' x ')}`, 'patchSize', patchSize)
    }
    this.cls_token = newParameter(() => torch.zeros([1, 1, embedDim]))
    this.pos_embed = newParameter(() => torch.zeros([1, this.numPatches + 1, embedDim]))
    this.patch_embed = new PatchEmbed(channels, patchSize, embedDim)
    const rate = (block: number) => (depth > 1 ? (dropPath * block) / (depth - 1) : 0)
    positive(numHeads, 'numHeads')
    this.blocks = new ModuleList(Array.from({ length: depth }, (_, i) => new Block(embedDim, numHeads, mlpRatio, qkvBias, rate(i))))
    this.norm = new LayerNorm(embedDim, LAYER_NORM_EPS)
    initialise(this)
  }

  /** Number of patches of an image. */
  get numPatches(): number {
    return (this.imageSize[0] / this.patchSize) * (this.imageSize[1] / this.patchSize)
  }

  /**
   * Tokens after the final norm.
   *
   * @param images - [B, C, H, W], normalised.
   * @param blocks - Blocks (counted from 1) whose outputs are averaged before the norm. Default: the last.
   * @returns [B, 1 + N, D], CLS first.
   * @throws InputError for images of another size than the model's, and for a block that it does not have.
   */
  override forward(images: Tensor, blocks: readonly number[] = [this.depth]): Tensor {
    const [batch, ...size] = images.shape
    const own = [this.channels, ...this.imageSize]
    if (images.ndim !== 4 || String(size) !== String(own)) {
      throw expected(`a batch of images [B, ${own.join(', ')}]`, 'images', `shape [${images.shape.join(', ')}]`)
    }
    requireBlocks(blocks, this.depth)
    const patches = this.patch_embed.call(images)
    let x = torch.cat([this.cls_token.expand([batch!, -1, -1]), patches], { dim: 1 }).add(this.pos_embed)
    let total: Tensor | undefined
    for (const [i, block] of [...this.blocks].slice(0, Math.max(...blocks)).entries()) {
      x = this.gradCheckpointing ? checkpoint(block, x) : block.call(x)
      if (blocks.includes(i + 1)) total = total ? total.add(x) : x
    }
    return this.norm.call(blocks.length > 1 ? total!.div(blocks.length) : total!)
  }
}

/** Weights as the method's authors draw them: truncated normal for linear layers, position embedding and CLS; zero biases. */
export function initialise(module: Module): void {
  for (const [, part] of module.namedModules()) {
    if (part instanceof Linear) {
      init.truncNormal_(part.weight, { std: INIT_STD })
      if (part.bias) init.zeros_(part.bias)
    } else if (part instanceof VisionTransformer) {
      init.truncNormal_(part.pos_embed, { std: INIT_STD })
      init.truncNormal_(part.cls_token, { std: INIT_STD })
    }
  }
}
