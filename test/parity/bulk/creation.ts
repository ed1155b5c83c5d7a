import { floats, integers, inexact, type Draw, type Value } from './draw.js'
import { row, type Recipe, type Row } from './row.js'

const sized: Recipe = (d) => ({
  size: d.shape(0, 3), n: d.int(0, 4), m: d.int(0, 4), fill_value: d.scalar(), s: d.scalar(), self: d.t(d.shape()), pin_memory: undefined
})

const dtypeOf = (d: Draw): Value => (d.oneIn(2) ? undefined : d.pick([...floats, ...integers]))

/** Tensors from nothing, and from nothing but a shape. */
export const creation: readonly Row[] = [
  row('zeros ones full eye eye.m scalar_tensor zeros_like ones_like full_like new_zeros new_ones new_full', { recipe: sized }),
  row('empty.memory_format empty_like new_empty', { recipe: sized, shapesOnly: true }),
  row('empty_strided empty_permuted', {
    recipe: (d) => ({ size: [2, 3], stride: d.pick([[3, 1], [1, 2], [1, 4]]), physical_layout: d.order(2), pin_memory: undefined }),
    shapesOnly: true
  }),
  row('arange arange.start_step range.step', { recipe: (d) => {
    const whole = d.oneIn(2)
    // A step that an integer dtype cuts to 0 ends the process in libtorch itself.
    const dtype = whole ? dtypeOf(d) : undefined
    const at = (low: number, high: number) => (whole ? d.int(low, high) : d.float(low, high))
    return { start: at(-4, 2), end: at(3, 9), step: whole ? d.int(1, 3) : d.float(0.3, 2), dtype, pin_memory: undefined }
  } }),
  row('linspace logspace', { recipe: (d) => ({
    start: d.plain(), end: d.plain(), steps: d.int(0, 6), base: d.float(1, 3), dtype: d.pick([undefined, 'float64', 'float32']),
    pin_memory: undefined
  }) }),
  row(`bartlett_window blackman_window hamming_window hann_window kaiser_window bartlett_window.periodic blackman_window.periodic
    hamming_window.periodic hann_window.periodic kaiser_window.periodic kaiser_window.beta hamming_window.periodic_alpha
    hamming_window.periodic_alpha_beta`, {
    recipe: (d) => ({ window_length: d.int(0, 9), alpha: 0.5, beta: d.float(0, 9), dtype: d.pick([undefined, 'float64', 'float32']),
      pin_memory: undefined })
  }),
  row('fft_fftfreq fft_rfftfreq', { recipe: (d) => ({ n: d.int(1, 7), d: d.float(0.5, 2), dtype: d.pick([undefined, 'float64']),
    pin_memory: undefined }) })
]

/** Random numbers: the same seed gives the same on both sides. */
export const random: readonly Row[] = [
  row('rand randn rand_like randn_like', { recipe: sized, dtypes: floats }),
  row('randint randint.low randint_like randint_like.low_dtype randperm', {
    recipe: (d) => ({
      // No leaf: the dispatcher's randint_like records itself, PyTorch's function and ours do not.
      size: d.shape(0, 3), self: { ...d.t(d.shape()), constant: true }, low: d.int(-5, 0), high: d.int(1, 2 ** 40), n: d.int(0, 9),
      dtype: undefined, pin_memory: undefined })
  }),
  row('normal.float_float', { recipe: (d) => ({ mean: d.float(-1, 1), size: d.shape(0, 3), dtype: undefined, pin_memory: undefined }) }),
  row('normal.Tensor_float normal.float_Tensor normal.Tensor_Tensor', {
    recipe: (d, { overload }) => {
      const shape = d.shape()
      const float = overload.startsWith('float')
      return { mean: float ? d.float() : d.t(shape), std: overload.endsWith('float') ? d.float() : d.t(shape, 'positive') }
    },
    dtypes: floats
  }),
  row('bernoulli bernoulli.p bernoulli.Tensor multinomial', {
    recipe: (d) => {
      const shape = d.oneIn(2) ? [4] : [2, 4]
      return { self: d.t(shape, 'unit'), p: d.t(shape, 'unit'), num_samples: d.int(1, 4) }
    },
    dtypes: ['float32', 'float64']
  }),
  row('poisson', { recipe: (d) => ({ self: d.t(d.shape(), 'positive') }), dtypes: ['float32', 'float64'] }),
  row('binomial', { recipe: (d) => {
    const shape = d.shape()
    return { count: d.t(shape, [0, 9]), prob: d.t(shape, 'unit') }
  }, dtypes: ['float32', 'float64'] }),
  row('dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout', {
    recipe: (d) => {
      const input = d.t(d.shape(2))
      return { input, self: input }
    },
    dtypes: floats
  }),
  row('rrelu', { recipe: (d) => ({ self: d.t(d.shape()), lower: 0.1, upper: 0.4 }), dtypes: floats }),
  row('uniform exponential cauchy log_normal geometric random random.to random.from', {
    recipe: (d) => ({
      self: d.t(d.shape()), from: d.int(-3, 0), to: d.int(1, 9), lambd: d.float(), median: d.float(), sigma: d.float(), mean: d.float(),
      p: d.float(0.1, 0.9)
    }),
    dtypes: ['float32', 'float64']
  })
]

/** Lists of tensors at once, as optimizers use them. By name only. */
export const lists: readonly Row[] = [
  row(`_foreach_abs _foreach_neg _foreach_sqrt _foreach_exp _foreach_reciprocal _foreach_sigmoid _foreach_tanh _foreach_log
    _foreach_round _foreach_sign _foreach_zero _foreach_norm.Scalar _foreach_add.Scalar _foreach_sub.Scalar _foreach_mul.Scalar
    _foreach_div.Scalar _foreach_add.List _foreach_sub.List _foreach_mul.List _foreach_div.List _foreach_maximum.List
    _foreach_minimum.List _foreach_maximum.Scalar _foreach_clamp_min.Scalar _foreach_add.ScalarList _foreach_mul.ScalarList
    _foreach_div.ScalarList _foreach_addcmul.Scalar _foreach_addcdiv.Scalar _foreach_addcmul.ScalarList _foreach_lerp.Scalar
    _foreach_lerp.List _foreach_pow.Scalar _foreach_pow.List _foreach_pow.ScalarList _foreach_mul.Tensor _foreach_add.Tensor
    _foreach_copy`, {
    recipe: (d, { name, overload }) => {
      const list = Array.from({ length: d.oneIn(8) ? 0 : d.int(1, 3) }, () => d.shape())
      const tensors = () => list.map((shape) => d.t(shape))
      const numbers = list.map(() => (d.oneIn(3) ? d.scalar() : d.plain()))
      const other = overload === 'Tensor' ? d.t([]) : tensors()
      return {
        self: tensors(), scalar: d.plain(), scalars: numbers, tensor1: tensors(), tensor2: tensors(), tensors1: tensors(),
        weights: tensors(), weight: d.plain(),
        value: d.plain(), exponent: overload === 'List' ? tensors() : overload === 'ScalarList' ? numbers : d.plain(), src: tensors(),
        ord: d.pick([1, 2, Infinity]), dtype: undefined, ...(name.endsWith('norm') || overload === 'Scalar' ? {} : { other })
      }
    },
    dtypes: [...inexact, 'int64', 'int32', 'bool']
  })
]
