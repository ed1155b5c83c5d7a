import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import sharp, { type JpegOptions, type Sharp } from 'sharp'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { BrokenImageError, type Crop, type Crops, decodeCrops, randomFor, type Size } from '../../src/data/index.js'
import { decodeJpeg, decodeJpegSync, hasFastJpeg, jpegSize } from '../../src/data/jpeg.js'
import { loadSafetensors } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import { clean, runChild } from '../native/support.js'
import { folderWith, noise, quarters } from './support.js'

const { tensors, metadata } = await loadSafetensors(join(import.meta.dirname, '../fixtures/jpeg.safetensors'))
const bytesOf = (name: string): Uint8Array => tensors[name]!.toTypedArray() as Uint8Array

/** Light, waves, edges and a little noise. */
function photograph(width: number, height: number): Sharp {
  const random = randomFor(1, width, height)
  const pixels = new Uint8Array(3 * width * height)
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [u, v, edge] = [x / width, y / height, (Math.floor(x / 24) + Math.floor(y / 17)) % 5 === 0 ? 0.6 : 1]
      const grain = random.uniform(-6, 6)
      pixels[i++] = Math.max(0, (200 - 120 * u * v) * edge + grain)
      pixels[i++] = Math.max(0, (120 + 60 * Math.sin(9 * u + 4 * v)) * edge + grain)
      pixels[i++] = Math.max(0, (60 + 150 * (1 - u)) * edge + grain)
    }
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } })
}

/** What libjpeg-turbo makes of it, or null where it leaves the file to sharp. */
async function fast(content: Uint8Array, crops: Crops, size: Size): Promise<Uint8Array[] | null> {
  const bytes = Uint8Array.from(content)
  const jpeg = jpegSize(bytes)
  if (!jpeg) return null
  const list = typeof crops === 'function' ? crops(jpeg.width, jpeg.height) : crops
  const planes = await decodeJpeg(bytes, list, size)
  const here = new Uint8Array(new SharedArrayBuffer(3 * list.length * size.height * size.width))
  // The calling thread makes the same of it.
  expect(decodeJpegSync(bytes, list, size, here)).toBe(planes !== null)
  if (!planes) return null
  expect(Buffer.compare(here, planes)).toBe(0)
  const length = planes.length / list.length
  return list.map((_, i) => planes.subarray(i * length, (i + 1) * length))
}

/** What sharp alone makes of it. */
async function slow(content: Uint8Array, crops: Crops, size: Size): Promise<Uint8Array[]> {
  vi.stubEnv('GMML_JPEG', 'sharp')
  try {
    return await decodeCrops(join(await folderWith({ 'image.jpg': content }), 'image.jpg'), crops, size)
  } finally {
    vi.unstubAllEnvs()
  }
}

const difference = (a: Uint8Array, b: Uint8Array): number => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0) / a.length
const largest = (a: Uint8Array, b: Uint8Array): number => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0)

/** The whole, a tiny part, all four borders, and some in between. */
function partsOf(width: number, height: number): Crop[] {
  const random = randomFor(2, width, height)
  const some = Array.from({ length: 4 }, (_, i) => {
    const [w, h] = [random.integer(1, width + 1), random.integer(1, height + 1)]
    return { left: random.integer(0, width - w + 1), top: random.integer(0, height - h + 1), width: w, height: h, flip: i % 2 === 1 }
  })
  const [half, third] = [Math.ceil(width / 2), Math.ceil(height / 3)]
  return [
    { left: 0, top: 0, width, height }, { left: width - 1, top: height - 1, width: 1, height: 1 }, { left: 0, top: 0, width: half, height: third },
    { left: width - half, top: height - third, width: half, height: third, flip: true }, ...some
  ]
}

describe.runIf(hasFastJpeg())('JPEG files by libjpeg-turbo', () => {
  it('agree with Pillow and torchvision', async () => {
    const parts = JSON.parse(metadata['crops']!) as Record<string, Crop[]>
    expect(Object.keys(parts).length).toBeGreaterThan(10)
    for (const [name, crops] of Object.entries(parts)) {
      // Where it is much reduced, it is decoded as means of squares of pixels. What is drawn finer than these and full of contrast shows it.
      const most = name === 'fine detail' ? 3 : 0.5
      const distances: number[] = []
      for (const [index, crop] of crops.entries()) {
        const [, height, width] = tensors[`${name}.${index}`]!.shape as [number, number, number]
        const [planes] = (await fast(bytesOf(`${name}.file`), [crop], { width, height }))!
        distances.push(difference(planes!, bytesOf(`${name}.${index}`)))
        expect(distances[index], `${name}, crop ${index}`).toBeLessThan(most)
      }
      expect(distances.reduce((sum, distance) => sum + distance) / crops.length, name).toBeLessThan(2)
    }
  })

  const kinds: [string, Size, JpegOptions, ((image: Sharp) => Sharp)?][] = [
    ['4:2:0', { width: 640, height: 480 }, { quality: 80 }], ['4:4:4', { width: 411, height: 333 }, { quality: 100, chromaSubsampling: '4:4:4' }],
    ['progressive', { width: 500, height: 375 }, { progressive: true }], ['small', { width: 37, height: 53 }, { quality: 90 }],
    ['large', { width: 2000, height: 1500 }, { quality: 85 }], ['coarse', { width: 300, height: 200 }, { quality: 30 }],
    ['grey', { width: 320, height: 241 }, {}, (image) => image.toColourspace('b-w')], ['one pixel', { width: 1, height: 1 }, {}],
    ['thin', { width: 1, height: 700 }, {}], ['flat', { width: 900, height: 2 }, {}],
    ...[1, 2, 3, 4, 5, 6, 7, 8].map((orientation): (typeof kinds)[number] => [
      `orientation ${orientation}`, { width: 250, height: 170 }, {}, (image) => image.withExif({ IFD0: { Orientation: String(orientation) } })
    ])
  ]
  it.each(kinds)('agree with sharp: %s', async (_, { width, height }, options, change = (image) => image) => {
    const content = await change(photograph(width, height)).jpeg(options).toBuffer()
    let upright = { width: 0, height: 0 }
    for (const size of [{ width: 48, height: 40 }, { width: 224, height: 224 }]) {
      const crops = partsOf(...(await new Promise<[number, number]>((resolve, reject) => {
        slow(content, (...sides) => (resolve(sides), []), size).catch(reject)
      })))
      upright = crops[0]!
      const [ours, theirs] = [(await fast(content, crops, size))!, await slow(content, crops, size)]
      for (const [i, planes] of ours.entries()) {
        expect(difference(planes, theirs[i]!), `${JSON.stringify(crops[i])} to ${size.width}`).toBeLessThan(2)
      }
    }
    expect([upright.width, upright.height].sort()).toEqual([width, height].sort())
  })

  it('have the same pixels, whichever rows and columns are asked for', async () => {
    for (const options of [{}, { progressive: true }, { chromaSubsampling: '4:4:4' }] as JpegOptions[]) {
      const content = await noise(150, 131).jpeg(options).toBuffer()
      const whole = (await fast(content, [{ left: 0, top: 0, width: 150, height: 131 }], { width: 150, height: 131 }))![0]!
      const random = randomFor(3)
      for (let i = 0; i < 60; i++) {
        const size = { width: random.integer(1, 151), height: random.integer(1, 132) }
        const crop = { left: random.integer(0, 151 - size.width), top: random.integer(0, 132 - size.height), ...size }
        const [part] = (await fast(content, [crop], size))!
        const wanted = Uint8Array.from({ length: part!.length }, (_, at) => {
          const [plane, row, column] = [Math.floor(at / size.width / size.height), Math.floor(at / size.width) % size.height, at % size.width]
          return whole[(plane * 131 + crop.top + row) * 150 + crop.left + column]!
        })
        expect(largest(part!, wanted), JSON.stringify(crop)).toBe(0)
      }
    }
  })

  it('are resized as ATen resizes bytes, to the bit', async () => {
    const [width, height] = [331, 257]
    const content = await noise(width, height).jpeg({ quality: 95 }).toBuffer()
    const [whole] = (await fast(content, [{ left: 0, top: 0, width, height }], { width, height }))!
    const image = torch.fromTypedArray(whole!, [1, 3, height, width]).contiguous({ memoryFormat: 'channels_last' })
    const random = randomFor(5)
    for (let i = 0; i < 60; i++) {
      // At most three times as long as the result: at four times it would be reduced.
      const size = { width: random.integer(1, 260), height: random.integer(1, 260) }
      const w = random.integer(1, Math.min(width, 3 * size.width) + 1)
      const h = random.integer(1, Math.min(height, 3 * size.height) + 1)
      const crop = { left: random.integer(0, width - w + 1), top: random.integer(0, height - h + 1), width: w, height: h, flip: i % 2 === 1 }
      const part = image.narrow(2, crop.top, h).narrow(3, crop.left, w)
      const resized = torch.call<torch.Tensor>('aten::_upsample_bicubic2d_aa', part, [size.height, size.width], false)
      const wanted = (crop.flip ? resized.flip([3]) : resized).contiguous().toTypedArray() as Uint8Array
      const [planes] = (await fast(content, [crop], size))!
      expect(largest(planes!, wanted), `${JSON.stringify(crop)} to ${JSON.stringify(size)}`).toBe(0)
    }
  })

  it('are equal on a processor without vector instructions', async () => {
    const content = await photograph(300, 220).jpeg().toBuffer()
    const crops = partsOf(300, 220)
    const wanted = (await fast(content, crops, { width: 61, height: 47 }))!
    const script = `
      import { createHash } from 'node:crypto'
      const { decodeJpegSync } = await import(${JSON.stringify(new URL('../../dist/data/jpeg.js', import.meta.url).href)})
      const planes = new Uint8Array(${3 * 61 * 47 * crops.length})
      decodeJpegSync(Buffer.from(process.env.IMAGE, 'base64'), ${JSON.stringify(crops)}, { width: 61, height: 47 }, planes)
      print(createHash('sha256').update(planes).digest('hex'))`
    const hash = createHash('sha256')
    for (const planes of wanted) hash.update(planes)
    const env = { IMAGE: content.toString('base64'), ATEN_CPU_CAPABILITY: 'default' }
    expect(runChild(script, { env })).toEqual(clean(hash.digest('hex')))
  })

  it('keep what is in the image where it is, also when they are decoded at a part of their size', async () => {
    // A ramp tells where each pixel is from. At odd places, which are none in the image of half or a quarter of the size.
    const ramp = Uint8Array.from({ length: 3 * 1024 * 512 }, (_, i) => Math.floor(((i / 3) % 1024) / 4))
    const content = await sharp(ramp, { raw: { width: 1024, height: 512, channels: 3 } }).jpeg({ quality: 100 }).toBuffer()
    for (const [left, width] of [[101, 403], [7, 131], [333, 690]] as const) {
      const [planes] = (await fast(content, [{ left, top: 3, width, height: 479 }], { width: 64, height: 64 }))!
      for (let x = 4; x < 60; x++) {
        const wanted = (left + ((x + 0.5) * width) / 64 - 0.5) / 4 - 0.375
        expect(Math.abs(planes![32 * 64 + x]! - wanted), `column ${x} of ${left}`).toBeLessThan(0.8)
      }
    }
  })

  it('are decoded once for all crops, into memory of their own, equal however many are decoded at a time', async () => {
    const content = await photograph(400, 300).jpeg().toBuffer()
    const crops = partsOf(400, 300)
    const size = { width: 60, height: 50 }
    const first = await fast(content, crops, size)
    const results = await Promise.all(Array.from({ length: 24 }, () => fast(content, crops, size)))
    for (const result of results) expect(result!.map((planes, i) => Buffer.compare(planes, first![i]!))).toEqual(crops.map(() => 0))
    expect(new Set(first!.map(({ buffer }) => buffer)).size).toBe(1)
  })

  it('leave the event loop free', async () => {
    const content = await photograph(2000, 1500).jpeg().toBuffer()
    const file = join(await folderWith({ 'image.jpg': content }), 'image.jpg')
    let turns = 0
    let done = false
    const all = Promise.all(Array.from({ length: 8 }, () => decodeCrops(file, (width, height) => partsOf(width, height), { width: 64, height: 64 })))
    const finished = all.finally(() => (done = true))
    for (; !done; turns++) await setImmediate()
    await finished
    expect(turns).toBeGreaterThan(100)
  })

  it('hold no tensor', async () => {
    const before = torch.memory().tensors
    await fast(await noise(50, 40).jpeg().toBuffer(), [{ left: 0, top: 0, width: 50, height: 40 }], { width: 9, height: 9 })
    expect(torch.memory().tensors).toBe(before)
  })
})

describe.runIf(hasFastJpeg())('libjpeg-turbo leaves to sharp', () => {
  const size = { width: 40, height: 20 }
  const all = (width: number, height: number): Crop[] => [{ left: 0, top: 0, width, height }]

  it('CMYK, and colour profiles other than sRGB', async () => {
    const cmyk = await quarters().toColourspace('cmyk').jpeg().toBuffer()
    const p3 = await quarters().withIccProfile('p3').jpeg().toBuffer()
    const srgb = await quarters().withIccProfile('srgb').jpeg().toBuffer()
    const start = srgb.indexOf('ICC_PROFILE') - 4
    const profile = srgb.subarray(start, start + 2 + srgb.readUInt16BE(start + 2))
    const without = await quarters().toColourspace('b-w').jpeg().toBuffer()
    const grey = Buffer.concat([without.subarray(0, 2), profile, without.subarray(2)])
    for (const content of [cmyk, p3, grey]) {
      expect(await fast(content, all, size)).toBeNull()
      const file = join(await folderWith({ 'image.jpg': content }), 'image.jpg')
      expect(await decodeCrops(file, all, size)).toEqual(await slow(content, all, size))
    }
    expect(difference((await fast(srgb, all, size))![0]!, (await slow(srgb, all, size))[0]!)).toBeLessThan(1)
    // Another curve, another primary, and a profile that is cut off.
    for (const [tag, offset] of [['rTRC', 12], ['gXYZ', 9]] as const) {
      const entry = profile.indexOf(tag)
      const other = Buffer.from(srgb)
      other[start + 18 + profile.readUInt32BE(entry + 4) + offset]! ^= 1
      expect(await fast(other, all, size), tag).toBeNull()
    }
    const cut = Buffer.from(srgb)
    cut.writeUInt32BE(0xffffff00, start + 18 + 128 + 4 + 4)
    cut.writeUInt32BE(0xffffff00, start + 18 + 128)
    await fast(cut, all, size)
  })

  it('arithmetic coding, 12 bits, gain maps, and an orientation that is none', async () => {
    const content = await quarters().jpeg().toBuffer()
    const frame = content.indexOf(Buffer.from([0xff, 0xc0]))
    const changed = (offset: number, value: number): Buffer => {
      const copy = Buffer.from(content)
      copy[offset] = value
      return copy
    }
    const segment = (marker: number, text: string): Buffer => {
      const head = Buffer.from([0xff, marker, 0, text.length + 2])
      return Buffer.concat([content.subarray(0, 2), head, Buffer.from(text, 'latin1'), content.subarray(2)])
    }
    const exif = (orientation: number): Buffer => segment(
      0xe1, `Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0${String.fromCharCode(orientation)}\0\0\0\0\0\0\0`
    )
    for (const unusual of [
      changed(frame + 1, 0xc9), changed(frame + 4, 12), segment(0xe1, 'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>'),
      exif(0), exif(9), segment(0xe1, 'Exif\0\0II*\0\xff\xff\0\0'), segment(0xe1, 'Exif')
    ]) expect(await fast(unusual, all, size)).toBeNull()
    for (const usual of [content, exif(3), exif(6), segment(0xe1, 'http://ns.adobe.com/xap/1.0/\0<x/>')]) {
      expect(difference((await fast(usual, all, size))![0]!, (await slow(usual, all, size))[0]!)).toBeLessThan(1)
    }
  })

  it('everything that is cut short or damaged, so that it has the last word', async () => {
    const folder = await folderWith()
    const file = join(folder, 'image.jpg')
    const corner = (width: number, height: number): Crop[] => [{ left: 0, top: 0, width: Math.ceil(width / 3), height: Math.ceil(height / 3) }]
    const outcome = (): Promise<Uint8Array | string> =>
      decodeCrops(file, corner, size).then(([planes]) => planes!, (error: unknown) => {
        expect(error).toBeInstanceOf(BrokenImageError)
        return 'broken'
      })
    const random = randomFor(4)
    let [broken, decoded] = [0, 0]
    for (const options of [{}, { progressive: true }] as JpegOptions[]) {
      const content = await noise(90, 70).jpeg(options).toBuffer()
      const truncated = Array.from({ length: 40 }, (_, i) => content.subarray(0, Math.floor(((i + 1) * content.length) / 41)))
      const changed = Array.from({ length: 80 }, (_, i) => {
        const copy = Buffer.from(content)
        copy[random.integer(2, i % 2 === 0 ? 640 : copy.length)] = random.integer(0, 256)
        return copy
      })
      for (const bytes of [...truncated, ...changed]) {
        await writeFile(file, bytes)
        const [ours, theirs] = [await outcome(), await slowly(outcome)]
        if (typeof ours === 'string' || typeof theirs === 'string') expect(ours).toBe(theirs)
        else expect(difference(ours, theirs)).toBeLessThan(2)
        if (ours === 'broken') broken++
        else decoded++
      }
    }
    expect(broken).toBeGreaterThan(80)
    expect(decoded).toBeGreaterThan(40)
  })

  async function slowly<T>(work: () => Promise<T>): Promise<T> {
    vi.stubEnv('GMML_JPEG', 'sharp')
    return work().finally(() => vi.unstubAllEnvs())
  }

  it('headers that promise more pixels than it decodes, and passes without end', async () => {
    const content = await noise(60, 60).jpeg({ progressive: true }).toBuffer()
    const frame = content.indexOf(Buffer.from([0xff, 0xc2]))
    const huge = Buffer.from(content)
    huge.writeUInt16BE(65500, frame + 5)
    huge.writeUInt16BE(65500, frame + 7)
    expect(await fast(huge, all, size)).toBeNull()
    await expect(slow(huge, all, size)).rejects.toThrow(BrokenImageError)
    // The last pass over and over again.
    const last = content.lastIndexOf(Buffer.from([0xff, 0xda]))
    const scan = content.subarray(last, content.length - 2)
    const passes = Buffer.concat([content.subarray(0, last), ...new Array<Buffer>(300).fill(scan), content.subarray(-2)])
    expect(await fast(passes, all, size)).toBeNull()
  })

  it('without drawing the crops a second time', async () => {
    const content = await noise(60, 50).jpeg().toBuffer()
    const file = join(await folderWith({ 'good.jpg': content, 'bad.jpg': content.subarray(0, content.length - 200) }), 'good.jpg')
    const draw = vi.fn(all)
    await decodeCrops(file, draw, size)
    expect(draw.mock.calls).toEqual([[60, 50]])
    await expect(decodeCrops(file.replace('good', 'bad'), draw, size)).rejects.toThrow(BrokenImageError)
    expect(draw).toHaveBeenCalledTimes(2)
  })

  it('all files with GMML_JPEG=sharp', () => {
    vi.stubEnv('GMML_JPEG', 'sharp')
    onTestFinished(() => void vi.unstubAllEnvs())
    expect(hasFastJpeg()).toBe(false)
  })
})
