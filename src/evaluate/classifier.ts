import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'

/** Features, ready to be learned from, and the classes of their rows. */
export interface Rows {
  /** [N, D], float32 or float64. */
  readonly features: Tensor
  /** [N], int64. */
  readonly labels: Tensor
}

/** Several linear classifiers: logits of the s-th are `features weight[s]^T + bias[s]`. */
export interface Classifiers {
  /** [S, C, D]. */
  readonly weight: Tensor
  /** [S, C]. */
  readonly bias: Tensor
}

/** What is swept over. */
export interface ProbeSettings {
  /** L2 penalty `weightDecay / 2 * |W|^2` beside the mean cross entropy. The bias is not decayed. */
  readonly weightDecay: number
  /** Of the first step, by SGD. */
  readonly learningRate?: number
}

/** How well a classifier fits rows. */
export interface Fit {
  /** Part of the rows that are classified right. */
  readonly accuracy: number
  /** Mean cross entropy. */
  readonly loss: number
}

/** ATen's numbers for the reduction of a loss. */
export const Reduction = { none: 0, mean: 1, sum: 2 } as const

// Logits that are in memory at once.
const MOST_LOGITS = 2 ** 22

/** The logits of all classifiers: [N, S, C]. */
export function logitsOf(features: Tensor, { weight, bias }: Classifiers): Tensor {
  const [count, classes, width] = weight.shape as [number, number, number]
  // One matrix product for all of them.
  const all = torch.linear(features, weight.reshape([count * classes, width]), { bias: bias.reshape([-1]) })
  return all.reshape([-1, count, classes])
}

/** Accuracy and loss of each classifier. */
export function fitOf(classifiers: Classifiers, { features, labels }: Rows): Fit[] {
  return noGrad(() =>
    scope(() => {
      const [count, classes] = classifiers.weight.shape as [number, number, number]
      const { device } = features
      const rows = features.shape[0]!
      const right = torch.zeros([count], { dtype: 'float64', device })
      const loss = torch.zeros([count], { dtype: 'float64', device })
      const size = Math.max(1, Math.floor(MOST_LOGITS / (count * classes)))
      for (let first = 0; first < rows; first += size) {
        scope(() => {
          const length = Math.min(size, rows - first)
          const wanted = labels.narrow(0, first, length).reshape([-1, 1, 1]).expand([length, count, 1])
          const logits = logitsOf(features.narrow(0, first, length), classifiers)
          right.add_(logits.argmax({ dim: 2, keepdim: true }).eq(wanted).sum([0, 2]))
          loss.sub_(logits.logSoftmax(2).gather(2, wanted).sum([0, 2]))
        })
      }
      const means = [right, loss].map((sums) => sums.div(rows).toTypedArray()) as [Float64Array, Float64Array]
      return Array.from(means[0], (accuracy, i) => ({ accuracy, loss: means[1][i]! }))
    })
  )
}
