// From JPEG files to batches of views: gmml against Pillow + torchvision. What is measured is said in README.md.
// GMML_BENCH_PHOTOS names a folder of folders, each with JPEG files of one size, as photographs.mjs makes them. GMML_BENCH_PYTHON names a
// Python that has torch, torchvision and Pillow, python3 by default.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { randomFor, randomResizedCrop } from 'gmml/data'
import sharp from 'sharp'
import { startGmml } from './gmml-server.mjs'
import { startServer } from './json-lines.mjs'
import { median, spread, summary, table } from './statistics.mjs'

const TIMING = { full: { rounds: 7, seconds: 1 }, quick: { rounds: 2, seconds: 0.2 } }
const LOADING = { workers: 2, batchSize: 32, views: 2 }

async function photographs() {
  const folder = process.env.GMML_BENCH_PHOTOS
  if (!folder) throw new Error('GMML_BENCH_PHOTOS: expected a folder of folders of JPEG files (see photographs.mjs), received nothing')
  const names = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name).sort()
  return Promise.all(names.map(async (name) => {
    const own = join(folder, name)
    const files = readdirSync(own).sort().map((file) => join(own, file))
    const { width, height } = await sharp(files[0]).metadata()
    return { name, folder: own, files, width, height }
  }))
}

/**
 * Asks the sides in turn, round by round. How much a side is asked for at a time is what it does in `seconds`.
 * @param {Record<string, (files: string[], seed: number) => Promise<number>>} sides seconds that each takes
 * @returns {Promise<Record<string, number[]>>} files per second by round
 */
async function takeTurns(sides, files, { rounds, seconds }) {
  const names = Object.keys(sides)
  const lists = {}
  for (const name of names) {
    // Once without being counted: what is loaded late is loaded then.
    const few = files.slice(0, 20)
    await sides[name](few, 0)
    const length = Math.max(few.length, Math.round((few.length / (await sides[name](few, 0))) * seconds))
    lists[name] = Array.from({ length }, (_, i) => files[i % files.length])
  }
  const samples = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 1; round <= rounds; round++) {
    // No side is always the last, on a processor that the others have warmed or throttled.
    for (const name of round % 2 ? names : [...names].reverse()) {
      samples[name].push(lists[name].length / (await sides[name](lists[name], round)))
    }
  }
  return samples
}

const ratio = (ours, theirs) => summary(ours.map((value, round) => value / theirs[round]))
const summaries = (samples) => Object.fromEntries(Object.entries(samples).map(([name, values]) => [name, summary(values)]))
const asking = (server, task, settings) => async (files, seed) => (await server.ask({ task, files, seed, ...settings })).seconds

async function measureCrops({ gmml, python }, { name, files }, timing) {
  const rows = []
  for (const crops of [1, 2]) {
    const samples = await takeTurns({
      gmml: asking(gmml, 'crops', { crops }), libuv: asking(gmml, 'crops', { crops, libuv: true }), sharp: asking(gmml, 'crops', { crops, decoder: 'sharp' }),
      pytorch: asking(python, 'crops', { crops })
    }, files, timing)
    rows.push({ name, crops, files: files.length, speed: summaries(samples), ratio: ratio(samples.gmml, samples.pytorch) })
  }
  return rows
}

async function measureDecoding({ gmml, python }, { name, files, width, height }, timing) {
  const samples = await takeTurns({
    gmml: asking(gmml, 'decode', { width, height }), sharp: asking(gmml, 'decode', { width, height, decoder: 'sharp' }),
    pillow: asking(python, 'decode', {}), torchvision: asking(python, 'decode', { decoder: 'torchvision' })
  }, files, timing)
  return { name, files: files.length, speed: summaries(samples), ratio: ratio(samples.gmml, samples.pillow) }
}

/** How many parts of a photograph are resized each time that it is decoded for it. */
const PARTS = 16

async function measureResizing({ gmml, python }, { name, files, width, height }, timing) {
  const random = randomFor(0, name)
  const rectangles = Array.from({ length: PARTS }, () => {
    const crop = randomResizedCrop(random.uniform, width, height)
    return [crop.left, crop.top, crop.width, crop.height]
  })
  const each = (server, settings) => async (list, seed) =>
    (await server.ask({ task: 'resize', files: list, seed, rectangles, width, height, ...settings })).seconds / PARTS
  const samples = await takeTurns({
    gmml: each(gmml, {}), pillow: each(python, {}), torchvision: each(python, { decoder: 'torchvision' })
  }, files, { ...timing, seconds: timing.seconds / PARTS })
  return { name, files: files.length, speed: summaries(samples), ratio: ratio(samples.gmml, samples.pillow) }
}

async function measureLoading({ gmml, python }, { name, folder, files }, { rounds, seconds }) {
  const request = { task: 'load', folder, files, ...LOADING, epochs: 1, seed: 0 }
  const sides = { gmml, pytorch: python }
  const samples = { gmml: [], pytorch: [] }
  const { wall } = await gmml.ask(request)
  // Longer than the others: the start of processes is part of it.
  const epochs = Math.max(1, Math.round((3 * seconds) / wall))
  for (let round = 1; round <= rounds; round++) {
    const order = Object.keys(sides)
    for (const side of round % 2 ? order : order.reverse()) samples[side].push(await sides[side].ask({ ...request, epochs, seed: round }))
  }
  const speeds = (side, time) => samples[side].map((sample) => sample.images / sample[time])
  return {
    name, ...LOADING, files: files.length, images: samples.gmml[0].images,
    perCpuSecond: { gmml: summary(speeds('gmml', 'seconds')), pytorch: summary(speeds('pytorch', 'seconds')) },
    perSecond: { gmml: summary(speeds('gmml', 'wall')), pytorch: summary(speeds('pytorch', 'wall')) },
    ratio: ratio(speeds('gmml', 'seconds'), speeds('pytorch', 'seconds')),
    wallRatio: ratio(speeds('gmml', 'wall'), speeds('pytorch', 'wall')),
    handOver: summary(samples.gmml.map(({ seconds, decoding, finishing }) => 1 - (decoding + finishing) / seconds)),
    decodingShare: summary(samples.gmml.map(({ seconds, decoding }) => decoding / seconds)),
    eventLoopDelay: { p99: median(samples.gmml.map(({ delay }) => delay)), worst: Math.max(...samples.gmml.map(({ delay }) => delay)) }
  }
}

/** By their names in the record. */
const MEASUREMENTS = { rows: measureCrops, decoding: measureDecoding, resizing: measureResizing, loading: measureLoading }

/** @param {{ quick: boolean, only?: string }} options */
export async function run({ quick, only }) {
  const chosen = Object.entries(MEASUREMENTS).filter(([name]) => !only || name.includes(only))
  if (chosen.length === 0) throw new Error(`--only: expected a part of ${Object.keys(MEASUREMENTS).join(', ')}, received '${only}'`)
  const timing = TIMING[quick ? 'quick' : 'full']
  const sets = await photographs()
  const gmml = await startGmml('data')
  const script = fileURLToPath(new URL('pytorch/data.py', import.meta.url))
  const python = await startServer('PyTorch', process.env.GMML_BENCH_PYTHON ?? 'python3', [script])
  const servers = { gmml, python }
  const all = async (measure) => {
    const rows = []
    for (const set of sets) rows.push(await measure(servers, set, timing))
    return rows.flat()
  }
  try {
    const measured = []
    for (const [name, measure] of chosen) measured.push([name, await all(measure)])
    return {
      name: 'data',
      what: 'images, and for `resizing` crops, per second of processor time; ratio gmml / PyTorch by round: above 1 is faster',
      runtimes: { gmml: gmml.greeting, pytorch: python.greeting },
      rounds: timing.rounds,
      ...Object.fromEntries(measured)
    }
  } finally {
    await Promise.all([gmml.stop(), python.stop()])
  }
}

const figures = (speed) => Object.values(speed).map(({ median }) => median.toFixed(0))
const percent = ({ median, q1, q3 }) => `${spread({ median: 100 * median, q1: 100 * q1, q3: 100 * q3 }, 0)} %`

export function print({ rows = [], decoding = [], resizing = [], loading = [], rounds }) {
  console.log(`\ndata: median of ${rounds} rounds (quartiles)`)
  // What was not asked for is not there.
  const print = (title, head, rows) => rows.length && console.log(`\n${title}\n${table(head, rows)}`)
  print(
    'images per CPU-second, JPEG to crops of 224',
    ['', 'gmml', 'gmml, decodeCrops', 'gmml, sharp alone', 'Pillow + torchvision', 'gmml / torchvision'],
    rows.map(({ name, crops, speed, ratio }) => [`${name}, ${crops} crop${crops > 1 ? 's' : ''}`, ...figures(speed), spread(ratio)])
  )
  print(
    'decoding alone: images per CPU-second, JPEG to all pixels',
    ['', 'gmml', 'gmml, sharp alone', 'Pillow', 'torchvision.io', 'gmml / Pillow'],
    decoding.map(({ name, speed, ratio }) => [name, ...figures(speed), spread(ratio)])
  )
  print(
    'resizing alone: crops per CPU-second, pixels to 224',
    ['', 'gmml', 'Pillow', 'torchvision, tensor', 'gmml / Pillow'],
    resizing.map(({ name, speed, ratio }) => [name, ...figures(speed), spread(ratio)])
  )
  print(
    `whole batches of ${LOADING.batchSize} images, ${LOADING.views} views each, on the CPU with ${LOADING.workers} workers`,
    ['', 'gmml / CPU-s', 'DataLoader / CPU-s', 'ratio', 'gmml / s', 'DataLoader / s', 'ratio', 'hand-over', 'event loop p99'],
    loading.map(({ name, perCpuSecond, perSecond, ratio, wallRatio, handOver, eventLoopDelay }) => [
      name, ...figures(perCpuSecond), spread(ratio), ...figures(perSecond), spread(wallRatio), percent(handOver),
      `${eventLoopDelay.p99.toFixed(0)} ms`
    ])
  )
}
