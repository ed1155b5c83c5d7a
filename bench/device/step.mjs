// A GMML training step on a device: gmml against each of PyTorch's ways, same weights and inputs, alternating: see ../README.md.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { corrupt, GroupMaskedModel } from 'gmml'
import { saveSafetensors } from 'gmml/io'
import * as torch from 'gmml/torch'
import { VisionTransformer } from 'gmml/vision'
import { median, summary } from '../statistics.mjs'
import { chooseSides, Contest, Deadline, Late } from './sides.mjs'

const TINY = { dim: 192, depth: 12, heads: 3 }
const SMALL = { dim: 384, depth: 12, heads: 6 }
const BASE = { dim: 768, depth: 12, heads: 12 }
/**
 * What says most comes first: the time may be up before the last. `batch` in crops, two of each image; null: as many as the device has
 * memory for.
 */
const CASES = [
  { name: 'vit_small 224/16', model: SMALL, image_size: 224, patch_size: 16, channels: 3, batch: null },
  { name: 'vit_small 32/4', model: SMALL, image_size: 32, patch_size: 4, channels: 3, batch: 128 },
  { name: 'vit_base 224/16', model: BASE, image_size: 224, patch_size: 16, channels: 3, batch: null },
  { name: 'vit_tiny 28/4', model: TINY, image_size: 28, patch_size: 4, channels: 1, batch: 128 }
]
/** On a CPU this shows that everything runs, and no more. */
const TRIAL = { model: { dim: 64, depth: 2, heads: 2 }, batch: 8, threads: 1 }
const TIMING = {
  full: { rounds: 11, turn: 0.5, warmUp: 10, curve: 50, float32: 10, host: 20, matmul: { size: 8192, seconds: 1 }, least: 60, last: 20 },
  quick: { rounds: 3, turn: 0.1, warmUp: 3, curve: 10, float32: 10, host: 5, matmul: { size: 1024, seconds: 0.1 }, least: 15, last: 10 }
}
/** Rounds for which time is left, whatever compilers take. */
const ROUNDS_KEPT = 5
/**
 * How far losses may be apart, as a part of the loss: at most at any step of a curve, and in its mean. In bfloat16 another order of
 * operations rounds differently, with 8 bits. In float32 it hardly matters, and a learning rate that is 2 % off shows as 5e-5 and more.
 */
const TOLERANCE = { bfloat16: { step: 0.01, mean: 0.003 }, float32: { step: 2e-5, mean: 1e-5 } }
/** Of the steps in float32: so large that what the optimizer does is seen in few of them. */
const FLOAT32_LR = 2e-3
/** Part of the device's memory that all sides together may take, since all are there at the same time. */
const MEMORY_PART = 0.85
/** Crops where there is no PyTorch to ask for its memory. */
const FALLBACK_BATCH = 64
/** What losses are compared on: at most so many crops, since each side reads the file, and needs twice the memory in float32. */
const CHECKED = { batches: 4, crops: 64 }

/** Weights and corrupted batches that all sides read; each time the same ones. */
async function exchange(folder, { model: { dim, depth, heads }, image_size: imageSize, patch_size: patchSize, channels }, { batches, batch }) {
  torch.manualSeed(0)
  mkdirSync(folder)
  const [weights, inputs] = [join(folder, 'weights.safetensors'), join(folder, 'inputs.safetensors')]
  const options = { imageSize, patchSize, channels, embedDim: dim, depth, numHeads: heads }
  const network = torch.scope(() => new GroupMaskedModel(new VisionTransformer(options)))
  await saveSafetensors(weights, network.stateDict())
  network.dispose()
  const tensors = torch.scope(() => Object.fromEntries(Array.from({ length: batches }, (_, i) => {
    const clean = torch.randn([batch, channels, imageSize, imageSize])
    const { corrupted, mask } = corrupt(clean, { budget: 0.75, alien: 0.3, align: 1, fill: 'noise' })
    return Object.entries({ corrupted, clean, mask }).map(([name, tensor]) => [`${name}.${i}`, tensor])
  }).flat()))
  await saveSafetensors(inputs, tensors)
  for (const tensor of Object.values(tensors)) tensor.dispose()
  return { weights, inputs, batches, batch }
}

/** The largest power of two of crops with which all sides fit, by what PyTorch's eager step takes. */
async function findBatch({ server }, config, { deadline, live: { length: sides } }) {
  for (let batch = 32; ; batch *= 2) {
    const { reservedMiB, totalMiB } = await deadline.within(server, () => server.ask({ probe: { ...config, batch } }))
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

/** The seconds that there are before the rounds that are to be done in any case. */
const beforeRounds = ({ deadline, live }, { turn, last }) => deadline.seconds - last - 1.5 * ROUNDS_KEPT * turn * live.length

/**
 * Compares the losses of all sides, without drop path: then nothing is random, and they are the same but for rounding.
 * @param {(side: object, changes: object) => Promise<object>} configure
 */
async function checkLosses(contest, configure, timing) {
  const curves = new Map(contest.live.map(({ id }) => [id, {}]))
  // A compiler takes its time for each precision, and what it would do wrong shows in either.
  await contest.inTurn(contest.live.filter(({ compiles }) => !compiles), async (side) => {
    await configure(side, { amp: null, lr: FLOAT32_LR })
    curves.get(side.id).float32 = (await side.server.ask({ curve: timing.float32 })).losses
    // Not for all sides at the same time: they must fit beside each other.
    await side.server.ask({ forget: true })
  })
  await contest.ready(async (side) => {
    await configure(side, {})
    curves.get(side.id).bfloat16 = (await side.server.ask({ curve: timing.curve })).losses
    // Half of the time: what is compiled here is compiled once more, with drop path.
  }, () => beforeRounds(contest, timing) / 2)
  const reference = contest.live.find(({ id }) => id === 'eager') ?? contest.theirs[0] ?? contest.live[0]
  const sides = contest.live.map(({ id, name }) => {
    const precisions = Object.keys(TOLERANCE).filter((precision) => curves.get(id)[precision] && curves.get(reference.id)[precision])
    const by = Object.fromEntries(precisions.map((precision) =>
      [precision, compare(curves.get(id)[precision], curves.get(reference.id)[precision], TOLERANCE[precision])]))
    return { side: name, ...by, losses: curves.get(id).bfloat16, agrees: Object.values(by).every(({ agrees }) => agrees) }
  })
  return { reference: reference.name, steps: timing.curve, sides }
}

/** Warms all sides up, then times them in turn, until the rounds are done or the time is over. */
async function takeTurns(contest, configure, timing, device) {
  const ready = new Map()
  await contest.ready(async (side) => {
    const start = performance.now()
    await configure(side, { drop_path: 0.1 })
    await side.server.ask({ steps: timing.warmUp })
    const readySeconds = (performance.now() - start) / 1000
    await side.server.ask({ forget: true })
    const { steps, seconds } = await side.server.ask({ steps: 3 })
    ready.set(side.id, { readySeconds, stepsPerTurn: Math.max(1, Math.round((timing.turn * steps) / seconds)) })
  }, () => beforeRounds(contest, timing))
  const samples = new Map(contest.live.map(({ id }) => [id, []]))
  const products = []
  for (let round = 0; round < timing.rounds && contest.deadline.seconds > timing.last; round++) {
    if (round % 5 === 0) {
      await contest.inTurn(contest.ours.slice(0, 1), async ({ server }) => {
        products.push((await server.ask({ matmul: { ...timing.matmul, device } })).flops)
      })
    }
    // Each round begins with another side, so that none always follows the same one.
    await contest.inTurn(contest.live.map((_, i, all) => all[(round + i) % all.length]), async ({ id, server }) => {
      const { steps, seconds } = await server.ask({ steps: ready.get(id).stepsPerTurn })
      samples.get(id).push(seconds / steps)
    })
  }
  const rounds = Math.min(...contest.live.map(({ id }) => samples.get(id).length))
  if (rounds < 3) throw new Late(`${rounds} rounds in the time that there was, of at least 3`)
  const results = new Map()
  await contest.inTurn([...contest.live], async ({ id, server }) => {
    const memory = await server.ask({ memory: true })
    const host = (await server.ask({ host: timing.host })).seconds.map((value) => value * 1000)
    results.set(id, { ...ready.get(id), ...memory, hostMilliseconds: summary(host), secondsPerStep: samples.get(id).slice(0, rounds) })
  })
  return { rounds, results, flops: products.length ? median(products) : null }
}

/** Starts the sides, compares their losses, and times them. */
async function runCase(shape, sides, { device, timing, deadline }) {
  const folder = mkdtempSync(join(tmpdir(), 'gmml-bench-'))
  const contest = await Contest.start(sides, deadline)
  try {
    const base = { ...shape, device, amp: 'bfloat16', seed: 0, drop_path: 0, mode: 'eager' }
    const batch = shape.batch ?? (contest.theirs.length ? await findBatch(contest.theirs[0], base, contest) : FALLBACK_BATCH)
    const crops = Math.min(batch, CHECKED.crops)
    const compared = await exchange(join(folder, 'compared'), shape, { batches: CHECKED.batches, batch: crops })
    const timed = await exchange(join(folder, 'timed'), shape, { batches: 1, batch })
    const facts = new Map()
    const configure = (files) => async (side, changes) =>
      facts.set(side.id, await side.server.ask({ ...base, ...files, ...side.config, ...changes }))

    const checked = { crops, ...(await checkLosses(contest, configure(compared), timing)) }
    const { rounds, results, flops } = await takeTurns(contest, configure(timed), timing, device)

    const secondsOf = ({ id }) => results.get(id).secondsPerStep
    const best = contest.ours.sort((a, b) => median(secondsOf(a)) - median(secondsOf(b)))[0]
    const flopsPerCrop = best ? facts.get(best.id).flopsPerCrop : null
    return {
      row: {
        ...shape, batch, rounds, checked, disagree: checked.sides.filter(({ agrees }) => !agrees).map(({ side }) => side),
        matmul: flops && { size: timing.matmul.size, teraflops: flops / 1e12 }, flopsPerCrop, bestGmml: best?.name ?? null,
        results: contest.live.map((side) => {
          const cropsPerSecond = summary(secondsOf(side).map((value) => batch / value))
          return {
            side: side.name, id: side.id, cropsPerSecond,
            mfu: flops && flopsPerCrop ? (cropsPerSecond.median * flopsPerCrop) / flops : null,
            ...(best && side !== best && { bestGmmlFaster: summary(secondsOf(side).map((value, i) => value / secondsOf(best)[i])) }),
            ...results.get(side.id)
          }
        }),
        skipped: contest.skipped
      },
      runtimes: { gmml: contest.ours[0] && facts.get(contest.ours[0].id), pytorch: contest.theirs[0] && facts.get(contest.theirs[0].id) }
    }
  } finally {
    contest.end()
    rmSync(folder, { recursive: true, force: true })
  }
}

/**
 * @param {{ device: 'cuda' | 'cpu', quick: boolean, only?: string, sides?: string, batch?: string, seconds?: string,
 *   save?: (result: object) => unknown }} options `save`: is called after each row
 */
export async function run({ device, quick, only = '', sides: chosen, batch, seconds, save = () => {} }) {
  const timing = TIMING[quick ? 'quick' : 'full']
  const deadline = new Deadline(seconds ? Number(seconds) : Infinity)
  const { sides, skipped } = chooseSides(device, chosen)
  const rows = []
  let runtimes
  const result = () => ({
    name: `step-${device}`,
    what: [
      'a GMML training step, bfloat16 autocast, drop path 0.1: forward, masked L1, backward, clip per tensor, AdamW; nothing waits for the device',
      'bestGmmlFaster: crops/s of the fastest gmml side / this one, by round: above 1 gmml is faster',
      'mfu: operations per second of the step (three times those of the forward products) / those of a bfloat16 product of matrices',
      'reservedMiB, allocatedMiB: peaks of the allocator after warming up; hostMilliseconds: until a step is launched, the device idle before'
    ],
    runtimes, device, tolerance: TOLERANCE, timing, rows, skipped,
    failed: [...skipped, ...rows.flatMap((row) => row.skipped)].some(({ failed }) => failed) || rows.some(({ disagree }) => disagree.length > 0)
  })
  for (const entry of CASES.filter(({ name }) => name.includes(only))) {
    const shape = { ...entry, ...(device === 'cpu' ? TRIAL : {}), ...(batch ? { batch: Number(batch) } : {}) }
    try {
      if (deadline.seconds < timing.least) throw new Late(`${Math.max(0, deadline.seconds).toFixed(0)} s were left`)
      const { row, runtimes: found } = await runCase(shape, sides, { device, timing, deadline })
      runtimes = found
      rows.push(row)
      save(result())
    } catch (error) {
      // What was measured until here is worth a record.
      console.error(error instanceof Late ? `${shape.name}: ${error.message}` : error)
      skipped.push({ case: shape.name, reason: error.message, failed: !(error instanceof Late) })
    }
  }
  return result()
}

export { print } from './print.mjs'
