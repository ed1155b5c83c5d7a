#!/usr/bin/env node
import { Command, CommanderError } from 'commander'

import { InputError, SettingsError } from '../errors.js'
import { version } from '../version.js'

const FAILED = 1
const WRONG_USAGE = 2

// Each command's module is loaded only when it is asked for: `inspect` must work where the addon does not load, and --help at once.
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  data: async () => (await import('./data.js')).dataCommand(),
  pretrain: async () => (await import('./pretrain.js')).pretrainCommand(),
  finetune: async () => (await import('./finetune.js')).finetuneCommand(),
  knn: async () => (await import('./knn.js')).knnCommand(),
  probe: async () => (await import('./probe.js')).probeCommand(),
  classify: async () => (await import('./classify.js')).classifyCommand(),
  experiment: async () => (await import('./experiment.js')).experimentCommand(),
  report: async () => (await import('./report.js')).reportCommand(),
  export: async () => (await import('./export.js')).exportCommand(),
  demo: async () => (await import('./demo.js')).demoCommand(),
  inspect: async () => (await import('./inspect.js')).inspectCommand()
}

const summaries = {
  data: 'show what a run would see of a folder of images, and what to mend',
  pretrain: 'pretrain a vision transformer on a folder of images',
  finetune: 'train an encoder with a classifier on labelled images, and measure it',
  knn: 'measure an encoder by k nearest neighbours',
  probe: 'measure an encoder by a linear classifier',
  classify: 'use a finetuned classifier on images, and measure it where they have classes',
  experiment: 'pretrain, then compare finetuning with training from scratch, with few and with many labels',
  report: 'write a page with the course of a run: loss, accuracy, speed, reconstructions, settings',
  export: 'write an encoder for timm, Hugging Face transformers, ONNX or PyTorch',
  demo: 'pretrain a small encoder on embedded images and show what it has learned',
  inspect: 'show Node, addon, libtorch and where it came from, devices'
} as const

async function main(): Promise<void> {
  const program = new Command('gmml').description('Self-supervised pretraining of vision transformers by group masked model learning')
  program.version(version).showHelpAfterError('(gmml --help and gmml <command> --help list what there is)')
  const wanted = process.argv[2]
  for (const [name, load] of Object.entries(commands)) {
    if (name === wanted) program.addCommand(await load())
    else program.command(name).description(summaries[name as keyof typeof summaries])
  }
  for (const command of [program, ...program.commands]) command.exitOverride()
  if (wanted === undefined) {
    program.outputHelp({ error: true })
    process.exitCode = WRONG_USAGE
    return
  }
  await program.parseAsync()
}

main().catch((error: unknown) => {
  // commander has printed its own message; --help and --version end here too, with code 0.
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : WRONG_USAGE
    return
  }
  const { message, stack } = error as Error
  const known = error instanceof InputError || (error as Error).name === 'TorchError' || (error as NodeJS.ErrnoException).code !== undefined
  console.error(`gmml: ${known ? message : (stack ?? message)}`)
  process.exitCode = error instanceof SettingsError ? WRONG_USAGE : FAILED
})
