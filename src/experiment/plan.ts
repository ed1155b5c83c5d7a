import { join } from 'node:path'

import type { KnnRequest, ProbeRequest } from '../evaluate/index.js'
import type { FinetuneConfigInput, PretrainConfigInput } from '../train/index.js'
import type { ExperimentConfig } from './config.js'

/** Where training starts, and with which budget. */
export type Arm = 'pretrained' | 'scratch' | 'scratch-total'

export const arms = {
  pretrained: 'pretrained, then finetuned',
  scratch: 'from scratch, budget of the finetuning',
  'scratch-total': 'from scratch, budget of pretraining and finetuning'
} as const satisfies Record<Arm, string>

/** One finetuning of an experiment. */
export interface Cell {
  readonly arm: Arm
  readonly labels: string
  readonly seed: number
  /** Passes over the labelled images. */
  readonly epochs: number
  /** Learning rate, where it was chosen; null: that of the settings. */
  readonly lr: number | null
  /** Path of the run. */
  readonly out: string
}

/** What an epoch of pretraining costs and what there is to learn from: numbers of images. */
export interface Sizes {
  /** Images in an epoch of pretraining. */
  readonly pretrain: number
  readonly pretrainEpochs: number
  /** Images of each class that there are to learn from: the fewest of any class. */
  readonly perClass: number
  /** Labelled images by label budget. */
  readonly labelled: ReadonlyMap<string, number>
}

const PRETRAIN_VIEWS = 2

/** What is not good for a network without pretraining, whatever else is set for it: lower blocks that hardly move. */
const FROM_SCRATCH = { layerDecay: 1 } as const

/** A label budget in the name of a folder. */
export const nameOf = (labels: string) => labels.replace('%', '-percent').replace('/', '-per-')

/** The run of a pretraining. */
export const pretrainFolder = (config: ExperimentConfig, seed: number): string =>
  config.pretrained ?? join(config.out, 'pretrain', `seed-${seed % config.pretrainings}`)

export function pretrainSettings(config: ExperimentConfig, seed: number): PretrainConfigInput {
  const { images, model, imageSize, patchSize, pretrainEpochs: epochs, device, workers, threads, limit } = config
  return {
    images, out: pretrainFolder(config, seed), model, ...(imageSize && { imageSize }), ...(patchSize && { patchSize }), epochs,
    ...(limit && { limit }), ...(threads && { threads }), device, workers, ...config.pretrain,
    seed: seed % config.pretrainings
  }
}

/** A measurement of features, without finetuning. */
export interface FeatureMeasurement {
  readonly command: 'knn' | 'probe'
  /** As the command has them. */
  readonly settings: Omit<KnnRequest & ProbeRequest, 'out'> & { readonly out: string; readonly threads?: number }
}

/** kNN and linear probe of the pretrained and of a random encoder. */
export function planFeatures(config: ExperimentConfig): FeatureMeasurement[] {
  const { images: train, test = train, model, imageSize, patchSize, limit, device, workers, threads, out } = config
  const { maxBroken, dataTimeout } = config.pretrain as { readonly maxBroken?: number; readonly dataTimeout?: number }
  const reading = { ...(maxBroken !== undefined && { maxBroken }), ...(dataTimeout !== undefined && { dataTimeout }) }
  const random = { model, ...(imageSize && { imageSize }), ...(patchSize && { patchSize }) }
  return [pretrainFolder(config, 0), 'random'].flatMap((subject) =>
    (['knn', 'probe'] as const).map((command) => ({
      command,
      settings: {
        subject, train, test, out: join(out, command, subject === 'random' ? 'random' : 'pretrained'), ...(subject === 'random' && random),
        ...(limit && { limit }), ...(threads && { threads }), device, workers, ...reading
      }
    }))
  )
}

/**
 * All finetunings, in the order in which they are done: seed by seed, so that early results are of every kind.
 *
 * The total budget counts what the network sees: both views of each pretraining step, and each image of the finetuning.
 *
 * @param lrOf - What was chosen.
 */
export function planCells(config: ExperimentConfig, sizes: Sizes, lrOf: (arm: Arm, labels: string) => number | null = () => null): Cell[] {
  const { labels: budgets, finetuneEpochs, seeds, totalSeeds, out } = config
  const cells: Cell[] = []
  for (let seed = 0; seed < Math.max(seeds, totalSeeds); seed++) {
    for (const [i, labels] of budgets.entries()) {
      const epochs = finetuneEpochs[i]!
      const cell = (arm: Arm, passes: number): Cell =>
        ({ arm, labels, seed, epochs: passes, lr: lrOf(arm, labels), out: join(out, 'finetune', `${arm}-${nameOf(labels)}-seed-${seed}`) })
      if (seed < seeds) cells.push(cell('pretrained', epochs), cell('scratch', epochs))
      const seen = PRETRAIN_VIEWS * sizes.pretrain * sizes.pretrainEpochs
      if (seed < totalSeeds) cells.push(cell('scratch-total', epochs + Math.ceil(seen / sizes.labelled.get(labels)!)))
    }
  }
  return cells
}

/** Settings of the finetuning of a cell. */
export function finetuneSettings(config: ExperimentConfig, { arm, labels, seed, epochs, lr, out }: Cell): FinetuneConfigInput {
  const { images: train, test, model, imageSize, patchSize, device, workers, threads, limit, finetune, scratch } = config
  const start =
    arm === 'pretrained'
      ? { from: pretrainFolder(config, seed) }
      : { from: 'random', model, ...(imageSize && { imageSize }), ...(patchSize && { patchSize }) }
  return {
    ...start, train, test: test ?? train, out, labels, seed, epochs, ...(limit && { limit }), ...(threads && { threads }), device, workers,
    ...finetune, ...(arm === 'pretrained' ? {} : { ...FROM_SCRATCH, ...scratch }), ...(lr !== null && { lr })
  }
}
