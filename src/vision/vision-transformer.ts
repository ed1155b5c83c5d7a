import { expected } from '../errors.js'
import { checkpoint, Identity, init, isFused, LayerNorm, Linear, Module, ModuleList, newParameter, type Parameter } from '../nn/index.js'
import { requireInteger, requireProbability } from '../nn/layers.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { Block, LAYER_NORM_EPS } from './block.js'
import { PatchEmbed, requirePositive } from './patches.js'

/** Height and width in pixels; one number for both. */
export type ImageSize = number | readonly [height: number, width: number]

/** How the tokens of an image become one vector: the CLS token, or the mean of the patch tokens. */
export type Pooling = 'token' | 'avg'

/** Sizes and parts of a {@link VisionTransformer}, under the names of timm. */
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
  /** Whether the tokens begin with a CLS token. Default true. */
  readonly classToken?: boolean
  /** Learned tokens that stand for no patch, after the CLS token. Paper: arXiv 2309.16588. Default 0. */
  readonly registerTokens?: number
  /** Whether the position embedding has rows for the patches alone, none for CLS and registers. Default false. */
  readonly noEmbedClass?: boolean
  /** What the layer scale of every branch starts from; null for no layer scale. Default null. */
  readonly initValues?: number | null
  /** What every layer norm adds to the variance. Default 1e-6, timm's; models of Hugging Face have other values. */
  readonly normEps?: number
  /** Default `token` for a model with a CLS token, `avg` for one without. */
  readonly pool?: Pooling
  /**
   * Whether the final norm comes after pooling (key `fc_norm`) and not before (key `norm`). Default: for `avg`, as in timm. Pretraining
   * does not pool: it trains `norm`, and leaves `fc_norm` as it is.
   */
  readonly fcNorm?: boolean
  /** Classes of the classifier (key `head`); 0 for none. Default 0. */
  readonly numClasses?: number
}

/** All options, with their defaults filled in. */
export type ResolvedVisionTransformerOptions = Required<Omit<VisionTransformerOptions, 'imageSize'>> & {
  readonly imageSize: readonly [height: number, width: number]
}

const INIT_STD = 0.02

/** @throws InputError unless both are positive integers. */
export function sides(size: ImageSize, name: string): readonly [height: number, width: number] {
  const [height, width] = Array.isArray(size) && size.length === 2 ? (size as [unknown, unknown]) : [size, size]
  return [requirePositive(height, name), requirePositive(width, name)]
}

function requireFlag(value: unknown, name: string): boolean {
  if (typeof value === 'boolean') return value
  throw expected('a boolean', name, value)
}

function resolve(options: VisionTransformerOptions): ResolvedVisionTransformerOptions {
  const { imageSize = 224, patchSize = 16, mlpRatio = 4, dropPath = 0, initValues = null, classToken = true } = options
  const { pool = classToken ? 'token' : 'avg' } = options
  const resolved = {
    imageSize: sides(imageSize, 'imageSize'),
    patchSize: requirePositive(patchSize, 'patchSize'),
    channels: requirePositive(options.channels ?? 3, 'channels'),
    embedDim: requirePositive(options.embedDim, 'embedDim'),
    depth: requirePositive(options.depth, 'depth'),
    numHeads: requirePositive(options.numHeads, 'numHeads'),
    mlpRatio,
    qkvBias: requireFlag(options.qkvBias ?? true, 'qkvBias'),
    dropPath: requireProbability(dropPath, 'dropPath'),
    classToken: requireFlag(classToken, 'classToken'),
    registerTokens: requireInteger(options.registerTokens ?? 0, 'registerTokens', 0),
    noEmbedClass: requireFlag(options.noEmbedClass ?? false, 'noEmbedClass'),
    initValues,
    normEps: options.normEps ?? LAYER_NORM_EPS,
    pool,
    fcNorm: requireFlag(options.fcNorm ?? pool === 'avg', 'fcNorm'),
    numClasses: requireInteger(options.numClasses ?? 0, 'numClasses', 0)
  }
  if (!(typeof mlpRatio === 'number' && mlpRatio > 0 && mlpRatio < Infinity)) throw expected('a number above 0', 'mlpRatio', mlpRatio)
  const { normEps } = resolved
  if (!(typeof normEps === 'number' && normEps >= 0 && normEps < Infinity)) throw expected('a number of at least 0', 'normEps', normEps)
  // timm has no layer scale of 0 either: it takes 0 for none, and its model would lack the keys.
  if (initValues !== null && !(Number.isFinite(initValues) && initValues !== 0)) {
    throw expected('a number other than 0, or null,', 'initValues', initValues)
  }
  if (pool !== 'token' && pool !== 'avg') throw expected("'token' or 'avg'", 'pool', pool)
  if (pool === 'token' && !classToken) throw expected("'avg' (there is no CLS token)", 'pool', pool)
  if (resolved.imageSize.some((side) => side % patchSize)) {
    throw expected(`a divisor of the image size ${resolved.imageSize.join(' x ')}`, 'patchSize', patchSize)
  }
  return resolved
}

/** @throws InputError unless `blocks` are different integers from 1 to `depth`, at least one. */
export function requireBlocks(blocks: readonly number[], depth: number): void {
  const legal = (block: unknown) => Number.isInteger(block) && (block as number) >= 1 && (block as number) <= depth
  if (Array.isArray(blocks) && blocks.length > 0 && blocks.every(legal) && new Set(blocks).size === blocks.length) return
  throw expected(`different blocks between 1 and ${depth}`, 'blocks', blocks)
}

/**
 * The vision transformer of arXiv 2010.11929, with or without CLS token, register tokens and classifier. State-dict keys are those of
 * timm's `VisionTransformer`, which is why some properties are in snake case.
 */
export class VisionTransformer extends Module {
  readonly cls_token: Parameter | null
  readonly reg_token: Parameter | null
  readonly pos_embed: Parameter
  readonly patch_embed: PatchEmbed
  readonly blocks: ModuleList<Block>
  readonly norm: LayerNorm | Identity
  readonly fc_norm: LayerNorm | Identity
  readonly head: Linear | null
  /** All options, with their defaults filled in: what makes a model of the same keys and shapes. */
  readonly options: ResolvedVisionTransformerOptions
  /** [height, width] in pixels. */
  readonly imageSize: readonly [number, number]
  readonly patchSize: number
  readonly channels: number
  readonly embedDim: number
  readonly depth: number
  /** Tokens before those of the patches: CLS and registers. */
  readonly numPrefixTokens: number
  /**
   * Whether blocks keep only their inputs in training and compute the rest again in backward: see `checkpoint` of `gmml/nn`. A block then
   * computes its first norm by itself; where that is otherwise fused with the block before (`setFusion('on')`), results differ by rounding.
   */
  gradCheckpointing = false

  /**
   * @throws InputError for a patch that does not divide the image, a width that the heads do not divide, a size below 1, a drop path that
   *   is no probability, and pooling of a CLS token that is not there.
   */
  constructor(options: VisionTransformerOptions) {
    super()
    const resolved = resolve(options)
    const { imageSize, patchSize, channels, embedDim, depth, numHeads, dropPath, classToken, registerTokens, fcNorm, numClasses } = resolved
    const { normEps } = resolved
    this.options = resolved
    this.imageSize = imageSize
    this.patchSize = patchSize
    this.channels = channels
    this.embedDim = embedDim
    this.depth = depth
    this.numPrefixTokens = (classToken ? 1 : 0) + registerTokens
    const positions = this.numPatches + (resolved.noEmbedClass ? 0 : this.numPrefixTokens)
    this.cls_token = classToken ? newParameter(() => torch.zeros([1, 1, embedDim])) : null
    this.reg_token = registerTokens ? newParameter(() => torch.zeros([1, registerTokens, embedDim])) : null
    this.pos_embed = newParameter(() => torch.zeros([1, positions, embedDim]))
    this.patch_embed = new PatchEmbed(channels, patchSize, embedDim)
    const rate = (block: number) => (depth > 1 ? (dropPath * block) / (depth - 1) : 0)
    this.blocks = new ModuleList(
      Array.from({ length: depth }, (_, i) => new Block(embedDim, numHeads, { ...resolved, dropPath: rate(i) }))
    )
    this.norm = fcNorm ? new Identity() : new LayerNorm(embedDim, normEps)
    this.fc_norm = fcNorm ? new LayerNorm(embedDim, normEps) : new Identity()
    this.head = numClasses ? new Linear(embedDim, numClasses) : null
    initialise(this)
  }

  /** Rows and columns of patches. */
  get grid(): readonly [rows: number, columns: number] {
    return [this.imageSize[0] / this.patchSize, this.imageSize[1] / this.patchSize]
  }

  /** Number of patches of an image. */
  get numPatches(): number {
    return this.grid[0] * this.grid[1]
  }

  /**
   * The tokens that the first block sees.
   *
   * @param images - [B, C, H, W], normalised.
   * @returns `[B, P + N, D]`: CLS, registers, patches row by row.
   * @throws InputError for images of another size than the model's.
   */
  embed(images: Tensor): Tensor {
    const [batch, ...size] = images.shape
    const own = [this.channels, ...this.imageSize]
    if (images.ndim !== 4 || String(size) !== String(own)) {
      throw expected(`a batch of images [B, ${own.join(', ')}]`, 'images', `shape [${images.shape.join(', ')}]`)
    }
    return torch.scope(() => {
      const patches = this.patch_embed.call(images)
      const prefix = [this.cls_token, this.reg_token].flatMap((tokens) => tokens?.expand([batch!, -1, -1]) ?? [])
      const withPrefix = (tokens: Tensor) => (prefix.length ? torch.cat([...prefix, tokens], { dim: 1 }) : tokens)
      return this.options.noEmbedClass ? withPrefix(patches.add(this.pos_embed)) : withPrefix(patches).add(this.pos_embed)
    })
  }

  /**
   * Tokens after the final norm (without it for `fcNorm`, where it comes after pooling). timm: `forward_features`.
   *
   * @param images - [B, C, H, W], normalised.
   * @param blocks - Blocks (counted from 1) whose outputs are averaged before the norm. Default: the last.
   * @returns `[B, P + N, D]`: CLS, registers, patches row by row.
   * @throws InputError for images of another size than the model's, and for a block that it does not have.
   */
  override forward(images: Tensor, blocks: readonly number[] = [this.depth]): Tensor {
    requireBlocks(blocks, this.depth)
    let x = this.embed(images)
    let normalised: Tensor | undefined
    let total: Tensor | undefined
    const used = [...this.blocks].slice(0, Math.max(...blocks))
    for (const [i, block] of used.entries()) {
      if (this.gradCheckpointing) x = checkpoint(block, x)
      else if (!isFused('addLayerNorm', x)) x = block.call(x)
      else [x, normalised] = block.advance(x, normalised ?? block.norm1.call(x), used[i + 1]?.norm1)
      if (blocks.includes(i + 1)) total = total ? total.add(x) : x
    }
    return this.norm.call(blocks.length > 1 ? total!.div(blocks.length) : total!)
  }

  /**
   * The patches' part of {@link forward}'s tokens.
   *
   * @param tokens - [B, P + N, D].
   * @returns [B, N, D], a view.
   */
  patchTokens(tokens: Tensor): Tensor {
    return tokens.narrow(1, this.numPrefixTokens, this.numPatches)
  }

  /**
   * One vector for an image, by the model's `pool` or another. timm: `forward_head(x, pre_logits=True)`.
   *
   * @param tokens - [B, P + N, D], from {@link forward}.
   * @returns [B, D], normalised.
   * @throws InputError for tokens of another number or width, and for the CLS token of a model that has none.
   */
  pool(tokens: Tensor, pool: Pooling = this.options.pool): Tensor {
    const own = [this.numPrefixTokens + this.numPatches, this.embedDim]
    if (tokens.ndim !== 3 || String(tokens.shape.slice(1)) !== String(own)) {
      throw expected(`tokens [B, ${own.join(', ')}]`, 'tokens', `shape [${tokens.shape.join(', ')}]`)
    }
    if (pool !== 'avg' && !(pool === 'token' && this.cls_token)) throw expected(this.cls_token ? "'token' or 'avg'" : "'avg'", 'pool', pool)
    return torch.scope(() => this.fc_norm.call(pool === 'avg' ? this.patchTokens(tokens).mean(1) : tokens.select(1, 0)))
  }

  /** Pooled features of images. @param images - [B, C, H, W], normalised. @returns [B, D]. @throws InputError as {@link forward}. */
  features(images: Tensor): Tensor {
    return torch.scope(() => this.pool((this as VisionTransformer).call(images)))
  }

  /**
   * Scores of the classes. timm: `forward`.
   *
   * @param images - [B, C, H, W], normalised.
   * @returns [B, numClasses].
   * @throws InputError for a model without a classifier, and as {@link forward}.
   */
  logits(images: Tensor): Tensor {
    const { head } = this
    if (!head) throw expected('a model with a classifier (numClasses above 0)', 'logits()', 'one without')
    return torch.scope(() => head.call(this.features(images)))
  }
}

/** Weights as the method's authors draw them: truncated normal for linear layers, position embedding and CLS; zero biases. */
export function initialise(module: Module): void {
  for (const [, part] of module.namedModules()) {
    if (part instanceof Linear) {
      init.truncNormal_(part.weight, { std: INIT_STD })
      if (part.bias) init.zeros_(part.bias)
    } else if (part instanceof VisionTransformer) {
      for (const tokens of [part.pos_embed, part.cls_token, part.reg_token]) if (tokens) init.truncNormal_(tokens, { std: INIT_STD })
    }
  }
}
