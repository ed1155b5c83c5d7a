import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { addon } from '../../src/native/addon.js'
import { jpegVersion } from '../../src/native/images.js'
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

describe('writePlanes', () => {
  const pixels = Uint8Array.from({ length: 3 * 4 * 6 }, (_, i) => i)

  it('takes the last of every step pixels of a side, mirrored where it is wanted', () => {
    const planes = new Uint8Array(3 * 2 * 3)
    for (const flip of [false, true]) {
      addon.writePlanes(pixels, 2, 3, 2, flip, planes)
      const wanted = [0, 1, 2].flatMap((channel) =>
        [0, 1].flatMap((row) => [0, 1, 2].map((column) => 3 * (6 * (2 * row + 1) + 2 * (flip ? 2 - column : column) + 1) + channel))
      )
      expect([...planes]).toEqual(wanted)
    }
  })

  it('refuses arrays of another length', () => {
    const write = (...[from, height, width, step, planes]: [Uint8Array, number, number, number, Uint8Array]) =>
      addon.writePlanes(from, height, width, step, false, planes)
    const planes = new Uint8Array(18)
    expect(() => write(pixels.subarray(1), 2, 3, 2, planes)).toThrow(/argument 0: expected as many bytes/)
    expect(() => write(pixels, 2, 3, 2, new Uint8Array(17))).toThrow(/argument 5: expected an array/)
    expect(() => write(pixels, 2 ** 30, 2 ** 30, 1, planes)).toThrow(/argument 0/)
    for (const wrong of [0, -1, 1.5, NaN]) expect(() => write(pixels, 2, 3, wrong, planes)).toThrow(/in whole pixels/)
  })
})
