import { existsSync, realpathSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { chooseLabelled, parseLabelBudget } from '../data/index.js'
import { DivergedError, InputError, SettingsError } from '../errors.js'
import { measureKnn, measureProbe, openTest, openTraining, readResults, type LabelledImages, type Results } from '../evaluate/index.js'
import { writeFileAtomic } from '../io/index.js'
import { setNumThreads } from '../torch/index.js'
import { finetune, pretrain, RunFolder, type FinetuneConfigInput, type PretrainHooks } from '../train/index.js'
import { chooseLearningRate, chosenLr, planTrials, requireHeldOut, trialSettings, type Choice } from './choice.js'
import { parseExperimentConfig, type ExperimentConfig, type ExperimentConfigInput } from './config.js'
import { finetuneSettings, planCells, planFeatures, pretrainSettings, type Cell, type FeatureMeasurement, type Sizes } from './plan.js'
import { keepPrecisions, settlePrecisions } from './precision.js'
import { requireFinished } from './pretrained.js'
import { writeReport, type Found } from './report.js'
import type { Finished } from './summary.js'

/** What an experiment tells while it goes on. */
export interface ExperimentHooks extends PretrainHooks {
  /** Before each part: what it is, and where it stands. */
  readonly onPart?: (part: { readonly name: string; readonly number: number; readonly of: number; readonly done: boolean }) => void
}

/** What became of an experiment. */
export interface ExperimentResult {
  readonly status: 'done' | 'interrupted'
  /** The report, for people: report.md. Null before the first result. */
  readonly report: string | null
  readonly found: Found
}

// What may differ when an experiment goes on: what is done stays right. Images may have moved.
const changeable: readonly (keyof ExperimentConfig)[] = [
  'out', 'images', 'test', 'device', 'workers', 'threads', 'seeds', 'totalSeeds', 'labels', 'finetuneEpochs'
]

/** Settings of an experiment that was begun. @throws InputError if they are not what was written. */
async function readSettings(path: string): Promise<ExperimentConfig> {
  try {
    // A setting that is newer than the folder has its default there.
    return parseExperimentConfig(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    const what = `'${path}' does not hold the settings of an experiment`
    throw new InputError(`${what}, so nobody can say what was done here. Choose another folder, or mend it: ${(error as Error).message}`, { cause: error })
  }
}

/** Whether these are other images: those that have moved are not where they were any more. */
function isElsewhere(before: string | undefined, now: string | undefined): boolean {
  if (before === now) return false
  if (before === undefined || now === undefined) return true
  return existsSync(before) && !(existsSync(now) && realpathSync(now) === realpathSync(before))
}

/** @throws SettingsError if what is there was made with other settings. */
function requireSameExperiment(config: ExperimentConfig, before: ExperimentConfig): void {
  const names = Object.keys(config) as (keyof ExperimentConfig)[]
  const changed = names.filter((name) => !changeable.includes(name) && JSON.stringify(config[name]) !== JSON.stringify(before[name]))
  for (const name of ['images', 'test'] as const) if (isElsewhere(before[name], config[name])) changed.push(name)
  if (changed.length === 0) return
  const list = changed.map((name) => `${name} (there: ${JSON.stringify(before[name])}, given: ${JSON.stringify(config[name])})`).join(', ')
  throw new SettingsError(`'${config.out}' holds an experiment with other settings of ${list}. Choose another folder, or the same settings`)
}

function countBy(labels: Iterable<number>): Map<number, number> {
  const counts = new Map<number, number>()
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1)
  return counts
}

/** Opens everything that will be needed, so that a slip is found before the first hour is spent. */
async function measureSizes(config: ExperimentConfig): Promise<{ sizes: Sizes; train: LabelledImages }> {
  const { labels, finetuneEpochs, seeds, lrs, finetune, scratch } = config
  if (labels.length !== finetuneEpochs.length) {
    throw new SettingsError(`Expected as many finetuneEpochs as labels (${labels.length}), received ${finetuneEpochs.length}`)
  }
  if (lrs && ('lr' in finetune || 'lr' in scratch)) {
    throw new SettingsError('Expected either lrs, to choose a learning rate, or one in the sections finetune and scratch, received both')
  }
  const train = await openTraining(config.images, { limit: config.limit })
  await openTest(train, config.test ?? config.images, { limit: config.limit })
  const perClass = Math.min(...countBy(train.labels).values())
  // Each class gives the same number whatever the seed.
  const labelled = new Map(labels.map((budget) => [budget, chooseLabelled(train.labels, parseLabelBudget(budget), 0).length]))
  const done = config.pretrained === undefined ? null : await requireFinished(config.pretrained, config, train)
  // A slip in the settings of the last finetuning is one now, too.
  const sizes = { pretrain: done?.images ?? train.length, pretrainEpochs: done?.epochs ?? config.pretrainEpochs, perClass, labelled }
  if (lrs) requireHeldOut(config, sizes, train.labels)
  if (seeds < config.totalSeeds) throw new SettingsError(`Expected at most seeds (${seeds}) for totalSeeds, received ${config.totalSeeds}`)
  return { sizes, train }
}

/** What is not there yet of the features. Null if it was interrupted. */
async function measureFeatures(
  planned: readonly FeatureMeasurement[], before: readonly (Results | null)[], { onBroken, onNotice, signal }: ExperimentHooks
): Promise<Results[] | null> {
  const found: Results[] = []
  for (const [i, { command, settings }] of planned.entries()) {
    if (signal?.aborted) return null
    const request = { ...settings, ...(onBroken && { onBroken }), ...(onNotice && { onNotice }) }
    found.push(before[i] ?? (await (command === 'knn' ? measureKnn : measureProbe)(request)))
  }
  return found
}

/** @throws InputError if a finetuning that was done or begun before is not the one that is wanted. */
function requireSameTraining(before: Results['settings'], { out, epochs, lr }: FinetuneConfigInput): void {
  for (const [name, wanted] of Object.entries({ epochs, lr })) {
    const there = before[name]
    if (wanted !== undefined && there !== wanted) {
      throw new InputError(`'${out}' was finetuned with ${name} ${String(there)}, not ${wanted}: remove it, or choose another folder`)
    }
  }
}

/**
 * Shows what pretraining on a data set is worth on it: pretrains, chooses learning rates if there are some to choose from, then finetunes
 * from the pretrained and from random weights for each label budget and seed, and measures all on the test images. Writes report.md,
 * accuracy.png and results.json. A finetuning that diverges is counted as such, and is in no mean. What is done is not done again, so an
 * experiment that was interrupted goes on when it is called again.
 *
 * @param input - Settings; {@link experimentSchema} lists them with their defaults.
 * @throws SettingsError for settings that are not legal, or others than those that the folder's experiment has; InputError as pretraining
 *   and finetuning.
 */
export async function experiment(input: ExperimentConfigInput, hooks: ExperimentHooks = {}): Promise<ExperimentResult> {
  const given = parseExperimentConfig(input)
  const settingsFile = join(given.out, 'experiment.json')
  const before = existsSync(settingsFile) ? await readSettings(settingsFile) : null
  const kept = before ? keepPrecisions(given, before) : given
  if (before) requireSameExperiment(kept, before)
  const { sizes, train } = await measureSizes(kept)
  // Also for what follows a pretraining that was done before.
  if (kept.threads) setNumThreads(kept.threads)
  const config = settlePrecisions(kept, train)
  const trials = config.lrs ? planTrials(config) : []
  const pretrainings = config.pretrained === undefined ? Array.from({ length: config.pretrainings }, (_, seed) => seed) : []
  await mkdir(config.out, { recursive: true })
  await writeFileAtomic(settingsFile, `${JSON.stringify(config, null, 2)}\n`)

  const of = pretrainings.length + 1 + trials.flat().length + planCells(config, sizes).length
  let number = 0
  const tell = (name: string, done: boolean) => hooks.onPart?.({ name, number: ++number, of, done })
  const found: { features: Results[]; choices: Choice[]; finished: Finished[] } = { features: [], choices: [], finished: [] }
  let report: string | null = null
  const interrupted = () => ({ status: 'interrupted', report, found }) as const
  // Does a finetuning, or reads what it found before. Null if it was interrupted.
  const finish = async (cell: Cell, settings: FinetuneConfigInput, which: string): Promise<Results | null> => {
    if (hooks.signal?.aborted) return null
    const before = await readResults(settings.out)
    tell(`${cell.arm}, ${cell.labels} of the labels, ${cell.epochs} epochs, ${which}`, before !== null)
    const run = new RunFolder(settings.out)
    const there = before?.settings ?? (run.exists ? await run.readConfig() : null)
    if (there) requireSameTraining(there, settings)
    return before ?? (await finetune({ ...settings, resume: run.exists }, hooks)).results
  }

  for (const seed of pretrainings) {
    const settings = pretrainSettings(config, seed)
    const done = existsSync(join(new RunFolder(settings.out).exported, 'backbone.safetensors'))
    tell(`pretraining, seed ${seed}`, done)
    if (done) continue
    const { status } = await pretrain({ ...settings, resume: new RunFolder(settings.out).exists }, hooks)
    if (status === 'interrupted') return interrupted()
  }
  const planned = planFeatures(config)
  const measured = await Promise.all(planned.map(({ settings }) => readResults(settings.out)))
  tell('kNN and linear probe of the features', !measured.includes(null))
  const features = await measureFeatures(planned, measured, hooks)
  if (!features) return interrupted()
  found.features.push(...features)
  report = await writeReport(config, sizes, found)
  for (const group of trials) {
    const choice = await chooseLearningRate(group, (trial) => finish(trial, trialSettings(config, sizes, trial), `lr ${trial.lr} by held-out images`))
    if (!choice) return interrupted()
    found.choices.push(choice)
    report = await writeReport(config, sizes, found)
  }
  for (const cell of planCells(config, sizes, (arm, labels) => chosenLr(found.choices, arm, labels))) {
    const results = await finish(cell, finetuneSettings(config, cell), `seed ${cell.seed}`).catch((error: Error) => {
      // One that diverges is a result, too, and no reason to do without the others.
      if (!(error instanceof DivergedError)) throw error
      hooks.onNotice?.(error.message)
      return 'diverged' as const
    })
    if (!results) return interrupted()
    found.finished.push({ cell, images: sizes.labelled.get(cell.labels)!, score: results === 'diverged' ? null : results.scores['classifier']! })
    report = await writeReport(config, sizes, found)
  }
  return { status: 'done', report, found }
}
