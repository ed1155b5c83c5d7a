import { expected } from '../../errors.js'
import { isTensor, type Operator } from '../dispatch.js'
import type { DType, Device, Layout } from '../types.js'

/** What every operator that makes a tensor from nothing takes. */
export interface FactoryOptions {
  dtype?: DType | null | undefined
  layout?: Layout | null | undefined
  device?: Device | null | undefined
  /** Page-locked memory, from which a copy to a CUDA device need not block. */
  pinMemory?: boolean | null | undefined
  /** Record the operations on the result for `backward`. */
  requiresGrad?: boolean | undefined
}

/** Is this the options object of a call, given or left out? A complex number is an object too. */
export function isOptions(value: unknown): boolean {
  if (typeof value !== 'object') return value === undefined
  return value !== null && !Array.isArray(value) && !isTensor(value) && !('re' in value)
}

/** A list of tensors, where a list of numbers would also be legal: the empty list is one of numbers. */
export function isTensorList(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && (value[0] === null || isTensor(value[0]))
}

/**
 * The options of a call, as they came.
 *
 * @throws InputError unless they are an object with no other names than the operator's options.
 */
export function given<T>(operator: Operator, options: T): T {
  if (typeof options !== 'object' || options === null || Array.isArray(options) || isTensor(options)) {
    throw expected(`an object with ${operator.options.join(', ')}`, `the options of ${operator.name}`, options)
  }
  for (const name in options) {
    if (!operator.options.includes(name) && options[name] !== undefined) {
      throw expected(`one of ${operator.options.join(', ')}`, `an option of ${operator.name}`, name)
    }
  }
  return options
}
