import { quote } from '../shell.js'

/** What a flag can say. */
export type Setting = string | number | boolean | readonly (string | number)[] | undefined

const kebab = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

/**
 * The command line for settings.
 *
 * @param argument - The setting that is given without a flag.
 */
export function commandLine(command: string, argument: string, settings: Readonly<Record<string, Setting>>): string {
  const flags = Object.entries(settings).flatMap(([name, value]) => {
    if (name === argument || value === undefined) return []
    if (typeof value === 'boolean') return value ? [`--${kebab(name)}`] : [`--no-${kebab(name)}`]
    return [`--${kebab(name)} ${quote(String(value))}`]
  })
  return ['gmml', command, quote(String(settings[argument])), ...flags].join(' ')
}
