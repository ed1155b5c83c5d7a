import { existsSync, statSync } from 'node:fs'
import { extname, join } from 'node:path'
import { Command, Option } from 'commander'

import { SettingsError } from '../errors.js'
import { describeScore, type Results } from '../evaluate/index.js'
import { setNumThreads, type Device } from '../torch/index.js'
import { isComputing } from '../train/settings.js'
import { visionTransformers } from '../vision/index.js'
import { integerFlag, partFlag, positiveFlag, shareFlag } from './flags.js'
import { ProgressDisplay } from './progress.js'

/** A command that measures an encoder. */
export interface EvaluationCommand<Request> {
  readonly name: string
  readonly description: string
  /** Adds the flags that it has beside the common ones. */
  readonly flags: (command: Command) => Command
  readonly measure: (request: Request) => Promise<Results>
}

export function deviceFlag(text: string): Device | 'auto' {
  if (text === 'auto' || isComputing(text)) return text
  throw new SettingsError(`Expected auto, cpu or cuda[:N] for --device, received '${text}'`)
}

/** Where results go unless told: into the run, for a file beside it, else where runs are. */
export function resultsFolder(subject: string, name: string): string {
  if (!existsSync(subject)) return join('runs', `${name}-${subject}`)
  return statSync(subject).isDirectory() ? join(subject, name) : `${subject.slice(0, -extname(subject).length)}-${name}`
}

/** How a command computes, and reads images. */
export const addReadingFlags = (command: Command): Command =>
  command
    .option('--device <device>', 'auto | cpu | cuda[:N]', deviceFlag, 'auto')
    .option('--threads <number>', 'CPU threads of libtorch', integerFlag('--threads', 1))
    .option('--workers <number>', "threads that read and decode images; 0 = none but Node's own for files", integerFlag('--workers', 0))
    .option('--max-broken <part>', 'part of the images that may be broken, at least one image; 0 = none (default: 0.01)', shareFlag('--max-broken'))
    .option('--data-timeout <seconds>', 'without a single image, after which it stops (default: 300)', positiveFlag('--data-timeout'))

/** Makes it a command of commander. */
export function evaluationCommand<Request>({ name, description, flags, measure }: EvaluationCommand<Request>): Command {
  const command = new Command(name)
    .description(description)
    .argument('<what>', `a run's folder, a file of weights, 'random' (an untrained encoder) or 'pixels' (no encoder)`)
    .requiredOption('--train <images>', 'folder of the images with known classes')
    .option('--test <images>', 'folder of the images to classify, of IDX, CIFAR or Parquet files maybe the same (default: a part held out of --train)')
    .option('--validation <part>', 'without --test: the part of --train that is held out (default: 0.1)', partFlag('--validation'))
    .option('--out <folder>', 'for results.json and confusion matrices (default: in the run; of random and pixels in runs/)')
    .addOption(new Option('--features <name>', 'CLS token, mean of the patch tokens, or each of them').choices(['cls', 'mean', 'both']))
    .option('--block <number>', 'block whose tokens are taken, counted from 1 (default: the last)', integerFlag('--block', 1))
    .option('--limit <number>', 'use only so many images of each folder', integerFlag('--limit', 1))
    .addOption(new Option('--model <name>', 'of a random encoder (default: vit_small)').choices(Object.keys(visionTransformers)))
    .option('--image-size <number>', 'of a random encoder', integerFlag('--image-size', 1))
    .option('--patch-size <number>', 'of a random encoder', integerFlag('--patch-size', 1))
    .option('--seed <number>', 'of a random encoder, and of what is held out', integerFlag('--seed', 0), 0)
  return flags(addReadingFlags(command))
    .option('--json', 'print results.json')
    .action(async (subject: string) => {
      const given = command.opts<{ threads?: number; json?: boolean; out?: string }>()
      const { threads, json, out = resultsFolder(subject, name), ...options } = given
      if (threads) setNumThreads(threads)
      const { onBroken, onNotice } = new ProgressDisplay()
      const results = await measure({ ...options, onBroken, onNotice, subject, out } as Request)
      if (json) console.log(JSON.stringify(results))
      else for (const [kind, score] of Object.entries(results.scores)) console.log(`${kind.padEnd(7)} ${describeScore(score)}`)
      console.error(`${results.measuredOn.split} images; results.json and confusion matrices in ${out}`)
    })
}
