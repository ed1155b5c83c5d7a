import { call, operator } from './dispatch.js'
import type { Tensor } from './tensor.js'
import { given } from './ops/arguments.js'

/** What {@link unique} gives beside the values. PyTorch: `torch.unique`. */
export interface UniqueOptions {
  /** Compare the slices along this dimension, not single elements. */
  readonly dim?: number
  /** In ascending order. Default true. */
  readonly sorted?: boolean
  /** Give where each element is among the values. */
  readonly returnInverse?: boolean
  /** Give how often each value occurs. */
  readonly returnCounts?: boolean
}

const names = ['dim', 'sorted', 'returnInverse', 'returnCounts']
const ofElements = operator('aten::_unique2', '', names)
const ofSlices = operator('aten::unique_dim', '', names)

/**
 * The different elements of a tensor. PyTorch: `torch.unique`.
 *
 * @returns Values, positions of the elements among them and counts; the last two are empty where they are not asked for.
 */
export function unique(self: Tensor, options: UniqueOptions = {}): [values: Tensor, inverse: Tensor, counts: Tensor] {
  const { dim, sorted, returnInverse, returnCounts } = given(ofElements, options)
  if (dim === undefined) return call(ofElements, self, sorted, returnInverse, returnCounts)
  return call(ofSlices, self, dim, sorted, returnInverse, returnCounts)
}
