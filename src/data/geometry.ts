import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { column, perChannel, requireEach } from './batch.js'
import { upload } from './upload.js'

/** How pixels between pixels are made. */
export type Interpolation = 'bilinear' | 'nearest'

/** How an image is sampled at other places. */
export interface WarpOptions {
  /** Default 'bilinear'; torchvision's default is 'nearest'. */
  readonly interpolation?: Interpolation
  /** What appears where the image ends: one value, or one for each channel. Default: zeros. */
  readonly fill?: number | readonly number[]
}

/** A map of the plane, of which every part may be left out. Shear acts first, then scale, angle, and translation. */
export interface AffineMap {
  /** Degrees, clockwise. */
  readonly angle?: number
  /** Pixels to the right and down. */
  readonly translate?: readonly [x: number, y: number]
  /** Factor, above 0. */
  readonly scale?: number
  /** Degrees parallel to the x-axis and to the y-axis, between -90 and 90. */
  readonly shear?: readonly [x: number, y: number]
  /** The point that shear, scale and angle leave where it is, in pixels from the top left corner. Default: the middle of the image. */
  readonly centre?: readonly [x: number, y: number]
}

/** Linear in x, linear in y, constant: first for x, then for y. */
type Matrix = readonly [xx: number, xy: number, x: number, yx: number, yy: number, y: number]

/** From where each pixel of the result comes: the inverse of the map, in coordinates whose origin is the middle of the image. */
function inverseOf({ angle = 0, translate = [0, 0], scale = 1, shear = [0, 0], centre }: AffineMap, width: number, height: number): Matrix {
  const [turn, shearX, shearY] = [angle, ...shear].map((degrees) => (degrees * Math.PI) / 180) as [number, number, number]
  const [cos, sin, tanX, tanY] = [Math.cos(turn), Math.sin(turn), Math.tan(shearX), Math.tan(shearY)]
  // Both shears, then the rotation; the determinant of each is 1.
  const [s, t] = [cos + sin * tanY, sin - cos * tanY]
  const [xx, xy, yx, yy] = [s, -sin - s * tanX, t, cos - t * tanX]
  const [centreX, centreY] = centre ? [centre[0] - width / 2, centre[1] - height / 2] : [0, 0]
  const [x, y] = [-centreX - translate[0], -centreY - translate[1]]
  return [
    yy / scale, -xy / scale, (yy * x - xy * y) / scale + centreX,
    -yx / scale, xx / scale, (xx * y - yx * x) / scale + centreY
  ]
}

/** The places that {@link torch.gridSampler} is to look at: [B, H, W, 2], -1 and 1 at the outer edges of the image. */
function gridOf(matrices: readonly Matrix[], width: number, height: number, device: torch.Device): Tensor {
  const middles = (length: number) => torch.arange(length, { dtype: 'float32', device }).add(0.5 - length / 2)
  const each = (x: 0 | 1 | 2, y: 3 | 4 | 5): Tensor => {
    const numbers = matrices.flatMap((matrix) => [matrix[x] / (width / 2), matrix[y] / (height / 2)])
    return upload(Float32Array.from(numbers), [matrices.length, 2, 1, 1], device)
  }
  // A part for the column, [B, 2, 1, W], and one for the row, [B, 2, H, 1]: added, they are both coordinates of every place.
  const columns = each(0, 3).mul(middles(width))
  const rows = each(1, 4).mul(middles(height).unsqueeze(1)).add(each(2, 5))
  return columns.add(rows).permute([0, 2, 3, 1])
}

const MODES = { bilinear: 0, nearest: 1 } as const
const ZEROS = 0

function warp(images: Tensor, matrices: readonly Matrix[], { interpolation = 'bilinear', fill }: WarpOptions): Tensor {
  const mode = MODES[interpolation] as number | undefined
  if (mode === undefined) throw expected("'bilinear' or 'nearest'", 'interpolation', interpolation)
  const [batch, channels, height, width] = images.shape as [number, number, number, number]
  return torch.scope(() => {
    const grid = gridOf(matrices, width, height, images.device)
    const sample = (input: Tensor) => torch.gridSampler(input, grid, mode, ZEROS, false)
    if (fill === undefined) return sample(images)
    const fills = perChannel(fill, images, 'fill')
    // One more channel tells how much of a pixel lies inside the image.
    const sampled = sample(torch.cat([images, torch.ones([batch, 1, height, width], { device: images.device })], { dim: 1 }))
    // Zeros have darkened a pixel on the edge before the fill gets its part: so it is in torchvision.
    return torch.lerp(fills, sampled.narrow(1, 0, channels), sampled.narrow(1, channels, 1))
  })
}

/**
 * Moves, turns, scales and shears images, each by its own map. Equals torchvision's `functional.affine` with `map.centre` as its `center`.
 *
 * @param images - [B, C, H, W], float.
 * @param maps - One for each image.
 * @throws InputError for a scale that is not above 0, numbers that are not finite, more or fewer maps than images.
 */
export function affine(images: Tensor, maps: readonly AffineMap[], options: WarpOptions = {}): Tensor {
  requireEach(maps, images, 'maps')
  const [, , height, width] = images.shape as [number, number, number, number]
  const matrices = maps.map((map) => {
    const matrix = inverseOf(map, width, height)
    if (!(map.scale === undefined || map.scale > 0) || !matrix.every(Number.isFinite)) {
      throw expected('finite numbers, the scale above 0', 'a map', map)
    }
    return matrix
  })
  return warp(images, matrices, options)
}

/**
 * Turns images about their middle, each by its own angle. Equals torchvision's `functional.rotate`.
 *
 * @param images - [B, C, H, W], float.
 * @param angles - Degrees, counter-clockwise, one for each image.
 * @throws InputError for an angle that is not finite, more or fewer angles than images.
 */
export function rotate(images: Tensor, angles: readonly number[], options: WarpOptions = {}): Tensor {
  return affine(images, angles.map((angle) => ({ angle: -angle })), options)
}

/**
 * Mirrors images left to right. Equals torchvision's `functional.hflip`.
 *
 * @param images - [B, C, H, W].
 * @param flips - Whether, for each image.
 * @throws InputError for more or fewer flips than images.
 */
export function flipHorizontally(images: Tensor, flips: readonly boolean[]): Tensor {
  return torch.scope(() => torch.where(column(flips.map(Number), images).ne(0), images.flip([3]), images))
}
