import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'

/** How the nearest neighbours vote. */
export interface KnnOptions {
  /** How features are compared. Default cosine, the one that there is. */
  readonly similarity?: 'cosine'
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

/** What every neighbour's vote is worth at least, so that at no temperature it counts as none. */
const LEAST_VOTE = 1e-30

/** What `use` makes of the votes [m, classes] of each chunk of queries, as all similarities at once may be more than there is memory. */
function mapVotes(train: Labelled, queries: Tensor, classes: number, options: KnnOptions, use: (votes: Tensor) => Tensor): Tensor {
  const { k = 20, temperature = 0.07, similarity = 'cosine', centre = false } = options
  if (!Number.isInteger(k) || k < 1) throw expected('an integer of at least 1', 'k', k)
  if (!(temperature > 0)) throw expected('a number above 0', 'temperature', temperature)
  if (similarity !== 'cosine') throw expected(`'cosine'`, 'similarity', similarity)
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
      const votesOf = (rows: Tensor) => {
        const [similarity, position] = unit(rows.to('float32')).matmul(bank.t()).topk(Math.min(k, train.labels.length))
        // Compared with the nearest one, or a low temperature would be more than a float32 holds.
        const weights = similarity.sub(similarity.amax({ dim: 1, keepdim: true })).div(temperature).exp().clamp({ min: LEAST_VOTE })
        return torch.zeros([rows.shape[0]!, classes], { device }).scatterAdd_(1, labels.take(position), weights)
      }
      const count = queries.shape[0]!
      const chunks = Array.from({ length: Math.max(1, Math.ceil(count / CHUNK)) }, (_, i) => i * CHUNK)
      return torch.cat(chunks.map((first) => scope(() => use(votesOf(queries.narrow(0, first, Math.min(CHUNK, count - first)))))))
    })
  )
}

/**
 * Weighted votes of the nearest training features in cosine similarity, as in DINO (arXiv 2104.14294) and before it in arXiv 1805.01978:
 * each of the k neighbours gives its class exp((similarity - that of the nearest) / temperature).
 *
 * @param queries - [M, D], on the device of the training features.
 * @param classes - Number of classes.
 * @returns [M, classes], float32, on the device of the queries; 0 for a class that none of the neighbours has, above 0 for all others. The
 *   division by the nearest one's vote leaves the order of a row as it is. A stable sort ranks equal votes by the number of the class.
 * @throws InputError for options, labels or shapes that are not legal.
 */
export function knnScores(train: Labelled, queries: Tensor, classes: number, options: KnnOptions = {}): Tensor {
  return mapVotes(train, queries, classes, options, (votes) => votes)
}

/**
 * Classes of the highest {@link knnScores}; of equal ones that of the lower number.
 *
 * @param queries - [M, D], on the device of the training features.
 * @param classes - Number of classes.
 * @returns The predicted class of each row of `queries`.
 * @throws InputError for options, labels or shapes that are not legal.
 */
export function knnPredict(train: Labelled, queries: Tensor, classes: number, options: KnnOptions = {}): Int32Array {
  const highest = (votes: Tensor) => votes.argmax({ dim: 1 }).to('int32')
  return scope(() => mapVotes(train, queries, classes, options, highest).toTypedArray() as Int32Array)
}

/** Part of the predictions that are right. @throws InputError for none, or not as many as labels. */
export function accuracy(predicted: ArrayLike<number>, labels: ArrayLike<number>): number {
  if (labels.length === 0) throw expected('at least one label', 'labels', 'none')
  if (predicted.length !== labels.length) throw expected(`${labels.length} predictions, one for each label,`, 'predicted', predicted.length)
  return Array.from(predicted).filter((value, i) => value === labels[i]).length / labels.length
}
