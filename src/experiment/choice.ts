import { join } from 'node:path'

import { chooseLabelled, holdOut, parseLabelBudget } from '../data/index.js'
import { DivergedError, expected, InputError } from '../errors.js'
import type { Results } from '../evaluate/index.js'
import type { FinetuneConfigInput } from '../train/index.js'
import type { ExperimentConfig } from './config.js'
import { finetuneSettings, nameOf, type Arm, type Cell, type Sizes } from './plan.js'

/** A finetuning that a learning rate is chosen by: measured on images held out of the training images, never on test images. */
export interface Trial extends Cell {
  readonly lr: number
}

/** What trials found for one start and label budget. */
export interface Choice {
  readonly arm: Arm
  readonly labels: string
  /** Accuracy on the held-out images by learning rate, in the order of the settings; null where the training diverged. */
  readonly accuracies: readonly { readonly lr: number; readonly accuracy: number | null }[]
  /** The learning rate that was best. */
  readonly lr: number
}

/** Trials for each kind of start and each label budget. With the total budget, training from scratch takes what is best with the other. */
export function planTrials(config: ExperimentConfig): Trial[][] {
  const { labels: budgets, finetuneEpochs, lrs = [], out } = config
  return budgets.flatMap((labels, i) =>
    (['pretrained', 'scratch'] as const).map((arm) =>
      lrs.map((lr) =>
        ({ arm, labels, lr, seed: 0, epochs: finetuneEpochs[i]!, out: join(out, 'choice', `${arm}-${nameOf(labels)}-lr-${lr}`) })
      )
    )
  )
}

const withoutNoise = (value: number) => Number(value.toFixed(9))

// What is drawn of all labelled images, and the part of it that is held out: as many remain to learn from as the budget says, or, where
// all of them are to be learned from, so many fewer.
function drawOf(labels: string, heldOut: number, perClass: number): { labels: string; validation: number } {
  const budget = parseLabelBudget(labels)
  if ('part' in budget) {
    const drawn = Math.min(1, budget.part + heldOut)
    return { labels: `${withoutNoise(100 * drawn)}%`, validation: withoutNoise(heldOut / drawn) }
  }
  const aside = Math.max(1, Math.round(heldOut * perClass))
  const drawn = Math.min(perClass, budget.perClass + aside)
  return { labels: `${drawn}/class`, validation: withoutNoise(aside / drawn) }
}

/** Settings of the finetuning of a trial: the same number of labelled images, and others of the training images to measure on. */
export function trialSettings(config: ExperimentConfig, { perClass }: Sizes, trial: Trial): FinetuneConfigInput {
  const draw = drawOf(trial.labels, config.heldOut, perClass)
  return { ...finetuneSettings(config, trial), test: undefined, ...draw, validateEvery: trial.epochs, selectBest: false }
}

/** @throws InputError where trials would have no images to measure on. */
export function requireHeldOut({ images, heldOut, labels }: ExperimentConfig, { perClass }: Sizes, classOf: Int32Array): void {
  for (const text of labels) {
    const { labels: drawn, validation } = drawOf(text, heldOut, perClass)
    const chosen = chooseLabelled(classOf, parseLabelBudget(drawn), 0)
    if (validation < 1 && holdOut(chosen.map((position) => classOf[position]!), validation, 0).heldOut.length > 0) continue
    throw expected(`more labelled images, to choose a learning rate (lrs) by ${100 * heldOut} % of them,`, images, `${classOf.length} images`)
  }
}

/**
 * Runs the trials of one kind of start and chooses.
 *
 * @param run - Finishes a finetuning, or reads what it found before; null if it was interrupted.
 * @returns Null if it was interrupted.
 * @throws InputError where every training diverged.
 */
export async function chooseLearningRate(trials: readonly Trial[], run: (trial: Trial) => Promise<Results | null>): Promise<Choice | null> {
  const accuracies: { lr: number; accuracy: number | null }[] = []
  for (const trial of trials) {
    try {
      const results = await run(trial)
      if (!results) return null
      accuracies.push({ lr: trial.lr, accuracy: results.scores['classifier']!.accuracy })
    } catch (error) {
      if (!(error instanceof DivergedError)) throw error
      accuracies.push({ lr: trial.lr, accuracy: null })
    }
  }
  const { arm, labels } = trials[0]!
  const best = Math.max(...accuracies.map(({ accuracy }) => accuracy ?? -1))
  const found = accuracies.find(({ accuracy }) => accuracy === best)
  if (!found) throw new InputError(`With every learning rate of lrs the training diverged (${arm}, ${labels} of the labels)`)
  return { arm, labels, accuracies, lr: found.lr }
}

/** What was chosen for a kind of start; null where there was nothing to choose. */
export function chosenLr(choices: readonly Choice[], arm: Arm, labels: string): number | null {
  const start = arm === 'pretrained' ? arm : 'scratch'
  return choices.find((choice) => choice.arm === start && choice.labels === labels)?.lr ?? null
}
