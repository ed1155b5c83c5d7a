import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { BrokenImageError, decodeCrops, decodeResized, namedContent, openImages } from '../../src/data/index.js'
import { blue, type Colour, decoded, expectNear, folderWith, green, noise, paint, quarters, ramp, red, white } from './support.js'

/** The whole image at its own size: its pixels as they are. */
async function whole(content: Uint8Array): Promise<{ width: number; height: number; at: (x: number, y: number) => Colour }> {
  const size = { width: 0, height: 0 }
  await decoded(content, (width, height) => {
    Object.assign(size, { width, height })
    return []
  }, { width: 1, height: 1 })
  const [planes] = await decoded(content, [{ left: 0, top: 0, ...size }], size)
  const area = size.width * size.height
  return { ...size, at: (x, y) => [0, 1, 2].map((plane) => planes![plane * area + y * size.width + x]!) as unknown as Colour }
}

describe('what an image file may be', () => {
  it.each(['jpeg', 'png', 'webp', 'avif', 'gif', 'tiff'] as const)('%s, by its content and not by its name', async (format) => {
    const image = await whole(await quarters().toFormat(format).toBuffer())
    expect(image).toMatchObject({ width: 64, height: 32 })
    expectNear(image.at(10, 6), red, 12)
    expectNear(image.at(50, 6), green, 12)
    expectNear(image.at(10, 26), blue, 12)
    expectNear(image.at(50, 26), white, 12)
  })

  it.each([
    [1, [red, green, blue, white]], [2, [green, red, white, blue]], [3, [white, blue, green, red]], [4, [blue, white, red, green]],
    [5, [red, blue, green, white]], [6, [blue, red, white, green]], [7, [white, green, blue, red]], [8, [green, white, red, blue]]
  ] as [number, Colour[]][])('EXIF orientation %d', async (orientation, [a, b, c, d]) => {
    const image = await whole(await quarters().withMetadata({ orientation }).jpeg({ quality: 95 }).toBuffer())
    expect([image.width, image.height]).toEqual(orientation < 5 ? [64, 32] : [32, 64])
    const [right, bottom] = [image.width - 6, image.height - 6]
    expectNear(image.at(5, 5), a!, 10)
    expectNear(image.at(right, 5), b!, 10)
    expectNear(image.at(5, bottom), c!, 10)
    expectNear(image.at(right, bottom), d!, 10)
  })

  it('grey, with and without alpha', async () => {
    const grey = quarters().toColourspace('b-w')
    const image = await whole(await grey.clone().png().toBuffer())
    const [value, ...others] = image.at(50, 26)
    expect(others).toEqual([value, value])
    expect(value).toBe(240)
    expect((await whole(await grey.clone().ensureAlpha(0.5).png().toBuffer())).at(50, 26)).toEqual([240, 240, 240])
    expectNear((await whole(await grey.clone().jpeg().toBuffer())).at(50, 26), [240, 240, 240], 3)
  })

  it('16 bits, colour and grey', async () => {
    const wide = Uint16Array.from([0, 0x40ff, 0x80ff, 0xffff, 0x1234, 0x5678])
    const colour = await sharp(wide, { raw: { width: 2, height: 1, channels: 3 } }).toColourspace('rgb16').png().toBuffer()
    expect((await sharp(colour).metadata()).depth).toBe('ushort')
    const image = await whole(colour)
    expectNear(image.at(0, 0), [0, 0x40, 0x80], 1)
    expectNear(image.at(1, 0), [0xff, 0x12, 0x56], 1)
    const grey = await sharp(wide.slice(0, 4), { raw: { width: 4, height: 1, channels: 1 } }).toColourspace('grey16').png().toBuffer()
    expect((await sharp(grey).metadata()).depth).toBe('ushort')
    const line = await whole(grey)
    expectNear(line.at(1, 0), [0x40, 0x40, 0x40], 1)
    expectNear(line.at(3, 0), [0xff, 0xff, 0xff], 1)
  })

  it('a palette, and one bit per pixel', async () => {
    const palette = await quarters().png({ palette: true, colours: 4 }).toBuffer()
    expect((await sharp(palette).metadata()).isPalette).toBe(true)
    expectNear((await whole(palette)).at(50, 6), green, 4)
    const bits = await paint(16, 2, (x) => (x < 8 ? [0, 0, 0] : [255, 255, 255])).toColourspace('b-w').tiff({ bitdepth: 1 }).toBuffer()
    const image = await whole(bits)
    expect([image.at(2, 1), image.at(12, 1)]).toEqual([[0, 0, 0], [255, 255, 255]])
  })

  it('CMYK', async () => {
    const content = await quarters().toColourspace('cmyk').jpeg({ quality: 95 }).toBuffer()
    expect((await sharp(content).metadata()).space).toBe('cmyk')
    const image = await whole(content)
    // The gamut of print is smaller: near, not equal.
    expectNear(image.at(10, 6), red, 40)
    expectNear(image.at(50, 26), white, 15)
  })

  it('with an alpha channel, which is dropped: the colour beneath counts', async () => {
    const content = await paint(3, 1, (x) => [10, 120, 230, [0, 128, 255][x]!]).png().toBuffer()
    const image = await whole(content)
    for (const x of [0, 1, 2]) expect(image.at(x, 0)).toEqual([10, 120, 230])
  })

  it('animated: the first frame', async () => {
    const frames = Buffer.concat([Buffer.alloc(48, 30), Buffer.alloc(48, 200)])
    const content = await sharp(frames, { raw: { width: 4, height: 8, channels: 3, pageHeight: 4 } }).gif().toBuffer()
    expect((await sharp(content).metadata()).pages).toBe(2)
    const image = await whole(content)
    expect([image.width, image.height, image.at(1, 1)]).toEqual([4, 4, [30, 30, 30]])
  })

  it('damaged harmlessly, by stray bytes between two segments', async () => {
    const content = await quarters().jpeg().toBuffer()
    const scan = content.indexOf(Buffer.from([0xff, 0xda]))
    const stray = Buffer.concat([content.subarray(0, scan), ramp(4), content.subarray(scan)])
    expectNear((await whole(stray)).at(10, 6), red, 12)
  })
})

describe('a broken image', () => {
  const square = [{ left: 0, top: 0, width: 1, height: 1 }]

  async function reason(content: Uint8Array | string): Promise<string> {
    const folder = await folderWith({ 'class/broken.jpg': content })
    const source = await openImages(folder)
    if (source.kind !== 'encoded') throw new Error('Not a folder')
    const file = join(folder, 'class/broken.jpg')
    const image = await namedContent(source, 0)
    const size = { width: 1, height: 1 }
    const errors = await Promise.all([
      decodeCrops(image, square, size), decodeResized(image, { resize: 1, crop: size })
    ].map((pending) => pending.then(() => null, (error: unknown) => error)))
    for (const error of errors) {
      expect(error).toBeInstanceOf(BrokenImageError)
      expect(error).toMatchObject({ file, message: `Cannot use the image '${file}': ${(error as BrokenImageError).reason}` })
      expect((error as Error).message).not.toContain('\n')
    }
    return (errors[0] as BrokenImageError).reason
  }

  it('is empty, text, or noise', async () => {
    expect(await reason('')).toBe('the file is empty')
    expect(await reason('This is no image.')).toBe('the content is not an image of a known format')
    expect(await reason(ramp(5000))).toBe('the content is not an image of a known format')
  })

  it.each(['jpeg', 'png', 'webp', 'avif', 'gif', 'tiff'] as const)('is a %s cut short anywhere', async (format) => {
    const content = await noise(120, 90).toFormat(format).toBuffer()
    for (const part of [0.02, 0.3, 0.6, 0.95, 0.99]) await reason(content.subarray(0, Math.floor(part * content.length)))
  })

  it('is a progressive JPEG cut short, or a PNG with a wrong byte', async () => {
    const progressive = await noise(120, 90).jpeg({ progressive: true }).toBuffer()
    expect(await reason(progressive.subarray(0, 0.9 * progressive.length))).toMatch(/^it is damaged or cut short/)
    const png = await noise(120, 90).png().toBuffer()
    png[png.length >> 1]! ^= 0xff
    expect(await reason(png)).toMatch(/^it is damaged or cut short/)
  })

  it('claims more pixels than there can be', async () => {
    const png = await paint(1, 1, () => red).png().toBuffer()
    png.writeUInt32BE(20_000, 16)
    png.writeUInt32BE(20_000, 20)
    png.writeUInt32BE(crc32(png.subarray(12, 29)), 29)
    expect(await reason(png)).toBe('it has more pixels than the decoder allows')
  })

  it('is not there any more, or no file', async () => {
    const folder = await folderWith()
    await symlink(join(folder, 'nowhere'), join(folder, 'link.jpg'))
    await mkdir(join(folder, 'folder.jpg'))
    const decode = async (name: string) => decodeCrops(join(folder, name), square, { width: 1, height: 1 })
    await expect(decode('absent.jpg')).rejects.toMatchObject({ name: 'BrokenImageError', reason: 'the file cannot be read (ENOENT)' })
    await expect(decode('link.jpg')).rejects.toMatchObject({ reason: 'the file cannot be read (ENOENT)' })
    await expect(decode('folder.jpg')).rejects.toMatchObject({ reason: 'it is no file' })
  })

  it('does not concern its neighbours', async () => {
    const good = await quarters().png().toBuffer()
    const source = await openImages(await folderWith({ 'a.png': good, 'b.png': 'text', 'c.png': good }))
    if (source.kind !== 'encoded') throw new Error('Not a folder')
    const all = await Promise.allSettled([0, 1, 2].map(async (index) => decodeCrops(await namedContent(source, index), square, { width: 2, height: 2 })))
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  })
})
