import { z } from 'zod'

import { expected, InputError } from '../errors.js'
import {
  decodeCrops, defaultStatistics, Loader, namedContent, openImages, randomFor, resampleCrops, type Batch,
  type EncodedSource, type ImageSource, type Rectangle, type Size
} from '../data/index.js'
import { corrupt } from '../gmml/index.js'
import type { EncodedImage } from '../io/index.js'
import { fromTypedArray, manualSeed, noGrad, scope, type Tensor } from '../torch/index.js'
import { pretrainAugmentation } from './augmentation.js'
import { pretrainSchema } from './config.js'
import { viewSize } from './encoder.js'
import { drawGrid, shown, WHITE, writePicture } from './grid.js'
import { parseSettings, viewFields } from './settings.js'

const ROWS = 8
const VIEWS = 2

const { images, imageSize, maskBudget, alien, align, overhang, fill, seed, workers } = pretrainSchema.shape

/** Settings of {@link previewImages}, those of a run with its defaults. */
export const previewSchema = z.strictObject({
  images,
  out: z.string().min(1).describe('PNG file to write'),
  imageSize, ...viewFields, maskBudget, alien, align, overhang, fill, seed, workers
})

/** What a caller of {@link previewImages} gives. */
export type PreviewRequest = z.input<typeof previewSchema>

type Settings = z.output<typeof previewSchema>

/** @throws SettingsError naming each setting that is not legal. */
export const parsePreviewRequest = (input: unknown): Settings => parseSettings(previewSchema, input)

/**
 * Writes a PNG of what a run's network would be shown, a row each for up to eight images: the whole image, a view, the same corrupted,
 * another view, the same corrupted. They are the first images of a run with this seed, with its crops and its masks; the noise differs,
 * and pixels of other images come from the images that are shown.
 *
 * @returns The same picture.
 * @throws InputError for settings and images that cannot be used, and if the file cannot be written.
 */
export async function previewImages(request: PreviewRequest): Promise<EncodedImage> {
  const settings = parsePreviewRequest(request)
  const source = await openImages(settings.images)
  const [height, width] = viewSize(settings.imageSize, source)
  if (settings.align > Math.min(height, width)) throw expected(`at most the image size ${Math.min(height, width)}`, 'align', settings.align)
  const size = { height, width }
  const batch = await firstViews(source, size, settings)
  try {
    const picture = await draw(source, batch, size, settings)
    await writePicture(settings.out, picture).catch((error: Error) => {
      throw new InputError(`Cannot write '${settings.out}': ${error.message}`, { cause: error })
    })
    return picture
  } finally {
    batch.images.dispose()
  }
}

/** The first views of a run, as many as there are rows. */
async function firstViews(source: ImageSource, size: Size, settings: Settings): Promise<Batch> {
  const { seed, workers } = settings
  const loader = new Loader(source, { size, device: 'cpu', workers, maxBroken: 1 })
  const augmentation = pretrainAugmentation(settings)
  try {
    const epoch = { seed, epoch: 0, batchSize: Math.min(ROWS, source.length), views: VIEWS, augmentation }
    for await (const batch of loader.epoch(epoch)) return batch
    throw new InputError(`There are no images in '${source.path}'`)
  } finally {
    loader.dispose()
  }
}

async function draw(source: ImageSource, { indices, images }: Batch, size: Size, settings: Settings): Promise<EncodedImage> {
  const { maskBudget: budget, alien, align, overhang, fill, seed } = settings
  // The place of a broken image is taken by another, which may be there already.
  const rows = indices.flatMap((index, i) => (indices.indexOf(index) === i ? [i] : []))
  const whole = await Promise.all(rows.map((row) => wholeImage(source, indices[row]!, size)))
  const first = () => fromTypedArray(Buffer.concat(whole), [rows.length, source.channels, size.height, size.width], { dtype: 'uint8' })
  return drawGrid(() => {
    manualSeed(seed)
    const random = (view: number) => randomFor(seed, 0, indices[view % indices.length]!, Math.floor(view / indices.length), 'mask')
    const { corrupted } = corrupt(images, { budget, alien, align, overhang, fill, random })
    const chosen = fromTypedArray(Int32Array.from(rows))
    const views = [images, corrupted].map((batch) => shown(batch, defaultStatistics(source)).chunk(VIEWS))
    const [clean, hidden] = views.map((parts) => parts.map((part) => part.indexSelect(0, chosen))) as [Tensor[], Tensor[]]
    return [first().to('float32'), ...clean.flatMap((view, i) => [view, hidden[i]!])]
  })
}

/** A whole image on white, as large as fits into a view: [C, height, width]. */
async function wholeImage(source: ImageSource, index: number, size: Size): Promise<Uint8Array> {
  const own = source.kind === 'encoded' ? await sizeOf(source, index) : source
  const scale = Math.min(size.width / own.width, size.height / own.height)
  const side = (length: number) => Math.max(1, Math.round(length * scale))
  const fitted = { width: side(own.width), height: side(own.height) }
  const crop = { left: 0, top: 0, width: own.width, height: own.height }
  const pixels = source.kind === 'encoded' ? (await decodeCrops(await namedContent(source, index), [crop], fitted))[0]! : resized(source, index, crop, fitted)
  return onWhite(pixels, fitted, size, source.channels)
}

/** Of the upright image. */
async function sizeOf(source: EncodedSource, index: number): Promise<Size> {
  let size = { width: 1, height: 1 }
  await decodeCrops(await namedContent(source, index), (width, height) => {
    size = { width, height }
    return []
  }, size)
  return size
}

function resized(source: Exclude<ImageSource, EncodedSource>, index: number, crop: Rectangle, size: Size): Uint8Array {
  const { channels, height, width, images } = source
  const step = channels * height * width
  return noGrad(() =>
    scope(() => {
      const image = fromTypedArray(images.subarray(index * step, (index + 1) * step), [1, channels, height, width]).to('float32')
      return resampleCrops(image, [crop], [false], size).round().clamp({ min: 0, max: WHITE }).to('uint8').toTypedArray() as Uint8Array
    })
  )
}

function onWhite(pixels: Uint8Array, fitted: Size, size: Size, channels: number): Uint8Array {
  const [left, top] = [Math.floor((size.width - fitted.width) / 2), Math.floor((size.height - fitted.height) / 2)]
  const canvas = new Uint8Array(channels * size.height * size.width).fill(WHITE)
  for (let row = 0; row < channels * fitted.height; row++) {
    const [channel, y] = [Math.floor(row / fitted.height), row % fitted.height]
    const to = (channel * size.height + top + y) * size.width + left
    canvas.set(pixels.subarray(row * fitted.width, (row + 1) * fitted.width), to)
  }
  return canvas
}
