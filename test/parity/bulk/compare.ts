import { arrayTypes, isDType } from '../../../src/torch/types.js'
import type { Observed, Outcome } from './evaluate.js'

/** Elements as numbers, 16-bit floats decoded by their bits: equal bits are equal numbers, and NaN is known. */
function elements(dtype: string, bytes: Uint8Array): ArrayLike<number | bigint> {
  if (!isDType(dtype)) throw new Error(`the test cannot read ${dtype}`)
  return new arrayTypes[dtype](bytes.slice().buffer)
}

const nanBits = (dtype: string) => (value: number | bigint): boolean => {
  if (dtype === 'float16' || dtype === 'complex32') return (Number(value) & 0x7fff) > 0x7c00
  if (dtype === 'bfloat16') return (Number(value) & 0x7fff) > 0x7f80
  return Number.isNaN(value)
}

/** Where two results first differ, in words; null if they are the same to the bit (any NaN is the same as any other). */
function differenceOf(a: Outcome, b: Outcome, options: { shapesOnly?: boolean; tolerance?: number }, where: string): string | null {
  if (a.kind !== b.kind) return `${where}: ${describe(a)} here, ${describe(b)} in Python`
  if (a.kind === 'list') {
    const { items } = b as typeof a
    if (a.items.length !== items.length) return `${where}: ${a.items.length} results here, ${items.length} in Python`
    for (const [i, item] of a.items.entries()) {
      const found = differenceOf(item, items[i]!, options, `${where}[${i}]`)
      if (found) return found
    }
    return null
  }
  if (a.kind === 'value') {
    const { value } = b as typeof a
    return Object.is(a.value, value) ? null : `${where}: ${String(a.value)} here, ${String(value)} in Python`
  }
  const other = b as typeof a
  for (const key of ['dtype', 'shape', 'strides'] as const) {
    if (String(a[key]) !== String(other[key])) return `${where}: ${key} ${String(a[key])} here, ${String(other[key])} in Python`
  }
  if (options.shapesOnly || Buffer.compare(a.bytes, other.bytes) === 0) return null
  const [mine, reference] = [elements(a.dtype, a.bytes), elements(a.dtype, other.bytes)]
  const isNaN = nanBits(a.dtype)
  for (let i = 0; i < mine.length; i++) {
    const [x, y] = [mine[i]!, reference[i]!]
    if (Object.is(x, y) || (isNaN(x) && isNaN(y))) continue
    const bound = (options.tolerance ?? -1) * Math.max(Math.abs(Number(y)), 1)
    const close = Math.abs(Number(x) - Number(y)) <= bound
    if (!close) return `${where}: element ${i} of ${a.dtype}[${a.shape.join(', ')}] is ${print(x)} here, ${print(y)} in Python`
  }
  return null
}

const print = (value: number | bigint): string => (Object.is(value, -0) ? '-0' : String(value))

function describe(outcome: Outcome): string {
  if (outcome.kind === 'value') return String(outcome.value)
  return outcome.kind === 'list' ? `${outcome.items.length} results` : `${outcome.dtype}[${outcome.shape.join(', ')}]`
}

export interface Verdict {
  readonly kind: 'equal' | 'both raised' | 'different'
  /** Gradients were compared too. */
  readonly gradients?: boolean
  readonly difference?: string
}

const firstLine = (text: string): string => text.split('\n')[0]!

/** Python has its own names of tensor types. */
const plain = (text: string): string => text.replace(/torch\.(\w+)Tensor\b/g, 'CPU$1Type')

const different = (difference: string): Verdict => ({ kind: 'different', difference })

export function compare(here: Observed, python: Observed, options: { shapesOnly?: boolean; tolerance?: number }): Verdict {
  if (here.error !== undefined || python.error !== undefined) {
    if (here.error === undefined) return different(`only Python raised: ${firstLine(python.error!)}`)
    if (python.error === undefined) return different(`only here an error: ${firstLine(here.error)}`)
    // Python names the class of the error first.
    const reason = firstLine(python.error).replace(/^\w+: /, '')
    const same = plain(here.error).includes(plain(reason))
    if (!same) return different(`another error: '${firstLine(here.error)}' here, '${reason}' in Python`)
    return { kind: 'both raised' }
  }
  const result = differenceOf(here.results!, python.results!, options, 'result')
  const forward = result ?? differenceOf(here.written!, python.written!, options, 'written argument')
  if (forward) return different(forward)
  if (here.gradientError !== undefined || python.gradientError !== undefined) {
    if (here.gradientError === undefined) return different(`only Python's backward raised: ${firstLine(python.gradientError!)}`)
    if (python.gradientError === undefined) return different(`backward raised only here: ${firstLine(here.gradientError)}`)
    return { kind: 'equal' }
  }
  if (!here.gradients !== !python.gradients) return different(`gradients only ${here.gradients ? 'here' : 'in Python'}`)
  if (!here.gradients) return { kind: 'equal' }
  const backward = differenceOf(here.gradients, python.gradients!, options, 'gradient')
  return backward ? different(backward) : { kind: 'equal', gradients: true }
}
