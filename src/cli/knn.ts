import type { Command } from 'commander'

import { measureKnn, type KnnRequest } from '../evaluate/index.js'
import { integerFlag, positiveFlag } from './flags.js'
import { evaluationCommand } from './evaluation.js'

export function knnCommand(): Command {
  return evaluationCommand<KnnRequest>({
    name: 'knn',
    description: 'Measure an encoder by the accuracy of a k-nearest-neighbour classifier on its features (cosine similarity)',
    flags: (command) =>
      command
        .option('--k <number>', 'neighbours that vote', integerFlag('--k', 1), 20)
        .option('--temperature <number>', 'votes weigh exp(similarity / temperature)', positiveFlag('--temperature'), 0.07),
    measure: measureKnn
  })
}
