import { Command } from 'commander'

import { writeRunReport } from '../train/index.js'

export function reportCommand(): Command {
  const command = new Command('report')
    .description('Write report.html into the folder of a pretraining or a finetuning, which may still be at work')
    .argument('<run>', "the run's folder")
  command.addHelpText('after', '\nExample:\n  gmml report runs/photos')
  return command.action(async (run: string) => console.log(await writeRunReport(run)))
}
