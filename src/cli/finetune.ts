import type { Command } from 'commander'

import { describeScore } from '../evaluate/index.js'
import { finetune, finetuneSchema, settleFinetuneConfig, type FinetuneConfigInput } from '../train/index.js'
import { trainingCommand } from './training.js'

export function finetuneCommand(): Command {
  return trainingCommand<FinetuneConfigInput>({
    name: 'finetune',
    description: 'Train an encoder with a classifier on labelled images, and measure it',
    schema: finetuneSchema,
    argument: 'from',
    examples: [
      'gmml finetune runs/photos --train photos/ --test others/ --out runs/classifier',
      'gmml finetune random --train photos/ --test others/ --out runs/scratch --labels 10%'
    ],
    settle: settleFinetuneConfig,
    train: async (settings, hooks) => {
      const { results, exported, ...result } = await finetune(settings, hooks)
      const summary = () => `classifier in ${exported}\n${results!.measuredOn.split}: ${describeScore(results!.scores['classifier']!)}`
      return { ...result, summary }
    }
  })
}
