import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import {
  adjustBrightness, adjustContrast, adjustHue, adjustSaturation, flipHorizontally, gaussianBlur, normalise, solarize
} from '../../src/data/index.js'
import { loadSafetensors } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import type { Device, Tensor } from '../../src/torch/index.js'

torch.setNumThreads(1)

interface Case {
  readonly set: string
  readonly function: string
  readonly parameters: readonly never[]
}

// What torchvision computes image by image, on floats and on bytes: see make-colour.py beside the fixture.
const { tensors, metadata } = await loadSafetensors(join(import.meta.dirname, '../fixtures/colour.safetensors'))
const cases = (JSON.parse(metadata['cases']!) as Case[]).map((entry, number) => ({ ...entry, number }))
const unit = (tensor: Tensor): Tensor => (tensor.dtype === 'uint8' ? tensor.to('float32').div(255) : tensor)

const functions: Record<string, (images: Tensor, parameters: readonly never[]) => Tensor> = {
  brightness: adjustBrightness, contrast: adjustContrast, saturation: adjustSaturation, hue: adjustHue, blur: gaussianBlur, solarize,
  flip: (images, flips) => flipHorizontally(images, flips.map(Boolean)),
  normalise: (images, [statistics]) => {
    const [mean, std] = (statistics as unknown as [number[], number[]]).map((list) => list.slice(0, images.shape[1]))
    return normalise(images, mean!, std!)
  }
}

function distance(a: Tensor, b: Tensor): number {
  expect(a.shape).toEqual(b.shape)
  expect(a.isfinite().all().item()).toBe(true)
  return a.sub(b).abs().max().item()
}

/**
 * By how many bytes a result may differ from what torchvision makes of bytes. It cuts off what is behind the point: once, and for contrast and
 * saturation also of the grey that it blends with.
 */
function stepsOf({ function: name, parameters }: Case): number {
  if (name === 'solarize' || name === 'flip') return 0
  return name === 'contrast' || name === 'saturation' ? 1 + Math.max(...parameters.map((factor) => Math.max(0, Math.abs(1 - factor)))) : 1
}

// A GPU multiplies the blur's kernel in fewer bits.
const devices = [['cpu', 1e-6], ...(torch.cuda.isAvailable() ? [['cuda', 1 / 255]] : [])] as [Device, number][]

describe.each(Object.keys(functions))('%s', (name) => {
  const own = cases.filter((entry) => entry.function === name)

  it.each(own.map((entry) => [entry.set, entry.parameters, entry] as const))("is torchvision's (%s, %j)", (set, parameters, entry) => {
    const images = unit(tensors[`${set}.images`]!)
    const before = images.clone()
    for (const [device, precision] of devices) {
      const there = images.to(device)
      const result = functions[name]!(there, parameters).to('cpu')
      expect(distance(result, tensors[`${entry.number}.float`]!)).toBeLessThan(name === 'hue' ? Math.max(3e-6, precision) : precision)
      const bytes = tensors[`${entry.number}.bytes`]
      if (bytes) expect(distance(result, unit(bytes)) * 255).toBeLessThan(stepsOf(entry) + 1e-3 + 255 * (precision - 1e-6))
      expect(distance(there.to('cpu'), before)).toBe(0)
    }
  })

  it('is a matter of each image alone', () => {
    for (const { set, parameters } of own) {
      const images = unit(tensors[`${set}.images`]!)
      const apart = [0, 1, 2, 3].map((row) => functions[name]!(images.narrow(0, row, 1), [parameters[row]!]))
      expect(distance(torch.cat(apart), functions[name]!(images, parameters))).toBeLessThan(1e-6)
    }
  })

  it('is seen to change something', () => {
    const changed = own.filter(({ set, number }) => distance(unit(tensors[`${set}.images`]!), tensors[`${number}.float`]!) > 0.05)
    expect(changed.length).toBeGreaterThanOrEqual(3)
  })
})

it('wrong parameters are refused before any work', () => {
  const images = unit(tensors['rgb.images']!)
  expect(() => flipHorizontally(images, [true])).toThrow(/4 elements, one for each image,/)
  for (const sigma of [0, -1, NaN, Infinity]) expect(() => gaussianBlur(images, [1, 1, 1, sigma])).toThrow(/numbers above 0 for sigmas/)
})
