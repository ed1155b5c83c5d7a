import { z } from 'zod'

import { expected, SettingsError } from '../errors.js'
import { fills } from '../gmml/index.js'
import { isDevice, type Device } from '../torch/types.js'
import { visionTransformers, type VisionTransformerName } from '../vision/index.js'

/** Whether something names a device that can compute. */
export const isComputing = (value: unknown): value is Exclude<Device, 'meta'> => isDevice(value) && value !== 'meta'

const positiveInteger = z.int().min(1)
const part = z.number().min(0).max(1)
const names = Object.keys(visionTransformers) as [VisionTransformerName, ...VisionTransformerName[]]

/**
 * Settings of a pretraining run, with the values of the method's authors as defaults. The one list of them: the API's types, the command's
 * flags and the check of config files all come from here.
 */
export const pretrainSchema = z.strictObject({
  images: z.string().min(1).describe('folder of image files (sub-folder = class), or of IDX files'),
  out: z.string().min(1).describe('folder of the run, made if it is not there'),
  model: z.enum(names).default('vit_small').describe('encoder'),
  imageSize: positiveInteger.optional().describe('side of the views in pixels (default: 224, or the size of IDX images)'),
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
  accumulate: positiveInteger.default(1).describe('parts of a batch that are computed one after the other: less memory, the same up to rounding and dropped paths'),
  gradCheckpointing: z.boolean().default(false).describe('compute blocks again in backward: less memory, more time, the same result'),
  ema: z.number().min(0).lt(1).default(0).describe('decay of a running mean of the weights, which is then exported; 0 = none'),
  clip: z.number().min(0).default(3).describe('largest norm of each gradient; 0 = no clipping'),
  dropPath: part.default(0.1).describe('stochastic depth of the last block'),
  maskBudget: part.positive().default(0.75).describe('largest part of a view that is corrupted'),
  alien: part.default(0.3).describe('part that pixels of other images replace; 0 = never'),
  align: positiveInteger.default(1).describe('pixels that corrupted rectangles are aligned to'),
  overhang: z.boolean().default(false).describe('rectangles may hang over the edges, so that the border is corrupted as often as the middle'),
  fill: z.enum(fills as ['noise', ...typeof fills[number][]]).default('noise').describe('what corrupted pixels become'),
  cropScale: z
    .tuple([part.positive(), part.positive()])
    .refine(([smallest, largest]) => smallest <= largest, 'the smaller part first')
    .default([0.05, 1])
    .describe('smallest and largest part of the image in a crop'),
  featureBlocks: z.array(positiveInteger).min(1).optional().describe('blocks whose mean the reconstruction sees (default: 6,8,10,12 of 12, in proportion)'),
  allPixels: z.boolean().default(false).describe('loss over all pixels, not only the corrupted ones'),
  seed: z.int().min(0).default(0).describe('decides initialisation, order, crops, masks and noise'),
  device: z
    .custom<Exclude<Device, 'meta'> | 'auto'>((value) => value === 'auto' || isComputing(value), `'auto', 'cpu', 'cuda' or 'cuda:N'`)
    .default('auto')
    .describe('auto | cpu | cuda[:N]'),
  amp: z.enum(['auto', 'off', 'bf16', 'fp16']).default('auto').describe('mixed precision; auto: bf16 where it measures faster'),
  workers: positiveInteger.default(4).describe('image files decoded at a time'),
  threads: positiveInteger.optional().describe('CPU threads of libtorch (default: all cores)'),
  limit: positiveInteger.optional().describe('use only so many images'),
  knnEvery: z.int().min(0).default(0).describe('measure kNN accuracy every N epochs; needs classes; 0 = never'),
  tensorboard: z.boolean().default(false).describe('write events for TensorBoard beside metrics.jsonl'),
  logEvery: positiveInteger.default(10).describe('steps between lines of metrics.jsonl'),
  checkpointEvery: positiveInteger.default(1).describe('epochs between checkpoints'),
  checkpointSteps: z.int().min(0).default(0).describe('steps between further checkpoints; 0 = none'),
  checkpointMinutes: z.number().min(0).default(15).describe('minutes after the last checkpoint until a further one; 0 = none'),
  keepLast: positiveInteger.default(2).describe('newest checkpoints to keep'),
  keepEvery: z.int().min(0).default(0).describe('keep also the checkpoint of every so many epochs; 0 = none'),
  keepBest: z.boolean().default(false).describe('keep also the checkpoint of the best kNN accuracy (without kNN: of the lowest loss)'),
  maxSkipped: positiveInteger.default(20).describe('steps in a row without a finite loss and gradient at which the run stops'),
  override: z.boolean().default(false).describe('resume with other settings, although they change the result'),
  resume: z.boolean().default(false).describe('go on from the newest checkpoint of the run')
})

/** What a caller of `pretrain` gives; the rest has defaults. */
export type PretrainConfigInput = z.input<typeof pretrainSchema>

/** Every setting of a run. */
export type PretrainConfig = z.output<typeof pretrainSchema>

// What may differ between a run and its continuation without changing what is computed (epochs: the schedules are stretched).
const changeable: readonly (keyof PretrainConfig)[] = [
  'out', 'images', 'epochs', 'device', 'workers', 'threads', 'knnEvery', 'tensorboard', 'logEvery', 'gradCheckpointing', 'checkpointEvery', 'checkpointSteps',
  'checkpointMinutes', 'keepLast', 'keepEvery', 'keepBest', 'maxSkipped', 'override', 'resume'
]

// What the weights, the optimizer's state and the place of a step in its epoch stand on: not even `override` can change it.
const fixed: readonly (keyof PretrainConfig)[] = ['model', 'imageSize', 'patchSize', 'registerTokens', 'classToken', 'batchSize', 'limit']

/** What a run settles once and keeps beside its settings. */
export const settledNames = ['encoder', 'precision', 'imageCount'] as const

/**
 * Settings of a run that goes on: what is not given is as it was.
 *
 * @param saved - Content of the run's config.json.
 * @throws SettingsError naming settings that are given and would change the result, unless `override` allows it.
 */
export function resumeConfig(saved: Readonly<Record<string, unknown>>, input: PretrainConfigInput): PretrainConfig {
  const settled: readonly string[] = settledNames
  const before = Object.fromEntries(Object.entries(saved).filter(([name]) => !settled.includes(name)))
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined))
  const changed = Object.keys(given).filter((name) => JSON.stringify(given[name]) !== JSON.stringify(before[name]))
  const show = (value: unknown) => (value === undefined ? 'none' : JSON.stringify(value))
  const list = (names: readonly string[]) =>
    names.map((name) => `${name} (the run has ${show(before[name])}, given is ${show(given[name])})`).join(', ')
  const impossible = changed.filter((name) => fixed.includes(name as keyof PretrainConfig))
  if (impossible.length) throw new SettingsError(`A run cannot go on with other settings of ${list(impossible)}. Leave them out, or start a new run`)
  const refused = input.override ? [] : changed.filter((name) => !changeable.includes(name as keyof PretrainConfig))
  if (refused.length) {
    throw new SettingsError(
      `The run cannot go on with other settings: ${list(refused)}. They would change the result: leave them out, start a new run, ` +
        'or say so with override'
    )
  }
  return parseConfig({ ...before, ...given })
}

// zod's findings in the words of all our errors.
function describeIssue(issue: z.core.$ZodIssue, input: unknown): string {
  if (issue.code === 'unrecognized_keys') {
    return `There is no setting ${issue.keys.join(', ')}; there are ${Object.keys(pretrainSchema.shape).join(', ')}`
  }
  const received = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input)
  const wanted = () => {
    switch (issue.code) {
      case 'too_small':
        if (issue.origin === 'string') return 'a text that is not empty'
        if (issue.origin === 'array') return `${issue.minimum} values`
        return `a number ${issue.inclusive ? 'of at least' : 'above'} ${issue.minimum}`
      case 'too_big':
        if (issue.origin === 'array') return `${issue.maximum} values`
        return `a number of at most ${issue.maximum}`
      case 'invalid_value':
        return `one of ${issue.values.join(', ')}`
      case 'invalid_type':
        return `${/^[aeiou]/.test(issue.expected) ? 'an' : 'a'} ${issue.expected === 'int' ? 'integer' : issue.expected}`
      default:
        return issue.message
    }
  }
  return expected(wanted(), issue.path.join('.') || 'the settings', received).message
}

/** @throws SettingsError naming each field that is missing, unknown or not legal. */
export function parseConfig(input: unknown): PretrainConfig {
  const result = pretrainSchema.safeParse(input)
  if (result.success) return result.data
  throw new SettingsError(result.error.issues.map((issue) => describeIssue(issue, input)).join('\n'))
}
