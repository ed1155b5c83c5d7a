import type { ImageSource, Statistics } from '../data/index.js'
import { expected } from '../errors.js'
import type { EncoderDescription } from './checkpoint.js'
import type { PretrainConfig } from './config.js'

/**
 * The encoder and its input for these settings and images.
 *
 * @throws InputError for an image smaller than a patch, or one that the patches do not divide.
 */
export function describeEncoder(config: PretrainConfig, source: ImageSource, statistics: Statistics): EncoderDescription {
  const side = config.imageSize
  const imageSize: [number, number] = side ? [side, side] : source.kind === 'idx' ? [source.height, source.width] : [224, 224]
  const patchSize = config.patchSize ?? (Math.max(...imageSize) <= 64 ? 4 : 16)
  for (const length of imageSize) {
    if (length < patchSize) throw expected(`at least the patch size, ${patchSize},`, 'imageSize', length)
    if (length % patchSize) throw expected(`a divisor of the image size ${imageSize.join(' x ')}`, 'patchSize', patchSize)
  }
  const { model, registerTokens, classToken } = config
  const { channels } = source
  const tokens = { ...(registerTokens && { registerTokens }), ...(!classToken && { classToken }) }
  return { model, imageSize, patchSize, channels, ...tokens, mean: [...statistics.mean], std: [...statistics.std] }
}
