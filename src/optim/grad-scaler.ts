import { expected } from '../errors.js'
import { call, isTensor, keep, noGrad, operator, scope, tensor, type Device, type Tensor } from '../torch/index.js'
import type { Parameter } from '../nn/index.js'

const unscaleAndCheck = operator('aten::_amp_foreach_non_finite_check_and_unscale_')
const updateScale = operator('aten::_amp_update_scale_')

/** The state of a scaler, with PyTorch's names. */
export interface GradScalerStateDict {
  readonly scale: number
  readonly growth_factor: number
  readonly backoff_factor: number
  readonly growth_interval: number
  readonly _growth_tracker: number
}

/**
 * Scales the loss so that float16 gradients do not vanish: the scale halves when a gradient overflows (that step is skipped) and doubles
 * after 2000 steps without. PyTorch: `torch.amp.GradScaler`.
 */
export class GradScaler {
  readonly #scale: Tensor
  readonly #growthTracker: Tensor
  readonly #foundInf: Tensor
  readonly #growthFactor = 2
  readonly #backoffFactor = 0.5
  readonly #growthInterval = 2000

  constructor(device: Device, initialScale = 65536) {
    this.#scale = keep(tensor(initialScale, { device }))
    this.#growthTracker = keep(tensor(0, { dtype: 'int32', device }))
    this.#foundInf = keep(tensor(0, { device }))
  }

  /** The loss to call `backward` on. */
  scale(loss: Tensor): Tensor {
    return loss.mul(this.#scale)
  }

  /** Divides the gradients by the scale and notes whether one is infinite or NaN. Call before clipping. */
  unscale(parameters: Iterable<Parameter>): void {
    if (isTensor(parameters)) throw expected('an array of Parameters', 'parameters', parameters)
    noGrad(() => {
      scope(() => {
        this.#foundInf.zero_()
        const gradients = Array.from(parameters, (parameter) => parameter.grad).filter((gradient) => gradient !== null)
        if (gradients.length) call(unscaleAndCheck, gradients, this.#foundInf, this.#scale.reciprocal())
      })
    })
  }

  /** 1 after a non-finite gradient, else 0, on the device. For `AdamW.step`, which then changes nothing. */
  get foundInf(): Tensor {
    return this.#foundInf
  }

  /** Adapts the scale to what the last step met. */
  update(): void {
    noGrad(() => {
      call(updateScale, this.#scale, this.#growthTracker, this.#foundInf, this.#growthFactor, this.#backoffFactor, this.#growthInterval)
    })
  }

  /** Scale and counter. PyTorch: `GradScaler.state_dict`. */
  stateDict(): GradScalerStateDict {
    return {
      scale: this.#scale.item(), growth_factor: this.#growthFactor, backoff_factor: this.#backoffFactor,
      growth_interval: this.#growthInterval, _growth_tracker: this.#growthTracker.item()
    }
  }

  /** Takes over scale and counter. PyTorch: `GradScaler.load_state_dict`. @throws InputError for what is no state. */
  loadStateDict(state: GradScalerStateDict): void {
    noGrad(() => {
      this.#scale.fill_(state.scale)
      this.#growthTracker.fill_(state._growth_tracker)
    })
  }

  /** Frees the scale and its counters. */
  dispose(): void {
    for (const tensor of [this.#scale, this.#growthTracker, this.#foundInf]) tensor.dispose()
  }
}
