import type { MemorySource } from './memory.js'
import type { ImageSource } from './source.js'
import { imagenetStatistics, type Statistics } from './views.js'

/** What images are normalised with unless told: the data set's own mean and deviation for images in memory, ImageNet's for files. */
export function defaultStatistics(source: ImageSource): Statistics {
  return source.kind === 'memory' ? statisticsOf(source) : imagenetStatistics
}

/** Mean and standard deviation of each channel over all pixels of all images. */
function statisticsOf({ images, length, channels, height, width }: MemorySource): Statistics {
  const area = height * width
  const counts = Array.from({ length: channels }, () => new Float64Array(256))
  for (let plane = 0; plane < length * channels; plane++) {
    const own = counts[plane % channels]!
    for (let i = plane * area; i < (plane + 1) * area; i++) own[images[i]!]! += 1
  }
  const each = counts.map((own) => {
    // In whole numbers, as far as they go: a data set of one flat colour has a deviation of exactly 0, which cannot be divided by.
    const mean = own.reduce((sum, count, value) => sum + count * value, 0) / (length * area)
    const variance = own.reduce((sum, count, value) => sum + count * (value - mean) ** 2, 0) / (length * area)
    return { mean: mean / 255, std: Math.sqrt(variance) / 255 || 1 }
  })
  return { mean: each.map(({ mean }) => mean), std: each.map(({ std }) => std) }
}
