import { Command, Option } from 'commander'

import { expected, SettingsError } from '../errors.js'
import { exportBackbone, exportFormats, type ExportRequest } from '../train/index.js'
import { onnxOpsets } from '../vision/index.js'
import { integerFlag } from './flags.js'

export function exportCommand(): Command {
  const opset = (text: string): number => {
    if (onnxOpsets.map(String).includes(text)) return Number(text)
    throw new SettingsError(expected(`one of ${onnxOpsets.join(', ')}`, '--opset', text).message)
  }
  const command = new Command('export')
    .description('Write a trained encoder for timm, Hugging Face transformers, ONNX or PyTorch')
    .argument('<what>', `a run's folder, or a file of weights`)
    .addOption(new Option('--to <format>', 'what it is for').choices(exportFormats).makeOptionMandatory())
    .option('--out <path>', `file or folder to write (default: in the run's folder 'exported', beside a file of weights)`)
    .option('--checkpoint <step>', 'of a run: its checkpoint after this step (default: the newest weights)', integerFlag('--checkpoint', 0))
    .option('--image-size <pixels>', 'for square images of another size: resamples the position embedding', integerFlag('--image-size', 1))
    .option('--opset <version>', "of ONNX's operators (default: 17)", opset)
    .option('--force', 'write where something is already')
    .option('--json', 'print JSON')
  const examples = ['gmml export runs/photos --to onnx', 'gmml export runs/photos --to huggingface --out models/photos']
  command.addHelpText('after', ['\nExamples:', ...examples].join('\n  '))
  return command.action(async (subject: string) => {
    const { json, ...request } = command.opts<ExportRequest & { json?: boolean }>()
    const result = await exportBackbone(subject, request)
    if (json) console.log(JSON.stringify(result))
    else console.log(`${result.path}, from ${result.weights}. To load it:\n\n${result.load.map((line) => `  ${line}\n`).join('')}`)
  })
}
