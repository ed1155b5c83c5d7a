import type { Random } from '../data/index.js'
import { corrupt, type GroupMaskedModel } from '../gmml/index.js'
import { noGrad, ones, randn, type Device, type Tensor } from '../torch/index.js'
import type { PretrainConfig } from './config.js'
import { TRIAL_IMAGES, type Precision } from './precision.js'
import { TrainingStep } from './step.js'

const REFERENCE_BATCH = 256

/** A step of group masked model learning. */
export class PretrainStep extends TrainingStep {
  constructor(
    override readonly model: GroupMaskedModel, readonly config: PretrainConfig, stepsPerEpoch: number, device: Device, precision: Precision
  ) {
    const parameters = model.parameters()
    // Biases and other 1-D parameters are not decayed; position embedding and CLS token are.
    const groups = [true, false].map((decays) => ({ parameters: parameters.filter(({ ndim }) => ndim > 1 === decays), lrScale: 1, decays }))
    const settings = {
      ...config,
      steps: stepsPerEpoch * config.epochs,
      warmupSteps: Math.round(Math.min(config.warmupEpochs, config.epochs / 10) * stepsPerEpoch),
      lr: (config.lr * config.batchSize) / REFERENCE_BATCH,
      clipPerTensor: true
    }
    super(model, groups, settings, device, precision)
  }

  /**
   * Trains on views [2 B, C, H, W].
   *
   * @param step - Steps done before.
   * @param random - Numbers for the corruption of a view.
   * @returns As {@link TrainingStep.train}.
   */
  run(clean: Tensor, step: number, random: (view: number) => Random): Tensor {
    const { maskBudget: budget, alien, align, overhang, fill } = this.config
    return this.train(step, () => {
      const { corrupted, mask } = corrupt(clean, { budget, alien, align, overhang, fill, random })
      return this.#lossParts(corrupted, clean, mask)
    })
  }

  #lossParts(corrupted: Tensor, clean: Tensor, mask: Tensor): (() => Tensor)[] {
    const { model } = this
    const parts = Math.min(this.config.accumulate, clean.shape[0]!)
    if (parts === 1) return [() => model.loss(corrupted, clean, mask)]
    // The mean over the batch is the sum of the parts' means, each by its share of what is averaged over.
    const averaged = (views: Tensor) => (model.maskedOnly ? views : views.onesLike()).sum({ dtype: 'float32' })
    const whole = averaged(mask).clamp({ min: 1 })
    const chunks = [corrupted, clean, mask].map((views) => views.chunk(parts)) as [Tensor[], Tensor[], Tensor[]]
    return chunks[0].map((_, i) => {
      const part = [chunks[0][i]!, chunks[1][i]!, chunks[2][i]!] as const
      return () => model.loss(...part).mul(averaged(part[2]).div(whole))
    })
  }
}

/** A loss of random images, to measure the model's speed by. */
export function reconstructionTrial(model: GroupMaskedModel, device: Device): () => Tensor {
  const { channels, imageSize } = model.backbone
  const images = noGrad(() => randn([TRIAL_IMAGES, channels, ...imageSize], { device }))
  const mask = noGrad(() => ones([TRIAL_IMAGES, 1, ...imageSize], { device, dtype: 'bool' }))
  return () => model.loss(images, images, mask)
}
