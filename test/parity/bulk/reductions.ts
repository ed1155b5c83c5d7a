import { complexes, floats, inexact, integers, numeric, real, wide } from './draw.js'
import { row, type Recipe, type Row } from './row.js'

const self: Recipe = (d) => ({ self: d.t(d.shape()) })

/** A tensor of one dimension or more, for operators along one. */
const along: Recipe = (d) => ({ self: d.t(d.shape(1)) })

/** Reductions, scans, sorting: one tensor, and by name dimensions and flags. */
export const reductions: readonly Row[] = [
  row(`sum sum.dim_IntList nansum mean mean.dim nanmean prod prod.dim_int all all.dim all.dims any any.dim any.dims count_nonzero
    count_nonzero.dim_IntList`, { recipe: self }),
  row('amax amin aminmax argmax argmin max min max.dim min.dim median nanmedian mode', { recipe: self, dtypes: [...real, 'bool'] }),
  row('median.dim nanmedian.dim', { recipe: self, dtypes: [...real, 'bool'], unexpanded: true }),
  row(`std std.dim std.correction var var.dim var.correction std_mean std_mean.dim std_mean.correction var_mean var_mean.dim
    var_mean.correction`, { recipe: self, dtypes: inexact }),
  row('logsumexp special_logsumexp', { recipe: self, dtypes: [...floats, ...complexes, 'int64'] }),
  row('norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dtype norm.ScalarOpt_dim_dtype linalg_vector_norm', {
    dtypes: inexact,
    recipe: (d) => {
      const dtype = d.pick(['float32', 'float64', 'complex128'] as const)
      return { self: d.t(d.shape()), p: d.pick([0, 1, 2, 3, 2.5, Infinity]), ord: d.pick([0, 1, 2, 3, -1, Infinity, -Infinity]), dtype }
    }
  }),
  row('cumsum cumprod logcumsumexp cummax cummin', { recipe: self, dtypes: numeric }),
  row('softmax.int log_softmax.int special_softmax special_log_softmax', { recipe: self, dtypes: floats }),
  row('sort sort.stable argsort argsort.stable msort', { recipe: self, dtypes: [...real, 'bool'] }),
  row('topk', { recipe: (d) => {
    const shape = d.shape(1)
    const dim = d.dimension(shape.length)
    return { self: d.t(shape), dim, k: d.int(0, shape.at(dim)!) }
  }, dtypes: real }),
  row('kthvalue', { recipe: (d) => {
    const shape = d.shape(1)
    const dim = d.dimension(shape.length)
    return { self: d.t(shape), dim, k: d.int(1, Math.max(shape.at(dim)!, 1)) }
  }, dtypes: real }),
  row('quantile nanquantile', { recipe: (d) => ({ self: d.t(d.shape(1)), q: d.t([d.int(1, 3)], 'unit') }),
    dtypes: ['float32', 'float64'] }),
  row('quantile.scalar nanquantile.scalar', { recipe: along, dtypes: ['float32', 'float64'] }),
  row('unique_consecutive unique_dim unique_dim_consecutive', { recipe: along, dtypes: [...integers, 'float32', 'bool'],
    content: 'normal' }),
  row('cumulative_trapezoid.dx trapezoid.dx trapz.dx', { recipe: (d) => ({ y: d.t(d.shape(1)), dx: d.float() }), dtypes: inexact }),
  row('cumulative_trapezoid.x trapezoid.x trapz.x', { recipe: (d) => {
    const shape = d.shape(1)
    const dim = d.dimension(shape.length)
    return { y: d.t(shape), x: d.t([shape.at(dim)!], 'sorted'), dim }
  }, dtypes: ['float32', 'float64'] }),
  row('diff', { recipe: along }),
  row('gradient.scalarint gradient.scalararray gradient.array', {
    recipe: (d) => {
      const shape = d.shape(1, 3).map((size) => size + 2)
      return { self: d.t(shape), spacing: d.float(0.5, 2) }
    },
    dtypes: wide
  }),
  row('gradient.scalarrayarray gradient.tensorarray', {
    recipe: (d, { overload }) => {
      const shape = d.shape(1, 3).map((size) => size + 2)
      const dim = d.dimensions(shape.length)
      const tensors = dim.map((i) => d.t([shape.at(i)!], 'sorted'))
      return { self: d.t(shape), dim, spacing: overload === 'tensorarray' ? tensors : dim.map(() => d.float(0.5, 2)) }
    },
    dtypes: ['float32', 'float64']
  }),
  row('renorm', { recipe: (d) => ({ self: d.t(d.shape(2)), p: d.pick([1, 2, 2.5]), maxnorm: d.float() }), dtypes: inexact }),
  row('histc', { recipe: (d) => ({ self: d.t(d.shape(), 'normal'), min: d.int(-3, 0), max: d.int(1, 4) }), dtypes: [...floats, 'int64'] }),
  row('histogram.bin_ct', { recipe: (d) => ({ self: d.t(d.shape(), 'normal'), range: [-2, 2.5], weight: undefined }),
    dtypes: ['float32', 'float64'] }),
  row('histogram.bins_tensor', {
    recipe: (d) => {
      const shape = d.shape()
      return { self: d.t(shape, 'normal'), bins: d.t([d.int(2, 6)], 'sorted'), weight: d.t(shape, 'positive') }
    },
    dtypes: ['float32', 'float64']
  }),
  row('bincount', { recipe: (d) => {
    const count = d.size(6)
    return { self: d.t([count], [0, 8]), weights: d.t([count], 'normal', d.pick(['float32', 'float64', 'int32'] as const)) }
  }, dtypes: integers }),
  row('nonzero argwhere nonzero_numpy', { recipe: self }),
  row('nonzero_static', { recipe: (d) => ({ self: d.t(d.shape()), size: d.int(0, 9), fill_value: d.int(-2, 2) }) }),
  row('isin.Tensor_Tensor', { recipe: (d) => ({ elements: d.t(d.shape()), test_elements: d.t(d.shape(), undefined, d.dtype) }),
    dtypes: real }),
  row('isin.Tensor_Scalar isin.Scalar_Tensor', {
    recipe: (d) => ({ elements: d.t(d.shape()), test_elements: d.t(d.shape()), element: d.plain(), test_element: d.plain() }), dtypes: real
  }),
  row('searchsorted.Tensor searchsorted.Scalar bucketize.Tensor bucketize.Scalar', {
    recipe: (d, { name, overload }) => {
      const batch = name.endsWith('bucketize') || overload === 'Scalar' ? [] : d.batch()
      const sequence = d.t([...batch, d.size()], 'sorted')
      return { sorted_sequence: sequence, boundaries: sequence, self: d.t([...batch, d.size()]), side: d.pick(['left', 'right']),
        right: undefined }
    },
    dtypes: real
  }),
  row('corrcoef', { recipe: (d) => ({ self: d.t(d.shape(0, 2)) }), dtypes: wide }),
  row('cov', { recipe: (d) => {
    const [n, m] = [d.int(1, 3), d.int(2, 5)]
    return { self: d.t([n, m]), fweights: d.t([m], [1, 3], 'int64'), aweights: d.t([m], 'unit', 'float64'), correction: d.int(0, 2) }
  }, dtypes: ['float32', 'float64', 'complex64'] }),
  row('dist', { recipe: (d) => {
    const [first, second] = d.broadcast(2) as [number[], number[]]
    return { self: d.t(first), other: d.t(second), p: d.pick([0, 1, 2, 3.5, Infinity]) }
  }, dtypes: inexact }),
  row('cosine_similarity pairwise_distance', { recipe: (d) => {
    const shape = d.shape(1)
    return { x1: d.t(shape), x2: d.t(shape), p: d.pick([1, 2, 2.5]), dim: d.dimension(shape.length) }
  }, dtypes: ['float32', 'float64', 'float16'] }),
  row('cdist', { recipe: (d) => {
    const [batch, m] = [d.batch(), d.size()]
    return { x1: d.t([...batch, d.size(), m]), x2: d.t([...batch, d.size(), m]), p: d.pick([0, 1, 2, 2.5, Infinity]),
      compute_mode: d.int(0, 2) }
  }, dtypes: ['float32', 'float64'] }),
  // The gradient for an empty tensor ends the process in libtorch itself.
  row('pdist', { recipe: (d) => ({ self: d.t([d.int(1, 4), d.int(1, 4)]), p: d.pick([0, 1, 2, 2.5, Infinity]) }),
    dtypes: ['float32', 'float64'] }),
  row('sum_to_size', { recipe: (d) => {
    const [full, part] = d.broadcast(2) as [number[], number[]]
    return { self: d.t(full), size: part }
  } }),
  row('segment_reduce', { recipe: (d) => {
    const lengths = d.sizes(d.int(1, 3))
    // Lengths that sum to the first size: equal ones.
    return { data: d.t([2 * lengths.length, d.size()]), lengths: d.t([lengths.length], [2, 2], 'int64'), initial: d.float(),
      reduce: d.pick(['sum', 'mean', 'min', 'max', 'prod']) }
  }, dtypes: ['float32', 'float64'] })
]
