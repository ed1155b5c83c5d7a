import pLimit from 'p-limit'
import { expected } from '../../errors.js'
import { lastAtMost } from '../search.js'
import { type EncodedSource, numberClasses } from '../encoded.js'
import type { HttpFile, HttpOptions } from './http.js'
import { indexFiles } from './local.js'
import { checkShards, expandBraces, isUrl, shortNames } from './names.js'
import { RemoteShard, Shelf } from './read-ahead.js'
import { indexUrls } from './remote.js'
import type { ShardImages } from './samples.js'

/** How shards are read, and fetched from a server. */
export interface ShardOptions extends HttpOptions {
  /** Bytes asked for at once from a server. */
  readonly pieceBytes?: number
  /** Bytes of images that came from servers and wait to be asked for; what is under way comes to it. */
  readonly shelfBytes?: number
  /** Requests to servers at a time. */
  readonly requests?: number
}

// At a hundred kilobytes an image, a shuffle buffer of 4096 waiting images has 400 MB.
const defaults = { pieceBytes: 4 * 2 ** 20, shelfBytes: 2 ** 30, requests: 16 }

/** A shard, and what is in it. */
interface Shard {
  readonly path: string
  readonly name: string
  readonly images: ShardImages
  /** Null for a local one. */
  readonly file: HttpFile | null
}

/**
 * Opens tar files in WebDataset's layout: the members of a sample follow each other and have the same path up to the first dot of the file
 * name, as `a/0001.jpg` with `a/0001.cls` (the class as text) or `a/0001.json` (an object whose `label` or `class` is it). All samples have
 * a class or none has. Samples without an image are passed over.
 *
 * The headers of all shards are read here, of an image nothing but where it is. A local image is then a part of its shard; from a server
 * (http or https, one that answers requests for ranges) some megabytes come at a time.
 *
 * @param path - What was given: a shard, or a pattern of braces (`photos-{000..099}.tar`).
 * @throws InputError naming shard and offset for what is damaged, cut short, or no tar file; naming shard and sample for two images, and
 * for a class where others have none; for shards without an image. TransferError for a server that does not answer.
 */
export async function openShards(
  path: string, shards: readonly string[] = expandBraces(path), options: ShardOptions = {}
): Promise<EncodedSource> {
  checkShards(shards)
  const settings = { ...defaults, ...options }
  const all = await indexShards(shards, settings)
  const some = all.filter(({ images }) => images.names.length > 0)
  if (some.length === 0) throw expected('samples with an image (000.jpg, 000.cls)', `images '${path}'`, 'none')
  return { ...listImages(some, settings), path, ...classesOf(all, path) }
}

type Settings = Required<Pick<ShardOptions, keyof typeof defaults>> & HttpOptions

async function indexShards(paths: readonly string[], settings: Settings): Promise<Shard[]> {
  const names = shortNames(paths)
  const [urls, files] = [true, false].map((remote) => [...paths.keys()].filter((i) => isUrl(paths[i]!) === remote)) as [number[], number[]]
  const of = (values: readonly string[], chosen: readonly number[]) => chosen.map((i) => values[i]!)
  const local = await indexFiles(of(paths, files), of(names, files))
  const remote = await indexUrls(of(paths, urls), of(names, urls), settings.pieceBytes, settings)
  const found = new Map<number, Pick<Shard, 'images' | 'file'>>()
  for (const [slot, i] of files.entries()) found.set(i, { images: local[slot]!, file: null })
  for (const [slot, i] of urls.entries()) found.set(i, remote[slot]!)
  return paths.map((path, i) => ({ path, name: names[i]!, ...found.get(i)! }))
}

/** The images of shards that have some, one shard after the other. */
function listImages(shards: readonly Shard[], settings: Settings): Omit<EncodedSource, 'path' | 'classes' | 'labels'> {
  const ahead = { shelf: new Shelf(settings.shelfBytes), limit: pLimit(settings.requests), pieceBytes: settings.pieceBytes }
  const blocks = new Int32Array(shards.length)
  let length = 0
  // Without the texts of the classes, which are numbered by now.
  const parts = shards.map(({ path, name, file, images: { offsets, lengths, names } }, block) => {
    blocks[block] = length
    length += names.length
    return { path, name, names, offsets, lengths, remote: file && new RemoteShard(file, { offsets, lengths }, ahead) }
  })
  const at = (index: number): { part: (typeof parts)[number]; image: number } => {
    if (!(Number.isInteger(index) && index >= 0 && index < length)) throw expected(`an integer from 0 to ${length - 1}`, 'index', index)
    const block = lastAtMost(blocks, index)
    return { part: parts[block]!, image: index - blocks[block]! }
  }
  return {
    kind: 'encoded',
    length,
    channels: 3,
    unreadable: [],
    blocks,
    name(index) {
      const { part, image } = at(index)
      return `${part.name}/${part.names[image]!}`
    },
    content(index, signal) {
      const { part: { path, offsets, lengths, remote }, image } = at(index)
      return remote ? remote.content(image, signal) : { path, offset: offsets[image]!, length: lengths[image]! }
    }
  }
}

function classesOf(shards: readonly Shard[], path: string): Pick<EncodedSource, 'classes' | 'labels'> {
  const with_ = findImage(shards, (label) => label !== null)
  const without = findImage(shards, (label) => label === null)
  if (with_ !== null && without !== null) throw expected(`a class, as '${with_}' has,`, `'${without}'`, 'none')
  if (with_ === null) {
    const stray = shards.find(({ images }) => images.strayLabels > 0)
    const at = `shard '${stray?.name}' of '${path}'`
    if (stray) throw expected('the members of a sample one after the other', at, 'classes apart from their images')
    return { classes: null, labels: null }
  }
  const names = shards.flatMap(({ images }) => images.labels as readonly string[])
  return numbered(names) ?? numberClasses(names)
}

/** What an image is called whose class is of the wanted kind. */
function findImage(shards: readonly Shard[], wanted: (label: string | null) => boolean): string | null {
  for (const { name, images } of shards) {
    const image = images.labels.findIndex(wanted)
    if (image >= 0) return `${name}/${images.names[image]!}`
  }
  return null
}

/** Classes that are called 0 to K - 1 keep their numbers, which the order of texts (10 before 2) would change. Null if they are not. */
function numbered(names: readonly string[]): { classes: string[]; labels: Int32Array } | null {
  const different = new Set(names)
  const classes = Array.from(different, (_, number) => String(number))
  return classes.every((name) => different.has(name)) ? { classes, labels: Int32Array.from(names, Number) } : null
}
