import * as native from '../native/images.js'
import type { Crop, Size } from './crop.js'

/** A file's bytes, read once, whoever decodes them. */
export interface ImageFile {
  readonly bytes: Uint8Array
  /** The upright size of a JPEG file that {@link decodeJpeg} is likely to take; null for all others. */
  readonly jpeg: Size | null
}

const version = native.jpegVersion()

/** Whether JPEG files are decoded by libjpeg-turbo: it must be there, and `GMML_JPEG=sharp` in the environment switches it off. */
export const hasFastJpeg = (): boolean => version !== null && process.env['GMML_JPEG'] !== 'sharp'

/**
 * Reads a file, and from its first bytes the size of the image if it is a JPEG of the usual kind: 8 bits, Huffman-coded, grey or YCbCr or
 * RGB, without a colour profile other than sRGB.
 *
 * @returns null for a file that is empty or cannot be read; why is for others to say.
 */
export async function readImageFile(path: string): Promise<ImageFile | null> {
  const read = await native.readImage(path)
  if (read === null) return null
  const [bytes, width, height] = read
  return { bytes: new Uint8Array(bytes), jpeg: width > 0 ? { width, height } : null }
}

/**
 * Decodes the parts of a JPEG file that the crops need, once for all of them and at most reduced to what they need, and resizes each crop
 * to `size` with ATen's antialiased bicubic kernel (`torch.nn.functional.interpolate`; a = -0.5 as in Pillow). It works on libuv's threads.
 *
 * Where the crops have at least twice as many pixels as `size`, the image is decoded at a half, a quarter or an eighth of its size first.
 *
 * @param file - With a `jpeg` size, that the crops lie inside of.
 * @returns For each crop its pixels [3, height, width], RGB; null for a file that is damaged, or may be: sharp is the judge of that.
 */
export async function decodeJpeg(file: ImageFile, crops: readonly Crop[], { height, width }: Size): Promise<Uint8Array[] | null> {
  if (crops.length === 0) return null
  const parts = Int32Array.from(crops.flatMap((crop) => [crop.left, crop.top, crop.width, crop.height, crop.flip ? 1 : 0]))
  const length = 3 * height * width
  const planes = new ArrayBuffer(crops.length * length)
  if (!(await native.decodeJpeg(file.bytes.buffer as ArrayBuffer, parts, height, width, planes))) return null
  return crops.map((_, index) => new Uint8Array(planes, index * length, length))
}
