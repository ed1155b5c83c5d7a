import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { addon } from '../../src/native/addon.js'
import { jpegVersion } from '../../src/native/images.js'
import * as torch from '../../src/torch/index.js'
import { clean, runChild } from './support.js'

const content = await sharp({ create: { width: 32, height: 20, channels: 3, background: '#c08040' } }).jpeg().toBuffer()
const bytes = Uint8Array.from(content)
const whole = Int32Array.of(0, 0, 32, 20, 0)

describe('jpegSize', () => {
  it('knows the size of JPEG files alone', () => {
    expect(addon.jpegSize(bytes)).toEqual(jpegVersion() === null ? null : [32, 20])
    for (const other of ['', 'no image', '\xff\xd8']) expect(addon.jpegSize(Uint8Array.from(Buffer.from(other, 'latin1')))).toBeNull()
    expect(() => addon.jpegSize(5 as never)).toThrow(/argument 0: expected a Uint8Array/)
  })
})

describe.runIf(jpegVersion() !== null)('decodeJpeg', () => {
  type Arguments = Parameters<typeof addon.decodeJpegSync>
  const decode = (...[from, parts, height, width]: Partial<Arguments>) => addon.decodeJpeg(from ?? bytes, parts ?? whole, height ?? 4, width ?? 5)
  const decodeSync = (...[from, parts, height, width, planes]: Partial<Arguments>) =>
    addon.decodeJpegSync(from ?? bytes, parts ?? whole, height ?? 4, width ?? 5, planes ?? new Uint8Array(60))

  it('fills the planes, also in shared memory', async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(100), 40)
    expect(decodeSync(bytes, whole, 4, 5, shared)).toBe(true)
    expect(new Uint8Array(shared.buffer).subarray(0, 40).every((value) => value === 0)).toBe(true)
    for (const [plane, value] of [0xc0, 0x80, 0x40].entries()) {
      for (const pixel of shared.subarray(20 * plane, 20 * plane + 20)) expect(Math.abs(pixel - value)).toBeLessThan(4)
    }
    expect(Uint8Array.from(shared)).toEqual(await decode(bytes, whole, 4, 5))
  })

  it('refuses arguments that do not fit before any work', () => {
    for (const refuse of [decode, decodeSync]) {
      expect(() => refuse(content.buffer as never)).toThrow(/argument 0: expected a Uint8Array/)
      expect(() => refuse(bytes, [0, 0, 1, 1, 0] as never)).toThrow(/argument 1: expected an Int32Array/)
      for (const parts of [[], [0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 1, -1, 0]]) {
        expect(() => refuse(bytes, Int32Array.from(parts)), String(parts)).toThrow(/argument 1: expected/)
      }
      for (const size of [0, -4, 4.5, NaN, 2 ** 40]) expect(() => refuse(bytes, whole, size), String(size)).toThrow(/in whole pixels/)
      expect(() => refuse(bytes, whole, 2 ** 20, 2 ** 20)).toThrow(/at most 2 GiB/)
    }
    expect(() => decodeSync(bytes, whole, 4, 5, new Uint8Array(59))).toThrow(/argument 4: expected an array/)
    expect(() => decodeSync(bytes, whole, 4, 5, new Int8Array(60) as never)).toThrow(/argument 4: expected a Uint8Array/)
  })

  it('does nothing for parts outside of the image, however far', async () => {
    const far = 2 ** 31 - 1
    for (const parts of [[1, 0, 32, 20], [0, -1, 32, 20], [0, 0, 32, 21], [far, far, far, far], [-far, 0, far, 20], [0, 0, far, far]]) {
      expect(await decode(bytes, Int32Array.of(...parts, 0)), String(parts)).toBeNull()
      expect(decodeSync(bytes, Int32Array.of(...parts, 0)), String(parts)).toBe(false)
    }
    expect(await decode(new Uint8Array())).toBeNull()
    expect(await decode(new Uint8Array(7))).toBeNull()
    const { buffer } = structuredClone(bytes)
    const moved = new Uint8Array(buffer)
    structuredClone(buffer, { transfer: [buffer] })
    expect(decodeSync(moved)).toBe(false)
  })

  it('works on bytes of its own: what becomes of the given ones meanwhile does not matter', async () => {
    const given = Uint8Array.from(bytes)
    const decoding = decode(given)
    structuredClone(given.buffer, { transfer: [given.buffer] })
    expect(await decoding).toEqual(await decode())
  })

  it('works in a thread that ends in the midst of it', () => {
    const script = `
      import { Worker, isMainThread } from 'node:worker_threads'
      const work = \`
        import { addon } from \${JSON.stringify(import.meta.resolve(process.env.ADDON_MODULE))}
        const bytes = Uint8Array.from(\${JSON.stringify([...Buffer.from(process.env.IMAGE, 'base64')])})
        for (let i = 0; i < 50; i++) addon.decodeJpeg(bytes, Int32Array.of(0, 0, 32, 20, 0), 200, 200)
        setTimeout(() => process.exit(0), 1)\`
      for (let i = 0; i < 3; i++) {
        await new Promise((resolve) => new Worker(new URL('data:text/javascript,' + encodeURIComponent(work))).once('exit', resolve))
      }
      print('ended')`
    const env = { IMAGE: content.toString('base64'), ADDON_MODULE: new URL('../../dist/native/addon.js', import.meta.url).href }
    expect(runChild(script, { env })).toEqual(clean('ended'))
  })
})

describe('resizePixels', () => {
  type Arguments = Parameters<typeof addon.resizePixelsSync>
  const [width, height] = [7, 5]
  const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24)
  const whole = [0, 0, width, height, 0]
  const resize = (...[from, parts, toHeight, toWidth, , across]: Partial<Arguments>) =>
    addon.resizePixels(from ?? pixels, parts ?? Int32Array.from(whole), toHeight ?? 4, toWidth ?? 5, across ?? width)
  const resizeSync = (...[from, parts, toHeight, toWidth, planes, across]: Partial<Arguments>) =>
    addon.resizePixelsSync(from ?? pixels, parts ?? Int32Array.from(whole), toHeight ?? 4, toWidth ?? 5, planes ?? new Uint8Array(60), across ?? width)

  /** ATen's own kernel for bytes, mirrored where it is wanted. */
  function reference(image: Uint8Array, across: number, [left, top, wide, high, flip]: readonly number[], toHeight: number, toWidth: number): number[] {
    return torch.scope(() => {
      const rows = torch.fromTypedArray(image, [1, image.length / 3 / across, across, 3]).permute([0, 3, 1, 2])
      const part = rows.narrow(2, top!, high!).narrow(3, left!, wide!)
      const resized = torch.call<torch.Tensor>('aten::_upsample_bicubic2d_aa', part, [toHeight, toWidth], false)
      return [...(flip ? resized.flip([3]) : resized).contiguous().toTypedArray()].map(Number)
    })
  }

  it('equals ATen to the bit: parts of every place and size, enlarged, reduced and mirrored, of images down to a pixel', async () => {
    let seed = 1
    const random = (below: number) => Math.floor(((seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) / 2 ** 32) * below)
    for (let round = 0; round < 300; round++) {
      const [across, down] = [1 + random(round % 3 ? 40 : 4), 1 + random(round % 5 ? 30 : 3)]
      const image = Uint8Array.from({ length: 3 * across * down }, () => random(256))
      const parts = Array.from({ length: 1 + random(3) }, () => {
        const [left, top] = [random(across), random(down)]
        return [left, top, 1 + random(across - left), 1 + random(down - top), random(2)]
      })
      // Now and then a side keeps its length.
      const [toHeight, toWidth] = [round % 4 ? 1 + random(20) : parts[0]![3]!, round % 7 ? 1 + random(20) : parts[0]![2]!]
      const planes = new Uint8Array(3 * toHeight * toWidth * parts.length)
      // The pixels end where their memory ends.
      expect(addon.resizePixelsSync(image, Int32Array.from(parts.flat()), toHeight, toWidth, planes, across)).toBe(true)
      const wanted = parts.flatMap((part) => reference(image, across, part, toHeight, toWidth))
      expect([...planes], JSON.stringify({ across, down, parts, toHeight, toWidth })).toEqual(wanted)
      expect(await addon.resizePixels(image, Int32Array.from(parts.flat()), toHeight, toWidth, across)).toEqual(planes)
    }
  })

  it('refuses arguments that do not fit before any work', () => {
    for (const refuse of [resize, resizeSync]) {
      expect(() => refuse(pixels.buffer as never)).toThrow(/argument 0: expected a Uint8Array/)
      for (const wrong of [pixels.subarray(1), new Uint8Array(), pixels.subarray(0, 3)]) expect(() => refuse(wrong)).toThrow(/argument 0: expected whole rows/)
      expect(() => refuse(pixels, undefined, undefined, undefined, undefined, 8)).toThrow(/argument 0: expected whole rows/)
      for (const across of [0, -7, 1.5, NaN]) expect(() => refuse(pixels, undefined, undefined, undefined, undefined, across)).toThrow(/in whole pixels/)
      const far = 2 ** 31 - 1
      for (const part of [[1, 0, 7, 5], [0, -1, 7, 5], [0, 0, 7, 6], [far, far, far, far], [-far, 0, far, 5], [0, 0, far, far]]) {
        expect(() => refuse(pixels, Int32Array.of(...part, 0)), String(part)).toThrow(/argument 1: expected parts inside the image/)
      }
      expect(() => refuse(pixels, undefined, 2 ** 20, 2 ** 20)).toThrow(/at most 2 GiB/)
    }
    expect(() => resizeSync(pixels, undefined, 4, 5, new Uint8Array(59))).toThrow(/argument 4: expected an array/)
  })

  it('works on pixels of its own: what becomes of the given ones meanwhile does not matter', async () => {
    const given = Uint8Array.from(pixels)
    const resizing = resize(given)
    structuredClone(given.buffer, { transfer: [given.buffer] })
    expect(await resizing).toEqual(await resize())
  })
})
