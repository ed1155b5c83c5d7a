import { expected } from '../errors.js'
import { saveOnnx, type OnnxModel, type OnnxNode, type OnnxValue } from '../io/index.js'
import { LayerNorm, type Linear } from '../nn/index.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { version } from '../version.js'
import type { Block } from './block.js'
import { requireStatistics, type ImageStatistics } from './statistics.js'
import type { VisionTransformer } from './vision-transformer.js'

/** `mean` and `std` go into the file's metadata: the graph takes normalised images. */
export interface OnnxOptions extends ImageStatistics {
  /** Version of ONNX's operators: from 20 on, GELU is one of them. Default 17, which more runtimes have. */
  readonly opset?: number | undefined
}

// Operators are written as these versions have them; the file format that each asks for: https://onnx.ai/onnx/repo-docs/Versioning.html
const irVersions: ReadonlyMap<unknown, number> = new Map([[17, 8], [18, 8], [19, 9], [20, 9]])
const GELU_OPERATOR = 20

/** Versions of ONNX's operators that {@link exportOnnx} writes. */
export const onnxOpsets = [...irVersions.keys()] as readonly number[]

/** Adds nodes named after the modules that they compute; a node's result has the node's name. */
class Graph {
  readonly nodes: OnnxNode[] = []
  readonly initializers: Record<string, Tensor> = {}

  constructor(readonly opset: number) {}

  constant(name: string, value: () => Tensor): string {
    this.initializers[name] ??= value()
    return name
  }

  integers(name: string, values: readonly number[]): string {
    return this.constant(name, () => torch.tensor([...values], { dtype: 'int64' }))
  }

  number(name: string, value: number): string {
    return this.constant(name, () => torch.tensor(value, { dtype: 'float32' }))
  }

  /** A weight in float32 under the state dict's name, or another view of it. */
  weight(name: string, tensor: Tensor, view: (tensor: Tensor) => Tensor = (same) => same): string {
    return this.constant(name, () => view(tensor.detach().to('float32')))
  }

  add(operator: string, name: string, inputs: readonly string[], attributes: Pick<OnnxNode, 'integers' | 'floats'> = {}): string {
    this.nodes.push({ operator, name, inputs, outputs: [name], ...attributes })
    return name
  }

  layerNorm(name: string, { weight, bias, eps }: LayerNorm, x: string): string {
    const inputs = [x, this.weight(`${name}.weight`, weight), this.weight(`${name}.bias`, bias)]
    return this.add('LayerNormalization', name, inputs, { integers: { axis: -1 }, floats: { epsilon: eps } })
  }

  linear(name: string, { weight, bias }: Linear, x: string): string {
    // ONNX multiplies by [in, out]; stored that way, no runtime has to transpose.
    const product = this.add('MatMul', bias ? `${name}.matmul` : name, [x, this.weight(`${name}.weight`, weight, (w) => w.t())])
    return bias ? this.add('Add', name, [product, this.weight(`${name}.bias`, bias)]) : product
  }

  gelu(name: string, x: string): string {
    if (this.opset >= GELU_OPERATOR) return this.add('Gelu', name, [x])
    // x (1 + erf(x / sqrt 2)) / 2
    const scaled = this.add('Div', `${name}.scaled`, [x, this.number('sqrt2', Math.SQRT2)])
    const erf = this.add('Erf', `${name}.erf`, [scaled])
    const gate = this.add('Add', `${name}.gate`, [erf, this.number('one', 1)])
    return this.add('Mul', name, [this.add('Mul', `${name}.gated`, [x, gate]), this.number('half', 0.5)])
  }

  /** Attention of all heads. @param x - [B, N, D]. */
  attention(name: string, { qkv, proj, dim, numHeads }: Block['attn'], x: string): string {
    const split = (['q', 'k', 'v'] as const).map((part) => `${name}.${part}`)
    const inputs = [this.linear(`${name}.qkv`, qkv, x), this.integers('attn.widths', [dim, dim, dim])]
    this.nodes.push({ operator: 'Split', name: `${name}.split`, inputs, outputs: split, integers: { axis: -1 } })
    // 0 stands for the input's own size.
    const byHead = this.integers('attn.heads', [0, 0, numHeads, dim / numHeads])
    const [query, key, value] = split.map((part, i) => {
      const heads = this.add('Reshape', `${part}.heads`, [part, byHead])
      return this.add('Transpose', `${part}.transpose`, [heads], { integers: { perm: i === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3] } })
    }) as [string, string, string]
    const scaled = this.add('Mul', `${name}.q.scaled`, [query, this.number('attn.scale', (dim / numHeads) ** -0.5)])
    const scores = this.add('MatMul', `${name}.scores`, [scaled, key])
    const weights = this.add('Softmax', `${name}.softmax`, [scores], { integers: { axis: -1 } })
    const mixed = this.add('MatMul', `${name}.mixed`, [weights, value])
    const back = this.add('Transpose', `${name}.transpose`, [mixed], { integers: { perm: [0, 2, 1, 3] } })
    return this.linear(`${name}.proj`, proj, this.add('Reshape', `${name}.tokens`, [back, this.integers('attn.tokens', [0, 0, dim])]))
  }

  block(name: string, block: Block, x: string): string {
    const branch = (scale: 'ls1' | 'ls2', result: string) => {
      const layer = block[scale]
      const path = `${name}.${scale}`
      return 'gamma' in layer ? this.add('Mul', path, [result, this.weight(`${path}.gamma`, layer.gamma)]) : result
    }
    const attended = this.attention(`${name}.attn`, block.attn, this.layerNorm(`${name}.norm1`, block.norm1, x))
    const middle = this.add('Add', `${name}.residual1`, [x, branch('ls1', attended)])
    const hidden = this.linear(`${name}.mlp.fc1`, block.mlp.fc1, this.layerNorm(`${name}.norm2`, block.norm2, middle))
    const result = this.linear(`${name}.mlp.fc2`, block.mlp.fc2, this.gelu(`${name}.mlp.act`, hidden))
    return this.add('Add', `${name}.residual2`, [middle, branch('ls2', result)])
  }

  /** CLS, registers and patches with their positions. */
  embed(model: VisionTransformer, images: string): string {
    const { embedDim, patchSize, numPatches, cls_token, reg_token, pos_embed } = model
    const { weight, bias } = model.patch_embed.proj
    const name = 'patch_embed.proj'
    const inputs = [images, this.weight(`${name}.weight`, weight), ...(bias ? [this.weight(`${name}.bias`, bias)] : [])]
    const sides = [patchSize, patchSize]
    const map = this.add('Conv', name, inputs, { integers: { kernel_shape: sides, strides: sides } })
    const flat = this.add('Reshape', 'patch_embed.flatten', [map, this.integers('patch_embed.sizes', [0, embedDim, numPatches])])
    const patches = this.add('Transpose', 'patch_embed', [flat], { integers: { perm: [0, 2, 1] } })
    const position = (x: string) => this.add('Add', 'embed.positions', [x, this.weight('pos_embed', pos_embed)])
    const withPrefix = (x: string): string => {
      if (!cls_token && !reg_token) return x
      const batch = this.add('Shape', 'batch', [images], { integers: { start: 0, end: 1 } })
      const sizes = this.add('Concat', 'batch.sizes', [batch, this.integers('batch.ones', [1, 1])], { integers: { axis: 0 } })
      const expanded = Object.entries({ cls_token, reg_token }).flatMap(([name, token]) =>
        token ? [this.add('Expand', `${name}.expanded`, [this.weight(name, token), sizes])] : []
      )
      return this.add('Concat', 'embed.tokens', [...expanded, x], { integers: { axis: 1 } })
    }
    return model.options.noEmbedClass ? withPrefix(position(patches)) : position(withPrefix(patches))
  }

  /** [B, D] of the tokens. */
  pool(model: VisionTransformer, tokens: string): string {
    const { numPrefixTokens, numPatches, options } = model
    if (options.pool === 'token') {
      const first = this.constant('pool.index', () => torch.tensor(0, { dtype: 'int64' }))
      return this.add('Gather', 'pool', [tokens, first], { integers: { axis: 1 } })
    }
    const [start, end, axis] = [numPrefixTokens, numPrefixTokens + numPatches, 1].map((value, i) =>
      this.integers(`pool.${['start', 'end', 'axis'][i]!}`, [value])
    ) as [string, string, string]
    const patches = this.add('Slice', 'pool.patches', [tokens, start, end, axis])
    // A mean takes its axis in another way from version 18 on; a sum does not.
    const sum = this.add('ReduceSum', 'pool.sum', [patches, axis], { integers: { keepdims: 0 } })
    return this.add('Mul', 'pool', [sum, this.number('pool.weight', 1 / numPatches)])
  }
}

function requireOpset(opset: number): number {
  if (!irVersions.has(opset)) throw expected(`one of ${onnxOpsets.join(', ')}`, 'opset', opset)
  return opset
}

/**
 * A vision transformer as an ONNX graph. Input `images` [batch, C, H, W], normalised. Outputs: `tokens` [batch, P + N, D] as
 * `model.call(images)` gives them, `pooled` [batch, D] as `model.features(images)`, and `logits` [batch, classes] for a model with a
 * classifier. Weights are float32 and have the names of the state dict; those of linear layers are transposed, [in, out].
 *
 * @returns Tensors that share the model's memory where they can; the caller's to dispose of.
 * @throws InputError for an opset that is not supported, and a mean or standard deviation of other channels.
 */
function toOnnx(model: VisionTransformer, options: OnnxOptions): OnnxModel {
  const statistics = requireStatistics(model, options)
  const opset = requireOpset(options.opset ?? 17)
  const { imageSize, patchSize, channels, embedDim, numPatches, numPrefixTokens, norm, fc_norm, head } = model
  return torch.noGrad(() =>
    torch.scope(() => {
      const graph = new Graph(opset)
      const output = (name: string, shape: readonly number[]): OnnxValue => ({ name, dtype: 'float32', shape: ['batch', ...shape] })
      let x = graph.embed(model, 'images')
      for (const [i, block] of [...model.blocks].entries()) x = graph.block(`blocks.${i}`, block, x)
      const outputs = [output('tokens', [numPrefixTokens + numPatches, embedDim]), output('pooled', [embedDim])]
      const tokens = graph.add('Identity', 'tokens', [norm instanceof LayerNorm ? graph.layerNorm('norm', norm, x) : x])
      const pooled = graph.pool(model, tokens)
      graph.add('Identity', 'pooled', [fc_norm instanceof LayerNorm ? graph.layerNorm('fc_norm', fc_norm, pooled) : pooled])
      if (head) {
        graph.add('Identity', 'logits', [graph.linear('head', head, 'pooled')])
        outputs.push(output('logits', [head.weight.shape[0]!]))
      }
      const described = { image_size: imageSize, patch_size: patchSize, channels, ...statistics }
      return {
        name: 'vision_transformer', opset, irVersion: irVersions.get(opset)!, outputs, nodes: graph.nodes, initializers: graph.initializers,
        inputs: [{ name: 'images', dtype: 'float32', shape: ['batch', channels, ...imageSize] }],
        producer: { name: 'gmml', version },
        metadata: Object.fromEntries(Object.entries(described).map(([name, value]) => [name, JSON.stringify(value)]))
      }
    })
  )
}

/**
 * Writes a vision transformer as an ONNX file for images of its size and any batch. Input `images` [batch, C, H, W], normalised with `mean`
 * and `std` beforehand. Outputs `tokens` [batch, P + N, D] (`model.call`), `pooled` [batch, D] (`model.features`) and, of a model with a
 * classifier, `logits` [batch, classes]. All in float32, whatever the model's dtype and device.
 *
 * @throws InputError for an opset that is not supported (17 to 20 are), a mean or standard deviation of another number of channels, and a
 *   model of more than 2 GB; then the file is untouched.
 */
export async function exportOnnx(path: string, model: VisionTransformer, options: OnnxOptions = {}): Promise<void> {
  const graph = toOnnx(model, options)
  try {
    await saveOnnx(path, graph)
  } finally {
    for (const tensor of Object.values(graph.initializers)) tensor.dispose()
  }
}
