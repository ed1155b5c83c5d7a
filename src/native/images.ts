import { addon } from './addon.js'

/** Whether JPEG files can be decoded here: the addon was built with libjpeg-turbo. */
export const jpegVersion = (): string | null => addon.buildInfo().jpeg

export const readImage = (path: string) => addon.readImage(path)
export const decodeJpeg = (bytes: ArrayBuffer, parts: Int32Array, height: number, width: number, planes: ArrayBuffer) =>
  addon.decodeJpeg(bytes, parts, height, width, planes)
