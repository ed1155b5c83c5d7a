import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it, onTestFinished } from 'vitest'
import { addon } from '../../src/native/addon.js'
import { jpegVersion } from '../../src/native/images.js'
import { clean, runChild } from './support.js'

const content = await sharp({ create: { width: 32, height: 20, channels: 3, background: '#c08040' } }).jpeg().toBuffer()
const bytes = content.buffer.slice(content.byteOffset, content.byteOffset + content.length)
const whole = Int32Array.of(0, 0, 32, 20, 0)

async function fileWith(data: Uint8Array): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gmml-images-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  await writeFile(join(folder, 'ä.jpg'), data)
  return join(folder, 'ä.jpg')
}

describe('readImage', () => {
  it('gives the bytes, and a size for JPEG files alone', async () => {
    const [read, width, height] = (await addon.readImage(await fileWith(content)))!
    expect(Buffer.compare(Buffer.from(read), content)).toBe(0)
    expect([width, height]).toEqual(jpegVersion() === null ? [0, 0] : [32, 20])
    expect(await addon.readImage(await fileWith(Buffer.from('no image')))).toEqual([expect.any(ArrayBuffer), 0, 0])
  })

  it('gives null for what is empty, absent, or a folder', async () => {
    for (const path of [await fileWith(Buffer.alloc(0)), '/nowhere/image.jpg', tmpdir(), '']) expect(await addon.readImage(path)).toBeNull()
    expect(() => addon.readImage(5 as never)).toThrow(/argument 0: expected a string/)
  })
})

describe.runIf(jpegVersion() !== null)('decodeJpeg', () => {
  const decode = (...[from, parts, height, width, planes]: Partial<Parameters<typeof addon.decodeJpeg>>) =>
    addon.decodeJpeg(from ?? bytes, parts ?? whole, height ?? 4, width ?? 5, planes ?? new ArrayBuffer(60))

  it('fills the planes', async () => {
    const planes = new ArrayBuffer(60)
    expect(await decode(bytes, whole, 4, 5, planes)).toBe(true)
    const view = new Uint8Array(planes)
    for (const [plane, value] of [0xc0, 0x80, 0x40].entries()) {
      for (const pixel of view.subarray(20 * plane, 20 * plane + 20)) expect(Math.abs(pixel - value)).toBeLessThan(4)
    }
  })

  it('refuses arguments that do not fit before any work', () => {
    expect(() => decode(content as never)).toThrow(/argument 0: expected an ArrayBuffer/)
    expect(() => decode(bytes, [0, 0, 1, 1, 0] as never)).toThrow(/argument 1: expected an Int32Array/)
    for (const parts of [[], [0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 1, -1, 0]]) {
      expect(() => decode(bytes, Int32Array.from(parts)), String(parts)).toThrow(/argument 1: expected/)
    }
    for (const size of [0, -4, 4.5, NaN, 2 ** 40]) expect(() => decode(bytes, whole, size), String(size)).toThrow(/in whole pixels/)
    expect(() => decode(bytes, whole, 4, 5, new ArrayBuffer(59))).toThrow(/argument 4: expected a buffer/)
  })

  it('does nothing for parts outside of the image, however far', async () => {
    const far = 2 ** 31 - 1
    for (const parts of [[1, 0, 32, 20], [0, -1, 32, 20], [0, 0, 32, 21], [far, far, far, far], [-far, 0, far, 20], [0, 0, far, far]]) {
      expect(await decode(bytes, Int32Array.of(...parts, 0)), String(parts)).toBe(false)
    }
    expect(await decode(new ArrayBuffer(0))).toBe(false)
    expect(await decode(new ArrayBuffer(7))).toBe(false)
  })

  it('works in a thread that ends in the midst of it', () => {
    const script = `
      import { Worker, isMainThread } from 'node:worker_threads'
      const work = \`
        import { addon } from \${JSON.stringify(import.meta.resolve(process.env.ADDON_MODULE))}
        const bytes = Uint8Array.from(\${JSON.stringify([...Buffer.from(process.env.IMAGE, 'base64')])}).buffer
        for (let i = 0; i < 50; i++) addon.decodeJpeg(bytes, Int32Array.of(0, 0, 32, 20, 0), 200, 200, new ArrayBuffer(120000))
        setTimeout(() => process.exit(0), 1)\`
      for (let i = 0; i < 3; i++) {
        await new Promise((resolve) => new Worker(new URL('data:text/javascript,' + encodeURIComponent(work))).once('exit', resolve))
      }
      print('ended')`
    const env = { IMAGE: content.toString('base64'), ADDON_MODULE: new URL('../../dist/native/addon.js', import.meta.url).href }
    expect(runChild(script, { env })).toEqual(clean('ended'))
  })
})
