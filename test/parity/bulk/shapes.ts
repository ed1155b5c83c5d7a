import { complexes, floats, numeric, real, type Draw, type Value } from './draw.js'
import { row, type Recipe, type Row } from './row.js'
import type { TensorSpec } from './tensors.js'

const any: Recipe = (d) => ({ self: d.t(d.shape()) })
const product = (sizes: readonly number[]): number => sizes.reduce((total, size) => total * size, 1)

/** Another shape of as many elements. */
function reshaped(d: Draw, shape: readonly number[]): number[] {
  const count = product(shape)
  if (count === 0) return d.oneIn(2) ? [0] : [d.int(1, 3), 0]
  const divisor = d.pick([1, 2, 3, 4].filter((n) => count % n === 0))
  const sizes = d.oneIn(3) ? [...shape].reverse() : [divisor, count / divisor]
  return d.oneIn(3) ? sizes.map((size, i) => (i === 0 ? -1 : size)) : sizes
}

/** Tensors of one shape but for one dimension. */
function alike(d: Draw): { list: TensorSpec[]; dim: number } {
  const shape = d.shape(1, 3)
  const dim = d.dimension(shape.length)
  const at = dim < 0 ? dim + shape.length : dim
  const list = Array.from({ length: d.int(1, 3) }, () => d.t(shape.map((size, i) => (i === at ? d.size() : size)), undefined,
    d.oneIn(6) ? 'float64' : d.dtype))
  return { list: d.oneIn(12) ? [] : list, dim }
}

const indexAlong = (d: Draw): Record<string, Value> => {
  const shape = d.shape(1)
  const dim = d.dimension(shape.length)
  const at = dim < 0 ? dim + shape.length : dim
  const count = d.size()
  const length = shape[at]!
  return {
    self: d.t(shape), dim, index: d.index([count], length), source: d.t(shape.map((size, i) => (i === at ? count : size))), value: d.t([])
  }
}

const scattered = (d: Draw): Record<string, Value> => {
  const shape = d.shape(1, 3)
  const dim = d.dimension(shape.length)
  const at = dim < 0 ? dim + shape.length : dim
  const index = shape.map((size, i) => (i === at ? d.size() : Math.min(size, d.int(1, Math.max(size, 1)))))
  return { self: d.t(shape), dim, index: d.index(index, shape[at]!), src: d.t(index), indices: d.index(index, shape[at]!) }
}

/** Views, copies, joins and splits. */
export const shapes: readonly Row[] = [
  row(`alias detach positive ravel squeeze squeeze.dim squeeze.dims t adjoint mH mT matrix_H numpy_T transpose.int swapaxes swapdims
    unsqueeze atleast_1d atleast_2d atleast_3d fliplr flipud unbind.int diag_embed rot90 flip flatten.using_ints tril triu trace diag
    diagflat diagonal linalg_diagonal contiguous clone`, { recipe: (d) => ({ self: d.t(d.shape()), A: d.t(d.shape(2)) }) }),
  row('permute', { recipe: (d) => {
    const shape = d.shape()
    return { self: d.t(shape), dims: d.dimensions(shape.length, shape.length) }
  } }),
  row('movedim.int moveaxis.int', { recipe: any }),
  row('movedim.intlist moveaxis.intlist', { recipe: (d) => {
    const shape = d.shape(1)
    const count = d.int(1, shape.length)
    return { self: d.t(shape), source: d.dimensions(shape.length, count), destination: d.dimensions(shape.length, count) }
  } }),
  row('chunk unsafe_chunk split.Tensor unsafe_split.Tensor tensor_split.sections', { recipe: (d) => ({ self: d.t(d.shape(1)) }) }),
  row('hsplit.int vsplit.int dsplit.int', { recipe: (d) => ({ self: d.t(d.shape(2, 4)), sections: d.int(1, 2) }) }),
  row('hsplit.array vsplit.array dsplit.array tensor_split.indices', { recipe: (d) =>
    ({ self: d.t(d.shape(2, 4)), indices: d.sizes(d.int(0, 3)) }) }),
  row('split.sizes split_with_sizes unsafe_split_with_sizes', { recipe: (d) => {
    const parts = d.sizes(d.int(1, 3))
    const [shape, dim] = [d.shape(1, 3), 0]
    return { self: d.t([parts.reduce((sum, part) => sum + part, 0), ...shape]), split_size: parts, split_sizes: parts, dim }
  } }),
  row('view reshape', { recipe: (d) => {
    const shape = d.shape()
    const target = reshaped(d, shape)
    return { self: d.t(shape), size: target, shape: target }
  } }),
  row('view.dtype', { recipe: (d) => ({ self: d.t(d.shape()), dtype: d.pick(['int32', 'float32', 'int64', 'float16', 'uint8',
    'complex64']) }), dtypes: numeric }),
  row('unflatten.int', { recipe: (d) => {
    const shape = d.shape(1, 3)
    const dim = d.int(0, shape.length - 1)
    return { self: d.t(shape.map((size, i) => (i === dim ? size * 2 : size))), dim, sizes: d.oneIn(2) ? [-1, 2] : [2, shape[dim]!] }
  } }),
  row('expand broadcast_to', { recipe: (d) => {
    const [full, part] = d.broadcast(2) as [number[], number[]]
    return { self: d.t(part), size: full.map((size, i) => (i >= full.length - part.length && d.oneIn(3) ? -1 : size)) }
  } }),
  row('repeat tile', { recipe: (d) => {
    const shape = d.shape(0, 3)
    const repeats = d.sizes(shape.length + d.int(0, 1), 3)
    return { self: d.t(shape), repeats, dims: repeats }
  } }),
  row('roll', { recipe: (d) => {
    const shape = d.shape(1)
    const dims = d.dimensions(shape.length)
    return { self: d.t(shape), shifts: dims.length === 1 && d.oneIn(2) ? d.int(-3, 3) : dims.map(() => d.int(-3, 3)), dims }
  } }),
  row('narrow select.int slice.Tensor unfold select_scatter', { recipe: (d) => {
    const shape = d.shape(1)
    const dim = d.dimension(shape.length)
    const size = shape.at(dim)!
    const start = d.int(0, size)
    const at = dim < 0 ? dim + shape.length : dim
    return {
      self: d.t(shape), dim, start: d.oneIn(4) ? start - size : start, length: d.int(0, size - start),
      index: d.int(-size, Math.max(size - 1, 0)),
      end: d.pick([undefined, null, size, size + 3, -1]), step: d.int(1, 3), dimension: dim, size: d.int(0, size),
      src: d.t(shape.filter((_, i) => i !== at))
    }
  } }),
  row('as_strided', { recipe: (d) => ({ self: { ...d.t([12]), strides: [1], offset: 0 }, size: [2, 3],
    stride: d.pick([[3, 1], [1, 2], [0, 1], [4, 2]]), storage_offset: d.int(0, 2) }) }),
  row('slice_scatter', { recipe: (d) => {
    const shape = d.shape(1, 3)
    const [dim, step] = [d.int(0, shape.length - 1), d.int(1, 2)]
    return { self: d.t(shape), src: d.t(shape.map((size, i) => (i === dim ? Math.ceil(size / step) : size))), dim, start: null, end: null,
      step }
  } }),
  row('diagonal_scatter', { recipe: (d) => {
    const [n, m] = d.sizes(2) as [number, number]
    return { self: d.t([n, m]), src: d.t([Math.min(n, m)]), offset: undefined, dim1: undefined, dim2: undefined }
  } }),
  row('cat concat concatenate', { recipe: (d) => {
    const { list, dim } = alike(d)
    return { tensors: list, dim }
  } }),
  row('stack hstack vstack dstack row_stack column_stack block_diag atleast_1d.Sequence atleast_2d.Sequence atleast_3d.Sequence', {
    recipe: (d) => {
      const shape = d.shape(0, 3)
      return { tensors: Array.from({ length: d.oneIn(12) ? 0 : d.int(1, 3) }, () => d.t(shape)), dim: d.dimension(shape.length + 1) }
    }
  }),
  row('broadcast_tensors', { recipe: (d) => ({ tensors: d.broadcast(d.int(1, 3)).map((shape) => d.t(shape)) }) }),
  row('meshgrid meshgrid.indexing cartesian_prod', { recipe: (d) => ({ tensors: d.sizes(d.int(1, 3)).map((size) => d.t([size])) }) }),
  row('combinations', { recipe: (d) => ({ self: d.t([d.size(5)]) }) }),
  row('vander linalg_vander', { recipe: (d) => {
    const x = d.t([...d.batch(), d.int(1, 4)])
    return { x, N: d.int(1, 4) }
  }, dtypes: numeric }),
  row('repeat_interleave.self_int repeat_interleave.self_Tensor', { recipe: (d, { overload }) => {
    const shape = d.shape(1, 3)
    const dim = d.dimension(shape.length)
    const repeats = overload === 'self_int' ? d.int(0, 3) : d.t([shape.at(dim)!], [0, 3], 'int64')
    return { self: d.t(shape), repeats, dim, output_size: undefined }
  } }),
  row('repeat_interleave.Tensor', { recipe: (d) => ({ repeats: d.t([d.size()], [0, 3], d.pick(['int64', 'int32'])),
    output_size: undefined }) }),
  row('constant_pad_nd pad', { recipe: (d) => {
    const shape = d.shape(1, 3)
    return { self: d.t(shape), pad: Array.from({ length: 2 * d.int(1, shape.length) }, () => d.int(-1, 2)), mode: 'constant',
      value: d.plain() }
  } }),
  row('pad_sequence', { recipe: (d) => ({ sequences: d.sizes(d.int(1, 3)).map((size) => d.t([size, 2])), padding_value: d.float() }),
    dtypes: [...floats, 'int64'] }),
  row('channel_shuffle pixel_shuffle pixel_unshuffle', { recipe: (d) => ({
    self: d.t([d.int(1, 2), 4 * d.int(1, 2), 4, 2]), groups: d.pick([1, 2, 4]), upscale_factor: d.int(1, 2), downscale_factor: d.int(1, 2)
  }) }),
  row('fft_fftshift fft_ifftshift', { recipe: any })
]

/** Reading and writing by index. */
export const indexing: readonly Row[] = [
  row('index_select index_fill.int_Scalar index_fill.int_Tensor', { recipe: indexAlong }),
  row('index_add', { recipe: (d) => ({ ...indexAlong(d), alpha: d.plain() }), dtypes: numeric }),
  row('index_copy', { recipe: (d) => {
    const shape = d.shape(1)
    const dim = d.dimension(shape.length)
    return { self: d.t(shape), dim, index: d.t([shape.at(dim)!], 'permutation', 'int64'), source: d.t(shape) }
  } }),
  row('index_reduce', { recipe: (d) => ({ ...indexAlong(d), reduce: d.pick(['prod', 'mean', 'amax', 'amin']) }), dtypes: real }),
  row('gather scatter_add scatter_reduce.two', { recipe: (d) => ({ ...scattered(d), sparse_grad: undefined }), dtypes: real }),
  // Where several values go to one place, the last in the order of the kernel stays: the same kernel on both sides.
  row('scatter.src scatter.value', { recipe: (d) => ({ ...scattered(d), value: d.plain() }) }),
  row('scatter.reduce scatter.value_reduce', {
    recipe: (d) => ({ ...scattered(d), value: d.plain(), reduce: d.pick(['add', 'multiply']) }), dtypes: real
  }),
  row('take_along_dim', { recipe: scattered }),
  row('take put', { recipe: (d) => {
    const shape = d.shape(1)
    const index = d.shape(0, 2)
    return { self: d.t(shape), index: d.index(index, product(shape), true), source: d.t(index), accumulate: true }
  } }),
  row('index.Tensor index_put', {
    recipe: (d) => {
      const [n, m] = [d.int(1, 4), d.int(1, 4)]
      const count = d.size()
      const mask = d.t([n], undefined, 'bool')
      const list = d.pick([
        [d.index([count], n, true)], [null, d.index([count], m, true)], [d.index([count, 1], n), d.index([count], m)], [mask],
          [d.index([], n), null]
      ])
      return { self: d.t([n, m, 2]), indices: list, values: d.t([]), accumulate: d.oneIn(2) }
    }
  }),
  row('masked_select masked_scatter', { recipe: (d) => {
    const shape = d.shape()
    return { self: d.t(shape), mask: d.t(shape, undefined, 'bool'), source: d.t([product(shape)]) }
  } }),
  row('masked_fill.Tensor fill.Tensor', { recipe: (d) => {
    const shape = d.shape()
    return { self: d.t(shape), mask: d.t(shape, undefined, 'bool'), value: d.t([], undefined, d.oneIn(3) ? 'float32' : d.dtype) }
  } }),
  row('fill.Scalar', { recipe: any }),
  row('one_hot', { recipe: (d) => ({ self: d.t(d.shape(0, 3), [0, 9], 'int64') }) }),
  row('embedding', { recipe: (d) => {
    const n = d.int(1, 5)
    return { weight: d.t([n, d.size()]), indices: d.t(d.shape(0, 2), [0, n - 1], d.pick(['int64', 'int32'])), padding_idx: d.int(-1, 0),
      sparse: undefined }
  }, dtypes: floats }),
  row('embedding_bag', { recipe: (d) => {
    const [n, count] = [d.int(1, 5), d.int(2, 6)]
    return {
      weight: d.t([n, d.int(1, 4)], 'normal'), indices: d.t([count], [0, n - 1], 'int64'), offsets: d.t([2], [0, 0], 'int64'),
      mode: d.int(0, 2),
      sparse: undefined, scale_grad_by_freq: undefined, per_sample_weights: undefined, include_last_offset: undefined
    }
  }, dtypes: ['float32', 'float64'] }),
  row('tril_indices triu_indices', { recipe: (d) => ({ row: d.int(0, 4), col: d.int(0, 4), dtype: d.pick(['int64', 'int32']) }) })
]

/** Transforms to and from frequencies. */
export const spectral: readonly Row[] = [
  row('fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft', { recipe: (d) => ({ self: d.t(d.shape(1)), n: d.int(1, 6) }),
    dtypes: ['float32', 'float64', ...complexes, 'int64'] }),
  row('fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_hfft2 fft_ihfft2', {
    recipe: (d) => ({ self: d.t(d.shape(2)), s: d.oneIn(2) ? undefined : [d.int(1, 5), d.int(1, 5)],
      dim: d.oneIn(2) ? undefined : [-1, 0] }),
    dtypes: ['float32', 'float64', ...complexes, 'int64']
  }),
  row('fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_hfftn fft_ihfftn', { recipe: (d) => ({ self: d.t(d.shape(1, 3)) }),
    dtypes: ['float32', 'float64', ...complexes] }),
  row('stft.center', { recipe: (d) => {
    const n = d.pick([4, 8])
    return {
      self: d.t([...d.oneIn(2) ? [] : [2], 32], 'normal'), n_fft: n, hop_length: d.int(1, 4), win_length: n, window: d.t([n], 'positive'),
      pad_mode: d.pick(['reflect', 'constant']), return_complex: true, onesided: undefined, align_to_window: undefined
    }
  }, dtypes: ['float32', 'float64'] }),
  row('istft', { recipe: (d) => ({
    self: d.t([2, 5, 9], 'normal'), n_fft: 8, hop_length: 2, win_length: 8, window: undefined, onesided: undefined, length: undefined,
    return_complex: undefined
  }), dtypes: complexes })
]
