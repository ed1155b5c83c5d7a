import * as native from '../native/images.js'
import type { Crop, Size } from './crop.js'

/** Crops as the addon takes them. */
export const partsOf = (crops: readonly Crop[]): Int32Array =>
  Int32Array.from(crops.flatMap((crop) => [crop.left, crop.top, crop.width, crop.height, crop.flip ? 1 : 0]))

/** Pixels of an image, RGB, interleaved. */
export interface Pixels extends Size {
  readonly data: Uint8Array
}

/**
 * Resizes parts of an image to one size with the antialiased bicubic kernel of ATen for bytes (`torch.nn.functional.interpolate`; a = -0.5
 * as in Pillow), equal to the bit. It works on libuv's threads.
 *
 * @param crops - At least one, inside the image.
 * @returns Planes [crops, 3, height, width].
 */
export const resizePixels = (image: Pixels, crops: readonly Crop[], { height, width }: Size): Promise<Uint8Array> =>
  native.resizePixels(image.data, partsOf(crops), height, width, image.width)

/** {@link resizePixels} on the calling thread, into `planes`. */
export function resizePixelsSync(image: Pixels, crops: readonly Crop[], { height, width }: Size, planes: Uint8Array): void {
  native.resizePixelsSync(image.data, partsOf(crops), height, width, planes, image.width)
}
