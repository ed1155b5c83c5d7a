import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import { parse, stringify } from 'yaml'
import type { z } from 'zod'

import { SettingsError } from '../errors.js'
import { exitAtOnce, exitAtSecondSignal } from '../native/system.js'
import { writeRunReport, type PretrainHooks } from '../train/index.js'
import { withoutSettled } from '../train/settings.js'
import { quote } from '../shell.js'
import { addFlags, givenFlags } from './flags.js'
import { duration, ProgressDisplay } from './progress.js'

/** Exit code of a run that a signal ended, as shells have it. */
export const INTERRUPTED = 130

/** Settings of a JSON or YAML file. @throws SettingsError if it cannot be read or holds no settings. */
export async function readConfigFile(path: string): Promise<Record<string, unknown>> {
  let parsed: unknown
  try {
    parsed = parse(await readFile(path, 'utf8'))
  } catch (error) {
    throw new SettingsError(`Cannot read the config file '${path}': ${(error as Error).message.split('\n')[0]}`)
  }
  if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed as Record<string, unknown>
  throw new SettingsError(`The config file '${path}' holds no settings: expected names with values`)
}

// npm and npx hand on the Ctrl-C that the terminal sends to all: one key press arrives twice.
const SAME_PRESS = 500

/** Ends a run after its current step at the first SIGINT or SIGTERM, and the process at a later one, whatever it is at. */
export function abortOnSignal(display: ProgressDisplay): AbortSignal {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) return
      controller.abort()
      display.print('Stopping after this step and saving a checkpoint. Once more: stop at once, without saving.')
    })
  }
  exitAtSecondSignal(INTERRUPTED, SAME_PRESS, `${process.stderr.isTTY ? '\r\x1b[K\x1b[?25h' : ''}Stopped at once, without saving.\n`)
  return controller.signal
}

/** A command that trains, with a flag for each setting. */
export interface TrainingCommand<Settings> {
  readonly name: string
  readonly description: string
  readonly schema: z.ZodObject
  /** The setting that is given without a flag. */
  readonly argument: string & keyof Settings
  /** Where it may be given several times: the setting that the words make, and the words that a setting makes. */
  readonly several?: { readonly read: (words: readonly string[]) => unknown; readonly write: (setting: unknown) => readonly string[] }
  readonly examples: readonly string[]
  /** Every setting that it would run with. */
  readonly settle: (settings: Settings) => Promise<unknown>
  /** @returns How it ended, and for people what came of it. */
  readonly train: (settings: Settings, hooks: PretrainHooks) => Promise<{ status: string; steps: number; summary: () => string }>
}

/** Makes it a command of commander. */
export function trainingCommand<Settings>(training: TrainingCommand<Settings>): Command {
  const { name, argument, schema, examples, several } = training
  const command = new Command(name).description(training.description)
  command.argument(`[${argument}${several ? '...' : ''}]`, (schema.shape[argument] as z.ZodType).description)
  addFlags(command, schema, [argument])
  command.option('--config <file>', 'settings from a JSON or YAML file; flags go before it')
  command.option('--print-config', 'print every setting as YAML, for --config, and do nothing')
  command.addHelpText('after', ['\nExamples:', ...examples].join('\n  '))
  return command.action(async (words: string | readonly string[] | undefined) => {
    const given = typeof words === 'object' ? (words.length > 0 ? several!.read(words) : undefined) : words
    const { config: file, printConfig, ...flags } = givenFlags(command) as Record<string, unknown> & { config?: string; printConfig?: true }
    // A run's own config.json may be read again.
    const fromFile = file === undefined ? {} : withoutSettled(await readConfigFile(file))
    const settings = { ...fromFile, ...flags, ...(given !== undefined && { [argument]: given }) } as Settings & { readonly out?: string }
    if (printConfig) {
      process.stdout.write(stringify(await training.settle(settings)))
      return
    }
    const display = new ProgressDisplay()
    const start = performance.now()
    try {
      const { status, steps, summary } = await training.train(settings, { ...display, signal: abortOnSignal(display) })
      display.stop()
      if (status === 'interrupted') {
        const setting = settings[argument]
        const first = setting === undefined ? [] : (several?.write(setting) ?? [String(setting)])
        const again = ['gmml', name, ...first.map(quote), '--out', quote(String(settings.out)), '--resume'].join(' ')
        display.print(`Stopped at step ${steps}. Go on with: ${again}`)
        // All is saved, and images that threads still decode are for nobody: Node would wait for them.
        exitAtOnce(INTERRUPTED)
      }
      display.print(`Done in ${duration((performance.now() - start) / 1000)}: ${summary()}`)
      // The run is done, with or without it.
      await writeRunReport(String(settings.out)).then((path) => display.print(`Report: ${path}`), (error: Error) => display.print(error.message))
    } finally {
      display.stop()
    }
  })
}
