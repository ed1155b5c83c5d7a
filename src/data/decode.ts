import sharp, { type Metadata, type Sharp } from 'sharp'
import { expected } from '../errors.js'
import { BrokenImageError } from './broken.js'
import { type Content, readContent, readContentSync } from './content.js'
import { centreCrop, checkSize, type Crop, type Rectangle, type Size } from './crop.js'
import { decodeJpeg, decodeJpegSync, hasFastJpeg, jpegSize } from './jpeg.js'
import { type Pixels, resizePixels, resizePixelsSync } from './resize.js'

/** The crops of an image, or a function that draws them once the size of the upright image is known. */
export type Crops = readonly Crop[] | ((width: number, height: number) => readonly Crop[])

/**
 * Decodes one image file to upright 8-bit sRGB. The EXIF orientation is applied; grey, palette, CMYK and 16-bit images are converted,
 * through their colour profile if they carry one; of an animation the first frame is taken. An alpha channel is dropped, as PyTorch's
 * usual loaders do: the colour beneath it counts, no background is made up.
 *
 * sharp works on libuv's threads; the calling thread is free meanwhile.
 *
 * @throws BrokenImageError: the file cannot be read, is empty, damaged, cut short, no image, has samples without a range (floating-point
 * numbers), or more pixels than sharp's limit (268 million), which guards against small files that unpack to gigabytes.
 */
async function decode(bytes: Uint8Array, file: string): Promise<Pixels> {
  if (bytes.length === 0) throw new BrokenImageError(file, 'the file is empty')
  // 'error' refuses what is cut short ('truncated' alone would pass some TIFF). 'warning', sharp's default, would also refuse photographs
  // with stray bytes between two segments, which Pillow reads without a word.
  const image = sharp(bytes, { failOn: 'error', autoOrient: true }).toColourspace('srgb').removeAlpha().raw({ depth: 'uchar' })
  // What cannot be read is told when it is decoded.
  const found = hasEightBits(bytes) ? null : await image.metadata().catch(() => null)
  if (found) {
    requireRange(found, file)
    fromWideColours(image, found)
  }
  const { data, info } = await image.toBuffer({ resolveWithObject: true }).catch((error: Error) => {
    throw new BrokenImageError(file, reasonOf(error), { cause: error })
  })
  if (info.channels !== 3) throw new BrokenImageError(file, `it has ${info.channels} colour channels`)
  return { data, width: info.width, height: info.height }
}

/** Of the usual formats, whether nothing is to be asked: by the first bytes, since sharp takes as long to say as to decode a small image. */
function hasEightBits(bytes: Uint8Array): boolean {
  const text = (from: number, to: number) => Buffer.from(bytes.subarray(from, to)).toString('latin1')
  if (text(0, 2) === '\xff\xd8' || text(0, 4) === 'GIF8' || (text(0, 4) === 'RIFF' && text(8, 12) === 'WEBP')) return true
  return text(1, 4) === 'PNG' && bytes[24]! <= 8
}

/** Samples as TIFF may have them, of which no format says what is white. Those of Lab have their range, whatever they are stored as. */
const withoutRange: Readonly<Record<string, string>> = {
  float: 'floating-point numbers', double: 'floating-point numbers', int: 'integers of 32 bits', uint: 'integers of 32 bits',
  short: 'signed integers', char: 'signed integers'
}

/** @throws BrokenImageError for samples that would become black or white: Pillow and sharp take them for 0 to 255, whatever they are. */
function requireRange({ depth, space }: Metadata, file: string): void {
  const samples = withoutRange[depth ?? '']
  if (samples === undefined || space === 'lab') return
  throw new BrokenImageError(file, `its samples are ${samples}, of which nothing says what is white: convert it to 8 or 16 bits`)
}

/**
 * sharp takes images of 16 bits through their profile into the space of Display P3, and leaves them there unless a profile is named. Only
 * where there is something to convert: the way through a profile costs time and rounds.
 */
function fromWideColours(image: Sharp, { hasProfile, depth, channels }: Metadata): void {
  if (hasProfile && depth === 'ushort' && (channels ?? 0) >= 3) image.withIccProfile('srgb', { attach: false })
}

function reasonOf({ message }: Error): string {
  if (message.includes('unsupported image format')) return 'the content is not an image of a known format'
  if (message.includes('exceeds pixel limit')) return 'it has more pixels than the decoder allows'
  // libvips keeps one error text for all its threads: of files that fail at the same moment, one may get the words of both or none.
  const words = message.split('\n')[0]!.trim().replace(/:$/, '')
  return words === '' || words === 'Unknown error' ? 'it is damaged or cut short' : `it is damaged or cut short (${words})`
}

function cropsOf(crops: Crops, { width, height }: Size): readonly Crop[] {
  const list = typeof crops === 'function' ? crops(width, height) : crops
  for (const crop of list) checkInside(crop, { width, height })
  return list
}

/** Who reads files, decodes JPEG and resizes: libuv's threads, or the calling one. sharp always works on libuv's. */
interface Runtime {
  read(content: Content, name: string): Promise<Uint8Array> | Uint8Array
  /** As {@link decodeJpegSync}. */
  jpeg(bytes: Uint8Array, crops: readonly Crop[], size: Size, planes: Uint8Array): Promise<boolean> | boolean
  /** As {@link resizePixelsSync}. */
  resize(image: Pixels, crops: readonly Crop[], size: Size, planes: Uint8Array): Promise<void> | void
}

const onLibuv: Runtime = {
  read: readContent,
  async jpeg(bytes, crops, size, planes) {
    const decoded = await decodeJpeg(bytes, crops, size)
    if (decoded) planes.set(decoded)
    return decoded !== null
  },
  async resize(image, crops, size, planes) {
    planes.set(await resizePixels(image, crops, size))
  }
}

const here: Runtime = { read: readContentSync, jpeg: decodeJpegSync, resize: resizePixelsSync }

/** An image, and what it is called in messages. */
export interface NamedContent {
  readonly content: Content
  readonly name: string
}

async function decodeWith(
  runtime: Runtime, { content, name }: NamedContent, crops: Crops, size: Size, planesOf: (count: number) => Uint8Array
): Promise<void> {
  checkSize('the size of the crops', size)
  const bytes = await runtime.read(content, name)
  const jpeg = hasFastJpeg() ? jpegSize(bytes) : null
  // Drawn once, whoever decodes: a function that draws at random would give others the second time.
  let drawn: readonly Crop[] | null = null
  if (jpeg) {
    drawn = cropsOf(crops, jpeg)
    if (drawn.length === 0 || (await runtime.jpeg(bytes, drawn, size, planesOf(drawn.length)))) return
  }
  const image = await decode(bytes, name)
  const list = cropsOf(drawn ?? crops, image)
  const planes = planesOf(list.length)
  if (list.length > 0) await runtime.resize(image, list, size, planes)
}

/**
 * Decodes an image file once and resizes parts of it to one size, with the cubic kernel (Catmull-Rom, a = -0.5 as in Pillow; antialiased
 * where it shrinks). The middles of the pixels stay where they are, as in Pillow.
 *
 * JPEG files of the usual kinds are decoded by libjpeg-turbo if the addon was built with it, all others by sharp. The two differ by less
 * than two grey levels on average, as decoders do. `GMML_JPEG=sharp` in the environment leaves all files to sharp.
 *
 * @param image - Path of a file, or its content and name.
 * @param crops - Inside the image. They may be smaller than `size`: they are enlarged then.
 * @param size - Of the results, in pixels.
 * @returns For each crop its pixels [3, height, width], RGB.
 * @throws BrokenImageError for a file that cannot be decoded; InputError for a crop that is not inside the image.
 */
export async function decodeCrops(image: string | NamedContent, crops: Crops, size: Size): Promise<Uint8Array[]> {
  const length = 3 * size.height * size.width
  let planes: Uint8Array[] = []
  await decodeWith(onLibuv, named(image), crops, size, (count) => {
    const all = new Uint8Array(count * length)
    planes = Array.from({ length: count }, (_, i) => all.subarray(i * length, (i + 1) * length))
    return all
  })
  return planes
}

/** {@link decodeCrops} into `planes`, [crops, 3, height, width]. */
export async function decodeCropsInto(image: NamedContent, crops: Crops, size: Size, planes: Uint8Array): Promise<void> {
  await decodeWith(onLibuv, image, crops, size, () => planes)
}

const named = (image: string | NamedContent): NamedContent =>
  typeof image === 'string' ? { content: { path: image }, name: image } : image

/**
 * {@link decodeCrops} for worker threads: the calling thread reads the file and decodes JPEG itself, so as many work at a time as there are.
 *
 * @param planes - [crops, 3, height, width]: what is decoded is written here.
 */
export async function decodeCropsHere(image: NamedContent, crops: Crops, size: Size, planes: Uint8Array): Promise<void> {
  await decodeWith(here, image, crops, size, () => planes)
}

/** How an image is resized for evaluation, and which part of it is taken. */
export interface ResizeOptions {
  /** The length that the shorter side gets, in pixels. */
  readonly resize: number
  /** The size of the part that is cut from the middle; at most `resize`. */
  readonly crop: Size
}

/**
 * Decodes an image file for evaluation: the shorter side is resized to `resize`, then the middle is taken ({@link centreCrop}).
 *
 * @param image - Path of a file, or its content and name.
 * @returns Pixels [3, crop.height, crop.width], RGB.
 * @throws BrokenImageError for a file that cannot be decoded; InputError for a crop that is larger than `resize`.
 */
export async function decodeResized(image: string | NamedContent, { resize, crop }: ResizeOptions): Promise<Uint8Array> {
  // Wrong options are an error before the file is touched, whatever its size.
  centreCrop(1, 1, resize, crop)
  const { content, name } = named(image)
  const bytes = await readContent(content, name)
  const jpeg = hasFastJpeg() ? jpegSize(bytes) : null
  if (jpeg) {
    const { resized, crop: window } = centreCrop(jpeg.width, jpeg.height, resize, crop)
    const planes = await decodeJpeg(bytes, [{ left: 0, top: 0, ...jpeg }], resized)
    if (planes) return cut(planes, resized, window)
  }
  const pixels = await decode(bytes, name)
  const { width, height } = pixels
  const { resized, crop: window } = centreCrop(width, height, resize, crop)
  return cut(await resizePixels(pixels, [{ left: 0, top: 0, width, height }], resized), resized, window)
}

/** A part of planes [3, H, W]. */
function cut(planes: Uint8Array, { height, width }: Size, part: Rectangle): Uint8Array {
  const rows = Array.from({ length: 3 * part.height }, (_, i) => {
    const [plane, row] = [Math.floor(i / part.height), i % part.height]
    const first = (plane * height + part.top + row) * width + part.left
    return planes.subarray(first, first + part.width)
  })
  const result = new Uint8Array(3 * part.height * part.width)
  for (const [i, row] of rows.entries()) result.set(row, i * part.width)
  return result
}

function checkInside(crop: Crop, { width, height }: Size): void {
  const { left, top } = crop
  const whole = [left, top, crop.width, crop.height].every(Number.isInteger)
  if (!whole || left < 0 || top < 0 || crop.width < 1 || crop.height < 1 || left + crop.width > width || top + crop.height > height) {
    throw expected(`a rectangle of whole pixels inside ${width} x ${height}`, 'a crop', crop)
  }
}
