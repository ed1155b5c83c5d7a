import type { Dirent, Stats } from 'node:fs'
import { opendir, readFile, stat } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import sharp, { type ResizeOptions as SharpResize, type Sharp } from 'sharp'
import { expected } from '../errors.js'
import { centreCrop, checkSize, type Crop, type Rectangle, type Size } from './crop.js'
import { decodeJpeg, hasFastJpeg, readImageFile } from './jpeg.js'
import type { SourceBase } from './source.js'

/** The endings of the files that are taken for images, in any case. */
export const imageExtensions = ['jpg', 'jpeg', 'png', 'webp', 'avif', 'gif', 'tif', 'tiff'] as const

const isImage = new RegExp(`\\.(?:${imageExtensions.join('|')})$`, 'i')

/** A path on one line of a message: line ends and other control characters, which a terminal would obey, are spelt out. */
export const printable = (path: string): string =>
  path.replace(/[\u0000-\u001f\u007f-\u009f]/g, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** One file of a data set is not an image that can be decoded. The rest of the data set is not concerned. */
export class BrokenImageError extends Error {
  override readonly name = 'BrokenImageError'

  /**
   * @param file - Path of the file.
   * @param reason - Why, as half a sentence.
   */
  constructor(readonly file: string, readonly reason: string, options?: ErrorOptions) {
    super(`Cannot use the image '${printable(file)}': ${reason}`, options)
  }
}

/** The crops of an image, or a function that draws them once the size of the upright image is known. */
export type Crops = readonly Crop[] | ((width: number, height: number) => readonly Crop[])

/** Colour images in files: those of a folder, or of a list. */
export interface FolderSource extends SourceBase {
  readonly kind: 'folder'
  readonly channels: 3
  /**
   * Paths, in the order of the source. Of a folder: inside it, with '/', ascending by UTF-16 code units, so equal on every machine; of a
   * list: as they are in it.
   */
  readonly files: readonly string[]
  /** Links that lead nowhere or in a circle, and sub-folders that cannot be read. */
  readonly unreadable: readonly string[]
  /** {@link decodeCrops} of the image `index`. */
  decodeCrops(index: number, crops: Crops, size: Size): Promise<Uint8Array[]>
  /** {@link decodeResized} of the image `index`. */
  decodeResized(index: number, options: ResizeOptions): Promise<Uint8Array>
}

/** Lists the image files of a folder and of all folders in it; no file is opened. Names that begin with a dot are passed over. */
export async function openFolder(path: string): Promise<FolderSource> {
  const { files, unreadable }: Found = { files: [], unreadable: [] }
  await list(path, '', [], { files, unreadable })
  files.sort()
  const inFolders = files.length > 0 && files.every((file) => file.includes('/'))
  const classes = inFolders ? numberClasses(files.map((file) => file.slice(0, file.indexOf('/')))) : { classes: null, labels: null }
  return fileSource({ path, root: path, files, unreadable: unreadable.sort(), ...classes })
}

/** The classes of images by their names: each once, in order, and for each image its number. */
export function numberClasses(names: readonly string[]): { classes: string[]; labels: Int32Array } {
  const classes = [...new Set(names)].sort()
  const numbers = new Map(classes.map((name, number) => [name, number]))
  return { classes, labels: Int32Array.from(names, (name) => numbers.get(name)!) }
}

type FileList = Pick<FolderSource, 'path' | 'files' | 'unreadable' | 'classes' | 'labels'>

/** A source of these image files. @param root - The folder that relative paths start from. */
export function fileSource({ root, ...list }: FileList & { readonly root: string }): FolderSource {
  const at = (index: number): string => {
    const file = list.files[index]
    if (file === undefined) throw expected(`an integer from 0 to ${list.files.length - 1}`, 'index', index)
    return file
  }
  const pathOf = (index: number): string => {
    const file = at(index)
    return isAbsolute(file) ? file : join(root, file)
  }
  return {
    kind: 'folder',
    ...list,
    length: list.files.length,
    channels: 3,
    name: at,
    decodeCrops: async (index, crops, size) => decodeCrops(pathOf(index), crops, size),
    decodeResized: async (index, options) => decodeResized(pathOf(index), options)
  }
}

interface Found {
  readonly files: string[]
  readonly unreadable: string[]
}

/** Adds what lies in one folder; `ancestors` are the identities of the folders above it, by which a link in a circle is known. */
async function list(root: string, inside: string, ancestors: readonly string[], found: Found): Promise<void> {
  const folders: string[] = []
  const links: string[] = []
  try {
    const { dev, ino } = await stat(join(root, inside), { bigint: true })
    const identity = `${dev}:${ino}`
    if (ancestors.includes(identity)) throw new Error('A link to a folder above it')
    ancestors = [...ancestors, identity]
    for await (const entry of await opendir(join(root, inside), { bufferSize: 1024 })) {
      if (entry.name.startsWith('.')) continue
      const path = inside + entry.name
      if (!entry.isFile() && !entry.isDirectory()) links.push(path)
      else put(path, entry, folders, found)
    }
    await follow(root, links, (path, kind) => put(path, kind, folders, found))
  } catch (error) {
    if (inside === '') throw error
    found.unreadable.push(inside.slice(0, -1))
  }
  for (const folder of folders) await list(root, folder, ancestors, found)
}

/** Puts a path where it belongs, by what is there. What is neither file nor folder (a pipe would block) is passed over. */
function put(path: string, kind: Pick<Dirent, 'isFile' | 'isDirectory'> | null, folders: string[], found: Found): void {
  if (kind === null) found.unreadable.push(path)
  else if (kind.isDirectory()) folders.push(`${path}/`)
  else if (kind.isFile() && isImage.test(path)) found.files.push(path)
}

/** How many links are followed at a time: one by one, a million would take a minute. */
const LINKS = 256

/** Links are followed, as torchvision's ImageFolder does. `null` is one that leads nowhere. */
async function follow(root: string, links: readonly string[], use: (path: string, kind: Stats | null) => void): Promise<void> {
  for (let first = 0; first < links.length; first += LINKS) {
    const some = links.slice(first, first + LINKS)
    const kinds = await Promise.all(some.map((path) => stat(join(root, path)).catch(() => null)))
    for (const [i, path] of some.entries()) use(path, kinds[i]!)
  }
}

interface Pixels extends Size {
  /** RGB, interleaved. */
  readonly data: Uint8Array
}

/**
 * Decodes one image file to upright 8-bit sRGB. The EXIF orientation is applied; grey, palette, CMYK and 16-bit images are converted,
 * through their colour profile if they carry one; of an animation the first frame is taken. An alpha channel is dropped, as PyTorch's
 * usual loaders do: the colour beneath it counts, no background is made up.
 *
 * sharp works on libuv's threads; the calling thread is free meanwhile.
 *
 * @throws BrokenImageError: the file cannot be read, is empty, damaged, cut short, no image, or of more pixels than sharp's limit (268
 * million), which guards against small files that unpack to gigabytes.
 */
async function decode(file: string, content?: Uint8Array): Promise<Pixels> {
  const bytes = content ?? await readFile(file).catch((error: NodeJS.ErrnoException) => {
    // Such a name comes from a list of files with a replacement character, under which there is no file.
    const misnamed = error.code === 'ENOENT' && file.includes('\ufffd')
    throw new BrokenImageError(file, misnamed ? 'its name is not in UTF-8' : `the file cannot be read (${error.code})`, { cause: error })
  })
  if (bytes.length === 0) throw new BrokenImageError(file, 'the file is empty')
  // 'error' refuses what is cut short ('truncated' alone would pass some TIFF). 'warning', sharp's default, would also refuse photographs
  // with stray bytes between two segments, which Pillow reads without a word.
  const image = sharp(bytes, { failOn: 'error', autoOrient: true }).toColourspace('srgb').removeAlpha().raw({ depth: 'uchar' })
  await fromWideColours(image, bytes)
  const { data, info } = await image.toBuffer({ resolveWithObject: true }).catch((error: Error) => {
    throw new BrokenImageError(file, reasonOf(error), { cause: error })
  })
  if (info.channels !== 3) throw new BrokenImageError(file, `it has ${info.channels} colour channels`)
  return { data, width: info.width, height: info.height }
}

/**
 * sharp takes images of 16 bits through their profile into the space of Display P3, and leaves them there unless a profile is named. Only
 * where there is something to convert: the way through a profile costs time and rounds.
 */
async function fromWideColours(image: Sharp, bytes: Uint8Array): Promise<void> {
  // JPEG, the most of all, has 8 bits.
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return
  // What cannot be read is told when it is decoded.
  const found = await image.metadata().catch(() => null)
  if (found?.hasProfile && found.depth === 'ushort' && found.channels >= 3) image.withIccProfile('srgb', { attach: false })
}

function reasonOf({ message }: Error): string {
  if (message.includes('unsupported image format')) return 'the content is not an image of a known format'
  if (message.includes('exceeds pixel limit')) return 'it has more pixels than the decoder allows'
  // libvips keeps one error text for all its threads: of files that fail at the same moment, one may get the words of both or none.
  const words = message.split('\n')[0]!.trim().replace(/:$/, '')
  return words === '' || words === 'Unknown error' ? 'it is damaged or cut short' : `it is damaged or cut short (${words})`
}

/**
 * Decodes an image file once and resizes parts of it to one size, with the cubic kernel (Catmull-Rom, a = -0.5 as in Pillow; antialiased
 * where it shrinks). The middles of the pixels stay where they are, as in Pillow.
 *
 * JPEG files of the usual kinds are decoded by libjpeg-turbo if the addon was built with it, all others by sharp. The two differ by less
 * than two grey levels on average, as decoders and kernels do. `GMML_JPEG=sharp` in the environment leaves all files to sharp.
 *
 * @param file - Path.
 * @param crops - Inside the image. They may be smaller than `size`: they are enlarged then.
 * @param size - Of the results, in pixels.
 * @returns For each crop its pixels [3, height, width], RGB.
 * @throws BrokenImageError for a file that cannot be decoded; InputError for a crop that is not inside the image.
 */
export async function decodeCrops(file: string, crops: Crops, size: Size): Promise<Uint8Array[]> {
  checkSize('the size of the crops', size)
  const opened = hasFastJpeg() ? await readImageFile(file) : null
  // Drawn once, whoever decodes: a function that draws at random would give others the second time.
  let drawn: readonly Crop[] | null = null
  if (opened?.jpeg) {
    drawn = cropsOf(crops, opened.jpeg)
    const planes = await decodeJpeg(opened, drawn, size)
    if (planes) return planes
  }
  const image = await decode(file, opened?.bytes)
  const list = cropsOf(drawn ?? crops, image)
  return Promise.all(list.map((crop) => resample(image, crop, size, { left: 0, top: 0, ...size }, crop.flip ?? false)))
}

function cropsOf(crops: Crops, { width, height }: Size): readonly Crop[] {
  const list = typeof crops === 'function' ? crops(width, height) : crops
  for (const crop of list) checkInside(crop, { width, height })
  return list
}

export interface ResizeOptions {
  /** The length that the shorter side gets, in pixels. */
  readonly resize: number
  /** The size of the part that is cut from the middle; at most `resize`. */
  readonly crop: Size
}

/**
 * Decodes an image file for evaluation: the shorter side is resized to `resize`, then the middle is taken ({@link centreCrop}).
 *
 * @param file - Path.
 * @returns Pixels [3, crop.height, crop.width], RGB.
 * @throws BrokenImageError for a file that cannot be decoded; InputError for a crop that is larger than `resize`.
 */
export async function decodeResized(file: string, { resize, crop }: ResizeOptions): Promise<Uint8Array> {
  // Wrong options are an error before the file is touched, whatever its size.
  centreCrop(1, 1, resize, crop)
  const image = await decode(file)
  const target = centreCrop(image.width, image.height, resize, crop)
  const { width, height } = image
  return resample(image, { left: 0, top: 0, width, height }, target.resized, target.crop, false)
}

/**
 * Resizes the part `from` of an image to `size`, and cuts `window` out of the result.
 *
 * libvips shrinks with the pixels' centres in place, but where a side grows its result lies half a pixel off, and a side that does not
 * grow with it half a pixel of its own. So what shrinks is shrunk first. Then both sides grow to twice the length: of that, every second
 * pixel, from the second on, lies exactly where it should.
 */
async function resample(image: Pixels, from: Rectangle, size: Size, window: Rectangle, flip: boolean): Promise<Uint8Array> {
  const { left, top, width, height } = from
  const shrunk = { width: Math.min(width, size.width), height: Math.min(height, size.height) }
  const small = open(image).extract({ left, top, width, height }).resize(resizeTo(shrunk))
  if (shrunk.width === size.width && shrunk.height === size.height) {
    return toPlanes(await small.extract(window).raw().toBuffer(), window, 1, flip)
  }
  const twice = (sides: Size): Size => ({ width: 2 * sides.width, height: 2 * sides.height })
  const grown = open({ data: await small.raw().toBuffer(), ...shrunk }).resize(resizeTo(twice(size)))
  const part = grown.extract({ left: 2 * window.left, top: 2 * window.top, ...twice(window) })
  return toPlanes(await part.raw().toBuffer(), window, 2, flip)
}

const open = ({ data, width, height }: Pixels): Sharp => sharp(data, { raw: { width, height, channels: 3 } })

const resizeTo = ({ width, height }: Size): SharpResize => ({ width, height, fit: 'fill', kernel: 'cubic' })

function checkInside(crop: Crop, { width, height }: Size): void {
  const { left, top } = crop
  const whole = [left, top, crop.width, crop.height].every(Number.isInteger)
  if (!whole || left < 0 || top < 0 || crop.width < 1 || crop.height < 1 || left + crop.width > width || top + crop.height > height) {
    throw expected(`a rectangle of whole pixels inside ${width} x ${height}`, 'a crop', crop)
  }
}

/** Interleaved [step * H, step * W, 3] to planes [3, H, W]: the last of every `step` pixels of a side, mirrored on the way. */
function toPlanes(data: Uint8Array, { height, width }: Size, step: 1 | 2, flip: boolean): Uint8Array {
  const area = height * width
  const planes = new Uint8Array(3 * area)
  for (let row = 0; row < height; row++) {
    let from = 3 * (((row + 1) * step - 1) * width * step + step - 1)
    let to = row * width + (flip ? width - 1 : 0)
    for (let column = 0; column < width; column++, to += flip ? -1 : 1, from += 3 * step) {
      planes[to] = data[from]!
      planes[to + area] = data[from + 1]!
      planes[to + 2 * area] = data[from + 2]!
    }
  }
  return planes
}
