import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'

export interface KnnOptions {
  /** Neighbours that vote. Default 20. */
  readonly k?: number
  /** Votes weigh exp(similarity / temperature). Default 0.07. */
  readonly temperature?: number
  /** Subtract the training features' mean from all before comparing. Default false. */
  readonly centre?: boolean
}

/** Features with the classes of their rows. */
export interface Labelled {
  /** [N, D]. */
  readonly features: Tensor
  /** Class of each row. */
  readonly labels: ArrayLike<number>
}

const CHUNK = 1024

const shapeOf = ({ shape }: Tensor) => `shape [${shape.join(', ')}]`

/** The size of the training features. @throws InputError unless there are rows, each with the number of a class. */
export function requireLabelled({ features, labels }: Labelled, classes: number): { readonly rows: number; readonly width: number } {
  const [rows, width] = features.shape
  if (features.ndim !== 2 || !rows) throw expected('at least one row [N, D]', 'the training features', shapeOf(features))
  if (rows !== labels.length) throw expected(`${rows} labels`, 'labels', labels.length)
  // On a GPU an index that does not exist would take the whole process along.
  const stranger = Array.from(labels).find((label) => !Number.isInteger(label) || label < 0 || label >= classes)
  if (stranger !== undefined) throw expected(`classes from 0 to ${classes - 1}`, 'labels', stranger)
  return { rows, width: width! }
}

/** @throws InputError unless features are [M, width]. */
export function requireWidth(features: Tensor, width: number, name: string): void {
  if (features.ndim !== 2 || features.shape[1] !== width) throw expected(`shape [M, ${width}]`, name, shapeOf(features))
}

/**
 * Classes by weighted vote of the nearest training features in cosine similarity, as in DINO (arXiv 2104.14294) and before it in
 * arXiv 1805.01978.
 *
 * @param queries - [M, D], on the device of the training features.
 * @param classes - Number of classes.
 * @returns The predicted class of each row of `queries`.
 * @throws InputError for options, labels or shapes that are not legal.
 */
export function knnPredict(train: Labelled, queries: Tensor, classes: number, options: KnnOptions = {}): Int32Array {
  const { k = 20, temperature = 0.07, centre = false } = options
  if (!Number.isInteger(k) || k < 1) throw expected('an integer of at least 1', 'k', k)
  if (!(temperature > 0)) throw expected('a number above 0', 'temperature', temperature)
  const { width } = requireLabelled(train, classes)
  requireWidth(queries, width, 'queries')
  return noGrad(() =>
    scope(() => {
      const { device } = queries
      const known = train.features.to('float32')
      const mean = centre ? known.mean(0, { keepdim: true }) : null
      const unit = (features: Tensor) => {
        const centred = mean ? features.sub(mean) : features
        return centred.div(centred.norm(2, [1], { keepdim: true }).clamp({ min: 1e-12 }))
      }
      const bank = unit(known)
      const labels = torch.fromTypedArray(Int32Array.from(train.labels)).to(device).to('int64')
      const neighbours = Math.min(k, train.labels.length)
      const predicted = new Int32Array(queries.shape[0]!)
      for (let first = 0; first < predicted.length; first += CHUNK) {
        const part = scope(() => {
          const rows = queries.narrow(0, first, Math.min(CHUNK, predicted.length - first)).to('float32')
          const [similarity, position] = unit(rows).matmul(bank.t()).topk(neighbours)
          const votes = torch.zeros([rows.shape[0]!, classes], { device })
          // Compared with the nearest one, or a low temperature would be more than a float32 holds.
          const weights = similarity.sub(similarity.amax({ dim: 1, keepdim: true })).div(temperature).exp()
          votes.scatterAdd_(1, labels.take(position), weights)
          return votes.argmax({ dim: 1 }).to('int32').toTypedArray() as Int32Array
        })
        predicted.set(part, first)
      }
      return predicted
    })
  )
}

/** Part of the predictions that are right. @throws InputError for none, or not as many as labels. */
export function accuracy(predicted: ArrayLike<number>, labels: ArrayLike<number>): number {
  if (labels.length === 0) throw expected('at least one label', 'labels', 'none')
  if (predicted.length !== labels.length) throw expected(`${labels.length} predictions, one for each label,`, 'predicted', predicted.length)
  return Array.from(predicted).filter((value, i) => value === labels[i]).length / labels.length
}
