import { randomFor } from '../data/index.js'
import type { Module, Parameter } from '../nn/index.js'
import { AdamW, clipGradNorm, cosineSchedule, ExponentialMovingAverage, GradScaler, type Schedule } from '../optim/index.js'
import { manualSeed, noGrad, scope, stack, type Device, type Tensor } from '../torch/index.js'
import { inPrecision, type Precision } from './precision.js'

/** Parameters that are trained alike. */
export interface PlannedGroup {
  readonly parameters: readonly Parameter[]
  /** Factor of the learning rate. */
  readonly lrScale: number
  /** Whether there is weight decay. */
  readonly decays: boolean
}

/** How weights are changed. */
export interface StepSettings {
  readonly seed: number
  /** Steps of the whole training. */
  readonly steps: number
  readonly warmupSteps: number
  /** Learning rate after the warm-up, and at the end. */
  readonly lr: number
  readonly minLr: number
  /** Weight decay at the start and at the end. */
  readonly weightDecay: number
  readonly weightDecayEnd: number
  /** Largest norm of the gradients, 0 = no clipping; of each by itself, or of all together. */
  readonly clip: number
  readonly clipPerTensor: boolean
  /** Decay of a running mean of the weights; 0 = none. */
  readonly ema: number
}

/** One optimisation step: forward and backward of a loss, clipping, AdamW; and what it needs between steps. */
export class TrainingStep {
  readonly optimizer: AdamW
  readonly scaler: GradScaler | null
  readonly ema: ExponentialMovingAverage | null
  readonly lr: Schedule
  readonly weightDecay: Schedule

  constructor(
    readonly model: Module, readonly groups: readonly PlannedGroup[], readonly settings: StepSettings, readonly device: Device,
    readonly precision: Precision
  ) {
    const { steps, warmupSteps, lr, minLr, weightDecay, weightDecayEnd, ema } = settings
    this.lr = cosineSchedule({ base: lr, final: Math.min(minLr, lr), steps, warmupSteps })
    this.weightDecay = cosineSchedule({ base: weightDecay, final: weightDecayEnd, steps })
    this.optimizer = new AdamW(groups.map(({ parameters }) => ({ parameters })))
    this.scaler = precision === 'float16' ? new GradScaler(device) : null
    this.ema = ema > 0 ? new ExponentialMovingAverage(model.parameters(), ema) : null
  }

  /**
   * Trains on a loss that is the sum of parts, each computed and differentiated by itself.
   *
   * @param step - Steps done before.
   * @param lossParts - Called once, with PyTorch's generator seeded for this step.
   * @returns The loss, and 1 if it and all gradients are finite; else nothing has changed. On the device: nothing here waits for it.
   */
  protected train(step: number, lossParts: () => readonly (() => Tensor)[]): Tensor {
    return scope(() => {
      // Dropped paths and noise depend on seed and step alone, so a resumed run draws the same.
      manualSeed(randomFor(this.settings.seed, step, 'torch').integer(0, 2 ** 53))
      const losses = lossParts().map((part) =>
        scope(() => {
          const loss = inPrecision(this.precision, this.device, part).to('float32')
          ;(this.scaler?.scale(loss) ?? loss).backward()
          return loss.detach()
        })
      )
      const loss = losses.length === 1 ? losses[0]! : stack(losses).sum()
      return stack([loss, this.#update(loss, step)])
    })
  }

  /** Returns 1 if the weights were changed, 0 if the loss or a gradient was not finite. */
  #update(loss: Tensor, step: number): Tensor {
    const { clip, clipPerTensor } = this.settings
    for (const [i, { lrScale, decays }] of this.groups.entries()) {
      const group = this.optimizer.groups[i]!
      group.lr = this.lr(step) * lrScale
      group.weightDecay = decays ? this.weightDecay(step) : 0
    }
    const parameters = this.model.parameters()
    this.scaler?.unscale(parameters)
    // Without clipping the norm is still what tells whether the gradients are finite.
    const norm = clipGradNorm(parameters, clip || Infinity, { perTensor: clipPerTensor })
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
