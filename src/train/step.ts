import { randomFor, type Random } from '../data/index.js'
import { corrupt, type GroupMaskedModel } from '../gmml/index.js'
import { AdamW, clipGradNorm, cosineSchedule, ExponentialMovingAverage, GradScaler, type Schedule } from '../optim/index.js'
import { manualSeed, noGrad, scope, stack, type Device, type Tensor } from '../torch/index.js'
import type { PretrainConfig } from './config.js'
import { inPrecision, type Precision } from './precision.js'

const REFERENCE_BATCH = 256

// Biases and other 1-D parameters are not decayed; position embedding and CLS token are.
function parameterGroups(model: GroupMaskedModel) {
  const parameters = model.parameters()
  const [decayed, plain] = [parameters.filter(({ ndim }) => ndim > 1), parameters.filter(({ ndim }) => ndim <= 1)]
  return [{ parameters: decayed }, { parameters: plain, weightDecay: 0 }]
}

/** One optimisation step: corruption, forward, backward, clipping, AdamW; and what it needs between steps. */
export class TrainingStep {
  readonly optimizer: AdamW
  readonly scaler: GradScaler | null
  readonly ema: ExponentialMovingAverage | null
  readonly lr: Schedule
  readonly weightDecay: Schedule

  constructor(
    readonly model: GroupMaskedModel, readonly config: PretrainConfig, stepsPerEpoch: number, readonly device: Device,
    readonly precision: Precision
  ) {
    const steps = stepsPerEpoch * config.epochs
    const warmupSteps = Math.round(Math.min(config.warmupEpochs, config.epochs / 10) * stepsPerEpoch)
    const base = (config.lr * config.batchSize) / REFERENCE_BATCH
    this.lr = cosineSchedule({ base, final: Math.min(config.minLr, base), steps, warmupSteps })
    this.weightDecay = cosineSchedule({ base: config.weightDecay, final: config.weightDecayEnd, steps })
    this.optimizer = new AdamW(parameterGroups(model))
    this.scaler = precision === 'float16' ? new GradScaler(device) : null
    this.ema = config.ema > 0 ? new ExponentialMovingAverage(model.parameters(), config.ema) : null
  }

  /**
   * Trains on views [2 B, C, H, W].
   *
   * @param step - Steps done before.
   * @param random - Numbers for the corruption of a view.
   * @returns The loss, and 1 if it and all gradients are finite; else nothing has changed. On the device: nothing here waits for it.
   */
  run(clean: Tensor, step: number, random: (view: number) => Random): Tensor {
    const { maskBudget: budget, alien, align, fill, seed } = this.config
    return scope(() => {
      // Dropped paths and noise depend on seed and step alone, so a resumed run draws the same.
      manualSeed(randomFor(seed, step, 'torch').integer(0, 2 ** 53))
      const { corrupted, mask } = corrupt(clean, { budget, alien, align, fill, random })
      const loss = this.#backward(corrupted, clean, mask)
      const finite = this.#update(loss, step)
      return stack([loss, finite])
    })
  }

  /** Adds the batch's gradients, part by part. Returns the loss of the whole, detached. */
  #backward(corrupted: Tensor, clean: Tensor, mask: Tensor): Tensor {
    const { model, scaler, device, precision } = this
    const parts = Math.min(this.config.accumulate, clean.shape[0]!)
    const lossOf = (views: readonly [Tensor, Tensor, Tensor], weight?: Tensor) =>
      scope(() => {
        const mean = inPrecision(precision, device, () => model.loss(...views)).to('float32')
        const loss = weight ? mean.mul(weight) : mean
        ;(scaler?.scale(loss) ?? loss).backward()
        return loss.detach()
      })
    if (parts === 1) return lossOf([corrupted, clean, mask])
    // The mean over the batch is the sum of the parts' means, each by its share of what is averaged over.
    const averaged = (views: Tensor) => (model.maskedOnly ? views : views.onesLike()).sum({ dtype: 'float32' })
    const whole = averaged(mask).clamp({ min: 1 })
    const chunks = [corrupted, clean, mask].map((views) => views.chunk(parts)) as [Tensor[], Tensor[], Tensor[]]
    const losses = chunks[0].map((_, i) => {
      const part = [chunks[0][i]!, chunks[1][i]!, chunks[2][i]!] as const
      return lossOf(part, averaged(part[2]).div(whole))
    })
    return stack(losses).sum()
  }

  /** Returns 1 if the weights were changed, 0 if the loss or a gradient was not finite. */
  #update(loss: Tensor, step: number): Tensor {
    const [decayed, plain] = this.optimizer.groups as [AdamW['groups'][number], AdamW['groups'][number]]
    decayed.lr = plain.lr = this.lr(step)
    decayed.weightDecay = this.weightDecay(step)
    const parameters = this.model.parameters()
    this.scaler?.unscale(parameters)
    // Without clipping the norm is still what tells whether the gradients are finite.
    const norm = clipGradNorm(parameters, this.config.clip || Infinity, { perTensor: true })
    return noGrad(() => {
      const finite = norm.isfinite().logicalAnd(loss.isfinite()).to('float32')
      this.optimizer.step({ foundInf: finite.rsub(1) })
      this.scaler?.update()
      this.optimizer.zeroGrad()
      this.ema?.update()
      return finite
    })
  }

  dispose(): void {
    for (const part of [this.optimizer, this.scaler, this.ema]) part?.dispose()
  }
}
