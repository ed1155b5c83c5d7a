import { randomFor } from '../data/index.js'
import type { Module, Parameter } from '../nn/index.js'
import { AdamW, clipGradNorm, cosineSchedule, ExponentialMovingAverage, GradScaler, type Schedule } from '../optim/index.js'
import { keep, manualSeed, noGrad, scope, stack, type Device, type Tensor } from '../torch/index.js'
import { CapturedStep, type CaptureOptions } from './captured-step.js'
import { inPrecision, type Precision } from './precision.js'
import { StaticInputs } from './static-inputs.js'

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

/**
 * One optimisation step: forward and backward of a loss, clipping, AdamW; and what it needs between steps. A step writes everything that
 * changes into {@link inputs}, and then runs a function of these alone, which can be captured.
 */
export abstract class TrainingStep {
  readonly optimizer: AdamW
  readonly scaler: GradScaler | null
  readonly ema: ExponentialMovingAverage | null
  readonly lr: Schedule
  readonly weightDecay: Schedule
  /** What the loss is computed of, besides the model. */
  protected readonly inputs: StaticInputs
  /** Learning rate and weight decay of each group in turn: parts of one input. */
  readonly #rates: readonly Tensor[]
  readonly #captured: CapturedStep

  /** @param capture - Whether steps are captured as a CUDA graph. Default: no. */
  constructor(
    readonly model: Module, readonly groups: readonly PlannedGroup[], readonly settings: StepSettings, readonly device: Device,
    readonly precision: Precision, capture: CaptureOptions = { graph: false }
  ) {
    const { steps, warmupSteps, lr, minLr, weightDecay, weightDecayEnd, ema } = settings
    this.lr = cosineSchedule({ base: lr, final: Math.min(minLr, lr), steps, warmupSteps })
    this.weightDecay = cosineSchedule({ base: weightDecay, final: weightDecayEnd, steps })
    this.inputs = new StaticInputs(device)
    this.#writeRates(0)
    this.#rates = this.inputs.get('rates').unbind().map(keep)
    this.optimizer = new AdamW(
      groups.map(({ parameters, decays }, i) => ({ parameters, lr: this.#rates[2 * i]!, weightDecay: decays ? this.#rates[2 * i + 1]! : 0 }))
    )
    this.scaler = precision === 'float16' ? new GradScaler(device) : null
    this.ema = ema > 0 ? new ExponentialMovingAverage(model.parameters(), ema) : null
    this.#captured = new CapturedStep(() => this.#compute(), this.inputs, capture, () => model.zeroGrad())
  }

  /** Learning rate and weight decay of each group. */
  #writeRates(step: number): void {
    const rates = this.groups.flatMap(({ lrScale }) => [this.lr(step) * lrScale, this.weightDecay(step)])
    this.inputs.writeArray('rates', Float32Array.from(rates), [rates.length])
  }

  /** The parts whose sum is the loss, each to be computed and differentiated by itself: of {@link inputs} and the model alone. */
  protected abstract lossParts(): readonly (() => Tensor)[]

  /**
   * Trains on what is in {@link inputs}, with PyTorch's generators seeded for this step.
   *
   * @param step - Steps done before.
   * @returns The loss, and 1 if it and all gradients are finite; else nothing has changed. On the device: nothing here waits for it.
   */
  protected train(step: number): Tensor {
    this.#writeRates(step)
    // Dropped paths and noise depend on seed and step alone, so a resumed run draws the same.
    manualSeed(randomFor(this.settings.seed, step, 'torch').integer(0, 2 ** 53))
    return this.#captured.run()
  }

  #compute(): Tensor {
    const losses = this.lossParts().map((part) =>
      scope(() => {
        const loss = inPrecision(this.precision, this.device, part).to('float32')
        ;(this.scaler?.scale(loss) ?? loss).backward()
        return loss.detach()
      })
    )
    const loss = losses.length === 1 ? losses[0]! : stack(losses).sum()
    return stack([loss, this.#update(loss)])
  }

  /** Returns 1 if the weights were changed, 0 if the loss or a gradient was not finite. */
  #update(loss: Tensor): Tensor {
    const { clip, clipPerTensor } = this.settings
    const parameters = this.model.parameters()
    this.scaler?.unscale(parameters)
    // Without clipping the norm is still what tells whether the gradients are finite.
    const norm = clipGradNorm(parameters, clip || Infinity, { perTensor: clipPerTensor })
    return noGrad(() => {
      const finite = norm.isfinite().logicalAnd(loss.isfinite()).to('float32')
      const foundInf = finite.rsub(1)
      this.optimizer.step({ foundInf })
      this.scaler?.update()
      this.optimizer.zeroGrad()
      this.ema?.update({ foundInf })
      return finite
    })
  }

  dispose(): void {
    this.#captured.dispose()
    for (const part of [...this.#rates, this.optimizer, this.scaler, this.ema, this.inputs]) part?.dispose()
  }
}
