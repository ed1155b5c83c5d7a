import type { BrokenImageError } from '../data/index.js'
import type { Device } from '../torch/index.js'
import type { Progress } from './checkpoint.js'
import type { Precision } from './precision.js'

/** The state of a run at a step, as the progress bar shows it. */
export interface StepReport {
  readonly step: number
  readonly steps: number
  readonly epoch: number
  readonly epochs: number
  /** L1 in normalised pixels, of the last logged step; NaN if the step was skipped. */
  readonly loss: number
  /** Steps so far that changed nothing, because the loss or a gradient was not finite. */
  readonly skipped: number
  readonly lr: number
  /** Images per second since the last report, each with two crops. */
  readonly imagesPerSecond: number
  /** Part of the time since the last report that was spent waiting for images. */
  readonly dataShare: number
}

/** The state of a run at the end of an epoch. */
export interface EpochReport {
  /** Epochs done. */
  readonly epoch: number
  /** Mean loss of its steps. */
  readonly loss: number
  readonly seconds: number
  /** On held-out images, where it was measured: by kNN in pretraining. */
  readonly accuracy: number | null
}

/** What a training tells while it goes on. All optional. */
export interface LoopHooks {
  /** At each logging step, and at the last one. */
  readonly onStep?: (report: StepReport) => void
  /** At the end of each epoch. */
  readonly onEpoch?: (epoch: EpochReport) => void
  /** Once for each image that cannot be decoded. */
  readonly onBroken?: (error: BrokenImageError) => void
  /** Once for each thing that went wrong and was mended: a damaged checkpoint, for instance. */
  readonly onNotice?: (message: string) => void
  /** Ends the run after the current step, with a checkpoint. */
  readonly signal?: AbortSignal
}

/** What a run tells while it goes on. All optional. */
export interface PretrainHooks extends LoopHooks {
  /** Once, when all is checked and ready. */
  readonly onStart?: (start: RunStart) => void
}

/** What was settled before the first step. */
export interface RunStart {
  readonly images: number
  readonly classes: number
  readonly parameters: number
  readonly device: Device
  readonly precision: Precision
  readonly threads: number
  readonly resumedFrom: Progress | null
}

/** What became of a pretraining. */
export interface PretrainResult {
  readonly status: 'done' | 'interrupted'
  readonly out: string
  readonly steps: number
  /** Mean loss of the last epoch (of what was done of it; NaN for nothing). */
  readonly loss: number
  /** The encoder's weights, if the run is done. */
  readonly exported: string | null
}
