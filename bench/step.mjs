// A GMML training step on the CPU: gmml against the same network and step in PyTorch, same weights and inputs, alternating.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { corrupt, GroupMaskedModel } from 'gmml'
import { saveSafetensors } from 'gmml/io'
import * as torch from 'gmml/torch'
import { visionTransformer } from 'gmml/vision'
import { startGmml } from './gmml-server.mjs'
import { startPython } from './python-server.mjs'
import { spread, summary, table } from './statistics.mjs'

const TINY = { dim: 192, depth: 12, heads: 3 }
const CASES = [
  { name: 'vit_micro 28/4 batch 128', model: { dim: 128, depth: 4, heads: 4 }, image_size: 28, patch_size: 4, channels: 1, batch: 128 },
  { name: 'vit_tiny 32/4 batch 64', model: TINY, image_size: 32, patch_size: 4, channels: 3, batch: 64 },
  { name: 'vit_tiny 224/16 batch 16', model: TINY, image_size: 224, patch_size: 16, channels: 3, batch: 16 }
]
const THREADS = 2
const pytorch = (name, settings = {}) => ({ name, settings, start: (libtorch) => startPython('step', libtorch, name) })
const RUNTIMES = [
  { name: 'gmml', settings: {}, start: () => startGmml('step') },
  pytorch('PyTorch'),
  pytorch('PyTorch, fused AdamW', { optimizer: 'adamw_fused' }),
  pytorch('torch.compile, fused AdamW', { optimizer: 'adamw_fused', mode: 'compile' })
]
const TIMING = { full: { rounds: 15, warmUp: 2, checked: 5 }, quick: { rounds: 3, warmUp: 1, checked: 2 } }
/** Rounding differs where the order of sums does. A learning rate that is 2 % off shows as 8e-6 in the second loss. */
const TOLERANCE = 2e-6

/** Weights and one corrupted batch, that all runtimes read. */
async function exchange(folder, { model, image_size, patch_size, channels, batch }) {
  torch.manualSeed(0)
  const size = { imageSize: image_size, patchSize: patch_size, channels, embedDim: model.dim, depth: model.depth, numHeads: model.heads }
  const [weights, inputs] = [join(folder, 'weights.safetensors'), join(folder, 'inputs.safetensors')]
  const network = torch.scope(() => new GroupMaskedModel(visionTransformer('vit_tiny', size)))
  await saveSafetensors(weights, network.stateDict())
  network.dispose()
  const tensors = torch.scope(() => {
    const clean = torch.randn([batch, channels, image_size, image_size])
    const { corrupted, mask } = corrupt(clean, { budget: 0.75, alien: 0.3, align: 1, fill: 'noise' })
    return { corrupted, clean, mask }
  })
  await saveSafetensors(inputs, tensors)
  for (const tensor of Object.values(tensors)) tensor.dispose()
  return { weights, inputs }
}

async function startAll(config) {
  const servers = []
  try {
    for (const { start, settings } of RUNTIMES) {
      const server = await start(servers[0]?.greeting.libtorch)
      servers.push(server)
      server.configuration = await server.ask({ ...config, ...settings })
    }
    return servers
  } catch (error) {
    await stopAll(servers)
    throw error
  }
}

const stopAll = (servers) => Promise.all(servers.map((server) => server.stop()))

/** Without drop path nothing is random: the losses of the first steps must be the same. */
async function check(config, steps) {
  const servers = await startAll({ ...config, drop_path: 0 })
  try {
    const losses = []
    for (const server of servers) losses.push((await server.ask({ steps })).losses)
    const difference = Math.max(...losses.slice(1).flatMap((theirs) => theirs.map((loss, i) => Math.abs(loss - losses[0][i]))))
    if (!(difference <= TOLERANCE)) throw new Error(`${config.name}: the losses differ by ${difference}: ${JSON.stringify(losses)}`)
    return { steps, difference, losses: Object.fromEntries(servers.map(({ name }, i) => [name, losses[i]])) }
  } finally {
    await stopAll(servers)
  }
}

async function measure(config, { rounds, warmUp }) {
  const servers = await startAll(config)
  try {
    for (const server of servers) await server.ask({ steps: warmUp })
    const seconds = new Map(servers.map((server) => [server, []]))
    const memory = new Map()
    for (let round = 0; round < rounds; round++) {
      // Each round begins with another runtime, so that none always follows the same one.
      for (let i = 0; i < servers.length; i++) {
        const server = servers[(round + i) % servers.length]
        const answer = await server.ask({ steps: 1 })
        seconds.get(server).push(answer.seconds[0])
        memory.set(server, answer)
      }
    }
    const [own] = servers
    const results = servers.map((server) => ({
      runtime: server.name,
      imagesPerSecond: summary(seconds.get(server).map((value) => config.batch / value)),
      best: config.batch / Math.min(...seconds.get(server)),
      secondsPerStep: seconds.get(server),
      peakMiB: memory.get(server).peak_rss_mb,
      startMiB: server.configuration.rss_mb,
      parameters: server.configuration.parameters,
      ...(server !== own && {
        gmmlFaster: summary(seconds.get(server).map((value, round) => value / seconds.get(own)[round])),
        gmmlFasterBest: Math.min(...seconds.get(server)) / Math.min(...seconds.get(own)),
        gmmlMemory: memory.get(own).peak_rss_mb / memory.get(server).peak_rss_mb
      })
    }))
    return { results, runtimes: { gmml: own.configuration, pytorch: servers[1].configuration } }
  } finally {
    await stopAll(servers)
  }
}

/** @param {{ quick: boolean, only?: string }} options `only`: cases whose name has this in it */
export async function run({ quick, only = '' }) {
  const timing = TIMING[quick ? 'quick' : 'full']
  const folder = mkdtempSync(join(tmpdir(), 'gmml-bench-'))
  try {
    const rows = []
    let runtimes
    for (const { name, ...shape } of CASES.filter((entry) => entry.name.includes(only))) {
      const config = { name, ...shape, ...(await exchange(folder, shape)), threads: THREADS, drop_path: 0.1 }
      const checked = await check(config, timing.checked)
      const measured = await measure(config, timing)
      runtimes = measured.runtimes
      rows.push({ name, ...shape, checked, results: measured.results })
    }
    return {
      name: 'step',
      what: [
        'a GMML training step on the CPU, float32, drop path 0.1: forward, masked L1, backward, clip per tensor, AdamW, zero grad',
        'gmmlFaster: images/s of gmml / PyTorch by round, above 1 is faster',
        'gmmlMemory: peak resident memory of gmml / PyTorch, below 1 is less'
      ],
      runtimes,
      threads: THREADS,
      rounds: timing.rounds,
      rows
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export function print({ rows, rounds, threads }) {
  for (const { name, checked, results } of rows) {
    const losses = checked.losses.gmml.map((loss) => loss.toFixed(5)).join(' ')
    console.log(`\nstep: ${name}, float32, ${threads} threads; median of ${rounds} rounds (quartiles)`)
    console.log(`without drop path the losses of ${checked.steps} steps agree within ${checked.difference.toExponential(1)}: ${losses}`)
    console.log(table(
      ['', 'images/s', 'gmml is faster by', 'in the best rounds', 'peak MiB', 'gmml / it'],
      results.map(({ runtime, imagesPerSecond, gmmlFaster, gmmlFasterBest, peakMiB, gmmlMemory }) => [
        runtime, spread(imagesPerSecond, 1), gmmlFaster ? spread(gmmlFaster) : '', gmmlFasterBest?.toFixed(2) ?? '', peakMiB.toFixed(0),
        gmmlMemory?.toFixed(2) ?? ''
      ])
    ))
  }
}
