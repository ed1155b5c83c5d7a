import { existsSync, realpathSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'

import { holdOut, openImages, selectImages, type ImageSource, type OpenOptions } from '../data/index.js'
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
 * Images to measure a classifier on. The classifier sees the images, never their classes. Test images can be asked once: what is to be
 * chosen, a setting or an epoch, has to be chosen on validation images, which are held out of the training images.
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

/** Part of the training images that is held out to be measured on, where there are no test images. */
export const VALIDATION_PART = 0.1

/** Where images to learn from and images to measure on are. */
export interface LabelledRequest {
  /** Folder of images with classes. */
  readonly train: string
  /** Folder of images with some of the same classes; of IDX, CIFAR or Parquet files with two splits it may be the same folder. Default: none. */
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

/** Opens images to learn from. @throws InputError for images without classes. */
export async function openTraining(path: string, options: Omit<OpenOptions, 'split'> = {}): Promise<LabelledImages> {
  return withClasses(await openImages(path, options), '--train')
}

/** Whether the images are parts of files that hold many. */
const hasSplits = (source: ImageSource): boolean => source.kind === 'memory' || source.blocks !== null

/** The file that an image is, or is part of. */
function fileOf(source: ImageSource, index: number): string {
  const content = source.kind === 'encoded' && source.blocks === null ? source.content(index) : null
  return content && 'path' in content ? content.path : join(source.path, source.name(index).replace(/#\d+$/, ''))
}

/** The files of all images; links to folders are followed. */
function filesOf(source: ImageSource): Set<string> {
  const folders = new Map<string, string>()
  const follow = (folder: string) => (existsSync(folder) ? realpathSync(folder) : resolve(folder))
  const files = new Set<string>()
  for (let index = 0; index < source.length; index++) {
    const path = fileOf(source, index)
    const folder = dirname(path)
    if (!folders.has(folder)) folders.set(folder, follow(folder))
    files.add(join(folders.get(folder)!, basename(path)))
  }
  return files
}

/**
 * Opens test images. One folder for both can only mean its two splits.
 *
 * @param train - What is learned from.
 * @throws InputError for images without classes, classes or channels that the training images do not have, and for files that are among
 *   the training images.
 */
export async function openTest(train: LabelledImages, path: string, options: Omit<OpenOptions, 'split'> = {}): Promise<EvaluationSet> {
  // Shards may be named by a pattern or an address, which are no files.
  const there = existsSync(path) && existsSync(train.path)
  const same = there ? (await realpath(path)) === (await realpath(train.path)) : path === train.path
  const other = () => expected('another folder than --train, or one with IDX, CIFAR or Parquet files of two splits,', '--test', path)
  if (same && !hasSplits(train)) throw other()
  const test = withClasses(await openImages(path, { ...options, split: same ? 'test' : undefined }), '--test')
  const files = filesOf(train)
  const common = [...filesOf(test)].find((file) => files.has(file))
  // A folder with files of neither split gives the same ones for both.
  if (common !== undefined && same) throw other()
  if (common !== undefined) throw expected('images that are not among those of --train', '--test', common)
  if (test.channels !== train.channels) {
    throw new InputError(`'${test.path}' has images of ${test.channels} channels, the training images have ${train.channels}`)
  }
  return new EvaluationSet(test, commonLabels(train, test), train.classes, 'test')
}

/** Some images of a set with classes. */
export const selectLabelled = (images: LabelledImages, positions: ArrayLike<number>): LabelledImages =>
  withClasses(selectImages(images, positions), '--train')

/**
 * Holds out a part of the images, class by class, as validation images.
 *
 * @param part - Above 0 and below 1.
 * @throws InputError where that would be none.
 */
export function splitLabelled(images: LabelledImages, part: number, seed: number): { train: LabelledImages; validation: EvaluationSet } {
  const { kept, heldOut } = holdOut(images.labels, part, seed)
  if (heldOut.length === 0) {
    throw expected(`more images to hold out ${100 * part} % of each class (or a larger validation)`, images.path, `${images.length} images`)
  }
  const chosen = selectLabelled(images, heldOut)
  const validation = new EvaluationSet(chosen, Array.from(chosen.labels), chosen.classes, 'validation')
  return { train: selectLabelled(images, kept), validation }
}

/**
 * Opens the images to learn from and those to measure on: test images, or, without them, a part held out of the training images.
 *
 * @throws InputError as {@link openTraining} and {@link openTest}, where nothing can be held out, and for a part to hold out beside test images.
 */
export async function openLabelled(request: LabelledRequest): Promise<{ train: LabelledImages; evaluation: EvaluationSet }> {
  const { test, limit, validation = VALIDATION_PART, seed = 0 } = request
  if (test !== undefined && request.validation !== undefined) throw expected('nothing beside test images', '--validation', validation)
  const train = await openTraining(request.train, { limit })
  if (test !== undefined) return { train, evaluation: await openTest(train, test, { limit }) }
  const split = splitLabelled(train, validation, seed)
  return { train: split.train, evaluation: split.validation }
}
