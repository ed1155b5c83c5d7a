import { basename, extname, join, resolve } from 'node:path'
import { Command, Option } from 'commander'

import { classifyImages, describeScore, type ClassifyRequest } from '../evaluate/index.js'
import { setNumThreads } from '../torch/index.js'
import { addReadingFlags, resultsFolder } from './evaluation.js'
import { integerFlag } from './flags.js'
import { ProgressDisplay } from './progress.js'

/** Where predictions go unless told: those of other images must not take their place. */
function predictionsFolder(subject: string, images: string): string {
  const name = basename(resolve(images), extname(images)).replaceAll(/[^\w.-]+/g, '-')
  return join(resultsFolder(subject, 'classify'), name || 'images')
}

export function classifyCommand(): Command {
  const command = new Command('classify')
    .description('Use a finetuned classifier on images; where they have classes, measure it')
    .argument('<what>', 'the folder of a finetuning, or a file of its weights')
    .argument('<images>', 'folder, list, table or shards of the images')
    .option('--out <folder>', 'for predictions.csv, results.json and the confusion matrix (default: in the run, by the name of the images)')
    .option('--top <number>', 'classes to name of each image, the likeliest first', integerFlag('--top', 1), 1)
    .option('--unlabelled', 'classes that the images have (their sub-folders, say) are none of the classifier: measure nothing')
    .addOption(new Option('--split <name>', 'of IDX, CIFAR or Parquet files: which one').choices(['train', 'test']))
    .option('--limit <number>', 'use only so many images', integerFlag('--limit', 1))
  addReadingFlags(command).option('--json', 'print counts and results as JSON')
  command.addHelpText('after', ['\nExamples:', 'gmml classify runs/classifier new-photos/', 'gmml classify runs/classifier others/ --top 5 --out predictions'].join('\n  '))
  return command.action(async (subject: string, images: string) => {
    const { threads, json, out = predictionsFolder(subject, images), ...options } = command.opts<
      { threads?: number; json?: boolean; out?: string } & Omit<ClassifyRequest, 'subject' | 'images'>
    >()
    if (threads) setNumThreads(threads)
    const { onBroken, onNotice } = new ProgressDisplay()
    const found = await classifyImages({ ...options, onBroken, onNotice, subject, images, out })
    const { counts, results } = found
    if (json) console.log(JSON.stringify(found))
    else if (results) console.log(describeScore(results.scores['classifier']!))
    else for (const [name, count] of Object.entries(counts)) if (count > 0) console.log(`${String(count).padStart(7)} ${name}`)
    console.error(`${found.images} images; predictions in ${join(out, 'predictions.csv')}`)
  })
}
