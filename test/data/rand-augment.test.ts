import { describe, expect, it } from 'vitest'
import {
  applyRandAugment, drawRandAugment, randAugmentOperations, randomFor, type RandAugmentOperation, type RandAugmentPlan
} from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { differing, distance, reference, scripted, tensorOf, unit } from './augmentation.js'

/** torchvision's names, by ours. */
const names: Record<RandAugmentOperation, string> = {
  identity: 'Identity', shearX: 'ShearX', shearY: 'ShearY', translateX: 'TranslateX', translateY: 'TranslateY', rotate: 'Rotate',
  brightness: 'Brightness', colour: 'Color', contrast: 'Contrast', sharpness: 'Sharpness', posterize: 'Posterize', solarize: 'Solarize',
  autocontrast: 'AutoContrast', equalize: 'Equalize'
}
const number = (name: string): number => randAugmentOperations.findIndex((operation) => names[operation] === name)

/** What is drawn where the random numbers choose this operation and sign. */
const drawn = (name: string, magnitude: number, sign: number, bins = 31): RandAugmentPlan =>
  drawRandAugment(scripted([number(name), sign < 0 ? 0.49 : 0.5]), { ops: 1, magnitude, bins })

describe('drawRandAugment', () => {
  it("has torchvision's operations in torchvision's order", () => {
    expect(randAugmentOperations.map((operation) => names[operation])).toEqual(Object.keys(reference.spaces[0]!.strengths))
  })

  it.each(reference.spaces.map((space) => [space.bins, space.size, space.strengths] as const))(
    "has torchvision's strengths (%i bins, %j pixels)", (bins, [height, width], strengths) => {
      const sides: Record<string, number> = { TranslateX: width, TranslateY: height }
      for (const [name, wanted] of Object.entries(strengths)) {
        for (const [magnitude, strength] of wanted.entries()) {
          const [step] = drawn(name, magnitude, 1, bins)
          const received = step!.strength * (name === 'Solarize' ? 255 : sides[name] ?? 1)
          // Whole pixels are made of translations where they are applied, which is tested with the images.
          if (sides[name]) expect(Math.floor(received + 1e-5)).toBe(strength)
          else expect(Math.abs(received - strength), `${name} at ${magnitude}`).toBeLessThan(2e-5)
        }
      }
    }
  )

  it('draws each operation and each direction equally often, and as many as are asked for', () => {
    const DRAWS = 14_000
    const steps = Array.from({ length: DRAWS }, (_, i) => drawRandAugment(randomFor(5, i), { ops: 3 })).flat()
    expect(steps).toHaveLength(3 * DRAWS)
    for (const operation of randAugmentOperations) {
      const own = steps.filter((step) => step.operation === operation)
      // Five standard deviations.
      expect(Math.abs(own.length - 3000)).toBeLessThan(5 * Math.sqrt(3000 * (13 / 14)))
      const negative = own.filter(({ strength }) => strength < 0).length
      const signed = ['shear', 'trans', 'rotat', 'brigh', 'colou', 'contr', 'sharp'].includes(operation.slice(0, 5))
      if (signed) expect(Math.abs(negative - own.length / 2)).toBeLessThan(5 * Math.sqrt(own.length / 4))
      else expect(negative).toBe(0)
      expect(new Set(own.map(({ strength }) => Math.abs(strength))).size).toBe(1)
    }
    expect(drawRandAugment(randomFor(5, 0))).toHaveLength(2)
    expect(drawRandAugment(randomFor(5, 0), { ops: 0 })).toEqual([])
  })

  it('refuses settings that are none', () => {
    const draw = (settings: object) => () => drawRandAugment(randomFor(1), settings)
    expect(draw({ ops: -1 })).toThrow(/at least 0 for ops of RandAugment/)
    expect(draw({ magnitude: 31 })).toThrow(/from 0 to 30 for magnitude of RandAugment, received 31/)
    expect(draw({ magnitude: 4.5 })).toThrow(/for magnitude/)
    expect(draw({ bins: 1, magnitude: 0 })).toThrow(/at least 2 for bins/)
  })
})

describe.each(['rgb', 'grey'] as const)('applyRandAugment (%s)', (set) => {
  const images = unit(tensorOf(`randAugment.${set}.images`))
  const chosen = set === 'rgb' ? reference.plans : reference.plans.filter((_, i) => i % 2 === 0)
  const plans = chosen.map((plan) => plan.flatMap(([name, magnitude, sign]) => drawn(name, magnitude, sign)))
  const fill = reference.fill[images.shape[1]!]!
  const rows = (batch: Tensor, keep: (i: number) => boolean): Tensor => {
    const kept = plans.flatMap((_, i) => (keep(i) ? [i] : []))
    return batch.indexSelect(0, torch.tensor(kept, { dtype: 'int64' }))
  }
  const groups = [1, 3].map((length) => [length, (i: number) => plans[i]!.length === length] as const)

  describe.each(['bilinear', 'nearest'] as const)('%s', (interpolation) => {
    it.each(groups)("equals torchvision's operations one after the other (%i)", (_, keep) => {
      const own = plans.filter((_, i) => keep(i))
      const result = applyRandAugment(rows(images, keep), own, { interpolation, fill })
      const wanted = rows(unit(tensorOf(`randAugment.${set}.${interpolation}`)), keep)
      const off = result.sub(wanted).mul(255).round().abs()
      // What lies halfway between two bytes, or two pixels, may go either way.
      expect(off.gt(0).to('float32').mean().item()).toBeLessThan(0.005)
      if (interpolation === 'bilinear' && own[0]!.length === 1) expect(off.max().item()).toBeLessThanOrEqual(1)
      expect(differing(rows(images, keep), wanted)).toBeGreaterThan(0.3)
    })

    it("is as near to torchvision's own results on bytes, which are not rounded but cut off, as that allows", () => {
      const [, keep] = groups[0]!
      const result = applyRandAugment(rows(images, keep), plans.filter((_, i) => keep(i)), { interpolation, fill })
      const bytes = rows(tensorOf(`randAugment.${set}.${interpolation}.firstOnBytes`), keep).to('float32')
      const off = result.mul(255).round().sub(bytes).abs()
      // Greys that were cut off weigh almost as much as the result.
      expect(off.gt(2).to('float32').mean().item()).toBeLessThan(0.001)
      expect(off.mean().item()).toBeLessThan(0.2)
    })
  })
})

describe('applyRandAugment', () => {
  const images = unit(tensorOf('randAugment.rgb.images'))
  const plans = Array.from({ length: images.shape[0]! }, (_, i) => drawRandAugment(randomFor(2, i)))

  it('treats each image as if it were alone', () => {
    const together = applyRandAugment(images, plans, { fill: 0.4 })
    for (let row = 0; row < plans.length; row += 7) {
      const alone = applyRandAugment(images.narrow(0, row, 1), [plans[row]!], { fill: 0.4 })
      expect(distance(alone, together.narrow(0, row, 1))).toBeLessThan(1e-5)
    }
  })

  it('leaves its input as it was and nothing behind', () => {
    const before = images.clone()
    const { tensors } = torch.memory()
    applyRandAugment(images, plans).dispose()
    expect(applyRandAugment(images, plans.map(() => []))).toBe(images)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(images.isLive).toBe(true)
    expect(distance(images, before)).toBe(0)
  })

  it('does not stretch what is flat but for rounding', () => {
    const flat = torch.full([1, 3, 16, 16], 102 / 255).add(torch.rand([1, 3, 16, 16]).mul(1e-6))
    for (const operation of ['autocontrast', 'equalize'] as const) {
      for (const first of ['identity', 'rotate', 'sharpness'] as const) {
        const plan = [{ operation: first, strength: first === 'sharpness' ? 0.9 : 0 }, { operation, strength: 0 }]
        expect(distance(applyRandAugment(flat, [plan], { fill: 0.9 }), flat)).toBeLessThan(1e-5)
      }
    }
  })

  it('stays within 0 and 1', () => {
    const strong = Array.from(plans, (_, i) => drawRandAugment(randomFor(3, i), { ops: 4, magnitude: 30 }))
    const result = applyRandAugment(images, strong, { fill: [0, 0.5, 1] })
    expect(result.isfinite().all().item()).toBe(true)
    expect(result.min().item()).toBeGreaterThanOrEqual(-1e-6)
    expect(result.max().item()).toBeLessThanOrEqual(1 + 1e-6)
  })

  it('refuses plans that do not fit', () => {
    expect(() => applyRandAugment(images, plans.slice(1))).toThrow(/one for each image, for plans/)
    expect(() => applyRandAugment(images, [[], ...plans.slice(1)])).toThrow(/plans of one length for plans, received \[ 0, 2 \]/)
  })
})
