import { addon } from './addon.js'

/** The version of libjpeg-turbo that the addon was built with; null without it: `jpegSize` then knows no size. */
export const jpegVersion = (): string | null => addon.buildInfo().jpeg

export const jpegSize = (bytes: Uint8Array) => addon.jpegSize(bytes)
export const decodeJpeg = (bytes: Uint8Array, parts: Int32Array, height: number, width: number) =>
  addon.decodeJpeg(bytes, parts, height, width)
export const decodeJpegSync = (bytes: Uint8Array, parts: Int32Array, height: number, width: number, planes: Uint8Array) =>
  addon.decodeJpegSync(bytes, parts, height, width, planes)
export const writePlanes = (pixels: Uint8Array, height: number, width: number, step: number, flip: boolean, planes: Uint8Array) =>
  addon.writePlanes(pixels, height, width, step, flip, planes)
