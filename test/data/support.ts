import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import sharp, { type Sharp } from 'sharp'
import { expect, onTestFinished } from 'vitest'
import { type Crops, decodeCrops, type ImageSource, type Size } from '../../src/data/index.js'

/** A folder with these files in it, gone after the test. */
export async function folderWith(files: Record<string, Uint8Array | string> = {}): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gmml-data-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), content)
  }
  return folder
}

/** The names of a source's images. */
export const filesOf = (source: ImageSource): string[] => Array.from({ length: source.length }, (_, index) => source.name(index))

/** An IDX file of unsigned bytes. */
export function idx(shape: readonly number[], data: Iterable<number>, magic = 0x800 + shape.length): Buffer {
  const header = Buffer.alloc(4 + 4 * shape.length)
  header.writeUInt32BE(magic)
  shape.forEach((length, axis) => header.writeUInt32BE(length, 4 + 4 * axis))
  return Buffer.concat([header, Uint8Array.from(data)])
}

/** Records of a CIFAR file: of each image its label bytes, then its pixels, a function of channel, row and column. */
export function cifar(
  labels: readonly (readonly number[])[], pixel: (image: number, c: number, y: number, x: number) => number
): Uint8Array {
  const plane = (image: number, c: number) => Array.from({ length: 1024 }, (_, i) => pixel(image, c, i >> 5, i & 31))
  return Uint8Array.from(labels.flatMap((own, image) => [...own, ...[0, 1, 2].flatMap((c) => plane(image, c))]))
}

/** 0, 1, 2, ... modulo 256. */
export const ramp = (length: number): Uint8Array => Uint8Array.from({ length }, (_, index) => index)

export type Colour = readonly [number, number, number]

/** An image whose pixels are a function of the place. */
export function paint(width: number, height: number, colour: (x: number, y: number) => readonly number[]): Sharp {
  const pixels = Array.from({ length: width * height }, (_, index) => colour(index % width, Math.floor(index / width)))
  return sharp(Uint8Array.from(pixels.flat()), { raw: { width, height, channels: pixels[0]!.length as 3 } })
}

export const noise = (width: number, height: number): Sharp =>
  paint(width, height, (x, y) => [1, 2, 3].map((channel) => Math.imul(x * 7919 + y * 104729 + channel, 2654435761) >>> 24))

export async function decoded(content: Uint8Array, crops: Crops, size: Size): Promise<Uint8Array[]> {
  const folder = await folderWith({ 'image.jpg': content })
  return decodeCrops(join(folder, 'image.jpg'), crops, size)
}

export function expectNear(received: Colour, wanted: Colour, tolerance: number): void {
  const distance = Math.max(...received.map((value, channel) => Math.abs(value - wanted[channel]!)))
  expect(distance, `${received} for ${wanted}`).toBeLessThanOrEqual(tolerance)
}

export const red: Colour = [220, 40, 40]
export const green: Colour = [40, 200, 40]
export const blue: Colour = [40, 40, 210]
export const white: Colour = [240, 240, 240]

/** Four quarters: red green / blue white. */
export const quarters = (): Sharp => paint(64, 32, (x, y) => (y < 16 ? (x < 32 ? red : green) : x < 32 ? blue : white))
