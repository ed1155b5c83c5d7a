import { z } from 'zod'

import { parseLabelBudget } from '../data/index.js'
import {
  cropScale, graphField, loopFields, machineFields, memoryFields, modelName, parseSettings, part, positiveInteger, resumeSettings, type SettingsKind
} from './settings.js'

/** Whether a text is a part of the labels or a number of them. */
export function isLabelBudget(text: string): boolean {
  try {
    parseLabelBudget(text)
    return true
  } catch {
    return false
  }
}

/**
 * Settings of a finetuning, with the values of MAE (arXiv 2111.06377, table 9) and DeiT (arXiv 2012.12877, table 9) for small models as
 * defaults. The one list of them, as for pretraining.
 */
export const finetuneSchema = z.strictObject({
  from: z.string().min(1).describe(`weights to start from: a run, a checkpoint, a file of weights, or 'random' (from scratch)`),
  train: z.string().min(1).describe('folder, list or table of the images to learn from, with classes (sub-folders or labels)'),
  test: z.string().min(1).optional().describe('folder of test images, asked once, at the end; of IDX, CIFAR or Parquet files maybe the same folder'),
  out: z.string().min(1).describe('folder of the run, made if it is not there'),
  labels: z
    .string()
    .refine(isLabelBudget, `a part like '1%' or a number like '25/class'`)
    .default('100%')
    .meta({ description: `labelled images to learn from, drawn class by class: '1%' or '25/class'`, placeholder: 'part' }),
  validation: part.lt(1).default(0).describe('part of them that is held out for choices; 0 = none (without --test: a tenth)'),
  validateEvery: positiveInteger.default(1).describe('epochs between measurements on what is held out'),
  selectBest: z.boolean().default(false).describe('end with the weights of the epoch that was best on what is held out'),
  model: modelName.default('vit_small').describe('encoder, where the weights do not say'),
  imageSize: positiveInteger.optional().describe(`side of the images in pixels (default: the encoder's)`),
  patchSize: positiveInteger.optional().describe(`side of a patch in pixels (default: the encoder's)`),
  pool: z.enum(['avg', 'token']).default('avg').describe('what the classifier sees: the mean of the patch tokens, or the CLS token'),
  epochs: positiveInteger.default(100).describe('passes over the labelled images'),
  batchSize: positiveInteger.default(64).describe('images per step (of fewer images: all)'),
  lr: z.number().positive().default(1e-3).describe('learning rate for 256 images per step; scaled with the batch size'),
  minLr: z.number().min(0).default(1e-6).describe('learning rate that the cosine ends at'),
  layerDecay: z.number().positive().max(1).default(0.75).describe('factor of the learning rate from each block to the one before'),
  weightDecay: z.number().min(0).default(0.05).describe('weight decay'),
  warmupEpochs: z.number().min(0).default(5).describe('epochs of linear warm-up (at most a tenth of all)'),
  clip: z.number().min(0).default(0).describe('largest norm of all gradients together; 0 = no clipping'),
  ema: z.number().min(0).lt(1).default(0).describe('decay of a running mean of the weights, which is then measured and exported; 0 = none'),
  ...memoryFields,
  dropPath: part.default(0.1).describe('stochastic depth of the last block'),
  labelSmoothing: part.lt(1).default(0.1).describe('part of each target that is spread over all classes'),
  mixup: z.number().min(0).default(0.8).describe('alpha of mixup; 0 = none'),
  cutmix: z.number().min(0).default(1).describe('alpha of CutMix; 0 = none'),
  mixProbability: part.default(1).describe('how often a batch is mixed'),
  mixSwitch: part.default(0.5).describe('how often it is CutMix, where there are both'),
  erasing: part.default(0.25).describe('how often a rectangle of an image is erased'),
  randAugment: z.int().min(0).default(2).describe('random operations on each image (RandAugment); 0 = none'),
  randAugmentMagnitude: z.int().min(0).max(30).default(9).describe('how strong they are'),
  cropScale: cropScale([0.08, 1]),
  cropPadding: z.int().min(0).default(0).describe('instead of crops: shift by up to so many pixels, the rest is the mean colour; 0 = crop'),
  flip: part.default(0.5).describe('how often an image is mirrored left to right'),
  seed: z.int().min(0).default(0).describe('decides the choice of labels, initialisation, order, augmentation'),
  ...machineFields,
  ...graphField,
  limit: positiveInteger.optional().describe('use only so many images of each folder'),
  ...loopFields
})

/** What a caller of `finetune` gives; the rest has defaults. `gmml finetune --help` lists all of it, with what each is for. */
export type FinetuneConfigInput = z.input<typeof finetuneSchema>

/** Every setting of a finetuning. */
export type FinetuneConfig = z.output<typeof finetuneSchema>

const kind: SettingsKind<typeof finetuneSchema> = {
  schema: finetuneSchema,
  changeable: ['from', 'train', 'test', 'validateEvery'],
  fixed: ['model', 'imageSize', 'patchSize', 'pool', 'batchSize', 'limit', 'labels', 'validation', 'layerDecay']
}

/** As {@link resumeSettings}. */
export const resumeFinetuneConfig = (saved: Readonly<Record<string, unknown>>, input: FinetuneConfigInput): FinetuneConfig =>
  resumeSettings(kind, saved, input)

/** @throws SettingsError naming each field that is missing, unknown or not legal. */
export const parseFinetuneConfig = (input: unknown): FinetuneConfig => parseSettings(finetuneSchema, input)
