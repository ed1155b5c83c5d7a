import { expected } from '../errors.js'
import { LAYER_NORM_EPS } from './block.js'
import type { VisionTransformer } from './vision-transformer.js'

/**
 * The keyword arguments that make the same model in timm: `timm.models.vision_transformer.VisionTransformer(**arguments)`. Our state dict
 * loads into it as it is, with `strict=True`. Plain JSON.
 *
 * @throws InputError for another `normEps` than timm's, which no JSON can state: timm takes it in a function.
 */
export function timmArguments(model: VisionTransformer): Record<string, unknown> {
  const { options } = model
  if (options.normEps !== LAYER_NORM_EPS) throw expected(`${LAYER_NORM_EPS}, timm's,`, 'normEps', options.normEps)
  return {
    img_size: [...options.imageSize],
    patch_size: options.patchSize,
    in_chans: options.channels,
    num_classes: options.numClasses,
    global_pool: options.pool,
    embed_dim: options.embedDim,
    depth: options.depth,
    num_heads: options.numHeads,
    mlp_ratio: options.mlpRatio,
    qkv_bias: options.qkvBias,
    init_values: options.initValues,
    class_token: options.classToken,
    no_embed_class: options.noEmbedClass,
    reg_tokens: options.registerTokens,
    fc_norm: options.fcNorm,
    drop_path_rate: options.dropPath
  }
}
