// node bench/photographs.mjs FROM TO: photographs for `npm run bench -- data`, from a folder of large ones that you may use (sub-folders
// too). TO/500x375 and TO/2000x1500 then hold JPEG files of quality 90, parts of the large ones, the same on every machine.
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { randomFor } from 'gmml/data'
import sharp from 'sharp'

const SETS = [{ width: 500, height: 375, count: 200 }, { width: 2000, height: 1500, count: 100 }]
const QUALITY = 90

/** Photographs that all sets can be cut from, and their upright sizes. */
async function largeOnes(folder) {
  const names = readdirSync(folder, { recursive: true }).filter((name) => /\.(jpe?g|png|webp|tiff?|avif)$/i.test(name)).sort()
  const found = []
  for (const name of names) {
    const { autoOrient } = await sharp(join(folder, name)).metadata()
    if (SETS.every(({ width, height }) => autoOrient.width >= width && autoOrient.height >= height)) found.push({ name, ...autoOrient })
  }
  return found
}

/** @param {string} from @param {string} to */
export async function makePhotographs(from, to) {
  const photographs = await largeOnes(from)
  if (photographs.length === 0) throw new Error(`expected photographs of at least 2000 x 1500 pixels in '${from}', found none`)
  for (const { width, height, count } of SETS) {
    const folder = join(to, `${width}x${height}`)
    mkdirSync(folder, { recursive: true })
    for (let i = 0; i < count; i++) {
      const photograph = photographs[i % photographs.length]
      const random = randomFor(0, photograph.name, width, i)
      // Any part of the photograph of this shape, shrunk to the size, as a camera's picture is that is put on the web.
      const scale = random.uniform(1, Math.min(photograph.width / width, photograph.height / height))
      const part = { width: Math.floor(width * scale), height: Math.floor(height * scale) }
      const left = random.integer(0, photograph.width - part.width + 1)
      const top = random.integer(0, photograph.height - part.height + 1)
      const upright = sharp(join(from, photograph.name)).autoOrient().removeAlpha().toColourspace('srgb').extract({ left, top, ...part })
      const file = join(folder, `${String(i).padStart(3, '0')}.jpg`)
      await upright.resize(width, height, { fit: 'fill' }).jpeg({ quality: QUALITY }).toFile(file)
    }
    console.log(`${folder}: ${count} parts of ${photographs.length} photographs`)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [from, to] = process.argv.slice(2)
  if (!from || !to) {
    console.error('node bench/photographs.mjs FROM TO')
    process.exit(2)
  }
  await makePhotographs(from, to)
}
