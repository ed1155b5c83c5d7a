import type { Random } from '../data/index.js'
import type { GroupMaskedModel } from '../gmml/index.js'
import { applyCorruption } from '../gmml/corruption.js'
import { planCorruption, settleCorruption, type CorruptionPlan, type CorruptionSettings } from '../gmml/plan.js'
import { noGrad, ones, randn, type Device, type Tensor } from '../torch/index.js'
import type { CaptureOptions } from './captured-step.js'
import type { PretrainConfig } from './config.js'
import { TRIAL_IMAGES, type Precision } from './precision.js'
import { TrainingStep } from './step.js'

const REFERENCE_BATCH = 256

/** A step of group masked model learning. */
export class PretrainStep extends TrainingStep {
  readonly #corruption: CorruptionSettings
  #plan: CorruptionPlan | undefined

  constructor(
    override readonly model: GroupMaskedModel, readonly config: PretrainConfig, stepsPerEpoch: number, device: Device, precision: Precision,
    capture?: CaptureOptions
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
    super(model, groups, settings, device, precision, capture)
    this.#corruption = settleCorruption({ ...config, budget: config.maskBudget })
  }

  /**
   * Trains on views [2 B, C, H, W].
   *
   * @param step - Steps done before.
   * @param random - Numbers for the corruption of a view.
   * @returns As {@link TrainingStep.train}.
   */
  run(clean: Tensor, step: number, random: (view: number) => Random): Tensor {
    const [batch, , height, width] = clean.shape as [number, number, number, number]
    const earlier = this.#plan?.covered.length === batch * height * width ? this.#plan : undefined
    const plan = planCorruption(batch, height, width, this.#corruption, random, earlier)
    this.#plan = plan
    this.inputs.write('clean', clean)
    this.inputs.writeArray('mask', plan.covered, [batch, 1, height, width], 'bool')
    this.inputs.writeArray('kind', plan.kind, [batch, 1, 1, 1])
    if (plan.offset) this.inputs.writeArray('offset', plan.offset, [batch, height, width])
    return this.train(step)
  }

  protected override lossParts(): (() => Tensor)[] {
    const [clean, mask, kind] = (['clean', 'mask', 'kind'] as const).map((name) => this.inputs.get(name)) as [Tensor, Tensor, Tensor]
    const offset = this.#plan?.offset ? this.inputs.get('offset') : null
    const corrupted = applyCorruption(clean, { mask, kind, offset }, this.#corruption)
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
