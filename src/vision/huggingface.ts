import { mkdir, readFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

import { expected, InputError } from '../errors.js'
import { loadSafetensors, saveSafetensors, writeFileAtomic } from '../io/index.js'
import { Module, requireStateDict, type StateDict } from '../nn/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'
import { mlpRatioFor } from './block.js'
import { requireModel, requireStatistics, type ImageStatistics } from './statistics.js'
import { sides, VisionTransformer, type ImageSize, type VisionTransformerOptions } from './vision-transformer.js'

// Names as transformers writes them into files (version 5 too, whose modules have other names), by ours.
const names: readonly (readonly [RegExp, string])[] = [
  [/^cls_token$/, 'embeddings.cls_token'],
  [/^pos_embed$/, 'embeddings.position_embeddings'],
  [/^patch_embed\.proj\./, 'embeddings.patch_embeddings.projection.'],
  [/^blocks\./, 'encoder.layer.'],
  [/\.norm1\./, '.layernorm_before.'],
  [/\.norm2\./, '.layernorm_after.'],
  [/\.attn\.proj\./, '.attention.output.dense.'],
  [/\.mlp\.fc1\./, '.intermediate.dense.'],
  [/\.mlp\.fc2\./, '.output.dense.'],
  [/^norm\./, 'layernorm.'],
  [/^head\./, 'classifier.']
]

// Names of transformers 5's modules, which a file may have too, by those of files.
const modernNames: readonly (readonly [RegExp, string])[] = [
  [/^layers\./, 'encoder.layer.'],
  [/\.attention\.q_proj\./, '.attention.attention.query.'],
  [/\.attention\.k_proj\./, '.attention.attention.key.'],
  [/\.attention\.v_proj\./, '.attention.attention.value.'],
  [/\.attention\.o_proj\./, '.attention.output.dense.'],
  [/\.mlp\.fc1\./, '.intermediate.dense.'],
  [/\.mlp\.fc2\./, '.output.dense.']
]

// What other models with the same encoder have besides: the pooler (a layer that nothing here is trained for), and masked image modelling.
const IGNORED = /^(pooler\.|embeddings\.mask_token$|decoder\.)/
const PREFIX = 'vit.' // of the encoder in a model with a classifier

const renamed = (name: string, rules: typeof names): string => rules.reduce((name, [ours, theirs]) => name.replace(ours, theirs), name)

/** A vision transformer's weights as views under the names of transformers' ViTModel. */
class ViTModel extends Module {
  readonly #views: StateDict = {}

  constructor(model: VisionTransformer) {
    super()
    for (const [name, tensor] of Object.entries(model.stateDict())) {
      const joint = /(.*)\.attn\.qkv\.(\w+)$/.exec(renamed(name, [[/^blocks\./, 'encoder.layer.']]))
      if (!joint) {
        this.#views[renamed(name, names)] = tensor.detach()
        continue
      }
      for (const [i, part] of ['query', 'key', 'value'].entries()) {
        const view = tensor.detach().narrow(0, i * model.embedDim, model.embedDim)
        this.#views[`${joint[1]}.attention.attention.${part}.${joint[2]}`] = view
      }
    }
  }

  override stateDict(): StateDict {
    return this.#views
  }

  override forward(): never {
    throw new InputError('This is a view of weights, not a model')
  }
}

const isSize = (value: unknown): value is number => typeof value === 'number' && Number.isInteger(value) && value > 0
const isSides = (value: unknown): value is ImageSize =>
  isSize(value) || (Array.isArray(value) && value.length === 2 && value.every(isSize))

// What a config leaves out has the default of transformers' ViTConfig.
function optionsOf(config: unknown, numClasses: number): VisionTransformerOptions {
  if (typeof config !== 'object' || config === null) throw expected('an object', 'the config', config)
  const read = <T>(name: string, what: string, legal: (value: unknown) => value is T, fallback?: T): T => {
    const value = (config as Record<string, unknown>)[name] ?? fallback
    if (legal(value)) return value
    throw expected(what, `${name} of the config`, value)
  }
  const size = (name: string, fallback: number) => read(name, 'a positive integer', isSize, fallback)
  read('model_type', "'vit'", (value): value is string => value === 'vit')
  read('hidden_act', "'gelu', the exact one,", (value): value is string => value === 'gelu', 'gelu')
  const square = (value: unknown): value is ImageSize => isSides(value) && (typeof value === 'number' || value[0] === value[1])
  const patch = read('patch_size', 'the side of a square patch', square, 16)
  const embedDim = size('hidden_size', 768)
  return {
    imageSize: read('image_size', 'one or two positive integers', isSides, 224),
    patchSize: typeof patch === 'number' ? patch : patch[0],
    channels: size('num_channels', 3),
    embedDim,
    depth: size('num_hidden_layers', 12),
    numHeads: size('num_attention_heads', 12),
    mlpRatio: mlpRatioFor(size('intermediate_size', 3072), embedDim),
    qkvBias: read('qkv_bias', 'a boolean', (value) => typeof value === 'boolean', true),
    normEps: read('layer_norm_eps', 'a number of at least 0', (value): value is number => typeof value === 'number' && value >= 0, 1e-12),
    numClasses
  }
}

/** Elements of the large weights of a model. */
function leastElements({ depth, embedDim, mlpRatio = 4, imageSize = 224, patchSize = 16, channels = 3 }: VisionTransformerOptions): number {
  const [height, width] = sides(imageSize, 'imageSize')
  return embedDim * (depth * embedDim * (4 + 2 * mlpRatio) + (height / patchSize) * (width / patchSize) + channels * patchSize ** 2)
}

/** A model in the layout of Hugging Face's transformers. */
export interface HuggingFaceModel {
  /** Content of config.json: of a `ViTModel`, or of a `ViTForImageClassification` if the model has a classifier. */
  readonly config: Readonly<Record<string, unknown>>
  /** Content of model.safetensors. Query, key and value are apart. */
  readonly state: StateDict
}

/** @throws InputError for a model that transformers' ViTModel cannot be. */
function requireViT(model: VisionTransformer): void {
  requireModel(model)
  const { classToken, registerTokens, noEmbedClass, initValues, pool, fcNorm } = model.options
  const legal: [boolean, string, string][] = [
    [classToken, 'a CLS token', 'none'],
    [registerTokens === 0, 'no register tokens', String(registerTokens)],
    [!noEmbedClass, 'a position embedding of the CLS token', 'one of the patches alone'],
    [initValues === null, 'no layer scale', 'one'],
    [pool === 'token', "pooling by 'token'", pool],
    [!fcNorm, 'the final norm before pooling', 'one after it']
  ]
  for (const [fits, what, received] of legal) if (!fits) throw expected(what, "a ViTModel of Hugging Face's transformers", received)
}

/**
 * A vision transformer in the layout of Hugging Face's transformers, both version 4 and 5.
 *
 * @returns Tensors that share the model's memory; the caller's to dispose of.
 * @throws InputError for a model that a ViTModel cannot be: without CLS token, with registers, layer scale, average pooling.
 */
export function toHuggingFace(model: VisionTransformer): HuggingFaceModel {
  requireViT(model)
  const { options, head, cls_token } = model
  const [height, width] = options.imageSize
  const views = noGrad(() => scope(() => new ViTModel(model).stateDict()))
  const prefixed = ([name, tensor]: [string, Tensor]) => [head && !name.startsWith('classifier.') ? PREFIX + name : name, tensor] as const
  const labels = Array.from({ length: options.numClasses }, (_, i) => `LABEL_${i}`)
  return {
    state: Object.fromEntries(Object.entries(views).map(prefixed)),
    config: {
      architectures: [head ? 'ViTForImageClassification' : 'ViTModel'],
      model_type: 'vit',
      hidden_size: options.embedDim,
      num_hidden_layers: options.depth,
      num_attention_heads: options.numHeads,
      intermediate_size: Math.trunc(options.embedDim * options.mlpRatio),
      hidden_act: 'gelu',
      hidden_dropout_prob: 0,
      attention_probs_dropout_prob: 0,
      layer_norm_eps: options.normEps,
      image_size: height === width ? height : [height, width],
      patch_size: options.patchSize,
      num_channels: options.channels,
      qkv_bias: options.qkvBias,
      dtype: cls_token!.dtype,
      ...(head && {
        id2label: Object.fromEntries(labels.entries()),
        label2id: Object.fromEntries(labels.map((label, i) => [label, i]))
      })
    }
  }
}

/**
 * The vision transformer of a `ViTModel` or `ViTForImageClassification` of Hugging Face's transformers, by the names of version 4 or 5. Its
 * pooler, if there is one, is left out.
 *
 * @param config - Content of config.json.
 * @param state - Content of model.safetensors; copied.
 * @throws InputError for the config of another model, another activation than exact GELU, and tensors that do not fit: the first ten
 *   missing, unexpected and mis-shaped names.
 */
export function fromHuggingFace(config: unknown, state: StateDict): VisionTransformer {
  requireStateDict(state)
  const entries = Object.entries(state).map(([name, tensor]) => {
    const plain = name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name
    return [renamed(plain, modernNames), tensor] as const
  })
  const weights = Object.fromEntries(entries.filter(([name]) => !IGNORED.test(name)))
  const numClasses = weights['classifier.weight']?.shape[0] ?? 0
  const options = optionsOf(config, numClasses)
  // A config is only text: it does not get memory that is out of all proportion to the tensors.
  const [asked, given] = [leastElements(options), entries.reduce((sum, [, tensor]) => sum + tensor.numel(), 0)]
  if (asked > 10 * given) throw expected(`a model of about ${given} elements, as many as its tensors have`, 'the config', `one of ${asked}`)
  const model = scope(() => new VisionTransformer(options))
  try {
    scope(() => {
      new ViTModel(model).loadStateDict(weights)
    })
    return model
  } catch (error) {
    model.dispose()
    throw error
  }
}

/**
 * Writes the folder that transformers' `from_pretrained` reads: config.json, model.safetensors and, if it is known how images are
 * normalised, preprocessor_config.json. Each file is written atomically; others in the folder are left alone.
 *
 * @throws InputError as {@link toHuggingFace} does, and for a mean or standard deviation of another number of channels; then nothing has
 *   been written.
 */
export async function saveHuggingFace(folder: string, model: VisionTransformer, statistics: ImageStatistics = {}): Promise<void> {
  const { mean, std } = requireStatistics(model, statistics)
  const { config, state } = toHuggingFace(model)
  const json = (name: string, value: unknown) => writeFileAtomic(join(folder, name), `${JSON.stringify(value, null, 2)}\n`)
  const [height, width] = model.imageSize
  try {
    await mkdir(folder, { recursive: true })
    await saveSafetensors(join(folder, 'model.safetensors'), state, { format: 'pt' })
    if (mean && std) {
      await json('preprocessor_config.json', {
        image_processor_type: 'ViTImageProcessor', do_resize: true, size: { height, width }, resample: 3, // bicubic
        do_rescale: true, rescale_factor: 1 / 255, do_normalize: true, image_mean: mean, image_std: std
      })
    }
    await json('config.json', config)
  } finally {
    for (const tensor of Object.values(state)) tensor.dispose()
  }
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) throw new InputError(`'${path}' is no JSON`)
    throw error
  }
}

const isNumbers = (value: unknown): value is number[] => Array.isArray(value) && value.every(Number.isFinite)

/**
 * Reads a folder as transformers' `save_pretrained` writes it: config.json, model.safetensors (or its shards) and, if it is there,
 * preprocessor_config.json.
 *
 * @returns The model, and what its images are to be normalised with where the folder says so.
 * @throws InputError for a folder without these files, and as {@link fromHuggingFace} does.
 */
export async function loadHuggingFace(folder: string): Promise<{ model: VisionTransformer } & ImageStatistics> {
  const path = (name: string) => join(folder, name)
  // Large weights are in shards, which the index lists.
  const weights = existsSync(path('model.safetensors.index.json')) ? 'model.safetensors.index.json' : 'model.safetensors'
  for (const name of ['config.json', weights]) {
    if (existsSync(path(name))) continue
    throw new InputError(`'${folder}' holds no model of Hugging Face's transformers: there is no ${name} in it`)
  }
  const config = await readJson(path('config.json'))
  const preprocessor = existsSync(path('preprocessor_config.json')) ? await readJson(path('preprocessor_config.json')) : null
  const { tensors } = await loadSafetensors(path(weights))
  try {
    const model = fromHuggingFace(config, tensors)
    const { image_mean: mean, image_std: std } = (preprocessor ?? {}) as Readonly<Record<string, unknown>>
    return { model, ...(isNumbers(mean) && isNumbers(std) && { mean, std }) }
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}
