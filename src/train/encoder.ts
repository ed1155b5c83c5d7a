import type { ImageSource, Statistics } from '../data/index.js'
import { expected } from '../errors.js'
import type { VisionTransformerName } from '../vision/index.js'
import type { EncoderDescription } from './checkpoint.js'

/** What settings say of an encoder. */
export interface EncoderSettings {
  readonly model: VisionTransformerName
  /** Default: 224, or the size of IDX images. */
  readonly imageSize?: number | undefined
  /** Default: 16, or 4 for images of up to 64 pixels. */
  readonly patchSize?: number | undefined
  readonly registerTokens?: number
  readonly classToken?: boolean
}

/** Height and width of the views, in pixels. */
export function viewSize(imageSize: number | undefined, source: ImageSource): [number, number] {
  return imageSize ? [imageSize, imageSize] : source.kind === 'encoded' ? [224, 224] : [source.height, source.width]
}

/**
 * The encoder and its input for these settings and images.
 *
 * @throws InputError for an image smaller than a patch, or one that the patches do not divide.
 */
export function describeEncoder(config: EncoderSettings, source: ImageSource, statistics: Statistics): EncoderDescription {
  const imageSize = viewSize(config.imageSize, source)
  const patchSize = config.patchSize ?? (Math.max(...imageSize) <= 64 ? 4 : 16)
  for (const length of imageSize) {
    if (length < patchSize) throw expected(`at least the patch size, ${patchSize},`, 'imageSize', length)
    if (length % patchSize) throw expected(`a divisor of the image size ${imageSize.join(' x ')}`, 'patchSize', patchSize)
  }
  const { model, registerTokens = 0, classToken = true } = config
  const { channels } = source
  const tokens = { ...(registerTokens && { registerTokens }), ...(!classToken && { classToken }) }
  return { model, imageSize, patchSize, channels, ...tokens, mean: [...statistics.mean], std: [...statistics.std] }
}
