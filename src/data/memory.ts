import { expected } from '../errors.js'
import type { OpenOptions, SourceBase } from './source.js'

/** Images of one size, all of them in memory: the content of IDX and CIFAR files. */
export interface MemorySource extends SourceBase {
  readonly kind: 'memory'
  /** [N, C, H, W], 0 = black; three channels are red, green, blue. */
  readonly images: Uint8Array
  readonly height: number
  readonly width: number
}

export type Split = NonNullable<OpenOptions['split']>

/** Files of a folder that belong together. */
export interface SplitFiles {
  /** null: their names do not tell. */
  readonly split: Split | null
  /** The names of the files with the images. */
  readonly images: readonly string[]
}

/**
 * Of the splits of a folder the one that is asked for: 'train' unless told. Files of no split are taken where they are the only ones, or
 * none is asked for.
 *
 * @param splits - At least one.
 * @param format - What the files are called in messages.
 * @throws InputError for a split that is not there.
 */
export function chooseSplit<Files extends SplitFiles>(
  splits: readonly Files[], split: Split | undefined, folder: string, format: string
): Files {
  const wanted = splits.find((entry) => entry.split === (split ?? 'train'))
  const found = wanted ?? (split === undefined || splits.length === 1 ? splits[0] : null)
  if (!found || (split !== undefined && found.split !== null && found.split !== split)) {
    throw expected(`${format} files of the split '${split}'`, `images '${folder}'`, splits.flatMap(({ images }) => images))
  }
  return found
}

/** The images at these positions, copied. */
export function copyImages({ images, length }: MemorySource, positions: readonly number[]): Uint8Array {
  const step = images.length / length
  const copied = new Uint8Array(positions.length * step)
  for (const [to, from] of positions.entries()) copied.set(images.subarray(from * step, (from + 1) * step), to * step)
  return copied
}
