// Makes data/fashion-mnist-mini from the training split of Fashion-MNIST: 1,000 training and 200 held-out images of each class, chosen
// at random by a fixed seed and kept in the order of the original. The test split stays untouched, so that results on it stay honest.
//
//   node scripts/make-fashion-mnist-mini.mjs <folder with train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz> [<folder to write>]
//
// The originals are in the Debian package dataset-fashion-mnist, under /usr/share/datasets/fashion-mnist.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync, gzipSync } from 'node:zlib'
import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus'

const seed = 20220528
const classes = 10
const perClass = { train: 1000, 'held-out': 200 }
const pixels = 28 * 28

const [source, target = fileURLToPath(new URL('../data/fashion-mnist-mini', import.meta.url))] = process.argv.slice(2)
if (source === undefined) {
  console.error('Usage: node scripts/make-fashion-mnist-mini.mjs <folder of the original IDX files> [<folder to write>]')
  process.exit(2)
}

const images = original('train-images-idx3-ubyte.gz', 'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888').subarray(16)
const labels = original('train-labels-idx1-ubyte.gz', 'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9').subarray(8)

const random = xoroshiro128plus(seed)
const chosen = { train: [], 'held-out': [] }
for (let label = 0; label < classes; label++) {
  const members = shuffle([...labels.keys()].filter((index) => labels[index] === label))
  for (const split of Object.keys(chosen)) chosen[split].push(...members.splice(0, perClass[split]))
}

for (const [split, indices] of Object.entries(chosen)) {
  indices.sort((a, b) => a - b)
  const folder = join(target, split)
  mkdirSync(folder, { recursive: true })
  const picked = indices.map((index) => images.subarray(index * pixels, (index + 1) * pixels))
  write(join(folder, 'images-idx3-ubyte.gz'), [indices.length, 28, 28], Buffer.concat(picked))
  write(join(folder, 'labels-idx1-ubyte.gz'), [indices.length], Buffer.from(indices.map((index) => labels[index])))
}

/** The content of an original file; another edition of it would give another set under the same name. */
function original(name, sha256) {
  const content = gunzipSync(readFileSync(join(source, name)))
  const found = createHash('sha256').update(content).digest('hex')
  if (found !== sha256) throw new Error(`Expected ${name} with content of SHA-256 ${sha256}, received ${found}`)
  return content
}

function shuffle(list) {
  for (let last = list.length - 1; last > 0; last--) {
    const other = uniformInt(random, 0, last)
    ;[list[last], list[other]] = [list[other], list[last]]
  }
  return list
}

function write(file, shape, data) {
  const header = Buffer.alloc(4 + 4 * shape.length)
  header.writeUInt32BE(0x800 + shape.length)
  shape.forEach((length, axis) => header.writeUInt32BE(length, 4 + 4 * axis))
  const packed = gzipSync(Buffer.concat([header, data]), { level: 9 })
  // The header's time is 0 already; the operating system becomes 'unknown', or the bytes would tell where they were made.
  packed[9] = 255
  writeFileSync(file, packed)
  console.log(`${file}: ${shape.join(' x ')}, ${packed.length} bytes`)
}
