import * as torch from '../../../src/torch/index.js'
import { TorchError, call, operator, type Operator, type Tensor } from '../../../src/torch/index.js'
import { specsOf, type Case } from './cases.js'
import type { Value } from './draw.js'
import { camelCase, type Argument } from './schemas.js'
import { contiguousStrides, isDifferentiable, isSpec, materialise, type TensorSpec } from './tensors.js'

interface TensorOutcome {
  readonly kind: 'tensor'
  readonly dtype: string
  readonly shape: readonly number[]
  readonly strides: readonly number[]
  readonly bytes: Uint8Array
}

export type Outcome =
  | TensorOutcome
  | { readonly kind: 'value'; readonly value: unknown }
  | { readonly kind: 'list'; readonly items: readonly Outcome[] }

/** What a call gave: its error, or results, arguments it wrote into, and gradients (or the error of the backward pass). */
export interface Observed {
  readonly error?: string
  readonly results?: Outcome
  readonly written?: Outcome
  readonly gradients?: Outcome
  readonly gradientError?: string
  /** The gradients that the outputs were given, one for each that has one. */
  readonly cotangents: readonly TensorSpec[]
}

export function observe(value: unknown): Outcome {
  if (value instanceof torch.Tensor) {
    const bytes = new Uint8Array(value.toTypedArray().buffer)
    return { kind: 'tensor', dtype: value.dtype, shape: value.shape, strides: value.strides, bytes }
  }
  if (Array.isArray(value)) return { kind: 'list', items: value.map(observe) }
  if (typeof value === 'object' && value !== null && 're' in value && 'im' in value) return { kind: 'list',
    items: [observe(value.re), observe(value.im)] }
  return { kind: 'value', value: value ?? null }
}

export function tensorsIn(value: unknown): Tensor[] {
  if (value instanceof torch.Tensor) return [value]
  return Array.isArray(value) ? value.flatMap(tensorsIn) : []
}

/** Options are what has a default or stands behind the schema's star. */
const isOption = (argument: Argument): boolean => argument.keywordOnly || argument.default !== null

const operators = new Map<string, Operator>()

function byName(tested: Case): Operator {
  const { text, name, overload } = tested.schema
  if (!operators.has(text)) operators.set(text, operator(name, overload))
  return operators.get(text)!
}

type Callable = Record<string, (...args: unknown[]) => unknown>

const asBigInt = (value: unknown): unknown =>
  Array.isArray(value) ? value.map(asBigInt) : typeof value === 'number' && Number.isInteger(value) ? BigInt(value) : value

/** Calls the operator in the style of the case; every third time oddly: integers as bigints, options that are there but undefined. */
function invoke(tested: Case, values: ReadonlyMap<string, unknown>): unknown {
  const { schema, style } = tested
  const oddly = tested.seed % 3 === 0
  if (style === 'call') {
    const args = schema.args.map(({ name, type }) => (oddly && type.base.endsWith('nt') ? asBigInt(values.get(name)) : values.get(name)))
    while (args.length > 0 && args.at(-1) === undefined) args.pop()
    return call(byName(tested), ...args)
  }
  const positional = schema.args.filter((argument) => !isOption(argument)).map(({ name }) => values.get(name))
  const options = schema.args.filter((argument) => isOption(argument) && (oddly || values.has(argument.name)))
  const args = options.length ? [...positional, Object.fromEntries(options.map(({ name }) => [camelCase(name), values.get(name)]))]
    : positional
  const name = camelCase(schema.name.slice('aten::'.length))
  if (style === 'function') return (torch as unknown as Callable)[name]!(...args)
  const at = schema.args.filter((argument) => !isOption(argument)).findIndex((argument) => argument.name === 'self')
  return (args[at] as Callable)[name]!(...args.filter((_, i) => i !== at))
}

/** Does the operator change this argument: by its schema, or as a running statistic? */
export const isTarget = ({ schema, args }: Case, name: string): boolean =>
  schema.args.some((argument) => argument.name === name && argument.type.written) || specsOf(args[name]).some(({ constant }) => constant)

/** Runs a case here. `cotangent` draws what an output of this shape is given as its gradient. */
export function evaluate(tested: Case, cotangent: (output: Tensor) => TensorSpec): Observed {
  const leaves: Tensor[] = []
  const make = (value: Value, written: boolean): unknown => {
    if (Array.isArray(value)) return (value as readonly Value[]).map((element) => make(element, written))
    if (!isSpec(value)) return value
    const tensor = materialise(value)
    if (!tested.leaves.has(value)) return tensor
    leaves.push(tensor.requiresGrad_())
    // A leaf may not be written into.
    return written ? tensor.clone() : tensor
  }
  return torch.scope(() => {
    const { args } = tested.schema
    const values = new Map(args.filter(({ name }) => name in tested.args).map(({ name, type }) =>
      [name, make(tested.args[name], type.written)]))
    torch.manualSeed(tested.seed)
    let result: unknown
    try {
      result = invoke(tested, values)
    } catch (error) {
      if (error instanceof TorchError) return { error: error.detail, cotangents: [] }
      throw error
    }
    const target = [...values].filter(([name]) => isTarget(tested, name)).map(([, value]) => value)
    const forward = { results: observe(result), written: observe(target) }
    const outputs = leaves.length
      ? tensorsIn([result, target]).filter((output, i, all) => output.requiresGrad && isDifferentiable(output.dtype) &&
        all.indexOf(output) === i)
      : []
    if (outputs.length === 0) return { ...forward, cotangents: [] }
    const cotangents = outputs.map(cotangent)
    try {
      const gradients = torch.grad(outputs, leaves, { allowUnused: true, gradOutputs: cotangents.map(materialise) })
      return { ...forward, cotangents, gradients: observe(gradients) }
    } catch (error) {
      if (error instanceof TorchError) return { ...forward, cotangents, gradientError: error.detail }
      throw error
    }
  })
}

/** A gradient of ordinary numbers for an output, in row-major order. */
export function cotangentOf(seed: number): (output: Tensor) => TensorSpec {
  let drawn = 0
  return ({ shape, dtype }) => ({ dtype, shape, strides: contiguousStrides(shape), offset: 0, content: 'normal', seed: seed + drawn++ })
}
