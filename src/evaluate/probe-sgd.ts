import { permutation, randomFor } from '../data/index.js'
import { cosineSchedule } from '../optim/index.js'
import * as torch from '../torch/index.js'
import { enableGrad, noGrad, scope, type Tensor } from '../torch/index.js'
import { type Classifiers, logitsOf, type ProbeSettings, Reduction, type Rows } from './classifier.js'

export interface SgdOptions {
  /** Passes over the rows. Default 30. */
  readonly epochs?: number
  /** Rows of a step. Default 256. */
  readonly batchSize?: number
}

const MOMENTUM = 0.9

/**
 * Linear classifiers by SGD with momentum and a cosine schedule to zero, one for each setting, all trained at once: each batch serves all,
 * as in DINOv2 (arXiv 2304.07193). Each is what `SGD` makes of it alone.
 *
 * @param seed - Decides the order of the rows.
 * @param report - Told after each epoch.
 */
export function fitBySgd(
  { features, labels }: Rows, classes: number, settings: readonly Required<ProbeSettings>[], options: Required<SgdOptions>, seed: number,
  report: (done: number, total: number) => void
): Classifiers {
  const [rows, width] = features.shape as [number, number]
  const { dtype, device } = features
  const { epochs, batchSize } = options
  return noGrad(() => scope(() => {
    const count = settings.length
    const zeros = (shape: number[]) => torch.zeros(shape, { dtype, device })
    const classifiers = { weight: zeros([count, classes, width]), bias: zeros([count, classes]) }
    const momentum = { weight: zeros([count, classes, width]), bias: zeros([count, classes]) }
    const perSetting = (values: number[]) => torch.tensor(values, { dtype, device }).reshape([count, 1])
    const rates = perSetting(settings.map((setting) => setting.learningRate))
    const decays = perSetting(settings.map((setting) => setting.weightDecay))
    const schedule = cosineSchedule({ base: 1, final: 0, steps: epochs * Math.ceil(rows / batchSize) })
    let step = 0
    for (let epoch = 0; epoch < epochs; epoch++) {
      scope(() => {
        const order = torch.fromTypedArray(Int32Array.from(permutation(rows, randomFor(seed, 'linear probe', epoch)))).to(device)
        for (const batch of order.split(batchSize)) {
          scope(() => {
            const gradients = gradientsOf(classifiers, features.indexSelect(0, batch), labels.indexSelect(0, batch))
            momentum.weight.mul_(MOMENTUM).add_(gradients.weight).addcmul_(classifiers.weight, decays.unsqueeze(2))
            momentum.bias.mul_(MOMENTUM).add_(gradients.bias)
            const factor = { value: -schedule(step++) }
            classifiers.weight.addcmul_(momentum.weight, rates.unsqueeze(2), factor)
            classifiers.bias.addcmul_(momentum.bias, rates, factor)
          })
        }
      })
      report(epoch + 1, epochs)
    }
    return classifiers
  }))
}

/** Gradients of each classifier's mean cross entropy over a batch. */
function gradientsOf({ weight, bias }: Classifiers, features: Tensor, labels: Tensor): Classifiers {
  const [count, classes] = bias.shape as [number, number]
  const leaves = { weight: weight.detach().requiresGrad_(), bias: bias.detach().requiresGrad_() }
  const loss = enableGrad(() => {
    const logits = logitsOf(features, leaves).reshape([-1, classes])
    return torch.crossEntropyLoss(logits, labels.repeatInterleave(count), { reduction: Reduction.sum }).div(labels.numel())
  })
  const [forWeight, forBias] = torch.grad(loss, [leaves.weight, leaves.bias]) as [Tensor, Tensor]
  return { weight: forWeight, bias: forBias }
}
