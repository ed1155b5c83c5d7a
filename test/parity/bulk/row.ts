import { everything, type Draw, type Value } from './draw.js'
import type { Schema } from './schemas.js'
import type { DType } from '../../../src/torch/index.js'
import type { Content } from './tensors.js'

/** The arguments that an operator's kind of signature decides, by the schema's names. What is not here is drawn by name and type. */
export type Recipe = (d: Draw, schema: Schema) => Record<string, Value>

/** Operators that are drawn in one way. */
export interface Row {
  readonly names: readonly string[]
  /** Left out: tensors of shapes that broadcast. */
  readonly recipe?: Recipe
  readonly dtypes: readonly DType[]
  /** Of all floating-point tensors that do not say otherwise. Left out: ordinary numbers, every fourth time with extreme ones. */
  readonly content?: Content
  /** The results' memory is not written by the operator: only their shape, strides and dtype are compared. */
  readonly shapesOnly?: boolean
  /**
   * Python always goes the way of `torch.add(x, 2)`, as we do (true), or never (false), where it is not the dispatcher's add.Scalar: the
   * last bit of a
   * gradient for a complex number depends on it. Left out: every other time.
   */
  readonly natural?: boolean
  /** No expanded tensors: libtorch itself would read beyond their memory, and gives what it finds there. */
  readonly unexpanded?: boolean
  /** Largest difference, relative to numbers above 1, where equality is not given; the reason stands at the row. */
  readonly tolerance?: number
}

type Options = Partial<Omit<Row, 'names'>>

/** A row of the table: names of operators without `aten::`, with their overloads. */
export const row = (names: string, options: Options = {}): Row => ({
  names: names.trim().split(/\s+/),
  dtypes: everything,
  ...options
})
