import { Option, type Command } from 'commander'

import { measureProbe, type ProbeRequest } from '../evaluate/index.js'
import { integerFlag, numbersFlag, positiveFlag } from './flags.js'
import { evaluationCommand } from './evaluation.js'

export function probeCommand(): Command {
  return evaluationCommand<ProbeRequest>({
    name: 'probe',
    description: 'Measure an encoder by a linear classifier on its features; settings are chosen on a part held out of the training images',
    flags: (command) =>
      command
        .addOption(
          new Option('--method <name>', 'lbfgs: the optimum of the logistic regression; sgd: for very many images')
            .choices(['lbfgs', 'sgd'])
            .default('lbfgs')
        )
        .option('--weight-decays <list>', 'L2 penalties to choose from; a single one is taken as it is', numbersFlag('--weight-decays'))
        .option('--learning-rates <list>', 'of sgd: step sizes to choose from', numbersFlag('--learning-rates'))
        .option('--epochs <number>', 'of sgd: passes over the features', integerFlag('--epochs', 1))
        .option('--batch-size <number>', 'of sgd: rows in a step', integerFlag('--batch-size', 1))
        .option('--tolerance <number>', 'of lbfgs: largest element of the gradient at which it ends', positiveFlag('--tolerance')),
    measure: measureProbe
  })
}
