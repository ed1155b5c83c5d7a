import { stat } from 'node:fs/promises'
import sharp from 'sharp'

import { readContent } from './content.js'
import type { Size } from './crop.js'
import type { NamedContent } from './decode.js'
import { type EncodedSource, namedContent } from './encoded.js'

// What the decoder takes at most.
const PIXEL_LIMIT = 0x3fff ** 2

/** What the header of an image file says. */
export interface ImageHeader extends Size {
  /** By its content, not by its name: jpeg, png, webp, avif, gif, tiff. */
  readonly format: string
}

/** Size (upright) and format by the header; null if there is none that makes sense. The content is not decoded. */
export async function readHeader({ image }: HeaderContent): Promise<ImageHeader | null> {
  const found = await sharp(image).metadata().catch(() => null)
  if (!found || found.width * found.height > PIXEL_LIMIT) return null
  // sharp calls the container by its name: AVIF is HEIF with pictures of AV1.
  return { ...found.autoOrient, format: found.compression === 'av1' ? 'avif' : found.format }
}

/** An image whose header is to be read: of a whole file by its path, so that the rest is not read; else all its bytes. */
export interface HeaderContent extends NamedContent {
  readonly image: string | Uint8Array
  readonly bytes: number
}

/** @throws BrokenImageError if there is no content. */
export async function openHeader(source: EncodedSource, index: number, signal: AbortSignal): Promise<HeaderContent> {
  const { content, name } = await namedContent(source, index, signal)
  if ('path' in content && content.offset === undefined) {
    const { path } = content
    const bytes = await stat(path).then(({ size }) => size, () => 0) // gone or locked: decoding says so
    return { content, name, image: path, bytes }
  }
  const image = await readContent(content, name)
  return { content: image, name, image, bytes: image.length }
}
