// How tensors are printed.
import { expected } from '../errors.js'

/** How tensors are written as text. PyTorch: `torch.set_printoptions`. */
export interface PrintOptions {
  /** Digits after the point. Default 4. */
  readonly precision: number
  /** A tensor of more elements is shown by its edges. Default 1000. */
  readonly threshold: number
  /** Elements at each edge of a dimension. Default 3. */
  readonly edgeItems: number
  /** Characters in a line, after which it is broken. Default 80. */
  readonly lineWidth: number
  /** Scientific notation; null: where the numbers ask for it. Default null. */
  readonly sciMode: boolean | null
}

const profiles = {
  default: { precision: 4, threshold: 1000, edgeItems: 3, lineWidth: 80, sciMode: null },
  short: { precision: 2, threshold: 1000, edgeItems: 2, lineWidth: 80, sciMode: null },
  full: { precision: 4, threshold: Infinity, edgeItems: 3, lineWidth: 80, sciMode: null }
} satisfies Record<string, PrintOptions>

let options: PrintOptions = profiles.default

// toFixed() and toExponential() give 100 digits at most, and rounding to the even digit needs some more than are printed.
const MAX_PRECISION = 40

/** The options that tensors are printed with now. */
export const getPrintOptions = (): PrintOptions => options

/**
 * Changes how tensors are printed; what is not given stays as it is. PyTorch: `torch.set_printoptions`.
 *
 * @param changes - Options, or the name of a set of them: `default`, `short` (2 digits, 2 items at the edges) or `full` (never only the
 * edges).
 * @returns The options before, for setting them again.
 */
export function setPrintOptions(changes: Partial<PrintOptions> | keyof typeof profiles): PrintOptions {
  const before = options
  if (typeof changes === 'string' && Object.hasOwn(profiles, changes)) {
    options = profiles[changes]
    return before
  }
  if (typeof changes !== 'object' || (changes as object | null) === null || Array.isArray(changes)) {
    throw expected(`an object or one of ${Object.keys(profiles).join(', ')}`, 'setPrintOptions()', changes)
  }
  const given = Object.entries(changes).filter(([, value]) => value !== undefined) as [keyof PrintOptions, unknown][]
  for (const [name, value] of given) {
    const names = Object.keys(options)
    if (!names.includes(name)) throw expected(`one of ${names.join(', ')}`, 'the options of setPrintOptions()', name)
    if (name === 'sciMode') {
      if (value !== null && typeof value !== 'boolean') throw expected('a boolean or null', name, value)
    } else {
      const max = name === 'precision' ? MAX_PRECISION : Infinity
      const whole = Number.isSafeInteger(value) || (name === 'threshold' && value === Infinity)
      const legal = whole && (value as number) >= 0 && (value as number) <= max
      if (!legal) throw expected(max < Infinity ? `an integer from 0 to ${max}` : 'an integer of at least 0', name, value)
    }
  }
  options = { ...options, ...Object.fromEntries(given) }
  return before
}
