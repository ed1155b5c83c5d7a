import { complexes, floats, inexact, integers, wide, type Draw } from './draw.js'
import { row, type Recipe, type Row } from './row.js'
import type { Content } from './tensors.js'

const products = [...floats, ...floats, ...complexes, ...integers] as const

/** Square matrices, or a batch of them. */
const square = (content: Content): Recipe => (d) => {
  const n = d.size()
  const A = d.t([...d.batch(), n, n], content)
  return { self: A, A, input: A }
}

/** A matrix of any shape, or a batch of them. */
const matrix: Recipe = (d) => {
  const A = d.t([...d.batch(), d.int(1, 4), d.int(1, 4)], 'dominant')
  return { self: A, A, input: A }
}

/** A system of equations with several right-hand sides. */
const system = (content: Content): Recipe => (d) => {
  const [batch, n, k] = [d.batch(), d.int(1, 4), d.int(1, 3)]
  const [A, B] = [d.t([...batch, n, n], content), d.t([...batch, n, k], 'normal')]
  return { A, B, self: B, input2: A, left: undefined, other: A }
}

/** The shapes of two factors of matmul, of any ranks. */
function factors(d: Draw): { self: number[]; other: number[] } {
  const [n, k, m] = d.sizes(3) as [number, number, number]
  const batch = d.batch()
  return d.pick([
    { self: [k], other: [k] }, { self: [n, k], other: [k] }, { self: [k], other: [k, m] }, { self: [...batch, n, k], other: [k, m] },
    { self: [...batch, n, k], other: [...batch, k, m] }, { self: [n, k], other: [...batch, k, m] },
      { self: [...batch, n, k], other: [...batch.map(() => 1), k, m] }
  ])
}

/** Products. */
const multiplication: readonly Row[] = [
  row('matmul linalg_matmul', { dtypes: products, recipe: (d) => {
    const { self, other } = factors(d)
    return { self: d.t(self), other: d.t(other) }
  } }),
  row('mm bmm mv outer ger', { dtypes: products, recipe: (d, { name }) => {
    const [n, k, m] = d.sizes(3) as [number, number, number]
    const batch = name.endsWith('bmm') ? [d.size()] : []
    const vector = /outer|ger/.test(name)
    return { self: d.t(vector ? [n] : [...batch, n, k]), mat2: d.t([...batch, k, m]), vec: d.t([k]), vec2: d.t([m]) }
  } }),
  row('addmm addmv addr baddbmm addbmm', { dtypes: products, recipe: (d, { name }) => {
    const [b, n, k, m] = d.sizes(4) as [number, number, number, number]
    const result = name.includes('addmv') ? [n] : name.includes('baddbmm') ? [b, n, m] : [n, m]
    return {
      self: d.t(d.oneIn(4) ? result.map((size) => (d.oneIn(2) ? 1 : size)) : result), mat1: d.t([n, k]), mat2: d.t([k, m]),
      mat: d.t([n, k]), vec: d.t([k]),
      vec1: d.t([n]), vec2: d.t([m]), batch1: d.t([b, n, k]), batch2: d.t([b, k, m]), alpha: d.plain(), beta: d.plain()
    }
  } }),
  row('dot vdot inner linalg_vecdot', { dtypes: products, recipe: (d) => {
    const shape = [d.size(6)]
    return { self: d.t(shape), other: d.t(shape), tensor: d.t(shape), x: d.t(shape), y: d.t(shape) }
  } }),
  row('kron', { dtypes: products, recipe: (d) => ({ self: d.t(d.shape(0, 2)), other: d.t(d.shape(0, 2)) }) }),
  row('tensordot', { dtypes: products, recipe: (d) => {
    const [n, k, m] = d.sizes(3) as [number, number, number]
    return { self: d.t([n, k, 2]), other: d.t([2, k, m]), dims_self: [1, -1], dims_other: [1, 0] }
  } }),
  row('einsum', { dtypes: inexact, recipe: (d) => {
    const [i, j, k] = d.sizes(3) as [number, number, number]
    const equations = {
      'ij,jk->ik': [[i, j], [j, k]], 'ij->ji': [[i, j]], 'ii->i': [[i, i]], 'bij,bjk': [[2, i, j], [2, j, k]],
      '...i,...i->...': [[i, j], [i, j]],
      'i,j,k->ijk': [[i], [j], [k]], 'ij->': [[i, j]]
    }
    const [equation, list] = d.pick(Object.entries(equations))
    return { equation, tensors: list.map((shape) => d.t(shape)), path: undefined }
  } }),
  row('chain_matmul linalg_multi_dot', { dtypes: inexact, recipe: (d) => {
    const sizes = d.sizes(4)
    const list = [0, 1, 2].slice(0, d.int(2, 3)).map((i) => d.t([sizes[i]!, sizes[i + 1]!]))
    return { tensors: list, matrices: list }
  } }),
  row('linear', { dtypes: inexact, recipe: (d) => {
    const [n, m] = d.sizes(2) as [number, number]
    return { input: d.t([...d.shape(0, 3), n]), weight: d.t([m, n]), bias: d.oneIn(3) ? null : d.t([m]) }
  } }),
  row('bilinear', { dtypes: floats, recipe: (d) => {
    const [batch, n, m, o] = [d.shape(1, 2), d.int(1, 3), d.int(1, 3), d.int(1, 3)]
    return { input1: d.t([...batch, n]), input2: d.t([...batch, m]), weight: d.t([o, n, m]), bias: d.oneIn(3) ? null : d.t([o]) }
  } }),
  row('cross linalg_cross', { dtypes: products, recipe: (d) => {
    const shape = [...d.shape(0, 2), 3]
    return { self: d.t(shape), other: d.t(shape), dim: -1 }
  } })
]

/** Decompositions and solutions, of matrices that have a good one. */
const decomposition: readonly Row[] = [
  row('det linalg_det logdet slogdet linalg_slogdet inverse linalg_inv linalg_inv_ex linalg_lu linalg_lu_factor linalg_lu_factor_ex', {
    dtypes: wide, recipe: square('dominant')
  }),
  row('matrix_exp linalg_matrix_exp linalg_eigvals linalg_eig matrix_power linalg_matrix_power linalg_cond linalg_cond.p_str', {
    dtypes: wide, recipe: (d, schema) => ({ ...square('dominant')(d, schema), n: d.int(-2, 3),
      p: schema.overload ? 'fro' : d.pick([1, 2, -1, Infinity]) })
  }),
  row('cholesky linalg_cholesky linalg_cholesky_ex cholesky_inverse linalg_eigh linalg_eigvalsh linalg_ldl_factor linalg_ldl_factor_ex', {
    dtypes: wide, recipe: square('definite')
  }),
  row(`linalg_qr qr linalg_svd linalg_svdvals svd pinverse linalg_pinv linalg_pinv.atol_rtol_float linalg_matrix_rank
    linalg_matrix_rank.atol_rtol_float nuclear_norm geqrf`, {
    dtypes: wide,
    recipe: (d, schema) => ({ ...matrix(d, schema), driver: undefined, hermitian: false, rcond: 1e-6, tol: 1e-6, dim: [-2, -1],
      atol: undefined, rtol: undefined })
  }),
  row('linalg_matrix_norm linalg_matrix_norm.str_ord linalg_norm linalg_norm.ord_str frobenius_norm.dim', {
    dtypes: wide,
    recipe: (d, schema) => ({
      ...matrix(d, schema), ord: schema.overload.endsWith('str') || schema.overload === 'str_ord' ? d.pick(['fro', 'nuc'])
        : d.pick([1, -1, 2, -2, Infinity]),
      dim: d.oneIn(2) ? undefined : [-2, -1], dtype: undefined
    })
  }),
  row('linalg_solve linalg_solve_ex linalg_solve_triangular triangular_solve', {
    dtypes: wide, recipe: (d, schema) => {
      const given = system('dominant')(d, schema)
      return schema.name.endsWith('triangular') ? { ...given, self: given['A'] } : given
    }
  }),
  row('cholesky_solve', { dtypes: wide, recipe: system('definite') }),
  // LAPACK's work area lies where the allocator puts it, and how it is aligned decides the order of sums.
  row('linalg_lstsq', { dtypes: wide, tolerance: 1e-5, recipe: (d) => {
    const [n, m, k] = [d.int(3, 5), d.int(1, 3), d.int(1, 2)]
    return { self: d.t([n, m], 'normal'), b: d.t([n, k], 'normal'), rcond: undefined, driver: d.pick(['gels', 'gelsy', 'gelsd', 'gelss']) }
  } }),
  row('linalg_tensorinv linalg_tensorsolve', { dtypes: ['float64', 'complex128'], recipe: (d, { name }) => {
    const solve = name.endsWith('solve')
    return { self: d.t(solve ? [4, 4] : [4, 2, 2], 'normal'), other: d.t([4], 'normal'), ind: 1, dims: undefined }
  } }),
  row('linalg_householder_product orgqr', { dtypes: wide, recipe: (d) => {
    const [n, k] = [d.int(2, 4), d.int(1, 2)]
    return { input: d.t([n, k], 'normal'), self: d.t([n, k], 'normal'), tau: d.t([k], 'unit'), input2: d.t([k], 'unit') }
  } }),
  row('lu_unpack', { dtypes: wide, recipe: (d) => {
    const n = d.int(1, 4)
    return { LU_data: d.t([n, n], 'dominant'), LU_pivots: d.t([n], [n, n], 'int32') }
  } })
]

export const algebra: readonly Row[] = [...multiplication, ...decomposition]
