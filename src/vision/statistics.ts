import { expected } from '../errors.js'
import { VisionTransformer } from './vision-transformer.js'

/** What a model's images are normalised with: (pixel / 255 - mean) / std, channel by channel. */
export interface ImageStatistics {
  readonly mean?: readonly number[] | undefined
  readonly std?: readonly number[] | undefined
}

/** @throws InputError for what is no vision transformer. */
export function requireModel(model: unknown): asserts model is VisionTransformer {
  if (!(model instanceof VisionTransformer)) throw expected('a VisionTransformer', 'the model', model)
}

/** @throws InputError unless there are as many finite numbers as channels, of both or of neither. */
export function requireStatistics(model: VisionTransformer, { mean, std }: ImageStatistics): ImageStatistics {
  requireModel(model)
  const { channels } = model
  if (mean === undefined && std === undefined) return {}
  for (const [name, values] of Object.entries({ mean, std })) {
    if (Array.isArray(values) && values.length === channels && values.every(Number.isFinite)) continue
    throw expected(`${channels} numbers, one for each channel,`, name, values)
  }
  return { mean, std }
}
