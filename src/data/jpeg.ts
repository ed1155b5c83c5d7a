import * as native from '../native/images.js'
import type { Crop, Size } from './crop.js'
import { partsOf } from './resize.js'

const version = native.jpegVersion()

/** Whether JPEG files are decoded by libjpeg-turbo: it must be there, and `GMML_JPEG=sharp` in the environment switches it off. */
export const hasFastJpeg = (): boolean => version !== null && process.env['GMML_JPEG'] !== 'sharp'

/**
 * The upright size of a JPEG file that {@link decodeJpeg} is likely to take: 8 bits, Huffman-coded, grey or YCbCr or RGB, without a colour
 * profile other than sRGB. null for all others.
 */
export function jpegSize(bytes: Uint8Array): Size | null {
  const size = native.jpegSize(bytes)
  return size && { width: size[0], height: size[1] }
}

/**
 * Decodes the parts of a JPEG file that the crops need, once for all of them and at most reduced to what they need, and resizes each crop
 * to `size` with the antialiased bicubic kernel of ATen for bytes (`torch.nn.functional.interpolate`; a = -0.5 as in Pillow), equal to the
 * bit where nothing is reduced. It works on libuv's threads.
 *
 * Where each side of the crops is at least four times that of `size`, the image is decoded at a half, a quarter or an eighth of its size, at
 * which they still have twice as many pixels as `size`: of photographs the result stays within a grey level, on average, of resizing all
 * pixels.
 *
 * @param bytes - With a {@link jpegSize}, that the crops lie inside of.
 * @param crops - At least one.
 * @returns The crops' pixels [crops, 3, height, width], RGB; null for a file that is damaged, or may be: sharp is the judge of that.
 */
export const decodeJpeg = (bytes: Uint8Array, crops: readonly Crop[], { height, width }: Size): Promise<Uint8Array | null> =>
  native.decodeJpeg(bytes, partsOf(crops), height, width)

/** {@link decodeJpeg} on the calling thread, into `planes`; false instead of null. */
export const decodeJpegSync = (bytes: Uint8Array, crops: readonly Crop[], { height, width }: Size, planes: Uint8Array): boolean =>
  native.decodeJpegSync(bytes, partsOf(crops), height, width, planes)
