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
import { isUrl, namesShards, openShards } from './shards/index.js'
import { selectImages } from './subset.js'
import { checkWeight, type SourcePart } from './weighted-order.js'

/** What all sources of images have. */
export interface SourceBase {
  /** The folder, list, table or shards, as they were given. */
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

/** Images of one folder, list or set of shards; `kind` tells which sort. */
export type ImageSource = MemorySource | EncodedSource

/** A source among several: its path, or also what part of an epoch it is. */
export type WeightedPath = string | { readonly path: string; readonly weight?: number | undefined }

/** What images are opened from: a path, or several, with weights ({@link joinSources}). */
export type ImagePaths = string | readonly WeightedPath[]

/** Which images of a source are opened. */
export interface OpenOptions {
  /** At most so many images: a fixed random choice in the source's order, and a smaller limit gives a part of a larger one. */
  readonly limit?: number | undefined
  /** Of a folder that holds IDX, CIFAR or Parquet files of both splits, which one. Default 'train' if there is one. */
  readonly split?: 'train' | 'test' | undefined
  /** Listings of folders of image files, so that only folders that have changed are listed anew; `cache.save()` writes what is new. */
  readonly cache?: ListingCache | undefined
}

/**
 * Opens a folder of images, a list of them (a file `.csv` or `.jsonl`), a table (`.parquet`), or tar
 * shards in WebDataset's layout ({@link openShards}: `photos.tar`, `photos-{000..099}.tar`, `https://host/photos-{000..099}.tar`).
 *
 * IDX files directly in a folder (`train-images-idx3-ubyte.gz` and the like), or CIFAR's binary files (`data_batch_1.bin`, `train.bin`),
 * are read into memory; Parquet files directly in it are one table. Otherwise its image files, also those in sub-folders, are listed and
 * are decoded when asked for. If all of them lie in sub-folders, the first sub-folder on the way is the class. A folder that holds tar files
 * and no images is taken as its shards.
 *
 * @param images - The folder, the list, the table, the shard or the pattern that names several; or several of these, which are joined
 * ({@link joinSources}).
 * @throws InputError: no such folder, another file, a folder without images, a mistake in a list, a damaged IDX, CIFAR, Parquet or tar file,
 * a limit that is not a positive integer; of several, the same path twice, and sources that do not go together. TransferError: a server
 * that does not answer.
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
  const wanted = 'the path of a folder, a list, a table or a shard, or several of them,'
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
  const kind = isList(path) ? 'list' : isParquet(path) ? 'table' : namesShards(path) ? 'shard' : 'folder'
  if (await isPattern(path)) return openShards(path)
  try {
    if (!(await stat(path)).isDirectory()) {
      if (isList(path)) return await openList(path)
      if (isParquet(path)) return await openParquet(path, [path])
      if (namesShards(path)) return await openShards(path, [path])
      throw expected(`a folder, a list (${listExtensions.join(', ')}), a table (parquet) or a shard (tar),`, name, 'another file')
    }
    const { cache } = options
    const packed = (await cache?.knows(path)) ? null : await openPacked(path, options)
    if (packed !== null) return packed
    const folder = await openFolder(path, cache)
    if (folder.length > 0) return folder
    const shards = await shardsIn(path)
    if (shards.length > 0) return await openShards(path, shards)
    const below = await inSubfolder(path)
    const found = below !== null ? `none; there are ${below}`
      : folder.unreadable.length > 0 ? `none; ${folder.unreadable.length} entries cannot be read` : 'none'
    throw expected(`image files (${imageExtensions.join(', ')}), IDX, CIFAR or Parquet files, or shards (tar)`, name, found)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') throw expected(`a ${kind} that exists`, name, 'nothing of that name')
    if (code === 'EACCES' || code === 'EPERM') throw expected(`a ${kind} that may be read`, name, code)
    throw error
  }
}

/** Files of many images directly in a folder; null if there are none. */
const openPacked = async (path: string, options: OpenOptions): Promise<ImageSource | null> =>
  (await openIdx(path, options)) ?? (await openCifar(path, options)) ?? (await openParquetFolder(path, options))

/** The classes stay those of all images: a limit does not renumber them. */
function limited(source: ImageSource, limit: number | undefined): ImageSource {
  return limit === undefined || limit >= source.length ? source : selectImages(source, sample(source.length, limit, randomFor(0, 'limit')))
}

/** Whether a path stands for shards without being one: a file or folder may have braces in its name. */
async function isPattern(path: string): Promise<boolean> {
  if (isUrl(path) || !namesShards(path)) return namesShards(path)
  return /\{.*\}/s.test(path) && !(await stat(path).then(() => true, () => false))
}

/** The tar files directly in a folder, by their names. Packed ones, too: they are refused, and not passed over. */
async function shardsIn(path: string): Promise<string[]> {
  const names = (await readdir(path, { withFileTypes: true })).filter((entry) => !entry.isDirectory()).map((entry) => entry.name)
  return names.filter((name) => namesShards(name) && !name.startsWith('.')).sort().map((name) => join(path, name))
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
