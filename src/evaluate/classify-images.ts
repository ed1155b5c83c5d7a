import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'csv-stringify/sync'

import { Loader, openImages, type ImageSource } from '../data/index.js'
import { expected, InputError } from '../errors.js'
import { writeAtomic } from '../io/index.js'
import { noGrad, scope, type Device } from '../torch/index.js'
import { exportedFile, loadEncoder, type EncoderDescription } from '../train/checkpoint.js'
import { RunFolder } from '../train/run-folder.js'
import { settleDevice } from '../train/settle.js'
import type { VisionTransformer } from '../vision/index.js'
import { classifyBatch } from './classify.js'
import { cannotWriteResults, prepareResults, removeResults, resultsOf, writeResults, type Results } from './results.js'
import { combineScores, requireNumbers, scoreOf, type Score } from './score.js'
import type { ReadingOptions } from './subject.js'

/** Which images a classifier is to be used on, and how they are read. */
export interface ClassifyRequest extends ReadingOptions {
  /** Folder of a finetuning that is done, or a file of its weights. */
  readonly subject: string
  /** Folder, list, table or shards of images, as {@link openImages} opens them. */
  readonly images: string
  /** Of files of two splits, which one. Default: as {@link openImages}. */
  readonly split?: 'train' | 'test' | undefined
  /** Classes that the images have do not count: nothing is measured. Default false. */
  readonly unlabelled?: boolean | undefined
  /** Classes that are named of each image, the likeliest first. Default 1. */
  readonly top?: number | undefined
  /** At most so many images. */
  readonly limit?: number | undefined
  /** `auto` is a GPU where there is one. Default cpu. */
  readonly device?: Device | 'auto' | undefined
  /** Threads that decode. Default 4. */
  readonly workers?: number | undefined
  /** Folder for predictions.csv and, where the images have classes, results.json and the confusion matrix. Default: nothing is written. */
  readonly out?: string | undefined
  /** Is given each image's prediction, in the order of the images. */
  readonly onPrediction?: ((prediction: Prediction) => void) | undefined
}

/** What a classifier says of an image. */
export interface Prediction {
  /** As messages call it: the file's path in its folder, or `file#number`. */
  readonly image: string
  /** The likeliest classes, and how likely they are. */
  readonly classes: readonly { readonly name: string; readonly probability: number }[]
  /** The class that the image has; null where it has none. */
  readonly label: string | null
}

/** What became of the images. */
export interface Classification {
  /** Images that were classified: broken ones are left out. */
  readonly images: number
  /** How often each class was the likeliest, in the order of the classifier's classes. */
  readonly counts: Readonly<Record<string, number>>
  /** How right the classifier is, where the images have classes. */
  readonly results: Results | null
}

const BATCH = 128

type WriteRows = (rows: readonly (readonly unknown[])[]) => Promise<void>

async function loadClassifier(subject: string) {
  if (!existsSync(subject)) throw expected(`a finetuning's folder or a file of its weights`, 'what classifies', subject)
  const isFolder = (await stat(subject)).isDirectory()
  const path = isFolder ? exportedFile(new RunFolder(subject), 'classifier') : subject
  if (!existsSync(path)) throw new InputError(`'${subject}' has no classifier: expected a finetuning that is done (gmml finetune)`)
  const { encoder, backbone } = await loadEncoder(path)
  if (encoder.classes) return { encoder, classes: encoder.classes, model: backbone }
  backbone.dispose()
  throw new InputError(`'${path}' has no classifier: expected the weights of a finetuning (gmml finetune)`)
}

/** For each of the images' classes its number among the classifier's; null where there is nothing to compare with. */
function numbersOf(source: ImageSource, classes: readonly string[], unlabelled: boolean): readonly number[] | null {
  if (unlabelled || !source.classes) return null
  const numbers = source.classes.map((name) => classes.indexOf(name))
  const unknown = source.classes.filter((_, i) => numbers[i]! < 0)
  if (unknown.length === 0) return numbers
  const known = `classes of the classifier (${classes.slice(0, 3).join(', ')}${classes.length > 3 ? ', ...' : ''}; or unlabelled, so that nothing is measured)`
  throw expected(known, `images '${source.path}'`, `class ${unknown.slice(0, 3).join(', ')}`)
}

/**
 * Uses a finetuned classifier on images, without augmentation, in float32. Where the images have classes, of the same names as the
 * classifier's, it is measured, too: as the finetuning itself does it.
 *
 * @throws InputError for what has no classifier, images of other channels or classes, no image that can be decoded, and a folder that cannot
 *   be written; DivergedError for weights that give no numbers. What an earlier call wrote is then left as it was.
 */
export async function classifyImages(request: ClassifyRequest): Promise<Classification> {
  const { subject, images: path, split, limit, unlabelled = false, top = 1, out } = request
  const start = performance.now()
  if (!(Number.isInteger(top) && top >= 1)) throw expected('an integer of at least 1', 'top', top)
  const { encoder, classes, model } = await loadClassifier(subject)
  try {
    const source = await openImages(path, { limit, split })
    if (source.channels !== encoder.channels) {
      throw new InputError(`'${source.path}' has images of ${source.channels} channels, the classifier takes ${encoder.channels}`)
    }
    const numbers = numbersOf(source, classes, unlabelled)
    const device = settleDevice(request.device ?? 'cpu')
    model.to(device).eval()
    const run = new ClassifierRun(request, source, { classes, numbers, top: Math.min(top, classes.length) })
    if (out === undefined) await run.all(model, encoder, device, () => Promise.resolve())
    else await writePredictions(out, run.header, (write) => run.all(model, encoder, device, write))
    const { images, counts, score } = run
    const named = Object.fromEntries(classes.map((name, i) => [name, counts[i]!]))
    if (!score) {
      if (out !== undefined) await removeResults(out, 'classify')
      return { images, counts: named, results: null }
    }
    const evaluation = { path: source.path, split: 'test', length: source.length } as const
    const settings = { device, precision: 'float32', ...(split && { split }), ...(limit && { limit }) }
    const results = resultsOf({ command: 'classify', subject, train: null, evaluation, settings, start }, { classifier: score })
    if (out !== undefined) await writeResults(out, results)
    return { images, counts: named, results }
  } finally {
    model.dispose()
  }
}

/** Goes through the images batch by batch, so that a million of them need no more memory than some. */
class ClassifierRun {
  images = 0
  readonly counts: number[]
  /** Of all batches so far; null without classes. */
  score: Score | null = null
  readonly header: readonly string[]

  constructor(
    readonly request: ClassifyRequest, readonly source: ImageSource,
    readonly how: { readonly classes: readonly string[]; readonly numbers: readonly number[] | null; readonly top: number }
  ) {
    this.counts = how.classes.map(() => 0)
    const ranks = Array.from({ length: how.top }, (_, i) => (i === 0 ? ['class', 'probability'] : [`class_${i + 1}`, `probability_${i + 1}`])).flat()
    this.header = ['image', ...ranks, ...(how.numbers ? ['label'] : [])]
  }

  async all(model: VisionTransformer, encoder: EncoderDescription, device: Device, write: WriteRows): Promise<void> {
    const [height, width] = model.imageSize
    const { workers, maxBroken, dataTimeout, onBroken, onNotice, onPrediction } = this.request
    const loader = new Loader(this.source, {
      size: { height, width }, device, statistics: encoder, ...(workers !== undefined && { workers }),
      ...(maxBroken !== undefined && { maxBroken }), ...(dataTimeout !== undefined && { dataTimeout }), ...(onBroken && { onBroken }), ...(onNotice && { onNotice })
    })
    try {
      for await (const { images, indices } of loader.all(BATCH)) {
        let predictions: Prediction[]
        try {
          predictions = noGrad(() => scope(() => this.#predict(classifyBatch(model, images), indices)))
        } finally {
          images.dispose()
        }
        for (const prediction of predictions) onPrediction?.(prediction)
        await write(predictions.map(({ image, classes, label }) => [
          image, ...classes.flatMap(({ name, probability }) => [name, probability.toFixed(6)]), ...(label === null ? [] : [label])
        ]))
      }
      // Before predictions.csv takes the place of an earlier one.
      if (this.images === 0) throw new InputError(`None of the ${this.source.length} images of '${this.source.path}' can be decoded`)
    } finally {
      loader.dispose()
    }
  }

  #predict(probabilities: ReturnType<typeof classifyBatch>, indices: readonly number[]): Prediction[] {
    const { classes, numbers, top } = this.how
    requireNumbers(probabilities)
    const labels = numbers && indices.map((index) => numbers[this.source.labels![index]!]!)
    if (labels) {
      const score = scoreOf(probabilities, labels, classes)
      this.score = this.score ? combineScores(this.score, score) : score
    }
    const [values, order] = probabilities.cpu().sort({ stable: true, dim: 1, descending: true })
    const [likely, ranked] = [values.narrow(1, 0, top).toArray() as number[][], order.narrow(1, 0, top).toArray() as number[][]]
    this.images += indices.length
    return indices.map((index, row) => {
      const names = ranked[row]!.map(Number)
      this.counts[names[0]!]!++
      return {
        image: this.source.name(index),
        classes: names.map((number, rank) => ({ name: classes[number]!, probability: likely[row]![rank]! })),
        label: labels ? classes[labels[row]!]! : null
      }
    })
  }
}

/** Writes predictions.csv as the rows come; it is there when all of them are. */
async function writePredictions(
  folder: string, header: readonly string[], run: (write: WriteRows) => Promise<void>
): Promise<void> {
  await prepareResults(folder)
  const write = (file: { appendFile(text: string): Promise<void> }): WriteRows => async (rows) => {
    try {
      await file.appendFile(stringify(rows as unknown[][]))
    } catch (error) {
      throw cannotWriteResults(folder, error as Error)
    }
  }
  await writeAtomic(join(folder, 'predictions.csv'), async (file) => {
    await write(file)([header])
    await run(write(file))
  })
}
