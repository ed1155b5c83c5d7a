import { inspect } from 'node:util'

/** A value from outside (argument, option, file content) is not what it must be. Raised before any work is done. */
export class InputError extends TypeError {
  override readonly name: string = 'InputError'
}

/** Settings that are illegal in themselves, whatever the images: wrong usage of a command. */
export class SettingsError extends InputError {}

/** A training whose loss or gradients were not finite for so many steps in a row that it was stopped, or a network that gives no numbers. */
export class DivergedError extends InputError {}

/** How a received value is shown in an error message: short, and with its type where that is not obvious. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 80 ? `${value.slice(0, 77)}...` : value}'`
  if (value === null || value === undefined || typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return `function ${value.name || '(anonymous)'}`
  if (Array.isArray(value)) {
    const text = inspect(value, { depth: 2, breakLength: Infinity, maxArrayLength: 8 })
    return text.length > 80 ? `array of length ${value.length}` : text
  }
  // An object without a prototype has no constructor.
  const constructor = (value.constructor as { readonly name: string } | undefined)?.name ?? 'object'
  return constructor === 'Object' ? inspect(value, { depth: 0, breakLength: Infinity }) : constructor
}

/**
 * The one factory of input errors: `Expected <what> for <name>, received <value>`.
 *
 * @param what - What is legal, as a noun phrase: `an integer of at least 1`.
 * @param name - The argument, option or file that it is about.
 * @param received - What came instead; described by {@link describe}.
 */
export function expected(what: string, name: string, received: unknown): InputError {
  return new InputError(`Expected ${what} for ${name}, received ${describe(received)}`)
}
