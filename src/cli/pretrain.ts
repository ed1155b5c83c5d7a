import type { Command } from 'commander'

import type { ImagePaths } from '../data/index.js'
import { pretrain, pretrainSchema, settleConfig, type PretrainConfigInput } from '../train/index.js'
import { readPaths, writePaths } from '../train/settings.js'
import { trainingCommand } from './training.js'

export function pretrainCommand(): Command {
  return trainingCommand<PretrainConfigInput>({
    name: 'pretrain',
    description: 'Pretrain a vision transformer on a folder of images',
    schema: pretrainSchema,
    argument: 'images',
    several: { read: readPaths, write: (images) => writePaths(images as ImagePaths) },
    examples: [
      'gmml pretrain photos/ --out runs/photos',
      'gmml pretrain photos/ --out runs/photos --resume',
      'gmml pretrain photos/=2 more.parquet --out runs/both    (two thirds of each epoch are photos)'
    ],
    settle: settleConfig,
    train: async (settings, hooks) => {
      const result = await pretrain(settings, hooks)
      return { ...result, summary: () => `loss ${result.loss.toFixed(4)}, encoder in ${result.exported}` }
    }
  })
}
