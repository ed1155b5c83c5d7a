import { complexes, floats, inexact, integers, numeric, real } from './draw.js'
import { row, type Row } from './row.js'

/** Operators on elements: tensors of shapes that broadcast, everything else by name. */
export const elementwise: readonly Row[] = [
  row(`abs absolute acos acosh angle arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil conj_physical cos cosh
    deg2rad digamma erf erfc erfinv exp exp2 expm1 fix floor frac i0 isfinite isinf isnan isneginf isposinf isreal lgamma log log10
    log1p log2 logical_not neg negative positive rad2deg reciprocal round rsqrt sgn sigmoid sign signbit sin sinc sinh sqrt square tan
    tanh trunc special_digamma special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit
    special_expm1 special_gammaln special_i0 special_i0e special_i1 special_i1e special_log1p special_log_ndtr special_ndtr
    special_ndtri special_psi special_sinc logit special_logit nan_to_num zero frexp.Tensor round.decimals special_round`),
  row(`relu relu6 selu silu mish hardsigmoid hardswish log_sigmoid gelu celu elu hardshrink softshrink hardtanh leaky_relu softplus
    threshold`, { dtypes: real }),
  row(`special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_modified_bessel_i0
    special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_scaled_modified_bessel_k0
    special_scaled_modified_bessel_k1 special_spherical_bessel_j0`, { dtypes: [...floats, 'int64'] }),
  row('bitwise_not bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor', { dtypes: [...integers, ...integers, 'bool'] }),
  row(`bitwise_and.Scalar bitwise_or.Scalar bitwise_xor.Scalar bitwise_and.Scalar_Tensor bitwise_or.Scalar_Tensor
    bitwise_xor.Scalar_Tensor`, { dtypes: [...integers, ...integers, 'bool'] }),
  row('bitwise_left_shift.Tensor bitwise_right_shift.Tensor bitwise_left_shift.Tensor_Scalar bitwise_right_shift.Tensor_Scalar',
    { dtypes: integers }),
  row(`add.Tensor sub.Tensor subtract.Tensor rsub.Tensor mul.Tensor multiply.Tensor div.Tensor divide.Tensor true_divide.Tensor`),
  row('subtract.Scalar rsub.Scalar multiply.Scalar divide.Scalar true_divide.Scalar', { natural: false }),
  row('add.Scalar sub.Scalar mul.Scalar div.Scalar', { natural: true }),
  row(`eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor not_equal.Tensor less.Tensor less_equal.Tensor greater.Tensor
    greater_equal.Tensor eq.Scalar ne.Scalar lt.Scalar le.Scalar gt.Scalar ge.Scalar not_equal.Scalar less.Scalar less_equal.Scalar
    greater.Scalar greater_equal.Scalar logical_and logical_or logical_xor isclose`),
  row(`atan2 arctan2 copysign.Tensor copysign.Scalar fmax fmin maximum minimum max.other min.other hypot heaviside logaddexp logaddexp2
    nextafter xlogy.Tensor xlogy.Scalar_Other xlogy.Scalar_Self special_xlogy special_xlogy.other_scalar special_xlogy.self_scalar
    special_xlog1py special_xlog1py.other_scalar special_xlog1py.self_scalar ldexp.Tensor clamp clip clamp.Tensor clip.Tensor clamp_min
    clamp_max clamp_min.Tensor clamp_max.Tensor`, { dtypes: [...real, 'bool'] }),
  row('pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar float_power.Tensor_Tensor float_power.Tensor_Scalar float_power.Scalar'),
  // The smallest integer divided by -1 ends the process in libtorch itself, so no extreme integers here.
  row(`fmod.Tensor fmod.Scalar remainder.Tensor remainder.Scalar remainder.Scalar_Tensor floor_divide floor_divide.Scalar
    div.Tensor_mode div.Scalar_mode divide.Tensor_mode divide.Scalar_mode gcd lcm`, { dtypes: [...real, 'bool'], content: 'normal' }),
  row('igamma igammac special_gammainc special_gammaincc special_zeta special_zeta.other_scalar special_zeta.self_scalar', {
    dtypes: ['float32', 'float64'], content: 'positive'
  }),
  row(`special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v special_chebyshev_polynomial_w
    special_hermite_polynomial_h special_hermite_polynomial_he special_laguerre_polynomial_l special_legendre_polynomial_p
    special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
    special_shifted_chebyshev_polynomial_w`, { dtypes: ['float32', 'float64'], content: 'normal' }),
  row(`special_chebyshev_polynomial_t.n_scalar special_hermite_polynomial_h.n_scalar special_laguerre_polynomial_l.n_scalar
    special_legendre_polynomial_p.n_scalar`, {
    dtypes: ['float32', 'float64'], content: 'normal', recipe: (d) => ({ x: d.t(d.shape()), n: d.int(0, 4) })
  }),
  row(`special_chebyshev_polynomial_u.x_scalar special_hermite_polynomial_he.x_scalar`, {
    dtypes: ['float32', 'float64'], recipe: (d) => ({ x: d.plain(), n: d.t(d.shape(), [0, 5]) })
  }),
  row('addcmul addcdiv lerp.Tensor lerp.Scalar where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar', {
    recipe: (d) => {
      const [first, second, third] = d.broadcast(3) as [number[], number[], number[]]
      return {
        self: d.t(first), tensor1: d.t(second), tensor2: d.t(third), end: d.t(second), weight: d.t(third), other: d.t(second),
        condition: d.t(third, undefined, 'bool'), mask: d.t(second, undefined, 'bool')
      }
    }
  }),
  row('polygamma special_polygamma', { recipe: (d) => ({ n: d.int(0, 4), self: d.t(d.shape()) }), dtypes: [...floats, 'int64'],
    content: 'normal' }),
  row('mvlgamma special_multigammaln', { recipe: (d) => ({ p: d.int(1, 3), self: d.t(d.shape(), 'positive') }),
    dtypes: ['float32', 'float64'] }),
  row('prelu', { recipe: (d) => {
    const shape = d.shape(1)
    return { self: d.t(shape), weight: d.t(d.oneIn(2) ? [] : [shape[1] ?? 1]) }
  }, dtypes: floats }),
  row('complex polar', { dtypes: ['float32', 'float64', 'float16'], recipe: (d) => {
    const [first, second] = d.broadcast(2) as [number[], number[]]
    return { real: d.t(first), imag: d.t(second), abs: d.t(first), angle: d.t(second) }
  } }),
  row('real imag view_as_real resolve_conj resolve_neg conj', { dtypes: [...complexes, ...complexes, 'float32', 'int64'] }),
  row('view_as_complex', { dtypes: ['float32', 'float64', 'float16'], recipe: (d) => ({ self: d.t([...d.shape(0, 3), 2]) }) }),
  row('type_as expand_as view_as reshape_as', {
    recipe: (d) => {
      const [first, second] = d.broadcast(2) as [number[], number[]]
      return { self: d.t(second), other: d.t(first, undefined, d.pick([...numeric, 'bool'])) }
    }
  }),
  row('to.dtype _to_copy', {
    recipe: (d) => ({ self: d.t(d.shape()), dtype: d.pick([...numeric, 'bool', 'uint64']), pin_memory: undefined, non_blocking: undefined })
  }),
  row('item', {
    recipe: (d) => ({ self: d.t(d.oneIn(8) ? [2] : d.pick([[], [1], [1, 1]]), d.oneIn(2) ? [2 ** 60, 2 ** 61] : 'special') }),
    dtypes: ['int64', 'int64', 'uint64', 'float64', 'float16', 'complex128', 'bool', 'int8']
  }),
  row('equal is_same_size allclose', { recipe: (d) => {
    const self = d.t(d.shape())
    return { self, other: d.oneIn(2) ? self : d.t(d.shape()) }
  }, dtypes: inexact }),
  row('is_complex is_conj is_contiguous is_floating_point is_neg is_nonzero is_signed dim numel storage_offset'),
  row('can_cast promote_types', { recipe: (d) => {
    const [first, second] = [d.pick(numeric), d.pick(numeric)]
    return { from_: first, to: second, type1: first, type2: second }
  } }),
  row('result_type.Tensor result_type.Scalar result_type.Scalar_Tensor result_type.Scalar_Scalar', {
    recipe: (d) => ({ tensor: d.t(d.shape(0, 1)), other: d.t(d.shape(0, 1), undefined, d.pick(numeric)) })
  })
]
