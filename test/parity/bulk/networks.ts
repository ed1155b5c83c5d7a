import { complexes, floats, inexact, type Draw } from './draw.js'
import { row, type Recipe, type Row } from './row.js'

const few = ['float32', 'float32', 'float64', 'bfloat16'] as const
const exact = ['float32', 'float64'] as const

/** A single number may stand for a size of each dimension. */
const each = (d: Draw, rank: number, low: number, high: number): number | number[] =>
  d.oneIn(2) ? d.int(low, high) : Array.from({ length: rank }, () => d.int(low, high))

/** An image, sound or volume with its batch and channels. */
const grid = (d: Draw, rank: number, channels = d.int(1, 3)): number[] =>
  [...(d.oneIn(4) ? [] : [d.oneIn(10) ? 0 : d.int(1, 2)]), channels, ...Array.from({ length: rank }, () => d.int(4, rank > 2 ? 5 : 8))]

const rankOf = (name: string): number => Number(/([123])d/.exec(name)?.[1] ?? 2)

const pooled: Recipe = (d, { name }) => {
  const rank = rankOf(name)
  const shape = grid(d, rank)
  return {
    self: d.t(shape), kernel_size: each(d, rank, 1, 3), stride: d.oneIn(2) ? [] : each(d, rank, 1, 2), padding: each(d, rank, 0, 1),
    dilation: each(d, rank, 1, 2), output_size: each(d, rank, 1, 4), divisor_override: d.oneIn(2) ? null : 3
  }
}

const convolved: Recipe = (d, { name, overload }) => {
  const rank = rankOf(name)
  const groups = d.int(1, 2)
  const [incoming, outgoing] = [groups * d.int(1, 2), d.int(1, 2)]
  const kernel = Array.from({ length: rank }, () => d.int(1, 3))
  const transposed = name.includes('transpose')
  return {
    input: d.t(grid(d, rank, incoming)), groups,
    weight: d.t(transposed ? [incoming, outgoing, ...kernel] : [groups * outgoing, incoming / groups, ...kernel]),
    bias: d.oneIn(3) ? null : d.t([groups * outgoing]), stride: overload === 'padding' ? undefined : each(d, rank, 1, 2),
    padding: overload === 'padding' ? d.pick(['same', 'valid']) : each(d, rank, 0, 2), dilation: each(d, rank, 1, 2),
    output_padding: undefined
  }
}

const padded: Recipe = (d, { name }) => {
  const rank = rankOf(name)
  return { self: d.t(grid(d, rank)), padding: d.oneIn(3) ? d.int(0, 2) : Array.from({ length: 2 * rank }, () => d.int(-1, 3)) }
}

const resized: Recipe = (d, { name, overload }) => {
  const rank = name.includes('linear1d') ? 1 : name.includes('3d') ? 3 : rankOf(name)
  const image = d.t([d.int(1, 2), d.int(1, 2), ...Array.from({ length: rank }, () => d.int(2, 5))])
  const scaled = overload === 'vec' && d.oneIn(2)
  return {
    self: image, input: image, output_size: scaled ? null : Array.from({ length: rank }, () => d.int(1, 7)),
    scale_factors: scaled ? Array.from({ length: rank }, () => d.pick([0.5, 1.5, 2])) : null, scales: undefined, scales_h: undefined,
    scales_w: undefined, scales_d: undefined
  }
}

/** An input and parameters for each of its channels. */
const normalised: Recipe = (d) => {
  const channels = 2 * d.int(1, 2)
  const parameter = (content?: 'positive') => (d.oneIn(3) ? null : d.t([channels], content))
  const input = [d.int(1, 3), channels, ...d.shape(0, 2)]
  return {
    input: d.t(input), weight: parameter(), bias: parameter(), running_mean: d.state([channels], 'normal'),
    running_var: d.state([channels], 'positive'),
    momentum: d.float(0, 1), eps: 1e-5, num_groups: d.int(1, 2), cudnn_enabled: true, training: d.oneIn(2), use_input_stats: d.oneIn(2)
  }
}

const layered: Recipe = (d) => {
  const shape = d.shape(1)
  const inner = shape.slice(-d.int(1, shape.length))
  return {
    input: d.t(shape), normalized_shape: inner, weight: d.oneIn(3) ? null : d.t(inner), bias: d.oneIn(3) ? null : d.t(inner),
    eps: d.pick([1e-5, 0.1]), cudnn_enable: true
  }
}

/** A prediction and a target of its shape. */
const compared: Recipe = (d) => {
  const shape = d.shape()
  const one = () => d.t(shape)
  return { self: one(), target: one(), input: one(), delta: d.float(), beta: d.float(), weight: one(), pos_weight: undefined, eps: 1e-4,
    log_input: d.oneIn(2), full: d.oneIn(2) }
}

const classified: Recipe = (d, { name }) => {
  const [count, classes] = [d.int(1, 4), d.int(1, 4)]
  const inner = name.endsWith('2d') ? [2, 3] : name.endsWith('nd') || name.includes('entropy') ? d.shape(0, 2) : []
  return {
    self: d.t([count, classes, ...inner]), target: d.t([count, ...inner], [0, classes - 1], 'int64'),
    weight: d.oneIn(2) ? null : d.t([classes], 'positive'),
    ignore_index: d.pick([-100, 0]), p: d.int(1, 2), margin: d.float(), label_smoothing: d.float(0, 0.5)
  }
}

const recurrent = (gates: number): Recipe => (d) => {
  const [batch, n, hidden] = [d.int(1, 3), d.int(1, 3), d.int(1, 3)]
  const bias = () => (d.oneIn(3) ? null : d.t([gates * hidden]))
  const state = () => d.t([batch, hidden])
  return {
    input: d.t([batch, n]), hx: gates === 4 ? [state(), state()] : state(), w_ih: d.t([gates * hidden, n]),
    w_hh: d.t([gates * hidden, hidden]), b_ih: bias(), b_hh: bias()
  }
}

const sequence = (gates: number): Recipe => (d) => {
  const [steps, batch, n, hidden, biased] = [d.int(1, 3), d.int(1, 2), d.int(1, 3), d.int(1, 3), d.oneIn(2)]
  const two = d.oneIn(2)
  const weights = (two ? [0, 1] : [0]).flatMap(() =>
    [d.t([gates * hidden, n]), d.t([gates * hidden, hidden]), ...(biased ? [d.t([gates * hidden]), d.t([gates * hidden])] : [])])
  const state = () => d.t([two ? 2 : 1, batch, hidden])
  const first = d.oneIn(2)
  return {
    input: d.t(first ? [batch, steps, n] : [steps, batch, n]), hx: gates === 4 ? [state(), state()] : state(), params: weights,
    has_biases: biased, num_layers: 1,
    dropout: 0, train: d.oneIn(2), bidirectional: two, batch_first: first
  }
}

export const networks: readonly Row[] = [
  row(`avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d`, { dtypes: few, recipe: pooled }),
  row(`conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding conv_transpose1d conv_transpose2d.input conv_transpose3d.input`, {
    dtypes: [...few, 'float16', ...complexes], recipe: convolved
  }),
  row('convolution', { dtypes: few, recipe: (d) => ({
    input: d.t([2, 2, 5, 4]), weight: d.t([2, 1, 3, 2]), bias: d.oneIn(2) ? null : d.t([2]), stride: [1, 2], padding: [1, 0],
    dilation: [1, 1],
    transposed: d.oneIn(2), output_padding: [0, 0], groups: 2
  }) }),
  row('conv_tbc', { dtypes: exact, recipe: (d) => ({ self: d.t([5, 2, 3]), weight: d.t([2, 3, 4]), bias: d.t([4]), pad: d.int(0, 1) }) }),
  row('im2col', { dtypes: few, recipe: (d) => ({ self: d.t(grid(d, 2)), kernel_size: each(d, 2, 1, 3), dilation: each(d, 2, 1, 2),
    padding: each(d, 2, 0, 1), stride: each(d, 2, 1, 2) }) }),
  row('col2im', { dtypes: few, recipe: (d) => ({ self: d.t([2, 8, 9]), output_size: [4, 4], kernel_size: 2, dilation: 1, padding: 0,
    stride: [1, 1] }) }),
  row('reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d',
    { dtypes: inexact, recipe: padded }),
  row(`upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec upsample_linear1d.vec
    upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_trilinear3d.vec`, { dtypes: few, recipe: resized }),
  row('grid_sampler grid_sampler_2d', { dtypes: exact, recipe: (d) => ({
    input: d.t([2, 2, 4, 3], 'normal'), grid: d.t([2, d.int(1, 3), d.int(1, 3), 2], 'normal'), interpolation_mode: d.int(0, 2),
    padding_mode: d.int(0, 2)
  }) }),
  row('affine_grid_generator', { dtypes: exact, recipe: (d) => ({ theta: d.t([2, 2, 3]), size: [2, 1, d.int(1, 4), d.int(1, 4)] }) }),
  row('batch_norm instance_norm group_norm native_batch_norm', { dtypes: few, recipe: normalised, content: 'normal', unexpanded: true }),
  row('layer_norm rms_norm native_layer_norm', { dtypes: few, recipe: layered }),
  row('glu', { dtypes: floats, recipe: (d) => ({ self: d.t([...d.shape(0, 2), 2 * d.int(1, 3)]), dim: -1 }) }),
  row(`l1_loss mse_loss smooth_l1_loss huber_loss kl_div soft_margin_loss hinge_embedding_loss poisson_nll_loss
    binary_cross_entropy_with_logits`, { dtypes: few, recipe: compared }),
  row('binary_cross_entropy', { dtypes: exact, recipe: compared, content: 'unit' }),
  row('nll_loss nll_loss2d nll_loss_nd cross_entropy_loss multi_margin_loss', { dtypes: few, recipe: classified }),
  row('multilabel_margin_loss', { dtypes: exact, recipe: (d) => ({ self: d.t([2, 3]), target: d.t([2, 3], [-1, 2], 'int64') }) }),
  row('margin_ranking_loss cosine_embedding_loss triplet_margin_loss', { dtypes: exact, recipe: (d, { name }) => {
    const shape = d.oneIn(2) ? [3, 4] : [2, 3]
    const one = () => d.t(shape)
    return { input1: one(), input2: one(), target: d.t(name.endsWith('ranking_loss') ? shape : [shape[0]!], 'normal'), anchor: one(),
      positive: one(), negative: one() }
  } }),
  row('ctc_loss.IntList ctc_loss.Tensor', { dtypes: exact, recipe: (d, { overload }) => ({
    log_probs: d.t([6, 2, 4], 'normal'), targets: d.t([2, 3], [1, 3], 'int64'),
    input_lengths: overload === 'Tensor' ? d.t([2], [5, 6], 'int64') : [6, 5],
    target_lengths: overload === 'Tensor' ? d.t([2], [1, 3], 'int64') : [3, 2], blank: 0
  }) }),
  row('scaled_dot_product_attention', { dtypes: few, recipe: (d) => {
    const [batch, heads, l, s, e] = [d.int(1, 2), d.int(1, 3), d.int(1, 4), d.int(1, 4), d.int(1, 4)]
    const masked = d.oneIn(2)
    return {
      query: d.t([batch, heads, l, e], 'normal'), key: d.t([batch, heads, s, e], 'normal'), value: d.t([batch, heads, s, e], 'normal'),
      attn_mask: masked ? d.t([l, s], 'normal', d.oneIn(2) ? 'bool' : d.dtype) : null, is_causal: !masked && d.oneIn(2),
      enable_gqa: undefined
    }
  } }),
  row('lstm_cell', { dtypes: exact, recipe: recurrent(4) }),
  row('gru_cell', { dtypes: exact, recipe: recurrent(3) }),
  row('rnn_tanh_cell rnn_relu_cell', { dtypes: exact, recipe: recurrent(1) }),
  row('lstm.input', { dtypes: exact, recipe: sequence(4) }),
  row('gru.input', { dtypes: exact, recipe: sequence(3) }),
  row('rnn_tanh.input rnn_relu.input', { dtypes: exact, recipe: sequence(1) }),
  row('norm_except_dim', { dtypes: exact, recipe: (d) => ({ v: d.t(d.shape(1, 3)), pow: 2, dim: 0 }) })
]
