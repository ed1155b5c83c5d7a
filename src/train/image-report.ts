import { stat } from 'node:fs/promises'
import { z } from 'zod'

import {
  defaultStatistics, isUrl, openImages, randomFor, sample, type EncodedSource, type ImageSource, type Size, type Statistics
} from '../data/index.js'
import { setNumThreads } from '../torch/index.js'
import { pretrainSchema } from './config.js'
import { viewSize } from './encoder.js'
import { examineFiles, type ExaminedFile, type ExaminedFiles } from './examine-files.js'
import { adviceOn } from './image-advice.js'
import { heldBytes, summariseAspects, summariseSizes, type AspectSummary, type SizeSummary } from './image-sizes.js'
import { measureLoading, type LoadingSpeed } from './loading-speed.js'
import { parseSettings, positiveInteger, viewFields } from './settings.js'
import { settleDevice } from './settle.js'

/** More files than this are examined by a sample of as many. */
const EXAMINED = 20_000
/** From a server come whole images, a gigabyte for ten thousand. */
const EXAMINED_REMOTE = 1000
/** So many are decoded where not all of them are. */
const DECODED = 256
/** Broken files that are listed. */
const LISTED = 100

const { images, imageSize, batchSize, seed, device, workers, threads, maxBroken } = pretrainSchema.shape

/** Settings of {@link describeImages}, those of a run with its defaults. */
export const imageReportSchema = z.strictObject({
  images,
  limit: positiveInteger.optional().describe('examine a random sample of so many images (default: 20000 where there are more, 1000 from a server)'),
  full: z.boolean().default(false).describe('decode every file instead of reading its header'),
  imageSize, ...viewFields, batchSize, seed, device, workers, threads, maxBroken
})

/** What a caller of {@link describeImages} gives. */
export type ImageReportRequest = z.input<typeof imageReportSchema>

type Settings = z.output<typeof imageReportSchema>

/** What a run would see of images. */
export interface ImageReport {
  readonly path: string
  readonly kind: ImageSource['kind']
  readonly images: number
  /** How many of them the figures below are of, chosen at random; `decoded` says how many were decoded, the others by their header. */
  readonly examined: number
  readonly decoded: number
  /** In the order of their numbers, of all images; null if there are none. */
  readonly classes: readonly { readonly name: string; readonly images: number }[] | null
  /** Files that lie directly in the folder, in no class; null where classes do not come from sub-folders. */
  readonly outsideClasses: number | null
  /** Images of each format, by content, most first. */
  readonly formats: Readonly<Record<string, number>>
  /** Of the files that were examined, and of all (extrapolated where not all were examined). IDX: unpacked. */
  readonly bytes: { readonly examined: number; readonly total: number }
  readonly views: Size
  /** Null if no image can be decoded; so too `aspects` and `loading`. */
  readonly sizes: SizeSummary | null
  /** Bytes that all images take decoded and held (`Loader.hold`); of a sample what its highest and widest image make of it. null without files. */
  readonly decodedBytes: number | null
  readonly aspects: AspectSummary | null
  readonly broken: {
    /** Found among the examined. */
    readonly count: number
    /** To be expected of all. */
    readonly expected: number
    /** A run stops at more. */
    readonly allowed: number
    /** Whether a run over all images is to be expected to stop. */
    readonly stops: boolean
    /** The first hundred. */
    readonly files: readonly { readonly file: string; readonly reason: string }[]
  }
  /** Links that lead nowhere, and sub-folders that cannot be read. */
  readonly unreadable: readonly string[]
  /** Mean and deviation by channel, of values in [0, 1]: what a run normalises with, and the images' own as far as they were decoded. */
  readonly statistics: { readonly used: Statistics; readonly own: Statistics | null }
  readonly loading: LoadingSpeed | null
  readonly settings: Settings
  /** What is wrong and what to do about it, a sentence each. */
  readonly advice: readonly string[]
}

/** What may be told while images are examined. */
export interface ImageReportHooks {
  /** After some images. */
  readonly onProgress?: (progress: { readonly stage: 'examining' | 'loading'; readonly done: number; readonly total: number }) => void
}

/** @throws SettingsError naming each setting that is not legal. */
export const parseImageReportRequest = (input: unknown): Settings => parseSettings(imageReportSchema, input)

/**
 * What a run would see of images: how many, classes, sizes, formats, broken files, colours, and how fast they load. Opens the headers of
 * the files (of more than 20,000: of a sample), decodes a few, and measures loading for some seconds.
 *
 * @throws InputError for settings that are not legal, and for images that cannot be opened.
 */
export async function describeImages(request: ImageReportRequest, hooks: ImageReportHooks = {}): Promise<ImageReport> {
  const settings = parseImageReportRequest(request)
  const device = settleDevice(settings.device)
  const source = await openImages(settings.images)
  if (settings.threads) setNumThreads(settings.threads)
  const some = isUrl(source.path) ? EXAMINED_REMOTE : EXAMINED
  const positions = choose(source.length, settings.limit ?? (settings.full ? source.length : some), settings.seed, 'examined')
  const [height, width] = viewSize(settings.imageSize, source)
  const views = { width, height }
  const examined = source.kind === 'encoded'
    ? await examineFolder(source, positions, width, settings, hooks)
    : examineArray(source, positions)
  const good = positions.filter((_, slot) => examined.files[slot])
  const { count, seconds } = examined.decoded
  const loading = good.length === 0 ? null : await measureLoading(source, {
    ...settings, positions: good, size: views, device,
    imagesPerSecond: seconds > 0 ? count / seconds : Infinity,
    onProgress: (done, total) => hooks.onProgress?.({ stage: 'loading', done, total })
  })
  const report = { ...summarise(source, examined, views, settings.maxBroken), outsideClasses: await countOutside(source), loading, settings, advice: [] }
  return { ...report, advice: adviceOn(report) }
}

/** As many random positions, ascending: all where there are not so many. */
const choose = (length: number, count: number, seed: number, purpose: string): Uint32Array =>
  sample(length, Math.min(count, length), randomFor(seed, purpose))

function examineFolder(
  source: EncodedSource, positions: Uint32Array, side: number, { full, seed, workers }: Settings, { onProgress }: ImageReportHooks
): Promise<ExaminedFiles> {
  const total = positions.length
  const slots = choose(total, full ? total : DECODED, seed, 'decoded')
  const decode = new Set(Array.from(slots, (slot) => positions[slot]!))
  return examineFiles(source, {
    positions, decode, side, workers, onProgress: (done) => onProgress?.({ stage: 'examining', done, total })
  })
}

/** Images in memory have one size, and none can be broken. */
function examineArray(source: Exclude<ImageSource, EncodedSource>, positions: Uint32Array): ExaminedFiles {
  const { width, height, channels } = source
  const format = source.name(0).includes('idx3') ? 'idx' : 'cifar'
  const files = Array<ExaminedFile>(positions.length).fill({ width, height, format })
  const count = positions.length
  const decoded = { count, broken: 0, seconds: 0 }
  return { files, broken: [], bytes: count * width * height * channels, tried: count, decoded, statistics: defaultStatistics(source) }
}

type Summary = Omit<ImageReport, 'outsideClasses' | 'loading' | 'settings' | 'advice'>

function summarise(source: ImageSource, examined: ExaminedFiles, views: Size, maxBroken: number): Summary {
  const { files, bytes, tried, statistics } = examined
  const good = files.filter((file) => file !== null)
  const formats = new Map<string, number>()
  for (const { format } of good) formats.set(format, (formats.get(format) ?? 0) + 1)
  return {
    path: source.path,
    kind: source.kind,
    images: source.length,
    examined: files.length,
    decoded: tried,
    classes: countClasses(source),
    formats: Object.fromEntries([...formats].sort(([, a], [, b]) => b - a)),
    bytes: { examined: bytes, total: Math.round((bytes / files.length) * source.length) },
    views,
    sizes: good.length > 0 ? summariseSizes(good, views) : null,
    decodedBytes: good.length > 0 && source.kind === 'encoded' ? heldBytes(source.length, good) : null,
    aspects: good.length > 0 ? summariseAspects(good) : null,
    broken: summariseBroken(source.length, maxBroken, examined),
    unreadable: source.kind === 'encoded' ? source.unreadable : [],
    statistics: { used: defaultStatistics(source), own: statistics }
  }
}

/** Lists, shards and tables name the classes themselves, wherever the files lie; several sources together are no folder. */
async function countOutside(source: ImageSource): Promise<number | null> {
  const isFolder = source.kind === 'encoded' && source.blocks === null && (await stat(source.path).then((it) => it.isDirectory(), () => false))
  if (!isFolder) return null
  return Array.from({ length: source.length }, (_, index) => source.name(index)).filter((name) => !name.includes('/')).length
}

function countClasses({ classes, labels }: ImageSource): ImageReport['classes'] {
  if (!classes || !labels) return null
  const counts = new Uint32Array(classes.length)
  for (const label of labels) counts[label]! += 1
  return classes.map((name, label) => ({ name, images: counts[label]! }))
}

function summariseBroken(length: number, maxBroken: number, { files, broken, decoded }: ExaminedFiles): ImageReport['broken'] {
  const count = broken.length
  // As the loader counts: at least one, unless none is to be.
  const allowed = maxBroken === 0 ? 0 : Math.max(1, Math.floor(maxBroken * length))
  // A header shows some; of what remains, as many will be as of those that were decoded.
  const byHeader = (count - decoded.broken) / files.length
  const byContent = decoded.count > 0 ? decoded.broken / decoded.count : 0
  const expected = Math.max(count, Math.round(length * (byHeader + (1 - byHeader) * byContent)))
  return { count, expected, allowed, stops: expected > allowed, files: broken.slice(0, LISTED) }
}
