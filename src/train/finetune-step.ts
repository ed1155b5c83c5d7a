import { drawMixing, mixImages, mixTargets, randomFor } from '../data/index.js'
import type { Parameter } from '../nn/index.js'
import { fromTypedArray, noGrad, randn, type Device, type Tensor } from '../torch/index.js'
import type { VisionTransformer } from '../vision/index.js'
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
  logits.to('float32').crossEntropyLoss(targets.to(logits.device))

/** A step of supervised training of a vision transformer with a classifier. */
export class FinetuneStep extends TrainingStep {
  constructor(
    override readonly model: VisionTransformer, readonly config: FinetuneConfig, batchSize: number, stepsPerEpoch: number, device: Device,
    precision: Precision
  ) {
    const settings = {
      ...config,
      steps: stepsPerEpoch * config.epochs,
      warmupSteps: Math.round(Math.min(config.warmupEpochs, config.epochs / 10) * stepsPerEpoch),
      lr: (config.lr * batchSize) / REFERENCE_BATCH,
      weightDecayEnd: config.weightDecay,
      clipPerTensor: false
    }
    super(model, layerGroups(model, config.layerDecay), settings, device, precision)
  }

  /**
   * Trains on images [B, C, H, W] of known classes.
   *
   * @param step - Steps done before.
   * @returns As {@link TrainingStep.train}.
   */
  run(images: Tensor, labels: readonly number[], step: number): Tensor {
    const { mixup, cutmix, mixProbability: probability, mixSwitch: switchProbability, labelSmoothing, seed, accumulate } = this.config
    return this.train(step, () => {
      const [height, width] = this.model.imageSize
      const settings = { mixup, cutmix, probability, switchProbability }
      const mixing = drawMixing(randomFor(seed, step, 'mixing'), { height, width }, settings)
      const classes = fromTypedArray(BigInt64Array.from(labels, BigInt)).to(images.device)
      const [mixed, targets] = noGrad(() => [
        mixImages(images, mixing), mixTargets(classes, this.model.options.numClasses, mixing, labelSmoothing)
      ])
      const parts = Math.min(accumulate, labels.length)
      if (parts === 1) return [() => softCrossEntropy(this.model.logits(mixed), targets)]
      const [images_, targets_] = [mixed.chunk(parts), targets.chunk(parts)]
      return images_.map((chunk, i) => () =>
        softCrossEntropy(this.model.logits(chunk), targets_[i]!).mul(chunk.shape[0]! / labels.length)
      )
    })
  }
}

/** A loss of random images, to measure the model's speed by. */
export function classificationTrial(model: VisionTransformer, device: Device): () => Tensor {
  const { channels, imageSize, options } = model
  const images = noGrad(() => randn([TRIAL_IMAGES, channels, ...imageSize], { device }))
  const targets = noGrad(() => randn([TRIAL_IMAGES, options.numClasses], { device }).softmax(1))
  return () => softCrossEntropy(model.logits(images), targets)
}
