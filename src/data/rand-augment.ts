import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { requireEach, rowsOf, toSteps } from './batch.js'
import { adjustBrightness, adjustContrast, adjustSaturation, adjustSharpness } from './colour.js'
import { roundToEven } from './crop.js'
import { affine, type AffineMap, type WarpOptions } from './geometry.js'
import type { Random } from './random.js'
import { autocontrast, equalize, posterize, solarize } from './tone.js'

interface Operation {
  /** Strength at a part of the highest magnitude, 0 to 1. Operations without have none. */
  readonly strength?: (part: number) => number
  /** The strength is as often below 0 as above. */
  readonly signed?: boolean
}

const upTo = (highest: number): Operation => ({ strength: (part) => part * highest, signed: true })

/** The operations and their strengths, in torchvision's order. */
const operations = {
  identity: {},
  /** Tangent of the angle. */
  shearX: upTo(0.3),
  shearY: upTo(0.3),
  /** Part of the image's width, or height. */
  translateX: upTo(150 / 331),
  translateY: upTo(150 / 331),
  /** Degrees, counter-clockwise. */
  rotate: upTo(30),
  /** What is added to a factor of 1. */
  brightness: upTo(0.9),
  colour: upTo(0.9),
  contrast: upTo(0.9),
  sharpness: upTo(0.9),
  /** Bits kept. */
  posterize: { strength: (part) => 8 - roundToEven(4 * part) },
  /** From this value on, of 1. */
  solarize: { strength: (part) => 1 - part },
  autocontrast: {},
  equalize: {}
} as const satisfies Record<string, Operation>

/** An operation of RandAugment. */
export type RandAugmentOperation = keyof typeof operations

/** The operations of RandAugment, in torchvision's order. */
export const randAugmentOperations = Object.keys(operations) as readonly RandAugmentOperation[]

/** One operation on one view, with its strength: see {@link drawRandAugment} for the unit of each. */
export interface RandAugmentStep {
  readonly operation: RandAugmentOperation
  readonly strength: number
}

/** What RandAugment does to one view, in this order. */
export type RandAugmentPlan = readonly RandAugmentStep[]

/** How many operations of RandAugment an image gets, and how strong they are. */
export interface RandAugmentSettings {
  /** Operations applied to a view, one after the other. Default 2. */
  readonly ops?: number
  /** How strong they are: 0 to `bins` - 1. Default 9. */
  readonly magnitude?: number
  /** Magnitudes that there are. Default 31. */
  readonly bins?: number
}

/**
 * Draws what RandAugment (arXiv 1909.13719) does to one view, as torchvision's `transforms.RandAugment`: each operation is equally likely,
 * and those that have a direction go either way.
 *
 * Strengths: the tangent of a shear's angle; a translation as a part of the width or height; degrees of rotation, counter-clockwise; what
 * is added to a factor of 1 for brightness, colour, contrast and sharpness; the bits that posterize keeps; the value from which on
 * solarize inverts; 0 for the others.
 *
 * @throws InputError for settings that are not integers in their ranges.
 */
export function drawRandAugment(random: Random, settings: RandAugmentSettings = {}): RandAugmentPlan {
  const { ops = 2, magnitude = 9, bins = 31 } = settings
  if (!Number.isInteger(ops) || ops < 0) throw expected('an integer of at least 0', 'ops of RandAugment', ops)
  if (!Number.isInteger(bins) || bins < 2) throw expected('an integer of at least 2', 'bins of RandAugment', bins)
  if (!Number.isInteger(magnitude) || magnitude < 0 || magnitude >= bins) {
    throw expected(`an integer from 0 to ${bins - 1}`, 'magnitude of RandAugment', magnitude)
  }
  return Array.from({ length: ops }, () => {
    const operation = randAugmentOperations[random.integer(0, randAugmentOperations.length)]!
    const negative = random.chance(0.5)
    const { strength, signed = false }: Operation = operations[operation]
    const size = strength?.(magnitude / (bins - 1)) ?? 0
    return { operation, strength: negative && signed ? -size : size }
  })
}

type Kernel = (images: Tensor, strengths: readonly number[]) => Tensor

const factors = (strengths: readonly number[]): number[] => strengths.map((strength) => 1 + strength)

const kernels = {
  identity: (images) => images,
  brightness: (images, strengths) => adjustBrightness(images, factors(strengths)),
  colour: (images, strengths) => adjustSaturation(images, factors(strengths)),
  contrast: (images, strengths) => adjustContrast(images, factors(strengths)),
  sharpness: (images, strengths) => adjustSharpness(images, factors(strengths)),
  posterize,
  solarize,
  autocontrast,
  equalize
} satisfies Partial<Record<RandAugmentOperation, Kernel>>

/** The operations that are maps of the plane: all of them are applied by one call. */
function mapOf({ operation, strength }: RandAugmentStep, width: number, height: number): AffineMap | null {
  const degrees = (Math.atan(strength) * 180) / Math.PI
  // In whole pixels, and in float32 as torchvision has it: 3 must not become 2.
  const pixels = (side: number) => Math.trunc(Math.fround(strength * side))
  switch (operation) {
    case 'shearX': return { shear: [degrees, 0], centre: [0, 0] }
    case 'shearY': return { shear: [0, degrees], centre: [0, 0] }
    case 'translateX': return { translate: [pixels(width), 0] }
    case 'translateY': return { translate: [0, pixels(height)] }
    case 'rotate': return { angle: -strength }
    default: return null
  }
}

/** Rounded to 256 steps. Of a flat area, bilinear weights leave differences of a ten-millionth, which autocontrast would stretch to 1. */
const rounded = (images: Tensor): Tensor => toSteps(images).div_(255)

/** Numbers in a part of a batch, on the CPU: what a part is made of then stays in the processor's cache. */
const PART = 2 ** 20

/** Which rows of a batch are changed together: those of one operation, and all maps of the plane. */
function groupsOf(images: Tensor, steps: readonly RandAugmentStep[]): [group: keyof typeof kernels | 'map', rows: number[]][] {
  const [, channels, height, width] = images.shape as [number, number, number, number]
  const most = images.isCuda ? Infinity : Math.max(1, Math.floor(PART / (channels * height * width)))
  const groups: ReturnType<typeof groupsOf> = []
  const open = new Map<string, number[]>()
  for (const [row, { operation }] of steps.entries()) {
    const group = operation in kernels ? (operation as keyof typeof kernels) : 'map'
    const rows = open.get(group)
    if (rows && rows.length < most) {
      rows.push(row)
      continue
    }
    const more = [row]
    open.set(group, more)
    groups.push([group, more])
  }
  return groups
}

/** Applies one step of each view. */
function applySteps(images: Tensor, steps: readonly RandAugmentStep[], options: WarpOptions): Tensor {
  const [, , height, width] = images.shape as [number, number, number, number]
  const result = images.emptyLike()
  for (const [group, rows] of groupsOf(images, steps)) {
    torch.scope(() => {
      const places = rowsOf(rows, images)
      const chosen = images.indexSelect(0, places)
      const own = rows.map((row) => steps[row]!)
      const changed =
        group === 'map' ? affine(chosen, own.map((step) => mapOf(step, width, height)!), options)
          : kernels[group](chosen, own.map(({ strength }) => strength))
      result.indexCopy_(0, places, group === 'identity' ? changed : rounded(changed))
    })
  }
  return result
}

/**
 * Applies each view's plan, all views of an operation at once. Equals torchvision's `transforms.RandAugment` with the same operations, but
 * that values are rounded to bytes after each one, where torchvision mostly cuts them off.
 *
 * @param images - [B, C, H, W] of 1 or 3 channels, values in [0, 1].
 * @param plans - One for each image, all of the same length.
 * @param options - Of shear, translation and rotation. The fill is usually the mean of the data set.
 * @returns The changed images; `images` itself where the plans are empty.
 * @throws InputError for more or fewer plans than images, and plans of several lengths.
 */
export function applyRandAugment(images: Tensor, plans: readonly RandAugmentPlan[], options: WarpOptions = {}): Tensor {
  requireEach(plans, images, 'plans')
  const lengths = new Set(plans.map(({ length }) => length))
  if (lengths.size > 1) throw expected('plans of one length', 'plans', [...lengths])
  const [length = 0] = lengths
  if (length === 0) return images
  return torch.scope(() => {
    let changed = rounded(images)
    for (let step = 0; step < length; step++) changed = applySteps(changed, plans.map((plan) => plan[step]!), options)
    return changed
  })
}
