import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { requireEach } from './batch.js'
import { checkRange, checkSize, roundToEven, type Rectangle } from './crop.js'
import type { Random } from './random.js'

/** How rectangles are drawn that random erasing fills. */
export interface ErasingSettings {
  /** How often a rectangle is erased. Default 0.25. */
  readonly probability?: number
  /** The rectangle's area as a part of the image's: smallest and largest. Default [0.02, 1/3]. */
  readonly area?: readonly [number, number]
  /** Height divided by width: smallest and largest. Default [0.3, 10/3]. */
  readonly aspect?: readonly [number, number]
  /** What replaces the pixels of a normalised image: noise of mean 0 and deviation 1, or 0, the mean of the data set. Default 'pixel'. */
  readonly mode?: 'pixel' | 'const'
}

/** A rectangle that is replaced. */
export interface Erasing extends Rectangle {
  /** Seed of the noise that replaces it; null for zeros. */
  readonly noise: number | null
}

/**
 * Draws the rectangle that random erasing (arXiv 1708.04896) takes from one image, by the procedure of timm's `RandomErasing` for one
 * rectangle: ten tries with an area uniform in `area` and an aspect log-uniform in `aspect`. The noise's seed is drawn with it, so that the
 * result depends on these random numbers alone.
 *
 * @param random - Takes a number; then two for each try, two more for the try that fits (top, then left) and one for noise.
 * @returns null where nothing is erased: so often, and where no try was smaller than the image, or it had no pixel.
 * @throws InputError for a size below 1, a probability outside 0 to 1, a range that is not positive and ascending, another mode.
 */
export function drawErasing(random: Random, height: number, width: number, settings: ErasingSettings = {}): Erasing | null {
  const { probability = 0.25, area = [0.02, 1 / 3], aspect = [0.3, 10 / 3], mode = 'pixel' } = settings
  checkSize('the size of the image', { height, width })
  if (!(probability >= 0 && probability <= 1)) throw expected('a number from 0 to 1', 'probability of erasing', probability)
  checkRange('area of erasing', area)
  checkRange('aspect of erasing', aspect)
  if (mode !== 'pixel' && mode !== 'const') throw expected("'pixel' or 'const'", 'mode of erasing', mode)
  if (!random.chance(probability)) return null
  for (let attempt = 0; attempt < 10; attempt++) {
    const pixels = random.uniform(...area) * height * width
    const ratio = Math.exp(random.uniform(Math.log(aspect[0]), Math.log(aspect[1])))
    const size = { height: roundToEven(Math.sqrt(pixels * ratio)), width: roundToEven(Math.sqrt(pixels / ratio)) }
    if (size.height >= height || size.width >= width) continue
    const top = random.integer(0, height - size.height + 1)
    const left = random.integer(0, width - size.width + 1)
    if (size.height === 0 || size.width === 0) return null
    return { left, top, ...size, noise: mode === 'pixel' ? random.integer(0, 2 ** 48) : null }
  }
  return null
}

/**
 * Replaces a rectangle of each image by noise or zeros.
 *
 * @param images - [B, C, H, W], normalised.
 * @param erasings - One for each image, inside it; null leaves the image as it is.
 * @returns The changed images; `images` itself where none is to be changed.
 * @throws InputError for more or fewer rectangles than images.
 */
export function applyErasing(images: Tensor, erasings: readonly (Erasing | null)[]): Tensor {
  requireEach(erasings, images, 'erasings')
  if (erasings.every((erasing) => erasing === null)) return images
  const { device, dtype } = images
  const channels = images.shape[1]!
  using generator = torch.generator({ device })
  return torch.scope(() => {
    const result = images.clone()
    for (const [row, erasing] of erasings.entries()) {
      if (erasing === null) continue
      const { left, top, width, height, noise } = erasing
      torch.scope(() => {
        const part = result.select(0, row).narrow(1, top, height).narrow(2, left, width)
        if (noise === null) part.zero_()
        else part.copy_(torch.randn([channels, height, width], { generator: generator.manualSeed(noise), device, dtype }))
      })
    }
    return result
  })
}
