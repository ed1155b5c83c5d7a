import { Option, type Command } from 'commander'
import type { z } from 'zod'

import { SettingsError } from '../errors.js'

type Schema = z.ZodObject<Record<string, z.ZodType>>

const kebab = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

interface Field {
  readonly type: string
  readonly fallback: unknown
  readonly choices: readonly string[] | null
}

// The part of zod's definition of a type that is read here.
interface Definition {
  readonly type: string
  readonly innerType?: z.ZodType
  readonly defaultValue?: unknown
  readonly entries?: Readonly<Record<string, string>>
}

// What a flag needs to know of a schema's field: the type under `.default()` and `.optional()`.
function fieldOf(schema: z.ZodType): Field {
  let inner = schema
  let fallback: unknown
  for (;;) {
    const { def } = inner as unknown as { def: Definition }
    if (def.type === 'default') fallback = def.defaultValue
    if (!def.innerType) return { type: def.type, fallback, choices: def.entries ? Object.keys(def.entries) : null }
    inner = def.innerType
  }
}

// A text becomes what the schema wants; what cannot is left for the schema to refuse with its own words.
function parser(type: string): (text: string) => unknown {
  const number = (text: string) => (text.trim() === '' || Number.isNaN(Number(text)) ? text : Number(text))
  if (type === 'number' || type === 'int') return number
  if (type === 'tuple' || type === 'array') return (text) => text.split(',').map(number)
  return (text) => text
}

/**
 * Adds a flag for each field of a schema: name, help and default come from there. Defaults are shown but not set, so that what was given
 * can be told from what was not.
 */
export function addFlags(command: Command, schema: Schema, omit: readonly string[] = []): void {
  for (const [name, field] of Object.entries(schema.shape)) {
    if (omit.includes(name)) continue
    const { type, fallback, choices } = fieldOf(field)
    const shown = Array.isArray(fallback) ? fallback.join(',') : String(fallback)
    const help = `${field.description ?? ''}${fallback === undefined || type === 'boolean' ? '' : ` (default: ${shown})`}`
    if (type === 'boolean') {
      const [on, off] = [new Option(`--${kebab(name)}`, help), new Option(`--no-${kebab(name)}`, `no ${help}`)]
      // Both: a flag goes before a config file, and the commands of a report may name what is the default. Shown is what changes it.
      command.addOption(fallback === true ? on.hideHelp() : on).addOption(fallback === true ? off : off.hideHelp())
      continue
    }
    const path = field.description?.startsWith('folder') ? 'folder' : 'file'
    const placeholders: Readonly<Record<string, string>> = { tuple: 'from,to', array: 'list', string: path, custom: name }
    const given = field.meta()?.['placeholder'] as string | undefined
    const value = given ?? choices?.join('|') ?? placeholders[type] ?? 'number'
    command.addOption(new Option(`--${kebab(name)} <${value}>`, help).argParser(parser(type)))
  }
}

/** The flags that were given, without those that commander filled in itself. */
export function givenFlags(command: Command): Record<string, unknown> {
  return Object.fromEntries(Object.entries(command.opts()).filter(([name]) => command.getOptionValueSource(name) === 'cli'))
}

/** Reads a whole number of at least `least` from a flag. */
export function integerFlag(flag: string, least: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (Number.isInteger(value) && value >= least && text.trim() !== '') return value
    throw new SettingsError(`Expected an integer of at least ${least} for ${flag}, received '${text}'`)
  }
}

/** Reads numbers of at least 0, with commas between them, from a flag. */
export function numbersFlag(flag: string): (text: string) => number[] {
  return (text) => {
    const values = text.split(',').map((value) => (value.trim() === '' ? NaN : Number(value)))
    if (values.every((value) => value >= 0 && Number.isFinite(value))) return values
    throw new SettingsError(`Expected numbers of at least 0 with commas between them for ${flag}, received '${text}'`)
  }
}

/** Reads a number between 0 and 1, without them, from a flag. */
export function partFlag(flag: string): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (value > 0 && value < 1) return value
    throw new SettingsError(`Expected a number between 0 and 1 for ${flag}, received '${text}'`)
  }
}

/** Reads a number from 0 to 1, or one of them, from a flag. */
export function shareFlag(flag: string): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text.trim() !== '' && value >= 0 && value <= 1) return value
    throw new SettingsError(`Expected a number from 0 to 1 for ${flag}, received '${text}'`)
  }
}

/** Reads a number above 0 from a flag. */
export function positiveFlag(flag: string): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (value > 0 && Number.isFinite(value)) return value
    throw new SettingsError(`Expected a number above 0 for ${flag}, received '${text}'`)
  }
}
