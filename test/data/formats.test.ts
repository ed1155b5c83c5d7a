import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { BrokenImageError } from '../../src/data/index.js'
import { loadSafetensors } from '../../src/io/index.js'
import { decoded } from './support.js'

// Files that Pillow wrote, and what it reads from them: see make-images.py beside the fixture.
const { tensors, metadata } = await loadSafetensors(join(import.meta.dirname, '../fixtures/images.safetensors'))
const names = JSON.parse(metadata['names']!) as string[]
const bytesOf = (name: string): Uint8Array => tensors[name]!.toTypedArray() as Uint8Array

/** The largest difference that there may be: of JPEG and AVIF the versions of decoders, and the rounding of what has 16 bits. */
function toleranceOf(name: string): number {
  if (/jpe?g|avif/.test(name)) return 2
  return name.startsWith('grey, 16 bits') ? 1 : 0
}

/** All pixels of an image as they are, [3, H, W]. */
async function pixelsOf(content: Uint8Array): Promise<{ shape: number[]; planes: Uint8Array }> {
  const size = { width: 0, height: 0 }
  await decoded(content, (width, height) => (Object.assign(size, { width, height }), []), { width: 1, height: 1 })
  const [planes] = await decoded(content, [{ left: 0, top: 0, ...size }], size)
  return { shape: [3, size.height, size.width], planes: planes! }
}

const differences = (name: string, planes: Uint8Array): number[] => {
  const wanted = bytesOf(`${name}/pixels`)
  return Array.from(planes, (value, i) => Math.abs(value - wanted[i]!))
}

describe('who comes from PyTorch sees the same of', () => {
  it.each(names.filter((name) => !name.startsWith('cmyk')))('%s', async (name) => {
    const { shape, planes } = await pixelsOf(bytesOf(`${name}/file`))
    expect(shape).toEqual(tensors[`${name}/pixels`]!.shape)
    expect(Math.max(...differences(name, planes))).toBeLessThanOrEqual(toleranceOf(name))
  })

  // Pillow takes inks for the complements of light; here they are what they look like in print: paler, but not inverted.
  it.each(names.filter((name) => name.startsWith('cmyk')))('%s, but for the inks', async (name) => {
    const { shape, planes } = await pixelsOf(bytesOf(`${name}/file`))
    expect(shape).toEqual(tensors[`${name}/pixels`]!.shape)
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value) / values.length
    expect(mean(differences(name, planes))).toBeLessThan(25)
    expect(mean(differences(name, planes.map((value) => 255 - value)))).toBeGreaterThan(60)
  })
})

type Samples = Float32Array | Float64Array | Uint32Array | Int32Array | Int16Array | Int8Array | Uint16Array

/** An uncompressed TIFF file of 2 x 2 pixels. @param format - 1 unsigned, 2 signed, 3 floating-point. */
function tiff(channels: 1 | 3, format: 1 | 2 | 3, samples: Samples): Uint8Array {
  const bits = 8 * samples.BYTES_PER_ELEMENT
  const tags = [256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 339]
  const each = 8 + 2 + 12 * tags.length + 4
  const values: Record<number, number> = {
    256: 2, 257: 2, 258: channels === 1 ? bits : each, 259: 1, 262: channels === 1 ? 1 : 2, 273: each + 4 * channels, 277: channels, 278: 2,
    279: samples.byteLength, 284: 1, 339: channels === 1 ? format : each + 2 * channels
  }
  const head = Buffer.alloc(each + 4 * channels)
  head.write('II*\0\x08', 'latin1')
  head.writeUInt16LE(tags.length, 8)
  for (const [i, tag] of tags.entries()) {
    head.writeUInt16LE(tag, 10 + 12 * i)
    head.writeUInt16LE(tag === 273 || tag === 279 ? 4 : 3, 12 + 12 * i)
    head.writeUInt32LE(tag === 258 || tag === 339 ? channels : 1, 14 + 12 * i)
    head.writeUInt32LE(values[tag]!, 18 + 12 * i)
  }
  for (let channel = 0; channel < channels; channel++) {
    head.writeUInt16LE(bits, each + 2 * channel)
    head.writeUInt16LE(format, each + 2 * (channels + channel))
  }
  return Buffer.concat([head, Buffer.from(samples.buffer)])
}

const ramp = (length: number, white: number): number[] => Array.from({ length }, (_, i) => (white * i) / (length - 1))

describe('samples of a TIFF file', () => {
  it('that nothing gives a range are refused: Pillow makes black of a picture from 0 to 1, and white of one to 65535', async () => {
    const refused = [
      ['floating-point numbers', tiff(1, 3, Float32Array.from(ramp(4, 1)))], ['floating-point numbers', tiff(3, 3, Float32Array.from(ramp(12, 1)))],
      ['integers of 32 bits', tiff(1, 1, Uint32Array.from(ramp(4, 2 ** 32 - 1)))], ['signed integers', tiff(1, 2, Int16Array.from(ramp(4, 32767)))],
      ['integers of 32 bits', tiff(1, 2, Int32Array.from(ramp(4, 255)))], ['signed integers', tiff(3, 2, Int8Array.from(ramp(12, 127)))]
    ] as const
    for (const [samples, content] of refused) {
      const error: unknown = await pixelsOf(content).catch((error: unknown) => error)
      expect(error).toBeInstanceOf(BrokenImageError)
      expect((error as BrokenImageError).reason).toBe(`its samples are ${samples}, of which nothing says what is white: convert it to 8 or 16 bits`)
    }
    await expect(pixelsOf(tiff(1, 3, Float64Array.from(ramp(4, 1))))).rejects.toThrow(BrokenImageError)
  })

  it('of 16 bits have one, and are reduced to 8', async () => {
    const { planes } = await pixelsOf(tiff(3, 1, Uint16Array.from(ramp(12, 65535))))
    expect([planes[0], planes[4], planes[8], planes[11]]).toEqual([0, 23, 46, 255])
  })
})
