import { expected } from '../errors.js'
import { getRngState, scope, setRngState } from '../torch/index.js'
import { VisionTransformer, type VisionTransformerOptions } from './vision-transformer.js'

/** What a vision transformer costs. Floating-point operations (FLOPs) are those of the forward pass of one image. */
export interface Cost {
  /** Weights of the encoder, all of them. */
  readonly parameters: number
  /** FLOPs of the encoder: the sum of `parts`. */
  readonly flops: number
  /** FLOPs by part, of all blocks together. */
  readonly parts: {
    /** The projection of the patches. */
    readonly patches: number
    /** The projections to query, key and value. */
    readonly qkv: number
    /** Products of queries and keys. */
    readonly scores: number
    /** Products of scores and values. */
    readonly values: number
    /** The projections of the attended values. */
    readonly projection: number
    readonly mlp: number
    /** The classifier, where the model has one. */
    readonly classifier: number
  }
  /** What the reconstruction of GMML adds in pretraining: its head. */
  readonly reconstruction: { readonly parameters: number; readonly flops: number }
}

const FIRST = 'blocks.0.'

function countCost(model: VisionTransformer, depth: number): Cost {
  const { numPatches, embedDim, channels, patchSize } = model
  // All blocks are alike: the first stands for each.
  const parameters = [...model.namedParameters()].filter(([name]) => !name.startsWith('blocks.') || name.startsWith(FIRST))
  const sizes = parameters.map(([name, { shape }]) => [name, shape.reduce((product, size) => product * size, 1)] as const)
  const times = (name: string) => (name.startsWith(FIRST) ? depth : 1)
  const prefix = parameters.map(([name, { shape }]) => (name === 'cls_token' || name === 'reg_token' ? shape[1]! : 0))
  const tokens = prefix.reduce((sum, count) => sum + count, numPatches)
  // A weight takes part in one multiplication and one addition for each vector that it projects.
  const projections = (pattern: RegExp, vectors: number) =>
    sizes.reduce((sum, [name, size]) => sum + (pattern.test(name) ? 2 * vectors * size * times(name) : 0), 0)
  const products = 2 * tokens ** 2 * embedDim * depth
  const parts = {
    patches: projections(/^patch_embed\.proj\.weight$/, numPatches),
    qkv: projections(/\.attn\.qkv\.weight$/, tokens),
    scores: products,
    values: products,
    projection: projections(/\.attn\.proj\.weight$/, tokens),
    mlp: projections(/\.mlp\.fc\d\.weight$/, tokens),
    classifier: projections(/^head\.weight$/, 1)
  }
  const pixels = channels * patchSize ** 2
  return {
    parameters: sizes.reduce((sum, [name, size]) => sum + size * times(name), 0),
    flops: Object.values(parts).reduce((sum, flops) => sum + flops, 0),
    parts,
    reconstruction: {
      parameters: 3 * (embedDim ** 2 + embedDim) + embedDim * pixels + channels,
      flops: 2 * numPatches * (3 * embedDim ** 2 + embedDim * pixels)
    }
  }
}

/**
 * Parameters and floating-point operations of a vision transformer. A multiplication and an addition count as two operations; counted are
 * matrix products, which are nearly all, and not norms, activations, softmax, biases and sums of branches (as in PyTorch's
 * `torch.utils.flop_counter`). A training step takes about three times the operations of the forward pass.
 *
 * @param model - A model, or the options of one, which is then not made in full: a large one costs nothing to ask about.
 * @throws InputError for options that are no model's.
 */
export function costOf(model: VisionTransformer | VisionTransformerOptions): Cost {
  if (model instanceof VisionTransformer) return countCost(model, model.depth)
  if (typeof model !== 'object' || model === null) throw expected('a vision transformer or its options', 'costOf()', model)
  const { depth } = model
  if (!Number.isInteger(depth) || depth < 1) throw expected('a positive integer', 'depth', depth)
  // Initial weights are drawn; what the program draws next must not depend on this question.
  const state = getRngState()
  try {
    return scope(() => {
      const block = new VisionTransformer({ ...model, depth: 1 })
      try {
        return countCost(block, depth)
      } finally {
        block.dispose()
      }
    })
  } finally {
    setRngState(state)
  }
}
