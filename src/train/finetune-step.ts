import { drawMixing, randomFor, type Mixing } from '../data/index.js'
import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { arange, noGrad, randn, type Device, type Tensor } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'
import type { CaptureOptions } from './captured-step.js'
import type { FinetuneConfig } from './finetune-config.js'
import { TRIAL_IMAGES, type Precision } from './precision.js'
import { TrainingStep, type PlannedGroup } from './step.js'

const REFERENCE_BATCH = 256

/** How many layers lie between a parameter and the classifier: 0 for the classifier and the last norm, most for what sees the pixels. */
function depthOf(name: string, blocks: number): number {
  const block = /^blocks\.(\d+)\./.exec(name)
  if (block) return blocks - Number(block[1])
  return /^(norm|fc_norm|head)\./.test(name) ? 0 : blocks + 1
}

/**
 * Parameters that are trained alike: the learning rate falls by `layerDecay` with every layer away from the classifier, as in BEiT (arXiv
 * 2106.08254); 1-D parameters, CLS token and position embedding are not decayed.
 */
export function layerGroups(model: VisionTransformer, layerDecay: number): PlannedGroup[] {
  const groups = new Map<string, { parameters: Parameter[]; lrScale: number; decays: boolean }>()
  for (const [name, parameter] of model.namedParameters()) {
    const depth = depthOf(name, model.depth)
    const decays = parameter.ndim > 1 && !/(cls_token|reg_token|pos_embed)$/.test(name)
    const key = `${depth} ${decays}`
    const group = groups.get(key) ?? { parameters: [], lrScale: layerDecay ** depth, decays }
    group.parameters.push(parameter)
    groups.set(key, group)
  }
  return [...groups.values()]
}

/** Mean cross entropy with targets that are probabilities. @param logits - [B, C]. @param targets - [B, C]. */
const softCrossEntropy = (logits: Tensor, targets: Tensor): Tensor =>
  logits.to('float32').crossEntropyLoss(targets)

/**
 * What part of each pixel is the image's own, row by row, the rest being its partner's: for a step that is the same function of a tensor
 * whether images are mixed by mixup, by CutMix or not at all.
 */
function ownParts(mixing: Mixing | null, height: number, width: number): Float32Array {
  const parts = new Float32Array(height * width).fill(mixing?.kind === 'mixup' ? mixing.lambda : 1)
  if (mixing?.kind !== 'cutmix') return parts
  const { left, top, width: columns, height: rows } = mixing.box
  for (let y = top; y < top + rows; y++) parts.fill(0, y * width + left, y * width + left + columns)
  return parts
}

/** A step of supervised training of a vision transformer with a classifier. */
export class FinetuneStep extends TrainingStep {
  constructor(
    override readonly model: VisionTransformer, readonly config: FinetuneConfig, batchSize: number, stepsPerEpoch: number, device: Device,
    precision: Precision, capture?: CaptureOptions
  ) {
    const settings = {
      ...config,
      steps: stepsPerEpoch * config.epochs,
      warmupSteps: Math.round(Math.min(config.warmupEpochs, config.epochs / 10) * stepsPerEpoch),
      lr: (config.lr * batchSize) / REFERENCE_BATCH,
      weightDecayEnd: config.weightDecay,
      clipPerTensor: false
    }
    super(model, layerGroups(model, config.layerDecay), settings, device, precision, capture)
  }

  /**
   * Trains on images [B, C, H, W] of known classes.
   *
   * @param step - Steps done before.
   * @returns As {@link TrainingStep.train}.
   * @throws InputError for a label that is no class of the model.
   */
  run(images: Tensor, labels: readonly number[], step: number): Tensor {
    const { mixup, cutmix, mixProbability: probability, mixSwitch: switchProbability, seed } = this.config
    const { numClasses } = this.model.options
    const stranger = labels.find((label) => !(Number.isInteger(label) && label >= 0 && label < numClasses))
    if (stranger !== undefined) throw expected(`integers from 0 to ${numClasses - 1}`, 'labels', stranger)
    const [height, width] = this.model.imageSize
    const settings = { mixup, cutmix, probability, switchProbability }
    const mixing = drawMixing(randomFor(seed, step, 'mixing'), { height, width }, settings)
    this.inputs.write('images', images)
    this.inputs.writeArray('labels', BigInt64Array.from(labels, BigInt), [labels.length, 1])
    this.inputs.writeArray('own', ownParts(mixing, height, width), [height, width])
    this.inputs.writeArray('lambda', Float32Array.of(mixing?.lambda ?? 1), [])
    return this.train(step)
  }

  protected override lossParts(): (() => Tensor)[] {
    const [images, targets] = noGrad(() => [this.#mixed(this.inputs.get('images'), this.inputs.get('own')), this.#targets()])
    const batch = images.shape[0]!
    const parts = Math.min(this.config.accumulate, batch)
    if (parts === 1) return [() => softCrossEntropy(this.model.logits(images), targets)]
    const [images_, targets_] = [images.chunk(parts), targets.chunk(parts)]
    return images_.map((chunk, i) => () => softCrossEntropy(this.model.logits(chunk), targets_[i]!).mul(chunk.shape[0]! / batch))
  }

  /** As `mixImages` and `mixTargets`, by a part that is a tensor. */
  #mixed(values: Tensor, part: Tensor): Tensor {
    if (this.config.mixup === 0 && this.config.cutmix === 0) return values
    return values.mul(part).add(values.flip([0]).mul(part.rsub(1)))
  }

  /** What the classifier is to say: [B, classes], rows that sum to 1. */
  #targets(): Tensor {
    const labels = this.inputs.get('labels')
    const { numClasses } = this.model.options
    const { labelSmoothing } = this.config
    const own = labels.eq(arange(numClasses, { dtype: 'int64', device: labels.device })).to('float32')
    return this.#mixed(own.mul(1 - labelSmoothing).add(labelSmoothing / numClasses), this.inputs.get('lambda'))
  }
}

/** A loss of random images, to measure the model's speed by. */
export function classificationTrial(model: VisionTransformer, device: Device): () => Tensor {
  const { channels, imageSize, options } = model
  const images = noGrad(() => randn([TRIAL_IMAGES, channels, ...imageSize], { device }))
  const targets = noGrad(() => randn([TRIAL_IMAGES, options.numClasses], { device }).softmax(1))
  return () => softCrossEntropy(model.logits(images), targets)
}
