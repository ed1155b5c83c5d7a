import { z } from 'zod'

import { fills } from '../gmml/index.js'
import {
  graphField, imagePaths, loopFields, machineFields, memoryFields, modelName, parseSettings, part, positiveInteger, resumeSettings, viewFields,
  type SettingsKind
} from './settings.js'

/**
 * Settings of a pretraining run, with the values of the method's authors as defaults. The one list of them: the API's types, the command's
 * flags and the check of config files all come from here.
 */
export const pretrainSchema = z.strictObject({
  images: imagePaths.describe(
    'folder of image files (sub-folder = class), of IDX, CIFAR or Parquet files, list (.csv, .jsonl), table (.parquet), shards (p-{00..99}.tar, http)'
  ),
  out: z.string().min(1).describe('folder of the run, made if it is not there'),
  model: modelName.default('vit_small').describe('encoder'),
  imageSize: positiveInteger.optional().describe('side of the views in pixels (default: 224, or the size of IDX or CIFAR images)'),
  patchSize: positiveInteger.optional().describe('side of a patch in pixels (default: 16, or 4 for views of up to 64 pixels)'),
  registerTokens: z.int().min(0).default(0).describe('register tokens before those of the patches'),
  classToken: z.boolean().default(true).describe('CLS token before those of the patches'),
  init: z.string().min(1).optional().describe('file of weights to start from (a run, a checkpoint, an encoder, .pth of the authors)'),
  epochs: positiveInteger.default(100).describe('passes over the images (the paper: 800)'),
  batchSize: positiveInteger.default(64).describe('images per step, each with two crops'),
  lr: z.number().positive().default(5e-4).describe('learning rate for 256 images per step; scaled with the batch size'),
  minLr: z.number().min(0).default(1e-6).describe('learning rate that the cosine ends at'),
  weightDecay: z.number().min(0).default(0.04).describe('weight decay at the start'),
  weightDecayEnd: z.number().min(0).default(0.4).describe('weight decay at the end'),
  warmupEpochs: z.number().min(0).default(10).describe('epochs of linear warm-up (at most a tenth of all)'),
  ...memoryFields,
  ema: z.number().min(0).lt(1).default(0).describe('decay of a running mean of the weights, which is then exported; 0 = none'),
  clip: z.number().min(0).default(3).describe('largest norm of each gradient; 0 = no clipping'),
  dropPath: part.default(0.1).describe('stochastic depth of the last block'),
  maskBudget: part.positive().default(0.75).describe('largest part of a view that is corrupted'),
  alien: part.default(0.3).describe('part that pixels of other images replace; 0 = never'),
  align: positiveInteger.default(1).describe('pixels that corrupted rectangles are aligned to'),
  overhang: z.boolean().default(false).describe('rectangles may hang over the edges: the border is corrupted as often as the middle'),
  fill: z.enum(fills as ['noise', ...typeof fills[number][]]).default('noise').describe('what corrupted pixels become'),
  ...viewFields,
  featureBlocks: z
    .array(positiveInteger)
    .min(1)
    .optional()
    .describe('blocks whose mean the reconstruction sees (default: 6,8,10,12 of 12, in proportion)'),
  allPixels: z.boolean().default(false).describe('loss over all pixels, not only the corrupted ones'),
  seed: z.int().min(0).default(0).describe('decides initialisation, order, crops, masks and noise'),
  ...machineFields,
  ...graphField,
  limit: positiveInteger.optional().describe('use only so many images'),
  knnEvery: z.int().min(0).default(0).describe('measure kNN accuracy every N epochs; needs classes; 0 = never'),
  ...loopFields
})

/** What a caller of `pretrain` gives; the rest has defaults. `gmml pretrain --help` lists all of it, with what each is for. */
export type PretrainConfigInput = z.input<typeof pretrainSchema>

/** Every setting of a run. */
export type PretrainConfig = z.output<typeof pretrainSchema>

const kind: SettingsKind<typeof pretrainSchema> = {
  schema: pretrainSchema,
  changeable: ['images', 'knnEvery'],
  fixed: ['model', 'imageSize', 'patchSize', 'registerTokens', 'classToken', 'batchSize', 'limit']
}

/** As {@link resumeSettings}. */
export const resumeConfig = (saved: Readonly<Record<string, unknown>>, input: PretrainConfigInput): PretrainConfig =>
  resumeSettings(kind, saved, input)

/** @throws SettingsError naming each field that is missing, unknown or not legal. */
export const parseConfig = (input: unknown): PretrainConfig => parseSettings(pretrainSchema, input)
