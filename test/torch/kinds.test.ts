import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { call, generator, tensor, type Tensor } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'
import { runChild } from '../native/support.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const x = () => tensor([[1, -2, 3], [4, 5, -6]], { dtype: 'float64' })
const i = () => tensor([[1, 2], [3, 4]], { dtype: 'int64' })
const rng = () => generator({ seed: 3 })

/** What a result is compared by: values, dtype and shape of tensors, anything else as it is. Integers beyond 2^53 as text. */
function plain(value: unknown): unknown {
  if (torch.isTensor(value)) {
    const dense = value.toDense()
    const values = dense.dtype.startsWith('complex') ? torch.viewAsReal(dense) : dense
    return [value.dtype, value.shape, plain(values.to(values.dtype === 'bool' ? 'bool' : values.dtype === 'int64' ? 'int64' : 'float64').toArray())]
  }
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value === 'bigint') return `${value}`
  if (typeof value === 'object' && value !== null && 're' in value) return Object.values(value)
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  return value
}

// Kind of the schema, operator, our arguments, and those of the same operator in Python (after `=` a whole expression).
const cases: [kind: string, operator: string, args: () => unknown[], python: string][] = [
  ['Tensor', 'aten::abs', () => [x()], 'x'],
  ['Tensor?', 'aten::clamp.Tensor', () => [x(), tensor(0, { dtype: 'float64' }), null], 'x, torch.tensor(0., dtype=torch.float64), None'],
  ['Tensor?, first', 'aten::clamp.Tensor', () => [x(), null, x().abs().sub(1)], 'x, None, x.abs() - 1'],
  ['Tensor[]', 'aten::cat', () => [[x(), x().neg()], 1], '[x, -x], 1'],
  ['Tensor[], empty', 'aten::block_diag', () => [[]], '[]'],
  ['Tensor?[]', 'aten::index.Tensor', () => [x(), [null, tensor([2, 0], { dtype: 'int64' })]], 'x, [None, torch.tensor([2, 0])]'],
  ['Tensor?[], both', 'aten::index.Tensor', () => [x(), [tensor([1, 0]).to('int64'), tensor([2, 0]).to('int64')]], 'x, [torch.tensor([1, 0]), torch.tensor([2, 0])]'],
  ['Scalar, integer', 'aten::mul.Scalar', () => [i(), 3], 'i, 3'],
  ['Scalar, fraction', 'aten::mul.Scalar', () => [i(), 2.5], 'i, 2.5'],
  ['Scalar, boolean', 'aten::add.Scalar', () => [i(), true], 'i, True'],
  ['Scalar, bigint', 'aten::add.Scalar', () => [i(), 2n ** 62n], 'i, 2**62'],
  ['Scalar, complex', 'aten::mul.Scalar', () => [x(), { re: 1, im: -2 }], 'x, 1-2j'],
  ['Scalar, infinite', 'aten::fill.Scalar', () => [x(), -Infinity], 'x, -float("inf")'],
  ['Scalar?', 'aten::clamp', () => [x(), null, 2], 'x, None, 2'],
  ['Scalar[]', 'aten::_foreach_mul.ScalarList', () => [[x(), i()], [2, -3]], '[x, i], [2, -3]'],
  ['int', 'aten::select.int', () => [x(), 1, -1], 'x, 1, -1'],
  ['int?', 'aten::argmax', () => [x(), 1], 'x, 1'],
  ['int?, none', 'aten::argmax', () => [x(), null], 'x, None'],
  ['SymInt', 'aten::narrow', () => [x(), 1, 1, 2], 'x, 1, 1, 2'],
  ['SymInt?', 'aten::slice.Tensor', () => [x(), 1, null, -1, 2], 'x, 1, None, -1, 2'],
  ['int beyond 2^53', 'aten::bitwise_xor.Scalar', () => [i(), 2n ** 53n + 1n], 'i, 2**53 + 1'],
  ['int[]', 'aten::flip', () => [x(), [0, 1]], 'x, [0, 1]'],
  ['int[1], a single number', 'aten::sum.dim_IntList', () => [x(), 1], 'x, 1'],
  ['int[]?', 'aten::sum.dim_IntList', () => [x(), null, true], 'x, None, True'],
  ['SymInt[]', 'aten::reshape', () => [x(), [3, -1]], 'x, [3, -1]'],
  ['int[2], a single number', 'aten::avg_pool2d', () => [x().reshape([1, 2, 3]), 2, 1], 'x.reshape(1, 2, 3), 2, 1'],
  ['SymInt[]?', 'aten::upsample_nearest2d.vec', () => [x().reshape([1, 1, 2, 3]), [4, 6], null], 'x.reshape(1, 1, 2, 3), [4, 6], None'],
  ['float', 'aten::threshold', () => [x(), 0.5, -0.25], 'x, 0.5, -0.25'],
  ['float, of a whole number', 'aten::nan_to_num', () => [x().log(), 1, 2, 3], 'x.log(), 1.0, 2.0, 3.0'],
  ['float?', 'aten::logit', () => [x().sigmoid(), null], 'x.sigmoid(), None'],
  ['float[]?', 'aten::upsample_nearest2d.vec', () => [x().reshape([1, 1, 2, 3]), null, [2, 1.5]], 'x.reshape(1, 1, 2, 3), None, [2.0, 1.5]'],
  ['Scalar[], fractions', 'aten::_foreach_mul.ScalarList', () => [[x()], [0.5]], '[x], [0.5]'],
  ['bool', 'aten::var', () => [x(), false], 'x, False'],
  ['Scalar?, none', 'aten::std_mean.correction', () => [x(), [0], null, true], 'x, [0], correction=None, keepdim=True'],
  ['bool?', 'aten::zeros', () => [[2], null, null, null, false], '[2], pin_memory=False'],
  ['bool[]', 'aten::native_layer_norm_backward', () => {
    const [, mean, rstd] = call<Tensor[]>('aten::native_layer_norm', x(), [3], null, null, 1e-5)
    return [x(), x(), [3], mean, rstd, x().select(0, 0), null, [true, true, false]]
  }, 'x, x, [3], *torch.ops.aten.native_layer_norm.default(x, [3], None, None, 1e-5)[1:], x[0], None, [True, True, False]'],
  ['str', 'aten::einsum', () => ['ij,kj->ik', [x(), x()]], '"ij,kj->ik", [x, x]'],
  ['str?', 'aten::div.Tensor_mode', () => [x(), x().abs().add(1), 'floor'], 'x, x.abs() + 1, rounding_mode="floor"'],
  ['str?, none', 'aten::div.Tensor_mode', () => [x(), x(), null], 'x, x, rounding_mode=None'],
  ['ScalarType', 'aten::to.dtype', () => [x(), 'int64'], 'x, torch.int64'],
  ['ScalarType, bfloat16', 'aten::to.dtype', () => [x(), 'bfloat16'], 'x, torch.bfloat16'],
  ['ScalarType?', 'aten::sum', () => [i(), 'float32'], 'i, dtype=torch.float32'],
  ['Layout?', 'aten::zeros', () => [[2, 3], 'float32', 'sparse_coo'], '[2, 3], dtype=torch.float32, layout=torch.sparse_coo'],
  ['Device?', 'aten::full', () => [[2], 1.5, 'float64', null, 'cpu', false], '[2], 1.5, dtype=torch.float64, layout=None, device=torch.device("cpu"), pin_memory=False'],
  ['Device', 'aten::to.device', () => [x(), 'cpu', 'float32'], 'x, torch.device("cpu"), torch.float32'],
  ['MemoryFormat?', 'aten::clone', () => [x().reshape([1, 1, 2, 3]), 'channels_last'], 'x.reshape(1, 1, 2, 3), memory_format=torch.channels_last'],
  ['MemoryFormat', 'aten::sym_is_contiguous', () => [x(), 'contiguous'], 'x, torch.contiguous_format'],
  ['Generator?', 'aten::bernoulli', () => [x().sigmoid(), rng()], 'x.sigmoid(), generator=torch.Generator().manual_seed(3)'],
  ['Generator, of a factory', 'aten::randn.generator', () => [[5], rng(), 'float64'], '[5], generator=torch.Generator().manual_seed(3), dtype=torch.float64'],
  ['Storage', 'aten::set_.source_Storage_storage_offset', () => [torch.empty([0], { dtype: 'float64' }), x(), 1, [2, 2], [3, 1]],
    'torch.empty(0, dtype=torch.float64), x.untyped_storage(), 1, [2, 2], [3, 1]'],
  ['Dimname-free overload', 'aten::max.dim', () => [x(), 1], 'x, 1'],
  ['out', 'aten::add.out', () => [x(), x(), 2, torch.empty([2, 3], { dtype: 'float64' })], 'x, x, alpha=2, out=torch.empty(2, 3, dtype=torch.float64)'],
  ['result int', 'aten::size.int', () => [x(), 1], 'x, 1'],
  ['result bool', 'aten::equal', () => [x(), x()], 'x, x'],
  ['result float', 'aten::q_scale', () => [call('aten::quantize_per_tensor', x().to('float32'), 0.25, 3, 'qint8')], 'torch.quantize_per_tensor(x.float(), 0.25, 3, torch.qint8)'],
  ['result Scalar', 'aten::item', () => [tensor({ re: 1, im: 2 }, { dtype: 'complex128' })], 'torch.tensor(1+2j, dtype=torch.complex128)'],
  ['result Scalar, int64', 'aten::item', () => [tensor(2n ** 60n + 1n)], 'torch.tensor(2**60 + 1)'],
  ['result ScalarType', 'aten::result_type.Scalar', () => [i(), 2.5], '= torch.result_type(i, 2.5)'],
  ['result Tensor[]', 'aten::split.Tensor', () => [x(), 2, 1], 'x, 2, 1'],
  ['result tuple', 'aten::frexp.Tensor', () => [x()], 'x']
]

describe('every kind is read and given back as PyTorch means it', async () => {
  const script = `
import json, math, sys, torch
x = torch.tensor([[1., -2, 3], [4, 5, -6]], dtype=torch.float64)
i = torch.tensor([[1, 2], [3, 4]])
def plain(v):
    if isinstance(v, torch.Tensor):
        d = v.to_dense() if v.layout != torch.strided else v
        d = torch.view_as_real(d) if d.is_complex() else d
        d = d if d.dtype in (torch.bool, torch.int64) else d.double()
        return [str(v.dtype)[6:], list(v.shape), plain(d.tolist())]
    if isinstance(v, (list, tuple)): return [plain(e) for e in v]
    if isinstance(v, torch.dtype): return str(v)[6:]
    if isinstance(v, complex): return [v.real, v.imag]
    if isinstance(v, bool): return v
    if isinstance(v, int): return str(v) if abs(v) >= 2**53 else v
    if isinstance(v, float): return v if math.isfinite(v) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(v, "NaN")
    return v
out = []
for name, args in json.load(sys.stdin):
    x, i = x.clone(), i.clone()
    family, _, overload = name[6:].partition(".")
    op = getattr(torch.ops.aten, family)
    out.append(plain(eval(args[1:].strip() if args.startswith("=") else "getattr(op, overload or 'default')(" + args + ")")))
print(json.dumps(out))`
  const input = JSON.stringify(cases.map(([, name, , python]) => [name, python]))
  const reference = JSON.parse(await runPython('-c', script.replace('json.load(sys.stdin)', `json.loads(${JSON.stringify(input)})`))) as unknown[]

  it.each(cases.map((entry, index) => [...entry, index] as const))('%s: %s', (kind, name, args, _, index) => {
    const schema = torch.operator(name.split('.')[0]!, name.split('.')[1] ?? '').info.schema
    const [type] = /^\w+(\?|\[\d*\])*/.exec(kind)!
    // The case is about the kind that it says, a list of whatever size.
    if (/[?[]/.test(type)) expect(schema.replaceAll(/\[\d+\]/g, '[]')).toContain(type.replaceAll(/\[\d+\]/g, '[]'))
    const ours = plain(call<unknown>(name, ...args()))
    expect(ours).toEqual(reference[index])
  })
})

it('each callable schema takes values of its kinds: what fails is what libtorch refuses', () => {
  // On the meta device: shapes are worked out, nothing is computed. Operators that the public ones are made of expect what these
  // prepare, and some end the process otherwise.
  const outcome = runChild(`
    import { parseSchema } from ${JSON.stringify(new URL('../../scripts/generate/schema.mjs', import.meta.url).href)}
    const internal = /^aten::(_|.*backward|mkldnn|miopen|cudnn|mps|fbgemm|quantized)/
    const schemas = [...new Set(torch.listOperators())].filter((text) => text.startsWith('aten::') && !internal.test(text))
    const own = torch.generator()
    const meta = () => torch.empty([2, 2], { device: 'meta' })
    const one = { Tensor: meta, Scalar: () => 1, int: () => 1, SymInt: () => 1, float: () => 0.5, bool: () => true, str: () => 'mean', ScalarType: () => 'float32',
      Layout: () => 'strided', MemoryFormat: () => 'contiguous', Device: () => 'meta', Generator: () => own, Storage: meta }
    const ours = []
    let ran = 0
    for (const text of schemas.sort()) torch.scope(() => {
      const { name, overload, args } = parseSchema(text)
      try {
        const values = args.map(({ type }) => type.list === null ? one[type.base]?.() : Array.from({ length: type.list || 2 }, one[type.base]))
        torch.call(torch.operator(name, overload), ...values)
        ran++
      } catch (error) {
        if (/argument '|cannot be given/.test(error.message)) ours.push(name)
      }
    })
    print([schemas.length, ran, ours])
  `, { seconds: 110, env: { OMP_NUM_THREADS: '1' } })
  expect({ status: outcome.status, signal: outcome.signal }).toEqual({ status: 0, signal: null })
  const [all, ran, ours] = outcome.printed.at(-1) as [number, number, string[]]
  expect(all).toBeGreaterThan(1900)
  expect(ran).toBeGreaterThan(all / 2)
  // There is no Stream without a GPU.
  expect(ours).toEqual(['aten::get_gradients', 'aten::record_stream'])
})

it('a kind without a counterpart is refused when the operator is found, by name', () => {
  expect(() => call('aten::record_stream', x(), 1)).toThrow(/^aten::record_stream: argument 's': expected a Stream, received number 1/)
  expect(() => call('aten::get_gradients', 1)).toThrow(/^aten::get_gradients: a result is of type Dict\(Tensor, Tensor\), which cannot be given to JavaScript/)
})

it('the committed report is what the operators give, and at least 98 % are callable', async () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`${root}/scripts/operator-report.mjs`, '--check'], { encoding: 'utf8' })
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' })
  const report = (await import(new URL('../../scripts/operator-report.mjs', import.meta.url).href)) as {
    writeReport(addon: unknown, version: string): { total: number; callable: number }
  }
  const { addon } = await import('../../src/native/addon.js')
  const { total, callable } = report.writeReport(addon, 'any')
  expect(total).toBeGreaterThan(3000)
  expect(callable / total).toBeGreaterThanOrEqual(0.98)
})
