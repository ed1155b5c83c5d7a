// node bench/loading-memory.mjs FOLDER [--minutes 60] [--workers 2] [--batch 32] [--views 2] [--rate IMAGES/S] [--write]
// Whether memory stays the same while images are loaded: epochs of a `Loader` for a given time, with GMML's views, on the CPU. README.md says
// what is measured.
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { gmmlAugmentation, Loader, openImages } from 'gmml/data'
import * as torch from 'gmml/torch'
import { runtime } from './gmml-server.mjs'
import { describeDevice, writeRecord } from './record.mjs'

const MIB = 2 ** 20
const SIDE = 224
const USAGE = 'node bench/loading-memory.mjs FOLDER [--minutes 60] [--workers 2] [--batch 32] [--views 2] [--rate IMAGES/S] [--write]'

function parse() {
  const text = (value) => ({ type: 'string', default: value })
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      minutes: text('60'), workers: text('2'), batch: text('32'), views: text('2'), rate: text('Infinity'), write: { type: 'boolean', default: false }
    }
  })
  const number = (name, least) => {
    const value = Number(values[name])
    if (!(value >= least)) throw new Error(`--${name}: expected a number of at least ${least}, received '${values[name]}'`)
    return value
  }
  if (positionals.length !== 1) throw new Error('expected one folder of images')
  return {
    folder: positionals[0], minutes: number('minutes', 0.1), workers: number('workers', 0), batchSize: number('batch', 1), views: number('views', 1),
    rate: number('rate', 0.001), write: values.write
  }
}

/** In MiB. `external` is what JavaScript objects hold outside of V8's heap, `tensors` what libtorch's do. */
function sample(minutes, images) {
  const { rss, heapUsed, external } = process.memoryUsage()
  const { tensors, bytes } = torch.memory()
  const tensorBytes = Object.values(bytes).reduce((sum, value) => sum + value, 0)
  const inMib = Object.fromEntries(Object.entries({ rss, heap: heapUsed, external, tensorBytes }).map(([name, value]) => [name, value / MIB]))
  return { minutes, images, ...inMib, tensors }
}

/** MiB per hour by a least-squares line through the samples. */
function growth(samples, name) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [hours, values] = [samples.map(({ minutes }) => minutes / 60), samples.map((one) => one[name])]
  const [middle, height] = [mean(hours), mean(values)]
  const square = hours.reduce((sum, hour) => sum + (hour - middle) ** 2, 0)
  return hours.reduce((sum, hour, i) => sum + (hour - middle) * (values[i] - height), 0) / square
}

async function measure({ folder, minutes, workers, batchSize, views, rate }) {
  const loader = new Loader(await openImages(folder), { size: { width: SIDE, height: SIDE }, device: 'cpu', workers })
  const samples = []
  // From the first batch on: what is loaded for it is there then.
  let start = performance.now()
  const passed = () => (performance.now() - start) / 60_000
  // One in a minute, and at least sixty.
  const interval = Math.min(1, minutes / 60)
  let images = 0
  for (let epoch = 0; passed() < minutes; epoch++) {
    for await (const batch of loader.epoch({ seed: 0, epoch, batchSize, views, augmentation: gmmlAugmentation })) {
      batch.images.dispose()
      if (images === 0) start = performance.now()
      images += batch.indices.length
      if (passed() >= samples.length * interval) {
        samples.push(sample(passed(), images))
        const { rss, heap, external, tensorBytes } = samples.at(-1)
        console.log([passed().toFixed(1), 'min', images, 'images; MiB: rss', rss.toFixed(1), 'heap', heap.toFixed(1), 'external', external.toFixed(1),
          'tensors', tensorBytes.toFixed(1)].join(' '))
      }
      if (passed() >= minutes) break
      await setTimeout(Math.max(0, (1000 * images) / rate - (performance.now() - start)))
    }
  }
  loader.dispose()
  return { samples, images, peakRss: process.resourceUsage().maxRSS / 1024 }
}

try {
  const options = parse()
  const device = describeDevice()
  torch.setNumThreads(1)
  const { samples, images, peakRss } = await measure(options)
  // What is begun late, and V8's heap of its final size, are there after a sixth of the time: ten minutes of an hour.
  const steady = samples.filter(({ minutes }) => minutes >= options.minutes / 6)
  const perHour = Object.fromEntries(['rss', 'heap', 'external', 'tensorBytes', 'tensors'].map((name) => [name, growth(steady, name)]))
  console.log(`${images} images; peak ${peakRss.toFixed(1)} MiB. Growth per hour after ${(options.minutes / 6).toFixed(1)} min, MiB:`, perHour)
  const { folder: _, write, ...settings } = options
  const result = { name: 'loading-memory', what: 'MiB of one process while it loads', runtimes: { gmml: runtime() }, settings, images, peakRss, perHour, samples }
  if (write) writeRecord(result, device, ['node bench/loading-memory.mjs', ...process.argv.slice(2)].join(' '))
} catch (error) {
  console.error(`${error.message}\n\n${USAGE}`)
  process.exitCode = 2
}
