import { DivergedError, expected } from '../errors.js'
import { noGrad, scope, type Tensor } from '../torch/index.js'

/** How good a classifier is on some images. */
export interface Score {
  /** Images that were classified. */
  readonly images: number
  /** Part of them whose class has the highest score. */
  readonly accuracy: number
  /** 95 % interval of {@link accuracy}, as of images drawn at random (Wilson). */
  readonly interval: readonly [low: number, high: number]
  /** Part of them whose class is among the five highest scores. Null for at most five classes. */
  readonly top5: number | null
  readonly classes: readonly string[]
  /** Images by true class (row) and predicted class (column). */
  readonly confusion: readonly (readonly number[])[]
}

const Z = 1.959963984540054 // of the normal distribution: 95 % lie within

/**
 * Wilson's score interval of a proportion, which holds also near 0 and 1 and for few images (E. B. Wilson, 1927).
 *
 * @returns The 95 % interval of `correct / images`.
 */
export function wilsonInterval(correct: number, images: number): [low: number, high: number] {
  if (!(Number.isInteger(images) && images >= 1)) throw expected('an integer of at least 1', 'images', images)
  if (!(correct >= 0 && correct <= images)) throw expected(`a number from 0 to ${images}`, 'correct', correct)
  const part = correct / images
  const scale = 1 / (1 + Z ** 2 / images)
  const centre = scale * (part + Z ** 2 / (2 * images))
  const half = scale * Z * Math.sqrt((part * (1 - part)) / images + Z ** 2 / (4 * images ** 2))
  // At the ends the bound is exact; rounding must not carry it beyond.
  return [correct === 0 ? 0 : centre - half, correct === images ? 1 : centre + half]
}

const TOP = 5

/** The score of two sets of images together. */
export function combineScores(one: Score, other: Score): Score {
  const images = one.images + other.images
  const together = (part: (score: Score) => number) => part(one) * one.images + part(other) * other.images
  const correct = Math.round(together(({ accuracy }) => accuracy))
  const top5 = one.top5 === null ? null : Math.round(together((score) => score.top5!)) / images
  const confusion = one.confusion.map((row, i) => row.map((count, j) => count + other.confusion[i]![j]!))
  return { images, accuracy: correct / images, interval: wilsonInterval(correct, images), top5, classes: one.classes, confusion }
}

/** @throws DivergedError for scores [M, C] that are NaN: they order nothing. */
export function requireNumbers(scores: Tensor): void {
  const broken = noGrad(() => scope(() => scores.isnan().any().item()))
  if (broken) throw new DivergedError('The scores are not numbers (NaN): the network that made them has diverged')
}

/**
 * Accuracy, its interval, top-5 accuracy and confusion matrix.
 *
 * @param scores - [M, C], the higher the likelier. Of equal ones the class of the lower number counts as the higher.
 * @param labels - Class of each row.
 * @param classes - Names of the C classes.
 * @throws InputError for shapes or labels that do not go together, and no rows; DivergedError for scores that are NaN.
 */
export function scoreOf(scores: Tensor, labels: ArrayLike<number>, classes: readonly string[]): Score {
  const [rows, columns] = scores.shape
  const shape = `shape [${scores.shape.join(', ')}]`
  if (scores.ndim !== 2 || columns !== classes.length) throw expected(`one score for each of ${classes.length} classes`, 'scores', shape)
  if (!rows || rows !== labels.length) throw expected(`at least one row, as many as labels (${labels.length}),`, 'scores', shape)
  const stranger = Array.from(labels).find((label) => !(Number.isInteger(label) && label >= 0 && label < classes.length))
  if (stranger !== undefined) throw expected(`classes from 0 to ${classes.length - 1}`, 'labels', stranger)
  return noGrad(() =>
    scope(() => {
      const precise = scores.to('float32').cpu()
      requireNumbers(precise)
      // A stable order: equal scores, as of classes without a vote, must not depend on the machine.
      const [, order] = precise.sort({ stable: true, dim: 1, descending: true })
      const top = Math.min(TOP, columns)
      const best = order.narrow(1, 0, top).to('int32').contiguous().toTypedArray() as Int32Array
      const confusion = classes.map(() => new Array<number>(classes.length).fill(0))
      let correct = 0
      let among = 0
      for (let row = 0; row < rows; row++) {
        const label = labels[row]!
        const ranked = best.subarray(row * top, (row + 1) * top)
        confusion[label]![ranked[0]!]! += 1
        if (ranked[0] === label) correct++
        if (ranked.includes(label)) among++
      }
      const top5 = columns > TOP ? among / rows : null
      return { images: rows, accuracy: correct / rows, interval: wilsonInterval(correct, rows), top5, classes: [...classes], confusion }
    })
  )
}
