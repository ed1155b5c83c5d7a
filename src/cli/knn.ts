import { Command, Option } from 'commander'

import { SettingsError } from '../errors.js'
import { measureKnn, type KnnRequest } from '../evaluate/index.js'
import { cuda, setNumThreads, type Device } from '../torch/index.js'
import { isComputing } from '../train/config.js'
import { visionTransformers } from '../vision/index.js'
import { integerFlag, positiveFlag } from './flags.js'

export function knnCommand(): Command {
  const device = (text: string): Device => {
    const chosen = text === 'auto' ? (cuda.isAvailable() ? 'cuda' : 'cpu') : text
    if (isComputing(chosen)) return chosen
    throw new SettingsError(`Expected auto, cpu or cuda[:N] for --device, received '${text}'`)
  }
  const command = new Command('knn')
    .description('Measure an encoder by the accuracy of a k-nearest-neighbour classifier on its features')
    .argument('<what>', `a run's folder, a file of weights, 'random' (an untrained encoder) or 'pixels' (no encoder)`)
    .requiredOption('--train <images>', 'folder of the images with known classes')
    .requiredOption('--test <images>', 'folder of the images to classify; of IDX files it may be the same folder')
    .option('--k <number>', 'neighbours that vote', integerFlag('--k', 1), 20)
    .option('--temperature <number>', 'votes weigh exp(similarity / temperature)', positiveFlag('--temperature'), 0.07)
    .option('--device <device>', 'auto | cpu | cuda[:N]', device, device('auto'))
    .option('--threads <number>', 'CPU threads of libtorch', integerFlag('--threads', 1))
    .option('--limit <number>', 'use only so many images of each folder', integerFlag('--limit', 1))
    .addOption(new Option('--model <name>', 'of a random encoder').choices(Object.keys(visionTransformers)).default('vit_small'))
    .option('--image-size <number>', 'of a random encoder', integerFlag('--image-size', 1))
    .option('--patch-size <number>', 'of a random encoder', integerFlag('--patch-size', 1))
    .option('--seed <number>', 'of a random encoder', integerFlag('--seed', 0), 0)
    .option('--json', 'print JSON')
  return command.action(async (subject: string) => {
    const { threads, json, ...options } = command.opts<Omit<KnnRequest, 'subject'> & { threads?: number; json?: boolean }>()
    if (threads) setNumThreads(threads)
    const result = await measureKnn({ ...options, subject })
    if (json) console.log(JSON.stringify({ subject, k: options.k, temperature: options.temperature, accuracy: result }))
    else for (const [name, value] of Object.entries(result)) console.log(`${name.padEnd(7)} ${(100 * value).toFixed(2)} %`)
  })
}
