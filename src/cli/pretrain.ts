import type { Command } from 'commander'

import { pretrain, pretrainSchema, settleConfig, type PretrainConfigInput } from '../train/index.js'
import { trainingCommand } from './training.js'

export function pretrainCommand(): Command {
  return trainingCommand<PretrainConfigInput>({
    name: 'pretrain',
    description: 'Pretrain a vision transformer on a folder of images',
    schema: pretrainSchema,
    argument: 'images',
    examples: ['gmml pretrain photos/ --out runs/photos', 'gmml pretrain photos/ --out runs/photos --resume'],
    settle: settleConfig,
    train: async (settings, hooks) => {
      const result = await pretrain(settings, hooks)
      return { ...result, summary: () => `loss ${result.loss.toFixed(4)}, encoder in ${result.exported}` }
    }
  })
}
