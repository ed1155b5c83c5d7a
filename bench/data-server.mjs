// The gmml side of data.mjs: does what it is told to, and says how much processor time that took.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import {
  decodeCrops, drawChange, drawCrop, finishViews, gmmlAugmentation, imagenetStatistics, Loader, namedContent, openImages, randomFor,
  randomResizedCrop
} from 'gmml/data'
import * as torch from 'gmml/torch'
// Not public: what each worker of a loader calls.
import { decodeCropsHere } from '../dist/data/decode.js'
import { runtime } from './gmml-server.mjs'
import { serve } from './json-lines.mjs'

const SIDE = 224
const size = { width: SIDE, height: SIDE }

/** Seconds of processor time, of all threads, and on the clock. */
async function timed(work) {
  const [cpu, clock] = [process.cpuUsage(), performance.now()]
  await work()
  const { user, system } = process.cpuUsage(cpu)
  return { seconds: (user + system) / 1e6, wall: (performance.now() - clock) / 1000 }
}

/** As many at a time as libuv has threads. */
async function each(files, work) {
  let next = 0
  await Promise.all(Array.from({ length: 4 }, async () => {
    while (next < files.length) {
      const index = next++
      await work(files[index], index)
    }
  }))
}

/** From file to crops: one file after the other, as each thread of a loader does it, or with what users call, on libuv's threads. */
function crops({ files, crops: count, seed, libuv = false }) {
  const draw = (index) => (width, height) => Array.from({ length: count }, (_, crop) => {
    const random = randomFor(seed, index, crop)
    return { ...randomResizedCrop(random.uniform, width, height), flip: random.chance(0.5) }
  })
  if (libuv) return timed(() => each(files, (file, index) => decodeCrops(file, draw(index), size)))
  const planes = new Uint8Array(count * 3 * SIDE * SIDE)
  return timed(async () => {
    for (const [index, file] of files.entries()) await decodeCropsHere({ content: { path: file }, name: file }, draw(index), size, planes)
  })
}

/** From file to all pixels as planes, which is as good as nothing resized. */
function decode({ files, width, height }) {
  const all = [{ left: 0, top: 0, width, height }]
  const planes = new Uint8Array(3 * width * height)
  return timed(async () => {
    for (const file of files) await decodeCropsHere({ content: { path: file }, name: file }, all, { width, height }, planes)
  })
}

/**
 * From pixels to crops: what all parts take longer than two of them, the whole image and the smallest part. For these as much is decoded, and
 * at the same size.
 */
async function resize({ files, rectangles, width, height }) {
  const parts = rectangles.map(([left, top, w, h]) => ({ left, top, width: w, height: h }))
  parts.sort((one, other) => one.width * one.height - other.width * other.height)
  const all = [{ left: 0, top: 0, width, height }, ...parts]
  const planes = new Uint8Array(all.length * 3 * SIDE * SIDE)
  const decoded = async (file, list) => (await timed(() =>
    decodeCropsHere({ content: { path: file }, name: file }, list, size, planes.subarray(0, list.length * 3 * SIDE * SIDE)))).seconds
  let seconds = 0
  for (const file of files) seconds += (await decoded(file, all)) - (await decoded(file, all.slice(0, 2)))
  return { seconds: (seconds * parts.length) / (parts.length - 1) }
}

/** The loader of the folder that was asked for last. */
let loaded = null

async function loaderOf(folder, workers) {
  if (loaded?.folder === folder && loaded.workers === workers) return loaded
  loaded?.loader.dispose()
  const source = await openImages(folder)
  loaded = { folder, workers, source, loader: new Loader(source, { size, device: 'cpu', workers }) }
  return loaded
}

/** Whole batches of a `Loader`, and apart from it the work that they cannot do without: decoding, and changing and normalising views. */
async function load({ folder, epochs, batchSize, workers, views, seed }) {
  const { source, loader } = await loaderOf(folder, workers)
  const taken = []
  // What is counted is the time between two looks, which come this many milliseconds after each other.
  const resolution = 10
  const delay = monitorEventLoopDelay({ resolution })
  delay.enable()
  const whole = await timed(async () => {
    for (let epoch = 0; epoch < epochs; epoch++) {
      for await (const { indices, images } of loader.epoch({ seed, epoch, batchSize, views, augmentation: gmmlAugmentation })) {
        images.dispose()
        taken.push({ epoch, indices })
      }
    }
  })
  delay.disable()
  const planes = new Uint8Array(views * 3 * SIDE * SIDE)
  const decoding = await timed(async () => {
    for (const { epoch, indices } of taken) {
      for (const index of indices) {
        const draw = (width, height) => Array.from({ length: views }, (_, view) =>
          drawCrop(randomFor(seed, epoch, index, view, 'crop'), width, height, gmmlAugmentation)
        )
        await decodeCropsHere(await namedContent(source, index), draw, size, planes)
      }
    }
  })
  const pixels = torch.randint(0, 256, [views * batchSize, 3, SIDE, SIDE], { dtype: 'uint8' })
  const finishing = await timed(() => {
    for (const { epoch, indices } of taken) {
      const keys = Array.from({ length: views }, (_, view) => indices.map((index) => [seed, epoch, index, view])).flat()
      const changes = keys.map((key) => drawChange((purpose) => randomFor(...key, purpose), size, gmmlAugmentation))
      torch.noGrad(() => torch.scope(() => void finishViews(pixels.to('float32').div(255), changes, imagenetStatistics)))
    }
  })
  pixels.dispose()
  return {
    ...whole, images: taken.length * batchSize, decoding: decoding.seconds, finishing: finishing.seconds,
    delay: Math.max(0, delay.percentile(99) / 1e6 - resolution)
  }
}

const tasks = { crops, decode, resize, load }

function answer({ task, decoder, ...request }) {
  process.env.GMML_JPEG = decoder ?? ''
  return tasks[task](request)
}

torch.setNumThreads(1)
await serve({ ...runtime(), jpeg: torch.buildInfo().jpeg }, answer)
