import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { inFolder, runPython } from '../python.js'
import type { Case } from './cases.js'
import type { Value } from './draw.js'
import { isTarget, type Observed, type Outcome } from './evaluate.js'
import type { Type } from './schemas.js'
import { isSpec, memoryOf, storageLength, type TensorSpec } from './tensors.js'

/** A single value where the schema has a list of a known size stands for that many. */
const filled = (value: Value, { list }: Type): Value =>
  list && value !== null && !Array.isArray(value) ? new Array<Value>(list).fill(value) : value

/** Numbers as text, since JSON knows neither -0, NaN nor integers beyond 2^53; and for each kind its own key. */
function encode(value: Value, type: Type, tensor: (spec: TensorSpec) => unknown): unknown {
  if (isSpec(value)) return tensor(value)
  if (Array.isArray(value)) return (value as readonly Value[]).map((element) => encode(element, type, tensor))
  if (typeof value === 'bigint') return { int: String(value) }
  if (typeof value === 'number') {
    // What a whole number is depends on where it stands: an integer beside tensors, unless it is -0.
    const whole = type.base === 'Scalar' ? Number.isInteger(value) && Math.abs(value) <= 2 ** 53 &&
      !Object.is(value, -0) : type.base !== 'float'
    return whole ? { int: String(value) } : { float: Object.is(value, -0) ? '-0.0' : String(value).replace('Infinity', 'inf') }
  }
  if (typeof value === 'object' && value !== null) {
    const { re, im } = value as { re: number; im: number }
    return { complex: [re, im].map((part) => String(part).replace('Infinity', 'inf')) }
  }
  return typeof value === 'string' ? { [type.base]: value } : value
}

interface Reply {
  readonly error?: string
  readonly results?: unknown
  readonly written?: unknown
  readonly gradients?: unknown
  readonly gradientError?: string
}

function decode(value: unknown, bytes: Uint8Array): Outcome {
  if (Array.isArray(value)) return { kind: 'list', items: value.map((item) => decode(item, bytes)) }
  if (typeof value === 'object' && value !== null) {
    const tagged = value as Record<string, unknown>
    if ('dtype' in tagged) {
      const { dtype, shape, strides, start, length } =
        value as { dtype: string; shape: number[]; strides: number[]; start: number; length: number }
      return { kind: 'tensor', dtype, shape, strides, bytes: bytes.subarray(start, start + length) }
    }
    if ('int' in tagged) {
      const integer = BigInt(tagged['int'] as string)
      return { kind: 'value', value: -(2n ** 53n) <= integer && integer <= 2n ** 53n ? Number(integer) : integer }
    }
    if ('float' in tagged) return { kind: 'value', value: Number((tagged['float'] as string).replace('inf', 'Infinity')) }
  }
  return { kind: 'value', value }
}

/** What PyTorch gives for the same cases, all in one Python process. */
export async function evaluateInPython(cases: readonly (readonly [Case, Observed])[]): Promise<Observed[]> {
  const specs: unknown[] = []
  const chunks: Uint8Array[] = []
  let length = 0
  const add = (spec: TensorSpec): number => {
    const memory = memoryOf(spec)
    const chunk = new Uint8Array(memory.buffer)
    const { dtype, shape, strides, offset, conjugated } = spec
    specs.push({ dtype, shape, strides, offset, conjugated, start: length, elements: storageLength(spec) })
    const padding = -chunk.length & 15
    chunks.push(chunk, new Uint8Array(padding))
    length += chunk.length + padding
    return specs.length - 1
  }
  const calls = cases.map(([tested, { cotangents }]) => {
    const { schema, args, leaves, natural, seed } = tested
    return {
    name: schema.name.slice('aten::'.length),
    overload: schema.overload || 'default',
    natural,
    seed,
    args: schema.args.filter(({ name }) => name in args).map(({ name, keywordOnly, default: fallback, type }) => ({
      name,
      keyword: keywordOnly || fallback !== null,
      written: type.written,
      target: isTarget(tested, name),
      value: encode(filled(args[name], type), type, (spec) => ({ tensor: add(spec), leaf: leaves.has(spec) }))
    })),
    cotangents: cotangents.map(add),
    dtype: schema.returns[0]?.type.base === 'ScalarType'
  }})
  return inFolder(async (folder) => {
    const path = (name: string) => join(folder, name)
    await writeFile(path('in.bin'), Buffer.concat(chunks))
    await writeFile(path('in.json'), JSON.stringify({ specs, calls }))
    await runPython(join(import.meta.dirname, 'reference.py'), path('in'), path('out'))
    // A buffer of its own, so that every element lies where a typed array may begin.
    const bytes = new Uint8Array(await readFile(path('out.bin')))
    const replies = JSON.parse(await readFile(path('out.json'), 'utf8')) as Reply[]
    return replies.map(({ error, results, written, gradients, gradientError }, i) => ({
      cotangents: cases[i]![1].cotangents,
      ...(error !== undefined && { error }),
      ...(results !== undefined && { results: decode(results, bytes) }),
      ...(written !== undefined && { written: decode(written, bytes) }),
      ...(gradients !== undefined && { gradients: decode(gradients, bytes) }),
      ...(gradientError !== undefined && { gradientError })
    }))
  })
}
