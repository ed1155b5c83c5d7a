import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import type { Tensors } from './python.js'

torch.manualSeed(11)

/** The same values in memory of another order. */
const scattered = (x: Tensor): Tensor => x.transpose(0, -1).contiguous().transpose(0, -1)

/** Inputs by name. `s*` are not contiguous, `z*` are without elements, `e*` are extreme. */
export const inputs = {
  x: torch.randn([3, 4]),
  y: torch.randn([3, 4]),
  sx: scattered(torch.randn([3, 4])),
  sy: torch.randn([6, 8]).slice({ start: 0, end: 6, step: 2 }).slice({ dim: 1, start: 1, end: 8, step: 2 }),
  two: torch.randn([2, 4]),
  row: torch.randn([4]),
  pos1: torch.rand([4]).add(0.1),
  w: torch.randn([5, 4]),
  wt: torch.randn([4, 5]),
  sw: scattered(torch.randn([5, 4])),
  pos: torch.rand([3, 4]).add(0.1),
  image: torch.randn([2, 3, 8, 6]),
  simage: torch.randn([2, 8, 6, 3]).permute([0, 3, 1, 2]),
  kernel: torch.randn([4, 3, 3, 3]),
  heads: torch.randn([2, 3, 5, 4]),
  sheads: torch.randn([2, 5, 3, 4]).transpose(1, 2),
  i32: torch.tensor(
    [
      [1, -2, 3, 7],
      [0, 5, -6, 2],
      [4, 4, 1, -1]
    ],
    { dtype: 'int32' }
  ),
  i64: torch.tensor([2n, 0n, 1n]),
  index: torch.tensor([
    [0n, 1n, 2n, 0n],
    [2n, 2n, 0n, 1n]
  ]),
  bool: torch.tensor([
    [true, false, true, true],
    [false, false, true, false],
    [true, true, false, true]
  ]),
  f64: torch.randn([3, 4], { dtype: 'float64' }),
  bf16: torch.randn([3, 4]).to('bfloat16'),
  f16: torch.randn([3, 4]).to('float16'),
  u8: torch.tensor([250, 3, 128, 7], { dtype: 'uint8' }),
  z: torch.empty([0, 4]),
  zi: torch.empty([0], { dtype: 'int64' }),
  zc: torch.empty([3, 0]),
  e: torch.tensor([
    [1e30, -1e30, NaN, Infinity],
    [-Infinity, 0, -0, 1e-40],
    [3e38, 1, -1, 88]
  ]),
  es: scattered(
    torch.tensor([
      [-Infinity, NaN, 1e30],
      [2, 1e-30, Infinity]
    ])
  ),
  scalar: torch.tensor(2.5)
} satisfies Tensors

export type Inputs = Record<keyof typeof inputs, Tensor>

export interface OperatorCase {
  readonly fn: string
  readonly args: readonly unknown[]
  readonly kwargs?: Record<string, unknown>
  readonly grad?: readonly (keyof Inputs)[]
  readonly run: (t: Inputs) => unknown
}

type Rest = Pick<OperatorCase, 'kwargs' | 'grad'>
const entry = (fn: string, args: readonly unknown[], run: OperatorCase['run'], rest: Rest = {}): OperatorCase => ({
  fn,
  args,
  run,
  ...rest
})

/** Operator calls of all argument kinds, first as Python makes them, then as TypeScript does. */
export const operatorCases: readonly OperatorCase[] = [
  // numbers, booleans, bigints, complex numbers where a Scalar belongs
  entry('torch.add', ['$x', '$sy'], ({ x, sy }) => x.add(sy, { alpha: -1.5 }), { kwargs: { alpha: -1.5 }, grad: ['x', 'sy'] }),
  entry('torch.add', ['$x', 2], ({ x }) => x.add(2), { grad: ['x'] }),
  entry('torch.add', ['$i32', 2], ({ i32 }) => i32.add(2)),
  entry('torch.mul', ['$i32', 2.5], ({ i32 }) => i32.mul(2.5)),
  entry('torch.mul', ['$i32', true], ({ i32 }) => i32.mul(true)),
  entry('torch.add', ['$bool', true], ({ bool }) => bool.add(true)),
  entry('torch.sub', ['$i64', 9007199254740993n], ({ i64 }) => i64.sub(9007199254740993n)),
  entry('torch.mul', ['$u8', '$u8'], ({ u8 }) => u8.mul(u8)),
  entry('torch.mul', ['$bf16', '$f16'], ({ bf16, f16 }) => bf16.mul(f16)),
  entry('torch.mul', ['$f64', '$x'], ({ f64, x }) => f64.mul(x), { grad: ['f64', 'x'] }),
  entry('torch.div', ['$sx', '$y'], ({ sx, y }) => sx.div(y), { grad: ['sx', 'y'] }),
  entry('torch.div', ['$i32', 2], ({ i32 }) => i32.div(2, { roundingMode: 'floor' }), { kwargs: { rounding_mode: 'floor' } }),
  entry('torch.pow', ['$pos', 2.5], ({ pos }) => pos.pow(2.5), { grad: ['pos'] }),
  entry('torch.pow', [2, '$sx'], ({ sx }) => torch.pow(2, sx), { grad: ['sx'] }),
  entry('torch.remainder', ['$i32', 3], ({ i32 }) => i32.remainder(3)),
  entry('torch.bitwise_and', ['$i32', 6], ({ i32 }) => i32.bitwiseAnd(6)),
  entry('torch.clamp', ['$x'], ({ x }) => x.clamp({ min: -0.3 }), { kwargs: { min: -0.3 }, grad: ['x'] }),
  entry('torch.clamp', ['$x', '$row', null], ({ x, row }) => x.clamp({ min: row }), { grad: ['x', 'row'] }),
  entry('torch.lerp', ['$x', '$sy', 0.25], ({ x, sy }) => x.lerp(sy, 0.25), { grad: ['x', 'sy'] }),
  entry('torch.addcmul', ['$x', '$sy', '$row'], ({ x, sy, row }) => x.addcmul(sy, row, { value: 0.5 }), {
    kwargs: { value: 0.5 },
    grad: ['x', 'sy', 'row']
  }),
  entry('torch.where', ['$bool', '$x', 0], ({ bool, x }) => torch.where(bool, x, 0), { grad: ['x'] }),
  entry('torch.masked_fill', ['$sx', '$bool', '$scalar'], ({ sx, bool, scalar }) => sx.maskedFill(bool, scalar), {
    grad: ['sx', 'scalar']
  }),
  entry('torch.Tensor.mul_', ['$sx', 3], ({ sx }) => sx.clone().mul_(3), { grad: ['sx'] }),

  // lists of tensors, lists of optional tensors, several results
  entry('torch.cat', [['$x', '$sx', '$z']], ({ x, sx, z }) => torch.cat([x, sx, z]), { grad: ['x', 'sx', 'z'] }),
  entry('torch.stack', [['$x', '$sy']], ({ x, sy }) => torch.stack([x, sy], { dim: -1 }), { kwargs: { dim: -1 }, grad: ['x', 'sy'] }),
  entry('torch.split', ['$sx', [1, 3], 1], ({ sx }) => sx.split([1, 3], { dim: 1 }), { grad: ['sx'] }),
  entry('torch.chunk', ['$x', 2], ({ x }) => x.chunk(2), { grad: ['x'] }),
  entry('torch.unbind', ['$sx'], ({ sx }) => sx.unbind({ dim: 1 }), { kwargs: { dim: 1 }, grad: ['sx'] }),
  entry('torch.meshgrid', [['$row', '$pos1']], ({ row, pos1 }) => torch.meshgrid([row, pos1], { indexing: 'ij' }), {
    kwargs: { indexing: 'ij' }
  }),
  entry('torch.block_diag', ['$x', '$row'], ({ x, row }) => torch.blockDiag([x, row])),
  entry('torch.einsum', ['ij,kj->ik', '$x', '$sw'], ({ x, sw }) => torch.einsum('ij,kj->ik', [x, sw]), { grad: ['x', 'sw'] }),
  entry('torch.ops.aten.index', ['$x', [null, '$i64']], ({ x, i64 }) => x.index([null, i64]), { grad: ['x'] }),
  entry('torch.ops.aten.index_put', ['$x', ['$i64'], '$row', true], ({ x, i64, row }) => x.indexPut([i64], row, { accumulate: true }), {
    grad: ['x', 'row']
  }),
  entry('torch.max', ['$sx', 1], ({ sx }) => sx.max(1, { keepdim: true }), { kwargs: { keepdim: true }, grad: ['sx'] }),
  entry('torch.topk', ['$x', 2], ({ x }) => x.topk(2, { dim: 0, largest: false }), { kwargs: { dim: 0, largest: false }, grad: ['x'] }),
  entry('torch.sort', ['$i32'], ({ i32 }) => i32.sort({ stable: true, dim: 1, descending: true }), {
    kwargs: { stable: true, dim: 1, descending: true }
  }),
  entry('torch.kthvalue', ['$sx', 2], ({ sx }) => sx.kthvalue(2), { grad: ['sx'] }),
  entry('torch.unique_consecutive', ['$i32'], ({ i32 }) => i32.uniqueConsecutive({ returnCounts: true, returnInverse: true }), {
    kwargs: { return_counts: true, return_inverse: true }
  }),

  // lists of integers, also of fixed size where one number fills it; shapes
  entry('torch.reshape', ['$sx', [2, -1]], ({ sx }) => sx.reshape([2, -1]), { grad: ['sx'] }),
  entry('torch.permute', ['$heads', [3, 0, 2, 1]], ({ heads }) => heads.permute([3, 0, 2, 1]), { grad: ['heads'] }),
  entry('torch.Tensor.expand', ['$row', 3, -1], ({ row }) => row.expand([3, -1]), { grad: ['row'] }),
  entry('torch.flip', ['$sx', [0, 1]], ({ sx }) => sx.flip([0, 1]), { grad: ['sx'] }),
  entry('torch.roll', ['$x', [1, -1], [0, 1]], ({ x }) => x.roll([1, -1], { dims: [0, 1] }), { grad: ['x'] }),
  entry('torch.roll', ['$x', 5], ({ x }) => x.roll(5)),
  entry(
    'torch.tensordot',
    [
      '$heads',
      '$sheads',
      [
        [0, 2],
        [0, 2]
      ]
    ],
    ({ heads, sheads }) => torch.tensordot(heads, sheads, [0, 2], [0, 2]),
    { grad: ['heads', 'sheads'] }
  ),
  entry('torch.nn.functional.pad', ['$simage', [1, 2, 0, 3], 'reflect'], ({ simage }) => simage.pad([1, 2, 0, 3], { mode: 'reflect' }), {
    grad: ['simage']
  }),
  entry('torch.nn.functional.pad', ['$x', [1, -1], 'constant', 2.5], ({ x }) => x.pad([1, -1], { mode: 'constant', value: 2.5 }), {
    grad: ['x']
  }),
  entry('torch.repeat_interleave', ['$x', '$i64', 0], ({ x, i64 }) => x.repeatInterleave(i64, { dim: 0 }), { grad: ['x'] }),

  // dtype, device, memory format, factories
  entry('torch.sum', ['$x', [0, 1]], ({ x }) => x.sum([0, 1], { keepdim: true, dtype: 'float64' }), {
    kwargs: { keepdim: true, dtype: 'torch.float64' },
    grad: ['x']
  }),
  entry('torch.sum', ['$bool'], ({ bool }) => bool.sum()),
  entry('torch.mean', ['$sx', 1], ({ sx }) => sx.mean(1), { grad: ['sx'] }),
  entry('torch.cumsum', ['$i32', 0], ({ i32 }) => i32.cumsum(0, { dtype: 'float32' }), { kwargs: { dtype: 'torch.float32' } }),
  entry('torch.softmax', ['$bf16', -1], ({ bf16 }) => bf16.softmax(-1, { dtype: 'float32' }), {
    kwargs: { dtype: 'torch.float32' },
    grad: ['bf16']
  }),
  entry('torch.Tensor.to', ['$x', 'torch.bfloat16'], ({ x }) => x.to('bfloat16'), { grad: ['x'] }),
  entry('torch.Tensor.to', ['$e', 'torch.float16'], ({ e }) => e.to('float16')),
  entry('torch.clone', ['$image'], ({ image }) => image.clone({ memoryFormat: 'channels_last' }), {
    kwargs: { memory_format: 'torch.channels_last' },
    grad: ['image']
  }),
  entry('torch.arange', [1, 2, 0.25], () => torch.arange(1, 2, { step: 0.25 })),
  entry('torch.arange', [5], () => torch.arange(5)),
  entry('torch.full', [[2, 3], 7], () => torch.full([2, 3], 7, { dtype: 'int16' }), { kwargs: { dtype: 'torch.int16' } }),
  entry('torch.full_like', ['$i32', 2], ({ i32 }) => torch.fullLike(i32, 2, { dtype: 'float64', device: 'cpu' }), {
    kwargs: { dtype: 'torch.float64', device: 'cpu' }
  }),
  entry('torch.linspace', [-1, 1, 7], () => torch.linspace(-1, 1, 7, { dtype: 'float64' }), { kwargs: { dtype: 'torch.float64' } }),
  entry('torch.eye', [3, 2], () => torch.eye(3, 2)),

  // strings, optional numbers, results that are no tensors
  entry('torch.std', ['$x', 1], ({ x }) => x.std({ dim: 1, correction: 0, keepdim: true }), {
    kwargs: { correction: 0, keepdim: true },
    grad: ['x']
  }),
  entry('torch.quantile', ['$x', 0.3], ({ x }) => x.quantile(0.3, { dim: 1, interpolation: 'lower' }), {
    kwargs: { dim: 1, interpolation: 'lower' }
  }),
  entry('torch.nan_to_num', ['$e'], ({ e }) => e.nanToNum({ nan: 1.5, neginf: -2 }), { kwargs: { nan: 1.5, neginf: -2 } }),
  entry('torch.argmax', ['$x'], ({ x }) => x.argmax()),
  entry('torch.argmax', ['$sx', 0], ({ sx }) => sx.argmax({ dim: 0 })),
  entry('torch.allclose', ['$e', '$e'], ({ e }) => torch.allclose(e, e, { equalNan: true }), { kwargs: { equal_nan: true } }),
  entry('torch.equal', ['$x', '$y'], ({ x, y }) => torch.equal(x, y)),
  entry('torch.searchsorted', ['$row', '$x'], ({ row, x }) => torch.searchsorted(row, x, { side: 'right', outInt32: true }), {
    kwargs: { side: 'right', out_int32: true }
  }),
  entry('torch.gather', ['$x', 0, '$index'], ({ x, index }) => x.gather(0, index), { grad: ['x'] }),
  entry('torch.scatter', ['$x', 0, '$index', '$sy'], ({ x, index, sy }) => x.scatter(0, index, sy, { reduce: 'add' }), {
    kwargs: { reduce: 'add' }
  }),
  entry(
    'torch.scatter_reduce',
    ['$x', 0, '$index', '$two', 'amax'],
    ({ x, index, two }) => x.scatterReduce(0, index, two, 'amax', { includeSelf: false }),
    { kwargs: { include_self: false }, grad: ['x', 'two'] }
  ),
  entry('torch.index_select', ['$sx', 1, '$i64'], ({ sx, i64 }) => sx.indexSelect(1, i64), { grad: ['sx'] }),
  entry('torch.linalg.vector_norm', ['$sx', 3], ({ sx }) => sx.linalgVectorNorm({ ord: 3, dim: 1 }), { kwargs: { dim: 1 }, grad: ['sx'] }),
  entry('torch.norm', ['$e', Infinity, [1]], ({ e }) => e.norm(Infinity, [1])),
  entry('torch.tril', ['$x', -1], ({ x }) => x.tril({ diagonal: -1 }), { grad: ['x'] }),

  // what networks are made of
  entry('torch.matmul', ['$sx', '$row'], ({ sx, row }) => sx.matmul(row), { grad: ['sx', 'row'] }),
  entry('torch.addmm', ['$scalar', '$x', '$wt'], ({ scalar, x, wt }) => torch.addmm(scalar, x, wt, { beta: 0.5, alpha: 2 }), {
    kwargs: { beta: 0.5, alpha: 2 },
    grad: ['scalar', 'x', 'wt']
  }),
  entry('torch.cdist', ['$x', '$sw', 1], ({ x, sw }) => torch.cdist(x, sw, { p: 1 }), { grad: ['x', 'sw'] }),
  entry('torch.nn.functional.linear', ['$sheads', '$w'], ({ sheads, w }) => torch.linear(sheads, w), { grad: ['sheads', 'w'] }),
  entry(
    'torch.nn.functional.layer_norm',
    ['$sx', [4], '$row', null, 0.01],
    ({ sx, row }) => torch.layerNorm(sx, [4], { weight: row, eps: 0.01 }),
    { grad: ['sx', 'row'] }
  ),
  entry(
    'torch.nn.functional.conv2d',
    ['$simage', '$kernel', null, 2, [1, 0]],
    ({ simage, kernel }) => torch.conv2d(simage, kernel, { stride: 2, padding: [1, 0] }),
    { grad: ['simage', 'kernel'] }
  ),
  entry(
    'torch.nn.functional.conv2d',
    ['$image', '$kernel', '$row', 1, 'same'],
    ({ image, kernel, row }) => torch.conv2d(image, kernel, { bias: row, padding: 'same' }),
    { grad: ['image', 'kernel', 'row'] }
  ),
  entry('torch.nn.functional.avg_pool2d', ['$image', 2], ({ image }) => image.avgPool2d(2, { divisorOverride: 3, ceilMode: true }), {
    kwargs: { divisor_override: 3, ceil_mode: true },
    grad: ['image']
  }),
  entry('torch.nn.functional.max_pool2d', ['$simage', [3, 2], 1], ({ simage }) => simage.maxPool2d([3, 2], { stride: 1 }), {
    grad: ['simage']
  }),
  entry('torch.nn.functional.interpolate', ['$image', [5, 9]], ({ image }) => torch.upsampleBicubic2d(image, [5, 9], false), {
    kwargs: { mode: 'bicubic', align_corners: false },
    grad: ['image']
  }),
  entry(
    'torch.nn.functional.scaled_dot_product_attention',
    ['$heads', '$sheads', '$heads'],
    ({ heads, sheads }) => torch.scaledDotProductAttention(heads, sheads, heads, { isCausal: true, scale: 0.7 }),
    { kwargs: { is_causal: true, scale: 0.7 }, grad: ['heads', 'sheads'] }
  ),
  entry(
    'torch.nn.functional.cross_entropy',
    ['$sx', '$i64', '$pos1'],
    ({ sx, i64, pos1 }) => torch.crossEntropyLoss(sx, i64, { weight: pos1, labelSmoothing: 0.1 }),
    { kwargs: { label_smoothing: 0.1 }, grad: ['sx'] }
  ),
  entry(
    'torch.nn.functional.batch_norm',
    ['$x', null, null, '$row'],
    ({ x, row }) => torch.batchNorm(x, row, null, null, null, true, 0.1, 1e-5, false),
    { kwargs: { training: true }, grad: ['x', 'row'] }
  ),

  // no elements
  entry('torch.sum', ['$z', 0], ({ z }) => z.sum(0), { grad: ['z'] }),
  entry('torch.mean', ['$z'], ({ z }) => z.mean()),
  entry('torch.matmul', ['$zc', '$z'], ({ zc, z }) => zc.matmul(z), { grad: ['zc', 'z'] }),
  entry('torch.softmax', ['$zc', 1], ({ zc }) => zc.softmax(1), { grad: ['zc'] }),
  entry('torch.index_select', ['$x', 0, '$zi'], ({ x, zi }) => x.indexSelect(0, zi), { grad: ['x'] }),
  entry('torch.sort', ['$z'], ({ z }) => z.sort()),

  // extreme values
  entry('torch.add', ['$e', '$e'], ({ e }) => e.add(e), { grad: ['e'] }),
  entry('torch.mul', ['$e', 1e30], ({ e }) => e.mul(1e30), { grad: ['e'] }),
  entry('torch.softmax', ['$e', 1], ({ e }) => e.softmax(1), { grad: ['e'] }),
  entry('torch.logsumexp', ['$es', [0]], ({ es }) => es.logsumexp([0]), { grad: ['es'] }),
  entry('torch.exp', ['$es'], ({ es }) => es.exp(), { grad: ['es'] }),
  entry('torch.sort', ['$e'], ({ e }) => e.sort()),
  entry('torch.nn.functional.gelu', ['$e'], ({ e }) => torch.gelu(e), { grad: ['e'] }),
  entry('torch.isfinite', ['$es'], ({ es }) => es.isfinite()),
  entry('torch.Tensor.to', ['$i32', 'torch.uint8'], ({ i32 }) => i32.to('uint8'))
]
