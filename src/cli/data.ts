import { Presets, SingleBar } from 'cli-progress'
import { Command } from 'commander'
import { z } from 'zod'

import {
  describeImages, imageReportSchema, parseImageReportRequest, parsePreviewRequest, previewImages, previewSchema, type ImageReportHooks,
  type ImageReportRequest, type PreviewRequest
} from '../train/index.js'
import { describeReport } from './data-text.js'
import { addFlags, givenFlags } from './flags.js'

const reportFields = imageReportSchema.shape
const previewFields = previewSchema.shape
const flags = z.strictObject({ ...reportFields, ...previewFields })

const stages = { examining: 'files examined', loading: 'images loaded, to see how fast' } as const

/**
 * A bar for each stage on a terminal, else nothing. Cursor and line wrapping stay as they are, since Ctrl-C ends the process at once and
 * nobody would put them right.
 */
class ReportProgress implements ImageReportHooks {
  #bar: { readonly bar: SingleBar; readonly stage: string } | null = null

  readonly onProgress: NonNullable<ImageReportHooks['onProgress']> = ({ stage, done, total }) => {
    if (!process.stderr.isTTY) return
    if (this.#bar?.stage !== stage) {
      this.stop()
      const format = `{bar} {value} of {total} ${stages[stage]}`
      const bar = new SingleBar({ format, stream: process.stderr, barsize: 20, clearOnComplete: true, linewrap: true }, Presets.shades_classic)
      bar.start(total, 0)
      this.#bar = { bar, stage }
    }
    this.#bar.bar.update(done)
  }

  stop(): void {
    this.#bar?.bar.stop()
    this.#bar = null
  }
}

/** Of the settings those that a request has. */
const pick = (settings: Readonly<Record<string, unknown>>, shape: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(settings).filter(([name]) => Object.hasOwn(shape, name)))

async function showData(folder: string, given: Readonly<Record<string, unknown>>): Promise<void> {
  const { json, preview, ...settings } = given
  const request = { ...pick(settings, reportFields), images: folder } as ImageReportRequest
  const shown = { ...pick(settings, previewFields), images: folder, out: preview ?? 'preview.png' } as PreviewRequest
  // What is wrong with any flag is said before any work.
  parseImageReportRequest(request)
  parsePreviewRequest(shown)
  if (preview !== undefined) {
    await previewImages(shown)
    console.error(`Each row of ${shown.out}: the whole image, a view, what the network sees of it, another view, what it sees of that`)
  }
  const progress = new ReportProgress()
  try {
    const report = await describeImages(request, progress)
    progress.stop()
    console.log(json ? JSON.stringify(report, null, 2) : describeReport(report))
  } finally {
    progress.stop()
  }
}

export function dataCommand(): Command {
  const command = new Command('data').description('Show what a run would see of images, before it is started, and what to mend')
  command.argument('<images>', reportFields.images.description)
  addFlags(command, flags, ['images', 'out'])
  command.option('--preview <file>', `${previewFields.out.description}: whole images, two views of each, and what the network sees of them`)
  command.option('--json', 'print everything as JSON')
  const examples = ['gmml data photos/', 'gmml data photos/ --preview preview.png --image-size 128 --mask-budget 0.5']
  command.addHelpText('after', ['\nExamples:', ...examples].join('\n  '))
  return command.action(async (folder: string) => showData(folder, givenFlags(command)))
}
