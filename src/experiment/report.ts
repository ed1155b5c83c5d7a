import { join } from 'node:path'

import { describeScore, type Results } from '../evaluate/index.js'
import { writeFileAtomic } from '../io/index.js'
import { lineChart, markdownTable } from '../report/index.js'
import { buildInfo } from '../torch/index.js'
import { version } from '../version.js'
import { planTrials, trialSettings, type Choice } from './choice.js'
import { commandLine, type Setting } from './command.js'
import type { ExperimentConfig } from './config.js'
import { arms, finetuneSettings, planFeatures, pretrainSettings, type Arm, type Sizes } from './plan.js'
import { summarise, type Finished, type Row, type Spread } from './summary.js'

/** What an experiment has found so far. */
export interface Found {
  /** kNN and linear probe of the pretrained and of a random encoder. */
  readonly features: readonly Results[]
  /** Learning rates that were chosen, if there were some to choose from. */
  readonly choices: readonly Choice[]
  readonly finished: readonly Finished[]
}

type Settings = Readonly<Record<string, Setting>>

const percent = (part: number) => (100 * part).toFixed(2)

const describeSpread = ({ mean, deviation, values }: Spread) =>
  deviation === null ? `${percent(mean)} (n = 1)` : `${percent(mean)} ± ${percent(deviation)} (n = ${values.length})`

function describeRow({ accuracy, diverged }: Row): string {
  const lost = diverged > 0 ? `${diverged} of ${diverged + (accuracy?.values.length ?? 0)} diverged` : null
  return [accuracy && describeSpread(accuracy), lost].filter((part) => part !== null).join(', ')
}

function accuracyTable(rows: readonly Row[]): string {
  const budgets = [...new Set(rows.map(({ labels }) => labels))]
  const find = (labels: string, arm: Arm) => rows.find((row) => row.labels === labels && row.arm === arm)
  const cells = budgets.map((labels) => {
    const [pretrained, scratch, total] = (['pretrained', 'scratch', 'scratch-total'] as const).map((arm) => find(labels, arm))
    const show = (row: Row | undefined) => (row ? describeRow(row) : '-')
    const gain = pretrained?.accuracy && scratch?.accuracy ? percent(pretrained.accuracy.mean - scratch.accuracy.mean) : '-'
    return [labels, String((pretrained ?? scratch ?? total)!.images), show(pretrained), show(scratch), show(total), gain]
  })
  const columns = ['labels', 'images', 'pretrained, finetuned', 'from scratch', 'from scratch, total budget', 'points gained']
  return markdownTable(columns, cells)
}

function featureTable(features: readonly Results[]): string {
  const rows = features.flatMap(({ command, subject, scores }) =>
    Object.entries(scores).map(([name, score]) => [command, subject === 'random' ? 'random' : 'pretrained', name, describeScore(score)])
  )
  return markdownTable(['measured by', 'encoder', 'features', 'accuracy'], rows)
}

function choiceTable(choices: readonly Choice[]): string {
  const columns = [...new Set(choices.flatMap(({ accuracies }) => accuracies.map(({ lr }) => lr)))]
  const cells = choices.map(({ labels, arm, accuracies, lr }) => {
    const shown = columns.map((column) => accuracies.find((one) => one.lr === column)?.accuracy ?? null)
    return [labels, arm, ...shown.map((accuracy) => (accuracy === null ? 'diverged' : percent(accuracy))), String(lr)]
  })
  return markdownTable(['labels', 'start', ...columns.map(String), 'chosen'], cells)
}

/** The commands that do the same by hand. */
function commandsOf(config: ExperimentConfig, sizes: Sizes, { features, choices, finished }: Found): string[] {
  const seeds = config.pretrained === undefined ? Array.from({ length: config.pretrainings }, (_, seed) => seed) : []
  return [
    ...seeds.map((seed) => commandLine('pretrain', 'images', pretrainSettings(config, seed) as Settings)),
    ...planFeatures(config).slice(0, features.length).map(({ command, settings }) => commandLine(command, 'subject', settings as unknown as Settings)),
    ...planTrials(config).slice(0, choices.length).flat().map((trial) =>
      commandLine('finetune', 'from', trialSettings(config, sizes, trial) as Settings)
    ),
    ...finished.map(({ cell }) => commandLine('finetune', 'from', finetuneSettings(config, cell) as Settings))
  ]
}

async function draw(rows: readonly Row[]): Promise<Uint8Array> {
  const series = (Object.keys(arms) as Arm[]).flatMap((arm) => {
    const points = rows
      .flatMap(({ arm: own, images, accuracy }) => (own === arm && accuracy ? [{ images, ...accuracy }] : []))
      .map(({ images, mean, deviation }) => ({
        x: images, y: 100 * mean, ...(deviation !== null && { low: 100 * (mean - deviation), high: 100 * (mean + deviation) })
      }))
      .sort((a, b) => a.x - b.x)
    return points.length ? [{ name: arms[arm], points }] : []
  })
  // At the positions that there are, as the budgets were named.
  const ticks = [...new Map(rows.map(({ images, labels }) => [images, { value: images, label: `${labels} (${images})` }])).values()]
  const chart = await lineChart({
    title: 'Test accuracy by labelled images', x: { title: 'labelled images', log: true, ticks }, y: { title: 'accuracy, %' }, series
  })
  return chart.png
}

/**
 * Writes what was found so far: report.md for people, accuracy.png, results.json.
 *
 * @returns Path of report.md.
 */
export async function writeReport(config: ExperimentConfig, sizes: Sizes, found: Found): Promise<string> {
  const rows = summarise(found.finished)
  const { pretrain: images, pretrainEpochs } = sizes
  const path = join(config.out, 'report.md')
  const drawn = rows.some(({ accuracy }) => accuracy)
  if (drawn) await writeFileAtomic(join(config.out, 'accuracy.png'), await draw(rows))
  const versions = { gmml: version, libtorch: buildInfo().torch }
  const software = `gmml ${version}, libtorch ${versions.libtorch}`
  const results = { versions, images, pretrainEpochs, rows, choices: found.choices, features: found.features }
  await writeFileAtomic(join(config.out, 'results.json'), `${JSON.stringify(results, null, 2)}\n`)
  const spread = 'Mean and standard deviation over seeds of the accuracy on the test images, in percent.'
  const choosing =
    `Accuracy in percent on ${Number(percent(config.heldOut))} % of the training images, held out, after a finetuning with each learning rate: what the ` +
    'finetunings above take was chosen by these, never by test images.'
  const text = [
    `# What pretraining is worth on ${config.images}`,
    `${config.model}, pretrained for ${pretrainEpochs} epochs on ${images} images without labels; ${software}.`,
    ...(rows.length ? ['## Finetuning', spread, accuracyTable(rows), ...(drawn ? ['![Test accuracy by labelled images](accuracy.png)'] : [])] : []),
    ...(found.choices.length ? ['## Learning rates', choosing, choiceTable(found.choices)] : []),
    ...(found.features.length ? ['## Features without finetuning', featureTable(found.features)] : []),
    '## Commands', ['```sh', ...commandsOf(config, sizes, found), '```'].join('\n')
  ]
  await writeFileAtomic(path, `${text.join('\n\n')}\n`)
  return path
}
