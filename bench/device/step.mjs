// A GMML training step on a device: gmml against each of PyTorch's ways, same weights and inputs, alternating: see ../README.md.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { corrupt, GroupMaskedModel } from 'gmml'
import { saveSafetensors } from 'gmml/io'
import * as torch from 'gmml/torch'
import { VisionTransformer } from 'gmml/vision'
import { median, summary } from '../statistics.mjs'
import { chooseSides, Deadline, Late } from './sides.mjs'

const TINY = { dim: 192, depth: 12, heads: 3 }
const SMALL = { dim: 384, depth: 12, heads: 6 }
const BASE = { dim: 768, depth: 12, heads: 12 }
/** Small images first: they take the least time. `batch` in crops, two of each image; null: as many as the device has memory for. */
const CASES = [
  { name: 'vit_tiny 28/4', model: TINY, image_size: 28, patch_size: 4, channels: 1, batch: 128 },
  { name: 'vit_small 32/4', model: SMALL, image_size: 32, patch_size: 4, channels: 3, batch: 128 },
  { name: 'vit_small 224/16', model: SMALL, image_size: 224, patch_size: 16, channels: 3, batch: null },
  { name: 'vit_base 224/16', model: BASE, image_size: 224, patch_size: 16, channels: 3, batch: null }
]
/** On a CPU this shows that everything runs, and no more. */
const TRIAL = { model: { dim: 64, depth: 2, heads: 2 }, batch: 8, threads: 1 }
const TIMING = {
  full: { rounds: 11, turn: 0.5, warmUp: 10, curve: 50, float32: 10, host: 20, matmul: { size: 8192, seconds: 1 } },
  quick: { rounds: 3, turn: 0.1, warmUp: 3, curve: 10, float32: 3, host: 5, matmul: { size: 1024, seconds: 0.1 } }
}
/**
 * How far losses may be apart, as a part of the loss: at most at any step of a curve, and in its mean. In bfloat16 another order of
 * operations rounds differently, with 8 bits; in float32, where a wrong learning rate or decay would show, it hardly matters.
 */
const TOLERANCE = { bfloat16: { step: 0.02, mean: 0.005 }, float32: { step: 2e-4, mean: 1e-4 } }
/** Part of the device's memory that all sides together may take, since all are there at the same time. */
const MEMORY_PART = 0.85
const BATCHES = 4

/** Weights and corrupted batches that all sides read. */
async function exchange(folder, { model: { dim, depth, heads }, image_size: imageSize, patch_size: patchSize, channels, batch }) {
  torch.manualSeed(0)
  const [weights, inputs] = [join(folder, 'weights.safetensors'), join(folder, 'inputs.safetensors')]
  const options = { imageSize, patchSize, channels, embedDim: dim, depth, numHeads: heads }
  const network = torch.scope(() => new GroupMaskedModel(new VisionTransformer(options)))
  await saveSafetensors(weights, network.stateDict())
  network.dispose()
  const tensors = torch.scope(() => Object.fromEntries(Array.from({ length: BATCHES }, (_, i) => {
    const clean = torch.randn([batch, channels, imageSize, imageSize])
    const { corrupted, mask } = corrupt(clean, { budget: 0.75, alien: 0.3, align: 1, fill: 'noise' })
    return Object.entries({ corrupted, clean, mask }).map(([name, tensor]) => [`${name}.${i}`, tensor])
  }).flat()))
  await saveSafetensors(inputs, tensors)
  for (const tensor of Object.values(tensors)) tensor.dispose()
  return { weights, inputs, batches: BATCHES }
}

/** The largest power of two of crops with which all sides fit, by what PyTorch's eager step takes. */
async function findBatch(server, config, sides) {
  for (let batch = 32; ; batch *= 2) {
    const { reservedMiB, totalMiB } = await server.ask({ probe: { ...config, batch } })
    if (reservedMiB === null) {
      if (batch > 32) return batch / 2
      throw new Error(`${config.name}: not even ${batch} crops fit`)
    }
    if (totalMiB === null || 2 * reservedMiB * sides > MEMORY_PART * totalMiB) return batch
  }
}

/** Each step's difference from the reference as a part of it. */
function compare(losses, reference, { step, mean }) {
  const differences = losses.map((loss, i) => Math.abs(loss - reference[i]) / Math.abs(reference[i]))
  const [largest, average] = [Math.max(...differences), differences.reduce((sum, value) => sum + value, 0) / differences.length]
  return { largest, mean: average, agrees: largest <= step && average <= mean }
}

/** One case: starts the sides, compares their losses, then times those that agree. */
async function runCase(shape, sides, { device, timing, deadline, seed }) {
  const folder = mkdtempSync(join(tmpdir(), 'gmml-bench-'))
  const skipped = []
  let live = []
  /** Asks all sides; one that fails or is late is named and left out from here on. */
  const each = async (list, ask) => {
    await Promise.all(list.map(async (side) => {
      try {
        await deadline.within(side.server, () => ask(side))
      } catch (error) {
        console.error(`${shape.name}: ${side.name} is left out: ${error.message}`)
        side.server.kill()
        live = live.filter((other) => other !== side)
        skipped.push({ side: side.name, reason: error.message, failed: !(error instanceof Late) })
      }
    }))
  }
  /** One after the other, so that none disturbs the other's choice of kernels. */
  const inTurn = async (list, ask) => {
    for (const side of list) await each([side], ask)
  }
  try {
    const first = await sides[0].start()
    live = await Promise.all(sides.map(async (side, i) => ({ ...side, server: i === 0 ? first : await side.start(first.greeting.libtorch) })))
    const base = { ...shape, device, amp: 'bfloat16', seed, drop_path: 0, mode: 'eager' }
    const batch = shape.batch ?? (await findBatch(live.find(({ id }) => !id.startsWith('gmml'))?.server ?? live[0].server, base, live.length))
    const files = await exchange(folder, { ...shape, batch })
    const configure = (side, changes) => side.server.ask({ ...base, batch, ...files, ...side.config, ...changes })

    // Without drop path nothing is random: the losses of all sides are the same but for rounding.
    const curves = new Map()
    const alike = live.filter(({ compiles }) => !compiles)
    await inTurn(alike, async (side) => {
      await configure(side, { amp: null })
      curves.set(side.id, { float32: (await side.server.ask({ curve: timing.float32 })).losses })
    })
    const draw = async (side) => {
      const start = performance.now()
      await configure(side, {})
      const { losses } = await side.server.ask({ curve: timing.curve })
      curves.set(side.id, { ...curves.get(side.id), bfloat16: losses, seconds: (performance.now() - start) / 1000 })
    }
    // Compilers work at the same time, except where kernels are chosen by their time.
    await inTurn(live.filter(({ compiles }) => !compiles), draw)
    await each(live.filter(({ compiles, alone }) => compiles && !alone), draw)
    await inTurn(live.filter(({ alone }) => alone), draw)
    const reference = live.find(({ id }) => id === 'eager') ?? live.find(({ id }) => !id.startsWith('gmml')) ?? live[0]
    const checked = live.map((side) => {
      const precisions = ['float32', 'bfloat16'].filter((precision) => curves.get(side.id)[precision])
      const by = Object.fromEntries(precisions.map((precision) =>
        [precision, compare(curves.get(side.id)[precision], curves.get(reference.id)[precision], TOLERANCE[precision])]))
      return { side: side.name, ...by, losses: curves.get(side.id).bfloat16, agrees: Object.values(by).every(({ agrees }) => agrees) }
    })
    // A time of something else is no comparison.
    const wrong = checked.filter(({ agrees }) => !agrees)

    const ready = new Map()
    const prepare = async (side) => {
      const start = performance.now()
      await configure(side, { drop_path: 0.1 })
      await side.server.ask({ steps: timing.warmUp })
      ready.set(side.id, { seconds: (performance.now() - start) / 1000 })
      await side.server.ask({ forget: true })
      const { steps, seconds } = await side.server.ask({ steps: 3 })
      ready.get(side.id).steps = Math.max(1, Math.round((timing.turn * steps) / seconds))
    }
    await each(live.filter(({ compiles, alone }) => compiles && !alone), prepare)
    await inTurn(live.filter(({ alone }) => alone), prepare)
    await inTurn(live.filter(({ compiles }) => !compiles), prepare)

    const matmul = live.find(({ id }) => id.startsWith('gmml'))?.server
    const limits = []
    const samples = new Map(live.map((side) => [side.id, []]))
    for (let round = 0; round < timing.rounds && deadline.seconds > 10; round++) {
      if (matmul && round % 5 === 0) limits.push((await matmul.ask({ matmul: { ...timing.matmul, device } })).flops)
      // Each round begins with another side, so that none always follows the same one.
      const order = live.map((_, i) => live[(round + i) % live.length])
      await inTurn(order, async (side) => {
        const { steps, seconds } = await side.server.ask({ steps: ready.get(side.id).steps })
        samples.get(side.id).push(seconds / steps)
      })
    }
    const rounds = Math.min(...live.map(({ id }) => samples.get(id).length))
    if (!(rounds >= 3)) throw new Late(`${shape.name}: ${rounds} rounds in the time that there was, of at least 3`)
    const extra = new Map()
    await inTurn([...live], async (side) => {
      extra.set(side.id, { memory: await side.server.ask({ memory: true }), host: (await side.server.ask({ host: timing.host })).seconds })
    })
    const { flopsPerCrop, ...gmmlRuntime } = matmul ? await configure(live.find(({ server }) => server === matmul), {}) : {}
    const peak = limits.length ? median(limits) : null
    const best = live.filter(({ id }) => id.startsWith('gmml')).sort((a, b) => median(samples.get(a.id)) - median(samples.get(b.id)))[0]
    const results = live.filter(({ id }) => extra.has(id)).map((side) => {
      const seconds = samples.get(side.id).slice(0, rounds)
      const cropsPerSecond = summary(seconds.map((value) => batch / value))
      return {
        side: side.name, id: side.id, cropsPerSecond, secondsPerStep: seconds, stepsPerTurn: ready.get(side.id).steps,
        readySeconds: ready.get(side.id).seconds, checkSeconds: curves.get(side.id).seconds, ...extra.get(side.id).memory,
        hostMilliseconds: summary(extra.get(side.id).host.map((value) => value * 1000)),
        mfu: peak && flopsPerCrop ? (cropsPerSecond.median * flopsPerCrop) / peak : null,
        ...(best && side !== best && { bestGmmlFaster: summary(seconds.map((value, round) => value / samples.get(best.id)[round])) })
      }
    })
    const pytorch = live.find(({ id }) => !id.startsWith('gmml'))?.server.greeting
    return {
      row: {
        name: shape.name, ...shape, batch, rounds, checked: { reference: reference.name, steps: timing.curve, sides: checked },
        disagree: wrong.map(({ side }) => side), matmul: peak && { size: timing.matmul.size, teraflops: peak / 1e12 }, flopsPerCrop: flopsPerCrop ?? null,
        bestGmml: best?.name ?? null, results, skipped
      },
      runtimes: { gmml: gmmlRuntime, pytorch }
    }
  } finally {
    for (const { server } of live) server.kill()
    rmSync(folder, { recursive: true, force: true })
  }
}

/**
 * @param {{ device: 'cuda' | 'cpu', quick: boolean, only?: string, sides?: string, batch?: string, seconds?: string }} options
 */
export async function run({ device, quick, only = '', sides: chosen, batch, seconds }) {
  const timing = TIMING[quick ? 'quick' : 'full']
  const deadline = new Deadline(seconds ? Number(seconds) : Infinity)
  const { sides, skipped } = chooseSides(device, chosen)
  const rows = []
  let runtimes
  for (const entry of CASES.filter(({ name }) => name.includes(only))) {
    const shape = { ...entry, ...(device === 'cpu' ? TRIAL : {}), ...(batch ? { batch: Number(batch) } : {}) }
    try {
      if (deadline.seconds < 15) throw new Late(`${shape.name}: ${deadline.seconds.toFixed(0)} s were left`)
      const { row, runtimes: found } = await runCase(shape, sides, { device, timing, deadline, seed: 0 })
      runtimes = found
      rows.push(row)
    } catch (error) {
      // What was measured until here is worth a record.
      console.error(error instanceof Late ? error.message : error)
      skipped.push({ case: shape.name, reason: error.message, failed: !(error instanceof Late) })
    }
  }
  return {
    name: `step-${device}`,
    what: [
      'a GMML training step, bfloat16 autocast, drop path 0.1, nothing waiting for the device: forward, masked L1, backward, clip per tensor, AdamW',
      'bestGmmlFaster: crops/s of the fastest gmml side / this one, by round: above 1 gmml is faster',
      'mfu: floating-point operations per second of the step (three times the forward products) / those of a bfloat16 product of matrices',
      'reservedMiB, allocatedMiB: peaks of the allocator after warming up; hostMilliseconds: until a step is launched, the device idle before'
    ],
    runtimes, device, tolerance: TOLERANCE, timing, rows, skipped,
    failed: skipped.some(({ failed }) => failed) || rows.some(({ disagree, skipped: left }) => disagree.length > 0 || left.some(({ failed }) => failed))
  }
}

export { print } from './print.mjs'
