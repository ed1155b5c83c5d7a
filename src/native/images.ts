import { addon } from './addon.js'

/** The version of libjpeg-turbo that the addon was built with; null without it: `jpegSize` then knows no size. */
export const jpegVersion = (): string | null => addon.buildInfo().jpeg

export const jpegSize = (bytes: Uint8Array) => addon.jpegSize(bytes)
export const decodeJpeg = (bytes: Uint8Array, parts: Int32Array, height: number, width: number) =>
  addon.decodeJpeg(bytes, parts, height, width)
export const decodeJpegSync = (bytes: Uint8Array, parts: Int32Array, height: number, width: number, planes: Uint8Array) =>
  addon.decodeJpegSync(bytes, parts, height, width, planes)
export const resizePixels = (pixels: Uint8Array, parts: Int32Array, height: number, width: number, imageWidth: number) =>
  addon.resizePixels(pixels, parts, height, width, imageWidth)
export const resizePixelsSync = (
  pixels: Uint8Array, parts: Int32Array, height: number, width: number, planes: Uint8Array, imageWidth: number
) => addon.resizePixelsSync(pixels, parts, height, width, planes, imageWidth)
