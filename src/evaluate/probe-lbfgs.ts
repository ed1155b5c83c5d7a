import { newParameter, type Parameter } from '../nn/index.js'
import { LBFGS } from '../optim/index.js'
import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'
import { type Classifiers, type ProbeSettings, type Rows } from './classifier.js'

export interface LbfgsOptions {
  /** An optimum is reached where no element of the gradient is larger. Default 1e-4. */
  readonly tolerance?: number
  /** Most iterations for one setting. Default 1000. */
  readonly maxIterations?: number
}

// As many steps are remembered as fit into so many bytes: the more, the fewer iterations.
const HISTORY_BYTES = 2 ** 28
const LEAST_HISTORY = 10
const MOST_HISTORY = 100
// Bytes of features that are gone through at once: they are needed again for the gradient, and should still be in the cache then.
const CHUNK_BYTES = 2 ** 21
const CHUNK_LOGITS = 2 ** 20

/**
 * Multinomial logistic regression: minimises mean cross entropy + weightDecay / 2 * |W|^2 over all rows, for each setting. The strongest
 * decay comes first, as its optimum is found fastest, and each next one starts where the last has ended.
 *
 * @param start - Where the first one starts. Default: zeros.
 * @param report - Told after each setting.
 */
export function fitByLbfgs(
  rows: Rows, classes: number, settings: readonly ProbeSettings[], options: Required<LbfgsOptions>, start: Classifiers | null,
  report: (done: number, total: number) => void
): Classifiers {
  const [, width] = rows.features.shape as [number, number]
  const { device, dtype } = rows.features
  return scope(() => {
    // float64, which costs nothing as long as the features are not: the search stands on small differences.
    const make = (shape: number[], from: Tensor | undefined) =>
      newParameter(() => from?.reshape(shape).to({ dtype: 'float64', copy: true }) ?? torch.zeros(shape, { dtype: 'float64', device }))
    const [weight, bias] = [make([classes, width], start?.weight), make([classes], start?.bias)]
    const order = [...settings.entries()].sort(([, a], [, b]) => b.weightDecay - a.weightDecay)
    const found: Classifiers = {
      weight: torch.empty([settings.length, classes, width], { dtype, device }),
      bias: torch.empty([settings.length, classes], { dtype, device })
    }
    for (const [done, [i, { weightDecay }]] of order.entries()) {
      minimise(rows, weight, bias, weightDecay, options)
      noGrad(() => {
        found.weight.select(0, i).copy_(weight)
        found.bias.select(0, i).copy_(bias)
      })
      report(done + 1, order.length)
    }
    for (const parameter of [weight, bias]) parameter.dispose()
    return found
  })
}

function minimise(rows: Rows, weight: Parameter, bias: Parameter, weightDecay: number, options: Required<LbfgsOptions>): void {
  const { tolerance, maxIterations } = options
  const stepBytes = 2 * (weight.nbytes + bias.nbytes)
  const historySize = Math.max(LEAST_HISTORY, Math.min(MOST_HISTORY, Math.floor(HISTORY_BYTES / stepBytes)))
  const optimizer = new LBFGS([weight, bias], {
    lineSearch: 'strong_wolfe', maxIter: maxIterations, toleranceGrad: tolerance, toleranceChange: tolerance ** 2, historySize
  })
  try {
    optimizer.step(() => noGrad(() => {
      const { loss, gradients } = crossEntropy(rows, weight, bias)
      weight.grad = gradients[0].add(weight, { alpha: weightDecay })
      bias.grad = gradients[1]
      return loss.add(weight.square().sum(), { alpha: weightDecay / 2 })
    }))
  } finally {
    optimizer.dispose()
  }
}

/** The mean cross entropy of all rows and its gradients in float64, computed in the features' type, some rows at a time. */
function crossEntropy({ features, labels }: Rows, weight: Tensor, bias: Tensor): { loss: Tensor; gradients: [Tensor, Tensor] } {
  const [rows, width] = features.shape as [number, number]
  const [w, b] = [weight, bias].map((tensor) => tensor.detach().to(features.dtype)) as [Tensor, Tensor]
  const gradients = [w.zerosLike(), b.zerosLike()] as const
  const loss = torch.zeros([], { dtype: 'float64', device: features.device })
  const minusOne = torch.full([1, 1], -1, { dtype: features.dtype, device: features.device })
  const size = Math.max(1, Math.floor(Math.min(CHUNK_BYTES / (width * features.elementSize()), CHUNK_LOGITS / b.numel())))
  for (let first = 0; first < rows; first += size) {
    scope(() => {
      const length = Math.min(size, rows - first)
      const x = features.narrow(0, first, length)
      const wanted = labels.narrow(0, first, length).unsqueeze(0)
      // The classes are rows here: matrix products with few columns are slow on CPUs, by a factor of two.
      const logarithms = torch.addmm(b.unsqueeze(1), w, x.t()).logSoftmax(0)
      loss.sub_(logarithms.gather(0, wanted).sum())
      // Of the loss by the logits: the probabilities, less 1 for the class that is right.
      const errors = logarithms.exp_().scatterAdd_(0, wanted, minusOne.expand([1, length]))
      gradients[0].addmm_(errors, x)
      gradients[1].add_(errors.sum([1]))
    })
  }
  const mean = (tensor: Tensor) => tensor.to('float64').div(rows)
  return { loss: mean(loss), gradients: [mean(gradients[0]), mean(gradients[1])] }
}
