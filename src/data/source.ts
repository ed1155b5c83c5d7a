import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { expected } from '../errors.js'
import { findCifar, openCifar } from './cifar.js'
import type { EncodedSource } from './encoded.js'
import { imageExtensions, openFolder } from './folder.js'
import { findIdxPairs, openIdx } from './idx.js'
import { joinSources } from './join.js'
import { isList, listExtensions, openList } from './list.js'
import type { ListingCache } from './listing-cache.js'
import type { MemorySource } from './memory.js'
import { findParquet, isParquet, openParquet, openParquetFolder } from './parquet.js'
import { randomFor, sample } from './random.js'
import { selectImages } from './subset.js'
import { checkWeight, type SourcePart } from './weighted-order.js'

/** What all sources of images have. */
export interface SourceBase {
  /** The folder, list or table, as it was given. */
  readonly path: string
  /** How many images. */
  readonly length: number
  readonly channels: 1 | 3
  /** The names of the classes, null if the images have none. */
  readonly classes: readonly string[] | null
  /** For each image the index of its class, null if the images have none. */
  readonly labels: Int32Array | null
  /** Where sources of different weight were joined: what part of an epoch each of them is. Not there: every image comes once. */
  readonly parts?: readonly SourcePart[] | undefined
  /** What an image is called in messages: the file's path in the folder, or `file#number`. */
  name(index: number): string
}

/** Images of one folder or list; `kind` tells which sort. */
export type ImageSource = MemorySource | EncodedSource

/** A source among several: its path, or also what part of an epoch it is. */
export type WeightedPath = string | { readonly path: string; readonly weight?: number | undefined }

/** What images are opened from: a path, or several, with weights ({@link joinSources}). */
export type ImagePaths = string | readonly WeightedPath[]

export interface OpenOptions {
  /** At most so many images: a fixed random choice in the source's order, and a smaller limit gives a part of a larger one. */
  readonly limit?: number | undefined
  /** Of a folder that holds IDX, CIFAR or Parquet files of both splits, which one. Default 'train' if there is one. */
  readonly split?: 'train' | 'test' | undefined
  /** Listings of folders of image files, so that only folders that have changed are listed anew; `cache.save()` writes what is new. */
  readonly cache?: ListingCache | undefined
}

/**
 * Opens a folder of images, a list of them ({@link openList}: a file `.csv` or `.jsonl`), or a table ({@link openParquet}: `.parquet`).
 *
 * IDX files directly in a folder (`train-images-idx3-ubyte.gz` and the like), or CIFAR's binary files (`data_batch_1.bin`, `train.bin`),
 * are read into memory; Parquet files directly in it are one table. Otherwise its image files, also those in sub-folders, are listed and
 * are decoded when asked for. If all of them lie in sub-folders, the first sub-folder on the way is the class.
 *
 * @param images - The folder, the list or the table; or several, which are joined ({@link joinSources}).
 * @throws InputError: no such folder, another file, a folder without images, a mistake in a list, a damaged IDX, CIFAR or Parquet file, a
 * limit that is not a positive integer; of several, the same path twice, and sources that do not go together.
 */
export async function openImages(images: ImagePaths, options: OpenOptions = {}): Promise<ImageSource> {
  const { limit, split } = options
  const paths = checkPaths(images)
  if (limit !== undefined && !(Number.isInteger(limit) && limit >= 1)) throw expected('an integer of at least 1', 'limit', limit)
  if (split !== undefined && split !== 'train' && split !== 'test') throw expected("'train' or 'test'", 'split', split)
  const sources: ImageSource[] = []
  for (const { path } of paths) sources.push(await openPath(path, options))
  return limited(joinSources(sources, paths.map(({ weight }) => weight)), limit)
}

function checkPaths(images: ImagePaths): readonly Exclude<WeightedPath, string>[] {
  const wanted = 'the path of a folder, a list or a table, or several of them,'
  const paths = (Array.isArray(images) ? (images as readonly WeightedPath[]) : [images as string]).map((entry) =>
    typeof entry === 'string' ? { path: entry } : entry
  )
  const wrong = paths.some((entry) => typeof entry?.path !== 'string' || entry.path === '')
  if (wrong || paths.length === 0) throw expected(wanted, 'images', images)
  const twice = paths.find(({ path }, i) => paths.findIndex((other) => other.path === path) < i)
  if (twice) throw expected('each path once (a weight repeats images)', 'images', twice.path)
  for (const { path, weight } of paths) if (weight !== undefined) checkWeight(weight, `the weight of '${path}'`)
  return paths
}

/** Opens what lies at one path. */
async function openPath(path: string, options: OpenOptions): Promise<ImageSource> {
  const name = `images '${path}'`
  const kind = isList(path) ? 'list' : isParquet(path) ? 'table' : 'folder'
  try {
    if (!(await stat(path)).isDirectory()) {
      if (isList(path)) return await openList(path)
      if (isParquet(path)) return await openParquet(path, [path])
      throw expected(`a folder, a list (${listExtensions.join(', ')}) or a table (parquet)`, name, 'another file')
    }
    const { cache } = options
    const packed = (await cache?.knows(path)) ? null : (await openIdx(path, options)) ?? (await openCifar(path, options)) ?? (await openParquetFolder(path, options))
    if (packed !== null) return packed
    const folder = await openFolder(path, cache)
    if (folder.length > 0) return folder
    const below = await inSubfolder(path)
    const found = below !== null ? `none; there are ${below}`
      : folder.unreadable.length > 0 ? `none; ${folder.unreadable.length} entries cannot be read` : 'none'
    throw expected(`image files (${imageExtensions.join(', ')}), IDX, CIFAR or Parquet files`, name, found)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') throw expected(`a ${kind} that exists`, name, 'nothing of that name')
    if (code === 'EACCES' || code === 'EPERM') throw expected(`a ${kind} that may be read`, name, code)
    throw error
  }
}

/** The classes stay those of all images: a limit does not renumber them. */
function limited(source: ImageSource, limit: number | undefined): ImageSource {
  return limit === undefined || limit >= source.length ? source : selectImages(source, sample(source.length, limit, randomFor(0, 'limit')))
}

/** Files of images in a sub-folder: the likely slip is to name the folder above it. */
async function inSubfolder(path: string): Promise<string | null> {
  const folders = (await readdir(path, { withFileTypes: true })).filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  // The training images come last in the alphabet, and are what was meant.
  for (const folder of folders.sort().reverse()) {
    for (const [format, find] of [['IDX', findIdxPairs], ['CIFAR', findCifar], ['Parquet', findParquet]] as const) {
      if ((await find(join(path, folder)).catch(() => [])).length > 0) return `${format} files in its sub-folder ${folder}`
    }
  }
  return null
}
