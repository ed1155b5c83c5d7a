import fc from 'fast-check'

import { Draw, type Value } from './draw.js'
import type { Row } from './row.js'
import { fullName, type Argument, type Schema } from './schemas.js'
import { contiguousStrides, isDifferentiable, isSpec, type TensorSpec } from './tensors.js'

export type Style = 'function' | 'method' | 'call'

/** One call, as data: both sides make it from this. */
export interface Case {
  readonly schema: Schema
  readonly row: Row
  /** By the schema's names. Those that are left out take the schema's default. */
  readonly args: Readonly<Record<string, Value>>
  readonly style: Style
  /** Python takes its own way to the operator (`torch.add`), not the dispatcher's name. */
  readonly natural: boolean
  /** The tensors that gradients are compared of. */
  readonly leaves: ReadonlySet<TensorSpec>
  readonly seed: number
}

const strings: Record<string, readonly string[]> = {
  rounding_mode: ['trunc', 'floor'], approximate: ['none', 'tanh'], norm: ['backward', 'ortho', 'forward'], UPLO: ['L', 'U'],
  reduce: ['sum', 'prod', 'mean', 'amax', 'amin'], indexing: ['ij', 'xy'], side: ['left', 'right'], mode: ['reduced', 'r', 'complete'],
  interpolation: ['linear', 'lower', 'higher', 'midpoint', 'nearest'], padding_side: ['left', 'right'], ord: ['fro', 'nuc']
}

const dimensionName = /^(dims?|dim[01]|axis[01]?|source|destination|dims_self|start_dim|end_dim|dimension)$/

const ranges: Record<string, readonly [number, number]> = {
  reduction: [0, 2], diagonal: [-3, 3], offset: [-3, 3], chunks: [1, 4], sections: [1, 3], k: [-2, 3], r: [1, 3], groups: [1, 2],
  decimals: [-2, 3], split_size: [1, 3], correction: [0, 2], bins: [1, 6], num_classes: [10, 12], edge_order: [1, 1], minlength: [0, 9]
}

const floatRanges: Record<string, readonly [number, number]> = {
  p: [0, 1], q: [0, 1], eps: [0.001, 0.1], rtol: [0, 0.1], atol: [0, 0.1], dropout_p: [0, 0.6], std: [0, 2], from: [-1, 0], to: [0.5, 2]
}

/** Dtypes beside that of the case, and to convert to. */
const others = ['float32', 'float64', 'bfloat16', 'float16', 'int64', 'int32', 'complex64', 'bool'] as const

/** Tensor arguments of an elementwise operator: one shape for each, broadcasting, mostly of one dtype. */
function elementwise(d: Draw, schema: Schema): Record<string, Value> {
  const tensors = schema.args.filter(({ type }) => type.base === 'Tensor' && type.list === null && !(type.optional && d.oneIn(3)))
  const shapes = d.broadcast(tensors.length)
  const dtype = (i: number) => (i > 0 && d.oneIn(5) ? d.pick(others) : d.dtype)
  return Object.fromEntries(tensors.map(({ name }, i) => [name, d.t(shapes[i]!, undefined, dtype(i))]))
}

/** A value for an argument by its name and type, beside a first tensor of this shape. Undefined: left to the default. */
function byName(d: Draw, { name, type }: Argument, rank: number): Value {
  if (type.optional && d.oneIn(6)) return null
  if (type.base === 'int' || type.base === 'SymInt') {
    if (dimensionName.test(name)) {
      if (type.list === null) return d.dimension(rank)
      return type.list > 0 && d.oneIn(3) ? d.dimension(rank) : d.dimensions(rank)
    }
    const [low, high] = ranges[name] ?? [1, 3]
    return type.list === null ? d.int(low, high) : undefined
  }
  if (type.list !== null) return undefined
  switch (type.base) {
    case 'bool': return d.oneIn(2)
    case 'float': return d.float(...(floatRanges[name] ?? [0.1, 2]))
    case 'Scalar': return d.scalar()
    case 'str': return strings[name] && d.pick(strings[name])
    case 'ScalarType': return d.oneIn(2) ? undefined : d.pick(others)
    case 'MemoryFormat': return d.pick(['contiguous', 'preserve', 'preserve', 'channels_last', 'channels_last_3d'])
    case 'Device': return d.oneIn(3) ? 'cpu' : undefined
    case 'Layout': return d.oneIn(3) ? 'strided' : undefined
    default: return undefined
  }
}

const firstTensor = (args: Record<string, Value>): TensorSpec | undefined => Object.values(args).flat().find(isSpec)

export function specsOf(value: Value): TensorSpec[] {
  if (isSpec(value)) return [value]
  return Array.isArray(value) ? (value as readonly Value[]).flatMap(specsOf) : []
}

/** What an operator writes into must have an element of memory for each of its own. */
function writable(value: Value): Value {
  if (Array.isArray(value)) return (value as readonly Value[]).map(writable)
  if (!isSpec(value) || !value.strides.some((stride, i) => stride === 0 && value.shape[i]! > 1)) return value
  return { ...value, strides: contiguousStrides(value.shape) }
}

/**
 * PyTorch's own functions of these names: not where a default is another one (`torch.kl_div` and its like, which stand behind
 * torch.nn.functional).
 */
const isNatural = ({ args }: Schema): boolean => !args.some(({ name }) => name === 'reduction')

function draw(d: Draw, row: Row, schema: Schema, styles: readonly Style[]): Case {
  const given = row.recipe ? row.recipe(d, schema) : elementwise(d, schema)
  const rank = firstTensor(given)?.shape.length ?? 0
  const args: Record<string, Value> = {}
  for (const argument of schema.args) {
    const { name } = argument
    const optional = argument.default !== null
    // A default is tried as often as not: left out, or given.
    if (optional && d.oneIn(name in given ? 4 : 2)) continue
    // A recipe for several overloads gives tensors; where one of them takes a number, it is drawn.
    const fits = name in given && !(isSpec(given[name]) && argument.type.base !== 'Tensor')
    const drawn = fits ? given[name] : undefined
    const value = drawn !== undefined || (fits && optional) ? drawn : byName(d, argument, rank)
    if (value !== undefined) args[name] = argument.type.written ? writable(value) : value
    else if (!optional) throw new Error(`${schema.text}: the table says nothing of '${name}'`)
  }
  const differentiable = Object.values(args).flatMap(specsOf).filter(({ dtype, constant }) => isDifferentiable(dtype) && !constant)
  const wanted = d.oneIn(4) ? [] : differentiable.filter(() => !d.oneIn(5))
  const style = d.pick(styles)
  return {
    schema, row, args, style, natural: row.natural ?? (style !== 'call' && isNatural(schema) && d.oneIn(2)),
    leaves: new Set(row.shapesOnly ? [] : wanted), seed: d.seed()
  }
}

/** Cases of one operator. Arguments that the recipe gives and the schema does not have are for its siblings. */
export function cases(row: Row, schema: Schema, styles: readonly Style[]): fc.Arbitrary<Case> {
  return fc.gen().map((generator) => draw(new Draw(generator, row), row, schema, styles))
}

/** How large a case is, to report the smallest. */
export const sizeOf = ({ args, leaves }: Case): number =>
  leaves.size + Object.keys(args).length +
  Object.values(args).flatMap(specsOf).reduce((sum, { shape, strides }) => {
    const contiguous = String(strides) === String(contiguousStrides(shape))
    return sum + 5 + shape.length + shape.reduce((product, size) => product * size, 1) + (contiguous ? 0 : 3)
  }, 0)

const print = (value: Value): string => {
  if (typeof value === 'bigint') return `${value}n`
  if (isSpec(value)) {
    const { dtype, shape, strides, offset, content, seed, conjugated } = value
    const memory = `strides [${strides.join(', ')}], offset ${offset}${conjugated ? ', conjugated' : ''}`
    return `${dtype}[${shape.join(', ')}](${memory}, ${String(content)}, seed ${seed})`
  }
  if (Array.isArray(value)) return `[${(value as readonly Value[]).map(print).join(', ')}]`
  return typeof value === 'number' ? (Object.is(value, -0) ? '-0' : String(value)) : JSON.stringify(value)
}

/** The call in words, with all that is needed to make it again. */
export function describeCase({ schema, args, style, leaves, natural, seed }: Case): string {
  const list = Object.entries(args).map(([name, value]) => {
    const marked = specsOf(value).some((spec) => leaves.has(spec)) ? 'requiresGrad ' : ''
    return `  ${name}: ${marked}${print(value)}`
  })
  return [`${fullName(schema)} as ${style}${natural ? ' (Python: torch.*)' : ''}, seed ${seed}`, ...list].join('\n')
}
