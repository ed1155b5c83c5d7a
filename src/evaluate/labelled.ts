import { existsSync } from 'node:fs'
import { realpath } from 'node:fs/promises'

import { holdOut, openImages, selectImages, type ImageSource } from '../data/index.js'
import { expected, InputError } from '../errors.js'
import type { Tensor } from '../torch/index.js'
import { scoreOf, type Score } from './score.js'

/** Images with known classes, to learn from. */
export type LabelledImages = ImageSource & { readonly classes: readonly string[]; readonly labels: Int32Array }

/** What a classifier says of the images of a set. */
export interface Classified {
  /** Positions of the classified images: broken ones are left out. */
  readonly indices: readonly number[]
  /** By the kind of classifier: [M, C], the higher the likelier. */
  readonly scores: Readonly<Record<string, Tensor>>
}

/**
 * Images to measure a classifier on. The classifier sees the images, never their classes. Test images can be asked once: what is to be chosen,
 * a setting or an epoch, has to be chosen on validation images, which are held out of the training images.
 */
export class EvaluationSet {
  readonly #source: ImageSource
  /** In the numbers of the training classes. */
  readonly #labels: readonly number[]
  #asked = false

  constructor(source: ImageSource, labels: readonly number[], readonly classes: readonly string[], readonly split: 'validation' | 'test') {
    this.#source = source
    this.#labels = labels
  }

  get length(): number {
    return this.#source.length
  }

  /** The folder that the images are in. */
  get path(): string {
    return this.#source.path
  }

  /**
   * Has the images classified and compares.
   *
   * @param classify - Gets the images without their classes; its tensors are disposed of.
   * @throws InputError if these are test images and have been asked before.
   */
  async measure(classify: (images: ImageSource) => Promise<Classified>): Promise<Readonly<Record<string, Score>>> {
    if (this.split === 'test' && this.#asked) {
      throw new InputError('The test images have been asked before, and are asked once: choose by validation images (leave --test out)')
    }
    this.#asked = true
    const { indices, scores } = await classify({ ...this.#source, classes: null, labels: null })
    try {
      const labels = indices.map((index) => this.#labels[index]!)
      return Object.fromEntries(Object.entries(scores).map(([name, rows]) => [name, scoreOf(rows, labels, this.classes)]))
    } finally {
      for (const rows of Object.values(scores)) rows.dispose()
    }
  }
}

/** Where images to learn from and images to measure on are. */
export interface LabelledRequest {
  /** Folder of images with classes. */
  readonly train: string
  /** Folder of images with some of the same classes; of IDX files with two splits it may be the same folder. Default: none. */
  readonly test?: string | undefined
  /** At most so many images of each folder. */
  readonly limit?: number | undefined
  /** Without `test`: the part of the training images that is held out to be measured on. Default 0.1. */
  readonly validation?: number | undefined
  /** Decides what is held out. Default 0. */
  readonly seed?: number | undefined
}

function withClasses(source: ImageSource, flag: string): LabelledImages {
  const { classes, labels } = source
  if (!classes || !labels) throw expected('images with classes (sub-folders or labels)', flag, source.path)
  return { ...source, classes, labels }
}

/** Test labels in the numbers of the training classes. */
function commonLabels(train: LabelledImages, test: LabelledImages): number[] {
  const numbers = new Map(train.classes.map((name, i) => [name, i]))
  const unknown = test.classes.filter((name) => !numbers.has(name))
  if (unknown.length) throw expected('classes that the training images have', '--test', `class ${unknown.slice(0, 3).join(', ')}`)
  return Array.from(test.labels, (label) => numbers.get(test.classes[label]!)!)
}

/** The test images. One folder for both can only mean its two splits. */
async function openTest(train: ImageSource, test: string, limit: number | undefined): Promise<ImageSource> {
  const same = existsSync(test) && (await realpath(test)) === (await realpath(train.path))
  const other = () => expected('another folder than --train, or one with IDX files of two splits,', '--test', test)
  if (same && train.kind !== 'idx') throw other()
  const queries = await openImages(test, { limit, split: same ? 'test' : undefined })
  // A folder with a single pair of files, of neither split, gives that pair for both.
  const file = (source: ImageSource) => source.name(0).replace(/#\d+$/, '')
  if (same && file(train) === file(queries)) throw other()
  return queries
}

/**
 * Opens the images to learn from and those to measure on: test images, or, without them, a part held out of the training images.
 *
 * @throws InputError for images without classes, classes or channels that do not go together, one folder for both.
 */
export async function openLabelled(request: LabelledRequest): Promise<{ train: LabelledImages; evaluation: EvaluationSet }> {
  const { test, limit, validation = 0.1, seed = 0 } = request
  const train = withClasses(await openImages(request.train, { limit }), '--train')
  if (test === undefined) {
    const { kept, heldOut } = holdOut(train.labels, validation, seed)
    const labels = Array.from(heldOut, (position) => train.labels[position]!)
    const evaluation = new EvaluationSet(selectImages(train, heldOut), labels, train.classes, 'validation')
    return { train: withClasses(selectImages(train, kept), '--train'), evaluation }
  }
  const opened = await openTest(train, test, limit)
  if (opened.channels !== train.channels) {
    throw new InputError(`'${opened.path}' has images of ${opened.channels} channels, the training images have ${train.channels}`)
  }
  const queries = withClasses(opened, '--test')
  return { train, evaluation: new EvaluationSet(queries, commonLabels(train, queries), train.classes, 'test') }
}
