import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import { parse, stringify } from 'yaml'

import { SettingsError } from '../errors.js'
import { pretrain, pretrainSchema, settleConfig, type PretrainConfigInput } from '../train/index.js'
import { addFlags, givenFlags } from './flags.js'
import { duration, ProgressDisplay } from './progress.js'

/** Exit code of a run that a signal ended, as shells have it. */
export const INTERRUPTED = 130

/** Settings of a JSON or YAML file. @throws SettingsError if it cannot be read or holds no settings. */
async function readConfigFile(path: string): Promise<Record<string, unknown>> {
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

/** Ends a run after its current step at the first SIGINT or SIGTERM, and the process at a later one. */
export function abortOnSignal(display: ProgressDisplay): AbortSignal {
  const controller = new AbortController()
  let first = 0
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) {
        if (performance.now() - first > SAME_PRESS) process.exit(INTERRUPTED)
        return
      }
      first = performance.now()
      controller.abort()
      display.print('Stopping after this step and saving a checkpoint. Once more: stop at once, without saving.')
    })
  }
  return controller.signal
}

export function pretrainCommand(): Command {
  const command = new Command('pretrain').description('Pretrain a vision transformer on a folder of images')
  command.argument('[images]', pretrainSchema.shape.images.description)
  addFlags(command, pretrainSchema, ['images'])
  command.option('--config <file>', 'settings from a JSON or YAML file; flags go before it')
  command.option('--print-config', 'print every setting as YAML, for --config, and do nothing')
  const examples = ['gmml pretrain photos/ --out runs/photos', 'gmml pretrain photos/ --out runs/photos --resume']
  command.addHelpText('after', ['\nExamples:', ...examples].join('\n  '))
  return command.action(async (images: string | undefined) => {
    const { config: file, printConfig, ...flags } = givenFlags(command) as Record<string, unknown> & { config?: string; printConfig?: true }
    const fromFile = file === undefined ? {} : await readConfigFile(file)
    const settings: Partial<PretrainConfigInput> = { ...fromFile, ...flags, ...(images !== undefined && { images }) }
    if (printConfig) {
      process.stdout.write(stringify(await settleConfig(settings as PretrainConfigInput)))
      return
    }
    const display = new ProgressDisplay()
    const start = performance.now()
    try {
      const result = await pretrain(settings as PretrainConfigInput, { ...display, signal: abortOnSignal(display) })
      display.stop()
      if (result.status === 'interrupted') {
        const folder = settings.images === undefined ? '' : `'${settings.images}' `
        display.print(`Stopped at step ${result.steps}. Go on with: gmml pretrain ${folder}--out '${result.out}' --resume`)
        process.exitCode = INTERRUPTED
        return
      }
      const seconds = (performance.now() - start) / 1000
      display.print(`Done in ${duration(seconds)}: loss ${result.loss.toFixed(4)}, encoder in ${result.exported}`)
    } finally {
      display.stop()
    }
  })
}
