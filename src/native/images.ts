import { addon } from './addon.js'

/** The version of libjpeg-turbo that the addon was built with; null without it: `readImage` then knows no size. */
export const jpegVersion = (): string | null => addon.buildInfo().jpeg

export const readImage = (path: string) => addon.readImage(path)
export const decodeJpeg = (bytes: ArrayBuffer, parts: Int32Array, height: number, width: number, planes: ArrayBuffer) =>
  addon.decodeJpeg(bytes, parts, height, width, planes)
