// Images per second of processor time, from JPEG files to crops of 224 pixels: gmml, gmml with sharp alone, and Pillow + torchvision.
// The files are photographs of your own: GMML_BENCH_PHOTOS names a folder of folders, each with JPEG files of one size.
// GMML_BENCH_PYTHON names a Python that has torch, torchvision and Pillow, python3 by default.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startGmml } from './gmml-server.mjs'
import { startServer } from './json-lines.mjs'
import { spread, summary, table } from './statistics.mjs'

const TIMING = { full: { rounds: 9, seconds: 1 }, quick: { rounds: 2, seconds: 0.2 } }

function photographs() {
  const folder = process.env.GMML_BENCH_PHOTOS
  if (!folder) throw new Error('GMML_BENCH_PHOTOS: expected a folder of folders of JPEG files, received nothing')
  const folders = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name).sort()
  return folders.map((name) => ({ name, files: readdirSync(join(folder, name)).sort().map((file) => join(folder, name, file)) }))
}

/** @param {{ quick: boolean }} options */
export async function run({ quick }) {
  const { rounds, seconds } = TIMING[quick ? 'quick' : 'full']
  const sets = photographs()
  const gmml = await startGmml('data')
  const script = fileURLToPath(new URL('pytorch/data.py', import.meta.url))
  const python = await startServer('PyTorch', process.env.GMML_BENCH_PYTHON ?? 'python3', [script])
  const sides = { gmml: [gmml, ''], sharp: [gmml, 'sharp'], pytorch: [python, ''] }
  try {
    const rows = []
    for (const { name, files } of sets) {
      for (const crops of [1, 2]) {
        const time = async (side, list, seed) => {
          const [server, decoder] = sides[side]
          return list.length / (await server.ask({ files: list, crops, seed, decoder })).seconds
        }
        const samples = Object.fromEntries(Object.keys(sides).map((side) => [side, []]))
        const lists = {}
        for (const side of Object.keys(sides)) {
          const speed = await time(side, files, 0)
          const length = Math.max(files.length, Math.round(speed * seconds))
          lists[side] = Array.from({ length }, (_, i) => files[i % files.length])
        }
        for (let round = 1; round <= rounds; round++) {
          const order = Object.keys(sides)
          // No side is always the last, on a processor that the others have warmed or throttled.
          for (const side of round % 2 ? order : order.reverse()) samples[side].push(await time(side, lists[side], round))
        }
        rows.push({
          name, crops, files: files.length,
          speed: Object.fromEntries(Object.entries(samples).map(([side, values]) => [side, summary(values)])),
          ratio: summary(samples.gmml.map((value, round) => value / samples.pytorch[round]))
        })
      }
    }
    return {
      name: 'data',
      what: 'images per second of processor time, JPEG to RandomResizedCrop(224); ratio gmml / PyTorch by round: above 1 is faster',
      runtimes: { gmml: gmml.greeting, pytorch: python.greeting },
      rounds,
      rows
    }
  } finally {
    await Promise.all([gmml.stop(), python.stop()])
  }
}

export function print({ rows, rounds }) {
  console.log(`\ndata: images per CPU-second, JPEG to crops of 224; median of ${rounds} rounds (quartiles)`)
  console.log(table(
    ['', 'gmml', 'gmml, sharp alone', 'Pillow + torchvision', 'gmml / torchvision'],
    rows.map(({ name, crops, speed, ratio }) => [
      `${name}, ${crops} crop${crops > 1 ? 's' : ''}`, ...Object.values(speed).map(({ median }) => median.toFixed(0)), spread(ratio)
    ])
  ))
}
