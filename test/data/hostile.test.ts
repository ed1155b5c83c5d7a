import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import sharp, { type Sharp } from 'sharp'
import { describe, expect, it } from 'vitest'

import { type BrokenImageError, type EncodedSource, imagenetStatistics, Loader, openImages } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { blue, type Colour, decoded, expectNear, folderWith, green, noise, quarters, red, white } from './support.js'

torch.setNumThreads(1)

const upright = [red, green, blue, white]
const black: Colour = [0, 0, 0]
const frames = async (): Promise<Sharp> => {
  const both = Buffer.concat([await quarters().raw().toBuffer(), Buffer.alloc(3 * 64 * 32, 7)])
  return sharp(both, { raw: { width: 64, height: 64, channels: 3, pageHeight: 32 } })
}
const wide = (): Sharp => quarters().toColourspace('rgb16')

/** What the four quarters are, within a tolerance for what the format loses. */
type Wanted = readonly [colours: readonly Colour[], tolerance: number]

/** Images as cameras, printers and editors write them. */
const images: Record<string, () => [Promise<Buffer>, Wanted]> = {
  'progressive.jpg': () => [quarters().jpeg({ progressive: true, quality: 95 }).toBuffer(), [upright, 6]],
  'interlaced.png': () => [quarters().png({ progressive: true }).toBuffer(), [upright, 0]],
  'palette-alpha.png': () => [quarters().ensureAlpha(0.5).png({ palette: true }).toBuffer(), [upright, 4]],
  '16-bit-alpha.png': () => [wide().ensureAlpha(0.5).png().toBuffer(), [upright, 1]],
  'lab.tiff': () => [quarters().toColourspace('lab').tiff({ compression: 'lzw' }).toBuffer(), [upright, 2]],
  'tiles.tiff': () => [quarters().tiff({ tile: true, tileWidth: 16, tileHeight: 16, compression: 'lzw' }).toBuffer(), [upright, 0]],
  'packbits-alpha.tif': () => [quarters().ensureAlpha(0.5).tiff({ compression: 'packbits' }).toBuffer(), [upright, 0]],
  'pages.tiff': () => [frames().then((image) => image.tiff({ compression: 'lzw' }).toBuffer()), [upright, 0]],
  'animated.gif': () => [frames().then((image) => image.gif().toBuffer()), [upright, 4]],
  'animated.webp': () => [frames().then((image) => image.webp({ lossless: true }).toBuffer()), [upright, 0]],
  'transparent.gif': () => [quarters().ensureAlpha(0).gif().toBuffer(), [[black, black, black, black], 0]],
  'transparent.webp': () => [quarters().ensureAlpha(0).webp({ lossless: true, exact: true }).toBuffer(), [upright, 0]],
  'alpha.avif': () => [quarters().ensureAlpha(0.5).avif({ quality: 90 }).toBuffer(), [upright, 6]],
  '10-bit.avif': () => [quarters().avif({ quality: 90, bitdepth: 10 }).toBuffer(), [upright, 6]],
  'p3.jpg': () => [quarters().withIccProfile('p3').jpeg({ quality: 95 }).toBuffer(), [upright, 6]],
  'p3.png': () => [quarters().withIccProfile('p3').png().toBuffer(), [upright, 2]],
  'p3.webp': () => [quarters().withIccProfile('p3').webp({ lossless: true }).toBuffer(), [upright, 2]],
  'p3-16-bit.png': () => [wide().withIccProfile('p3').png().toBuffer(), [upright, 2]],
  'p3-16-bit-alpha.png': () => [wide().ensureAlpha(0.5).withIccProfile('p3').png().toBuffer(), [upright, 2]],
  'p3-16-bit.tiff': () => [wide().withIccProfile('p3').tiff({ compression: 'lzw' }).toBuffer(), [upright, 2]],
  'p3-10-bit.avif': () => [quarters().withIccProfile('p3').avif({ quality: 90, bitdepth: 10 }).toBuffer(), [upright, 6]],
  'srgb-16-bit.png': () => [wide().withIccProfile('srgb').png().toBuffer(), [upright, 2]],
  'cmyk-profile.jpg': () => [
    quarters().toColourspace('cmyk').withIccProfile('cmyk').jpeg({ quality: 95 }).toBuffer(),
    // Saturated green and blue cannot be printed; these are what littlecms gives for the profile.
    [[[215, 41, 20], [113, 161, 37], [39, 59, 120], [233, 232, 231]], 8]
  ],
  'a-webp.jpg': () => [quarters().webp({ lossless: true }).toBuffer(), [upright, 0]],
  'Grüße 写真 🙂.png': () => [quarters().png().toBuffer(), [upright, 0]],
  'cafe\u0301.png': () => [quarters().png().toBuffer(), [upright, 0]],
  'caf\u00e9.png': () => [quarters().png().toBuffer(), [upright, 0]],
  'two\nlines.png': () => [quarters().png().toBuffer(), [upright, 0]],
  [`${'x'.repeat(251)}.png`]: () => [quarters().png().toBuffer(), [upright, 0]],
  '%2e #1?&*"\\ .PNG': () => [quarters().png().toBuffer(), [upright, 0]]
}

/** Turned pictures: what the quarters become by the EXIF orientation. Those of JPEG are in decode.test.ts. */
const turned: Record<number, readonly Colour[]> = {
  1: upright, 2: [green, red, white, blue], 3: [white, blue, green, red], 4: [blue, white, red, green],
  5: [red, blue, green, white], 6: [blue, red, white, green], 7: [white, green, blue, red], 8: [green, white, red, blue]
}
for (const [orientation, colours] of Object.entries(turned)) {
  for (const format of ['png', 'webp', 'tiff', 'avif'] as const) {
    const picture = () => quarters().withMetadata({ orientation: Number(orientation) }).toFormat(format, { quality: 95 }).toBuffer()
    images[`turned-${orientation}.${format}`] = () => [picture(), [colours, 8]]
  }
}

/** An image whose header claims 50,000 x 50,000 pixels. */
async function claims(format: 'jpeg' | 'png'): Promise<Buffer> {
  const content = await quarters().toFormat(format).toBuffer()
  if (format === 'jpeg') {
    const frame = content.indexOf(Buffer.from([0xff, 0xc0]))
    for (const place of [5, 7]) content.writeUInt16BE(50_000, frame + place)
  } else {
    for (const place of [16, 20]) content.writeUInt32BE(50_000, place)
    content.writeUInt32BE(crc32(content.subarray(12, 29)), 29)
  }
  return content
}

const broken: Record<string, [content: () => Promise<Uint8Array> | Uint8Array | string, reason: RegExp]> = {
  'empty.jpg': [() => '', /^the file is empty$/],
  'zeros.png': [() => Buffer.alloc(4096), /^the content is not an image of a known format$/],
  'page.jpg': [() => '<!DOCTYPE html><title>404</title>', /^the content is not an image of a known format$/],
  'huge.jpg': [() => claims('jpeg'), /^it has more pixels than the decoder allows$/],
  'huge.png': [() => claims('png'), /^it has more pixels than the decoder allows$/],
  'bad\n\u001b[31mname.gif': [() => 'GIF89a', /^it is damaged or cut short/]
}

/** Every image of a folder as the loader gives it, at its four quarters, or why it does not. */
async function load(
  folder: string
): Promise<{ source: EncodedSource; seen: Map<string, Colour[]>; reasons: Map<string, BrokenImageError> }> {
  const source = await openImages(folder)
  if (source.kind !== 'encoded') throw new Error('Not a folder')
  const loader = new Loader(source, { size: { width: 32, height: 32 }, device: 'cpu', maxBroken: 1 })
  const seen = new Map<string, Colour[]>()
  const { mean, std } = imagenetStatistics
  for await (const { indices, images: batch } of loader.all(16)) {
    const values = batch.toTypedArray() as Float32Array
    batch.dispose()
    const at = (i: number, x: number, y: number) =>
      [0, 1, 2].map((c) => Math.round(255 * (values[((i * 3 + c) * 32 + y) * 32 + x]! * std[c]! + mean[c]!))) as unknown as Colour
    for (const [i, index] of indices.entries()) {
      seen.set(source.name(index), [at(i, 6, 6), at(i, 25, 6), at(i, 6, 25), at(i, 25, 25)])
    }
  }
  return { source, seen, reasons: new Map(loader.broken.map((error) => [error.file, error])) }
}

describe('a hostile folder', () => {
  it('is read to its end: each image is decoded rightly, or named with what is wrong with it', async () => {
    const wanted = Object.entries(images).map(([name, make]) => [name, ...make()] as const)
    const files: Record<string, Uint8Array | string> = {}
    for (const [name, content] of wanted) files[name] = await content
    for (const [name, [make]] of Object.entries(broken)) files[name] = await make()
    const folder = await folderWith(files)
    await mkdir(join(folder, 'folder.jpg'))
    await symlink(join(folder, 'nowhere'), join(folder, 'dangling.jpg'))
    await symlink('circle.jpg', join(folder, 'circle.jpg'))
    await symlink(folder, join(folder, 'folder.jpg', 'above'))
    // A name in Latin-1, as old archives have them.
    await writeFile(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from('f\xfcnf.png', 'latin1')]), await quarters().png().toBuffer())

    const { source, seen, reasons } = await load(folder)
    expect(wanted.length + Object.keys(broken).length).toBeGreaterThan(60)
    expect(source.length).toBe(wanted.length + Object.keys(broken).length + 1)
    expect(source.unreadable).toEqual(['circle.jpg', 'dangling.jpg', 'folder.jpg/above'])
    expect([...seen.keys()].sort()).toEqual(wanted.map(([name]) => name).sort())
    for (const [name, , [colours, tolerance]] of wanted) {
      for (const [i, colour] of colours.entries()) {
        const distance = Math.max(...colour.map((value, c) => Math.abs(value - seen.get(name)![i]![c]!)))
        expect(distance, `quarter ${i} of ${name}: ${seen.get(name)![i]!.join()} for ${colour.join()}`).toBeLessThanOrEqual(tolerance)
      }
    }
    for (const [name, [, reason]] of Object.entries(broken)) {
      expect(reasons.get(join(folder, name))?.reason, name).toMatch(reason)
    }
    expect(reasons.get(join(folder, 'f\ufffdnf.png'))?.reason).toBe('its name is not in UTF-8')
    expect(reasons.size).toBe(Object.keys(broken).length + 1)
    // One line each, which a terminal does not obey.
    for (const { message } of reasons.values()) expect(message).not.toMatch(/\p{Cc}/u)
    expect(reasons.get(join(folder, 'bad\n\u001b[31mname.gif'))?.message).toContain(String.raw`/bad\u000a\u001b[31mname.gif': it is damaged`)
  })

  it.runIf(process.getuid?.() === 0)('with a file that may not be read', async () => {
    const folder = await folderWith({ 'open.png': await quarters().png().toBuffer(), 'closed.png': '' })
    await chmod(folder, 0o755)
    await chmod(join(folder, 'closed.png'), 0o600)
    process.seteuid!(65534)
    try {
      const { seen, reasons } = await load(folder)
      expect([...seen.keys()]).toEqual(['open.png'])
      expect([...reasons.values()].map(({ reason }) => reason)).toEqual(['the file cannot be read (EACCES)'])
    } finally {
      process.seteuid!(0)
    }
  })

  it('with a damaged colour profile: the colours are taken as they are', async () => {
    const content = await quarters().withIccProfile('p3').jpeg({ quality: 95 }).toBuffer()
    const profile = content.indexOf('ICC_PROFILE')
    content.fill(0x55, profile + 14, profile + 200)
    const { seen } = await load(await folderWith({ 'x.jpg': content }))
    // Red of sRGB in the numbers of Display P3.
    expectNear(seen.get('x.jpg')![0]!, [202, 59, 50], 4)
  })

  // Of JPEG, PNG and GIF the last bytes only say that this is the end: the decoder may do without.
  it.each([['jpeg', 2], ['png', 12], ['gif', 1], ['webp', 0], ['tiff', 0], ['avif', 0]] as const)(
    '%s cut short at hundreds of places is refused, unless all pixels are there', async (format, tail) => {
      const content = await noise(64, 48).toFormat(format).toBuffer()
      const step = Math.ceil(content.length / 120)
      const ends = Array.from({ length: 120 }, (_, i) => i * step).filter((end) => end < content.length - 80)
      for (let end = content.length - 80; end < content.length; end++) ends.push(end)
      const all = [{ left: 0, top: 0, width: 64, height: 48 }]
      const size = { width: 64, height: 48 }
      const whole = await decoded(content, all, size)
      for (const end of ends) {
        const result = await decoded(content.subarray(0, end), all, size).catch((error: unknown) => error)
        if (end < content.length - tail || result instanceof Error) {
          expect(result, `${end} of ${content.length} bytes`).toMatchObject({ name: 'BrokenImageError' })
          const { reason } = result as BrokenImageError
          expect(reason).toMatch(/^(the file is empty|the content is not an image of a known format|it is damaged or cut short.*(?<!:\)))$/)
        } else expect(result, `${end} of ${content.length} bytes`).toEqual(whole)
      }
    })
})
