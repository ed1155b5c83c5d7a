// The gmml side of data.mjs: decodes crops of the files it is told, and says how much processor time that took.
import { decodeCrops, randomFor, randomResizedCrop } from 'gmml/data'
import * as torch from 'gmml/torch'
import { runtime } from './gmml-server.mjs'
import { serve } from './json-lines.mjs'

const size = { width: 224, height: 224 }

async function answer({ files, crops, seed, decoder }) {
  process.env.GMML_JPEG = decoder
  const one = (file, index) => decodeCrops(file, (width, height) => Array.from({ length: crops }, (_, crop) => {
    const random = randomFor(seed, index, crop)
    return { ...randomResizedCrop(random.uniform, width, height), flip: random.chance(0.5) }
  }), size)
  const start = process.cpuUsage()
  let next = 0
  // As many at a time as libuv has threads.
  await Promise.all(Array.from({ length: 4 }, async () => {
    while (next < files.length) await one(files[next], next++)
  }))
  const { user, system } = process.cpuUsage(start)
  return { seconds: (user + system) / 1e6 }
}

torch.setNumThreads(1)
await serve({ ...runtime(), jpeg: torch.buildInfo().jpeg }, answer)
