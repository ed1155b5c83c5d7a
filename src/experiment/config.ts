import { z } from 'zod'

import { isLabelBudget } from '../train/finetune-config.js'
import { finetuneSchema, pretrainSchema } from '../train/index.js'
import { machineFields, modelName, parseSettings, part, positiveInteger } from '../train/settings.js'

// What the experiment itself decides.
const ofPretraining = {
  images: true, out: true, model: true, imageSize: true, patchSize: true, epochs: true, init: true, seed: true, limit: true, device: true,
  threads: true, workers: true, resume: true, override: true
} as const
const ofFinetuning = {
  from: true, train: true, test: true, out: true, labels: true, epochs: true, seed: true, model: true, imageSize: true, patchSize: true,
  device: true, threads: true, workers: true, limit: true, resume: true, override: true
} as const

// Without defaults: what is not given must not hide what the schema of the training itself has, or what goes before.
const given = <Shape extends z.ZodRawShape>(schema: z.ZodObject<Shape>) =>
  z.strictObject(
    Object.fromEntries(
      Object.entries(schema.shape).map(([name, field]) => [name, (field instanceof z.ZodDefault ? field.unwrap() : field) as z.ZodType])
    )
  ).partial()

/** Settings of an experiment. */
export const experimentSchema = z.strictObject({
  images: z.string().min(1).describe('folder of the images to pretrain on and, with their classes, to learn from'),
  test: z.string().min(1).optional().describe('folder of the test images (default: the test split of the same IDX, CIFAR or Parquet files)'),
  out: z.string().min(1).describe('folder of the experiment, made if it is not there; what is done in it is not done again'),
  model: modelName.default('vit_small').describe('encoder'),
  imageSize: pretrainSchema.shape.imageSize,
  patchSize: pretrainSchema.shape.patchSize,
  pretrainEpochs: positiveInteger.default(100).describe('passes over the images in pretraining'),
  pretrained: z.string().min(1).optional().describe('folder of a finished pretraining run to take, instead of pretraining'),
  labels: z
    .array(z.string().refine(isLabelBudget, `parts like '1%' or numbers like '25/class'`))
    .min(1)
    .default(['1%', '10%', '100%'])
    .describe('labelled images to learn from, class by class'),
  finetuneEpochs: z.array(positiveInteger).min(1).default([200, 100, 50]).describe('passes over the labelled images, for each of --labels'),
  lrs: z
    .array(z.number().positive())
    .min(2)
    .optional()
    .describe('learning rates of which each kind of start takes, for each of --labels, what is best on held-out images (default: none is chosen)'),
  heldOut: part.gt(0).lt(1).default(0.1).describe('part of the training images by which learning rates are chosen'),
  seeds: positiveInteger.default(3).describe('repetitions of each finetuning: draw of the labels, initialisation, order, augmentation'),
  totalSeeds: z.int().min(0).default(1).describe('repetitions of training from scratch with the total budget, each as costly as pretraining'),
  pretrainings: positiveInteger.default(1).describe('pretrainings, of different seeds, which the repetitions take in turn'),
  limit: positiveInteger.optional().describe('use only so many images of each folder'),
  device: machineFields.device,
  workers: machineFields.workers,
  threads: machineFields.threads,
  pretrain: given(pretrainSchema.omit(ofPretraining)).default({}).describe('further settings of the pretraining (in a config file)'),
  finetune: given(finetuneSchema.omit(ofFinetuning)).default({}).describe('further settings of all finetunings (in a config file)'),
  scratch: given(finetuneSchema.omit(ofFinetuning))
    .default({ layerDecay: 1 })
    .describe('settings that go before them when training from scratch (in a config file)')
})

/** What a caller of `experiment` gives; the rest has defaults. `gmml experiment --help` lists all of it, with what each is for. */
export type ExperimentConfigInput = z.input<typeof experimentSchema>

/** Every setting of an experiment. */
export type ExperimentConfig = z.output<typeof experimentSchema>

/** Settings that have no flag. */
export const sections = ['pretrain', 'finetune', 'scratch'] as const

/** @throws SettingsError naming each field that is missing, unknown or not legal. */
export const parseExperimentConfig = (input: unknown): ExperimentConfig => parseSettings(experimentSchema, input)
