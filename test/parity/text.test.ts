import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'

import { Parameter } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import { call, operator, type DType, type PrintOptions, type Tensor } from '../../src/torch/index.js'
import { inFolder, runPython } from './python.js'

/** The steps of text.py, as they are written here. */
const steps = {
  transpose: (x: Tensor) => x.transpose(0, -1),
  expand: (x: Tensor) => x.expand([2, ...x.shape]),
  requires_grad: (x: Tensor) => x.requiresGrad_(),
  parameter: (x: Tensor) => new Parameter(x),
  detach: (x: Tensor) => x.detach(),
  exp: (x: Tensor) => x.exp(),
  add: (x: Tensor) => x.add(1),
  clone: (x: Tensor) => x.clone(),
  select: (x: Tensor) => x.select(0, 0),
  unbind: (x: Tensor) => x.unbind()[0]!,
  fill_: (x: Tensor) => x.fill_(2),
  double: (x: Tensor) => x.to('float64'),
  conj: (x: Tensor) => x.conj(),
  neg: (x: Tensor) => torch.imag(x.conj()),
  complex32: (x: Tensor) => x.to({ dtype: 'complex32' as DType }),
  meta: (x: Tensor) => x.to('meta'),
  sparse: (x: Tensor) => x.toSparse(),
  sparse1: (x: Tensor) => x.toSparse(1),
  csr: (x: Tensor) => x.toSparseCsr(),
  csc: (x: Tensor) => x.toSparseCsc(),
  bsr: (x: Tensor) => x.toSparseBsr([1, 1]),
  bsc: (x: Tensor) => x.toSparseBsc([1, 1]),
  mkldnn: (x: Tensor) => call<Tensor>(operator('aten::to_mkldnn'), x),
  quantize: (x: Tensor) => call<Tensor>(operator('aten::quantize_per_tensor'), x, 1e-5, 3, 'qint8'),
  quantize_channels: (x: Tensor) => {
    const [scales, zeros] = [torch.full([x.shape[0]!], 0.5, { dtype: 'float64' }), torch.ones([x.shape[0]!], { dtype: 'int64' })]
    return call<Tensor>(operator('aten::quantize_per_channel'), x, scales, zeros, 0, 'quint8')
  },
  nested: (x: Tensor) => call<Tensor>(operator('aten::_nested_tensor_from_tensor_list'), x.unbind())
}

type Steps = (keyof typeof steps)[]
interface Case {
  dtype: DType
  shape: number[]
  values: (number | bigint)[]
  then?: Steps
  options?: Partial<PrintOptions>
}

const integer = (min: number, max: number) => fc.integer({ min, max })
const ordinary = fc.double({ min: -10, max: 10, noNaN: true }).map((value) => Math.round(value * 1e4) / 1e4)
/** Numbers of one kind for one tensor: what is printed depends on their range, and on there being only integers. */
const kinds: fc.Arbitrary<number>[] = [
  ordinary, integer(-20, 20), integer(0, 100_000), fc.constantFrom(0, -0), fc.double(),
  fc.double({ min: -1e-3, max: 1e-3, noNaN: true }), integer(-1000, 1000).map((value) => value / 32),
  fc.oneof({ weight: 6, arbitrary: ordinary }, fc.constantFrom(NaN, Infinity, -Infinity, 0, -0)),
  fc.oneof({ weight: 6, arbitrary: integer(-9, 9) }, fc.constantFrom(NaN, Infinity, -Infinity, 1e9, -0)),
  fc.tuple(integer(-12, 12), ordinary).map(([exponent, value]) => value * 10 ** exponent),
  integer(-3, 3).map((value) => value * 100_005), fc.constantFrom(NaN, Infinity, -Infinity)
]
const number = fc.constantFrom(...kinds)

const floats: DType[] = ['float32', 'float64', 'float16', 'bfloat16', 'complex64', 'complex128', 'float8_e4m3fn', 'float8_e5m2',
  'float8_e4m3fnuz', 'float8_e5m2fnuz']
const integers: DType[] = ['int64', 'int32', 'int16', 'int8', 'uint8', 'bool', 'uint16', 'uint32', 'uint64']
const limits: Partial<Record<DType, [bigint, bigint]>> = {
  int64: [-(2n ** 63n), 2n ** 63n - 1n], int32: [-(2n ** 31n), 2n ** 31n - 1n], int16: [-32768n, 32767n], int8: [-128n, 127n],
  uint8: [0n, 255n], bool: [0n, 1n], uint16: [0n, 65535n], uint32: [0n, 2n ** 32n - 1n], uint64: [0n, 2n ** 64n - 1n]
}

const few = fc.array(fc.oneof({ weight: 20, arbitrary: integer(1, 9) }, integer(10, 40), fc.constant(0)), { maxLength: 4 })
const many = fc.constantFrom<number[][]>(
  [1001], [1000], [40, 30], [3, 400], [400, 3], [7, 8, 20], [6, 6, 6, 6], [2, 3, 500], [11, 1, 10, 10], [5000, 1]
)
const shape = fc.oneof({ weight: 8, arbitrary: few.filter((sizes) => sizes.reduce((a, b) => a * b, 1) <= 1000) }, many)
const options = fc.oneof({ weight: 3, arbitrary: fc.constant({}) }, fc.record({
  precision: integer(0, 9), threshold: fc.constantFrom(0, 5, 20, 1000), edgeItems: integer(0, 4), lineWidth: integer(1, 130),
  sciMode: fc.option(fc.boolean())
}, { requiredKeys: [] }))

const drawn: fc.Arbitrary<Case> = fc.tuple(shape, options, fc.constantFrom(...floats, ...floats, ...integers), number)
  .chain(([shape, options, dtype, kind]) => {
    const count = shape.reduce((a, b) => a * b, 1) * (dtype.startsWith('complex') ? 2 : 1)
    const range = limits[dtype]
    const narrow = range && fc.bigInt({ min: range[0] > -100n ? range[0] : -100n, max: range[1] < 100n ? range[1] : 100n })
    const element: fc.Arbitrary<number | bigint> = range ? fc.oneof(narrow!, fc.bigInt({ min: range[0], max: range[1] })) : kind
    // A large tensor repeats what it is made of: drawing is slower than printing.
    const values = fc.array(element, { minLength: Math.min(count, 150), maxLength: Math.min(count, 150) })
    const transposed = fc.constant<Steps>(shape.length > 1 ? ['transpose'] : [])
    const then = fc.oneof({ weight: 3, arbitrary: fc.constant<Steps>([]) }, transposed)
    return fc.tuple(values, then).map(([values, then]) => {
      return { shape, dtype, options, then, values: Array.from({ length: count }, (_, i) => values[i % values.length]!) }
    })
  })

const of = (dtype: DType, shape: number[], values: number[], ...then: (keyof typeof steps)[]): Case => ({ dtype, shape, values, then })
const wide = Array.from({ length: 8 }, (_, i) => i * 111.125)
const sparse = [0, 1.5, 0, 2, 0, 0]
const chosen: Case[] = [
  of('float32', [2], [1, 2], 'requires_grad'), of('float32', [2], [1, 2], 'requires_grad', 'exp'),
  of('float64', [8], wide, 'requires_grad', 'add'), of('float32', [8], wide, 'requires_grad', 'add'),
  of('float32', [1], [1], 'requires_grad', 'clone'), of('float64', [2, 3], sparse, 'requires_grad', 'select'),
  of('float32', [2, 2], [1, 2, 3, 4], 'requires_grad', 'clone', 'select', 'fill_'),
  of('float32', [2, 3], sparse, 'requires_grad', 'transpose'), of('float32', [2, 3], sparse, 'requires_grad', 'double'),
  of('float32', [2, 3], sparse, 'requires_grad', 'clone', 'unbind'), of('float32', [], [3.5], 'requires_grad'),
  of('float32', [2, 3], sparse, 'requires_grad', 'detach'), of('float32', [2, 3], sparse, 'parameter'),
  of('float64', [3], [1, 2, 3], 'expand'), of('complex64', [2], [1, -2, -0, 3.25], 'conj'), of('complex128', [2], [1, -2, 0, 0], 'neg'),
  of('complex64', [2], [1, -2, 0, 1e-3], 'complex32'), of('complex64', [2], [1, -2, 0, 0], 'requires_grad', 'add'),
  of('float32', [2, 3], sparse, 'meta'), of('float64', [], [1], 'meta'), of('int64', [0, 3], [], 'meta'),
  of('float32', [2, 3], sparse, 'requires_grad', 'meta'), of('float32', [2, 3], sparse, 'sparse'),
  of('float64', [2, 3], sparse, 'sparse'), of('float32', [2, 3], [0, 0, 0, 0, 0, 0], 'sparse'),
  of('int64', [2, 3], [0, 7, 0, 0, 0, -1], 'sparse'), of('float32', [2, 3], sparse, 'sparse1'),
  of('float32', [2, 3], sparse, 'requires_grad', 'sparse'), of('float32', [2, 3], sparse, 'sparse', 'meta'),
  of('float32', [0, 3], [], 'sparse'), of('float32', [2, 3], sparse, 'csr'), of('float64', [2, 3], sparse, 'csc'),
  of('float32', [2, 3], sparse, 'bsr'), of('float32', [2, 3], sparse, 'bsc'), of('float32', [2, 3], [0, 0, 0, 0, 0, 0], 'csr'),
  of('float32', [2, 3], sparse, 'mkldnn'), of('float32', [2, 3], sparse, 'nested'),
  of('float32', [2, 3], sparse, 'requires_grad', 'nested'), of('float32', [2, 3], sparse, 'quantize'),
  of('float32', [2, 3], sparse, 'quantize_channels'),
  { ...of('float32', [2, 3], sparse, 'requires_grad', 'add'), options: { lineWidth: 30 } },
  { ...of('float32', [4, 4], Array<number>(16).fill(1.5), 'sparse'), options: { threshold: 5, edgeItems: 1 } }
]

const cases = [...chosen, ...fc.sample(drawn, { numRuns: 2500, seed: 5 })]

function make({ dtype, shape, values }: Case): Tensor {
  if (dtype in limits) {
    const whole = torch.tensor((values as number[]).map(BigInt), { dtype: dtype === 'uint64' ? dtype : 'int64' })
    return whole.reshape(shape).to(dtype)
  }
  const wide = dtype.startsWith('complex') ? 'complex128' : 'float64'
  return torch.fromTypedArray(Float64Array.from(values as number[]), shape, { dtype: wide }).to(dtype)
}

const finish = (x: Tensor, { then = [] }: Case) => then.reduce((made, step) => steps[step](made), x)
const pythonNames = {
  precision: 'precision', threshold: 'threshold', edgeItems: 'edgeitems', lineWidth: 'linewidth', sciMode: 'sci_mode'
} as const

let texts: string[]
beforeAll(async () => {
  texts = await inFolder(async (folder) => {
    const [file, data] = [join(folder, 'cases.json'), join(folder, 'elements.bin')]
    const elements: Uint8Array[] = []
    let offset = 0
    const config = cases.map((drawn) => {
      const array = torch.scope(() => make(drawn).toTypedArray())
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
      const at = offset
      // An element begins at a multiple of its size.
      elements.push(bytes, new Uint8Array(-bytes.length & 15))
      offset += bytes.length + (-bytes.length & 15)
      const options = Object.entries(drawn.options ?? {}).map(([name, value]) => [pythonNames[name as keyof PrintOptions], value])
      return { dtype: drawn.dtype, shape: drawn.shape, offset: at, then: drawn.then ?? [], options: Object.fromEntries(options) as object }
    })
    await writeFile(data, Buffer.concat(elements))
    await writeFile(file, JSON.stringify(config))
    return JSON.parse(await runPython(join(import.meta.dirname, 'text.py'), file, data)) as string[]
  })
})

describe('a tensor prints as in PyTorch', () => {
  it('among the texts are all forms', () => {
    const forms = [
      /e[+-]\d\d/, /nan/, /inf/, /-0\./, / \.\.\.,/, /\.\.\.,\n/, /size=\(/, /dtype=torch\.float8/, /dtype=torch\.bfloat16/, /True/,
      /j[,\]]/, /,\n {7}\S/
    ]
    for (const form of forms) expect(texts.filter((text) => form.test(text)).length, String(form)).toBeGreaterThan(20)
    expect(texts.filter((text) => text.includes('grad_fn=<')).length).toBeGreaterThan(8)
  })

  it('the very text', () => {
    for (const [i, drawn] of cases.entries()) {
      const text = torch.scope(() => {
        torch.setPrintOptions('default')
        torch.setPrintOptions(drawn.options ?? {})
        const made = finish(make(drawn), drawn)
        try {
          return String(made)
        } finally {
          torch.setPrintOptions('default')
        }
      })
      const { dtype, shape, then, options } = drawn
      expect(text, JSON.stringify({ i, dtype, shape, then, options })).toBe(texts[i])
    }
  })
})
