import { chooseLabelled, defaultStatistics, type ListingCache, parseLabelBudget } from '../data/index.js'
import { expected, InputError } from '../errors.js'
import {
  openTest, openTraining, selectLabelled, splitLabelled, VALIDATION_PART, type EvaluationSet, type LabelledImages
} from '../evaluate/labelled.js'
import { manualSeed, scope, type Device } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'
import { buildEncoder, encoderFrom, type EncoderDescription } from './checkpoint.js'
import { describeEncoder } from './encoder.js'
import type { FinetuneConfig } from './finetune-config.js'
import { readInitialWeights } from './initial-weights.js'

/** What a finetuning learns from and is measured on. */
export interface FinetuneData {
  /** The labelled images, without those that are held out. */
  readonly train: LabelledImages
  /** For choices. Null if nothing is held out. */
  readonly validation: EvaluationSet | null
  /** Asked once, at the end. */
  readonly test: EvaluationSet | null
}

/**
 * Opens the images, and draws those whose classes may be used.
 *
 * @param cache - Listings of the folders.
 * @throws InputError for images without classes, or too few of them to hold some out.
 */
export async function openFinetuneData(config: FinetuneConfig, cache: ListingCache): Promise<FinetuneData> {
  const { limit, labels, seed } = config
  const whole = await openTraining(config.train, { limit, cache })
  const test = config.test === undefined ? null : await openTest(whole, config.test, { limit, cache })
  const labelled = selectLabelled(whole, chooseLabelled(whole.labels, parseLabelBudget(labels), seed))
  // Without test images something has to be held out, or the training could not be judged at all.
  const part = test ? config.validation : config.validation || VALIDATION_PART
  if (part === 0) return { train: labelled, validation: null, test }
  return { ...splitLabelled(labelled, part, seed), test }
}

/** An encoder with a new classifier, and what describes it. */
export interface Classifier {
  readonly model: VisionTransformer
  readonly encoder: EncoderDescription
}

/**
 * The classifier to train, at random initialisation where it is to go on from a checkpoint of its own run.
 *
 * @throws InputError for weights that are not there or do not fit, settings against what the weights say, images of other channels.
 */
export async function startClassifier(
  config: FinetuneConfig, train: LabelledImages, device: Device, goesOn: EncoderDescription | null
): Promise<Classifier> {
  const { from, dropPath, pool, seed, imageSize, patchSize, model } = config
  const initial = from === 'random' || goesOn ? null : await readInitialWeights(from, 'from')
  try {
    const before = initial?.encoder
    const size = imageSize === undefined ? {} : { imageSize: [imageSize, imageSize] as [number, number] }
    const found = before ? { ...before, ...size, ...(patchSize && { patchSize }) } : null
    const described = goesOn ?? found ?? describeEncoder({ model, imageSize, patchSize }, train, defaultStatistics(train))
    if (described.channels !== train.channels) {
      throw new InputError(`'${train.path}' has images of ${train.channels} channels, the encoder takes ${described.channels}`)
    }
    if (pool === 'token' && described.classToken === false) throw expected(`'avg', as the encoder has no CLS token,`, 'pool', pool)
    // In the order in which a file gives it back: a resumed run's files equal those of one that was not interrupted.
    const encoder = encoderFrom({ ...described, classes: [...train.classes], pool })!
    manualSeed(seed)
    const classifier = scope(() => buildEncoder(encoder, { dropPath }).to(device))
    try {
      initial?.copyIntoEncoder(classifier)
    } catch (error) {
      classifier.dispose()
      throw error
    }
    return { model: classifier, encoder }
  } finally {
    initial?.dispose()
  }
}
