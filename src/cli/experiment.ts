import { Command } from 'commander'
import { stringify } from 'yaml'

import { experiment, experimentSchema, parseExperimentConfig, sections, type ExperimentConfigInput } from '../experiment/index.js'
import { exitAtOnce } from '../native/system.js'
import { addFlags, givenFlags } from './flags.js'
import { duration, ProgressDisplay } from './progress.js'
import { abortOnSignal, INTERRUPTED, readConfigFile } from './training.js'

export function experimentCommand(): Command {
  const command = new Command('experiment').description(
    'Show what pretraining on images is worth: pretrain, then finetune from it and from scratch with few and with many labels'
  )
  command.argument('[images]', experimentSchema.shape.images.description)
  addFlags(command, experimentSchema, ['images', ...sections])
  command.option('--config <file>', `settings from a JSON or YAML file, also the sections ${sections.join(', ')}; flags go before it`)
  command.option('--print-config', 'print every setting as YAML, for --config, and do nothing')
  const example = 'gmml experiment fashion-mnist/ --out runs/experiment --model vit_micro'
  command.addHelpText('after', `\nExample:\n  ${example}\n  The same command again goes on where it stopped.`)
  return command.action(async (images: string | undefined) => {
    const { config: file, printConfig, ...flags } = givenFlags(command) as Record<string, unknown> & { config?: string; printConfig?: true }
    const fromFile = file === undefined ? {} : await readConfigFile(file)
    const settings = { ...fromFile, ...flags, ...(images !== undefined && { images }) } as ExperimentConfigInput
    if (printConfig) {
      process.stdout.write(stringify(parseExperimentConfig(settings)))
      return
    }
    const display = new ProgressDisplay()
    const start = performance.now()
    const onPart = ({ name, number, of, done }: { name: string; number: number; of: number; done: boolean }) => {
      display.stop()
      display.print(`[${number}/${of}] ${name}${done ? ': done before' : ''}`)
    }
    try {
      const { status, report, found } = await experiment(settings, { ...display, onPart, signal: abortOnSignal(display) })
      display.stop()
      if (status === 'interrupted') {
        display.print('Stopped. The same command goes on where it stopped.')
        exitAtOnce(INTERRUPTED)
      }
      display.print(`Done in ${duration((performance.now() - start) / 1000)}: ${report}`)
      const diverged = found.finished.filter(({ score }) => !score).length
      if (diverged === 0) return
      display.print(`${diverged} of ${found.finished.length} finetunings diverged, and are in no mean. The same command tries them again.`)
      process.exitCode = 1
    } finally {
      display.stop()
    }
  })
}
