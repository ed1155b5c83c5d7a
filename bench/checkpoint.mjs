// What gradient checkpointing costs and saves: time of a training step and peak of resident memory, each case in a process of its own.
//
//   node bench/checkpoint.mjs [--batch 16] [--steps 4] [--threads N] [--write]
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { loadavg, cpus } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values: options } = parseArgs({
  options: {
    batch: { type: 'string', default: '16' }, steps: { type: 'string', default: '4' }, threads: { type: 'string' },
    write: { type: 'boolean' }, case: { type: 'string' }
  }
})
const MODEL = { imageSize: 224, patchSize: 16, embedDim: 192, depth: 12, numHeads: 3, dropPath: 0.1 }
const CASES = ['none', 'blocks', 'segments of 4']

/** Peak resident memory of this process so far, in MiB. */
const peak = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024

async function measure(name) {
  const torch = await import('gmml/torch')
  const { checkpointSequential } = await import('gmml/nn')
  const { VisionTransformer } = await import('gmml/vision')
  if (options.threads) torch.setNumThreads(Number(options.threads))
  torch.manualSeed(0)
  const model = new VisionTransformer(MODEL)
  const images = torch.randn([Number(options.batch), 3, MODEL.imageSize, MODEL.imageSize])
  model.gradCheckpointing = name === 'blocks'
  const tokens = torch.randn([Number(options.batch), model.numPatches + 1, MODEL.embedDim])
  const forward = name === 'segments of 4' ? () => checkpointSequential(model.blocks, MODEL.depth / 4, tokens) : () => model.call(images)
  const before = peak()
  const seconds = []
  let loss
  for (let i = 0; i < Number(options.steps); i++) {
    const start = performance.now()
    loss = torch.scope(() => {
      const loss = forward().square().mean()
      loss.backward()
      model.zeroGrad()
      return loss.item()
    })
    seconds.push((performance.now() - start) / 1000)
  }
  // The first step warms up.
  return { case: name, activationsMiB: Math.round(peak() - before), secondsPerStep: Math.min(...seconds.slice(1)), loss, threads: torch.getNumThreads() }
}

if (options.case) console.log(JSON.stringify(await measure(options.case)))
else {
  const load = loadavg()[0]
  const results = CASES.map((name) => {
    const args = [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--case', name]
    const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
    return JSON.parse(stdout)
  })
  for (const { case: name, activationsMiB, secondsPerStep } of results) {
    console.log(`${name.padEnd(14)} ${String(activationsMiB).padStart(6)} MiB above the model ${secondsPerStep.toFixed(2).padStart(7)} s a step`)
  }
  if (options.write) {
    const folder = join(import.meta.dirname, 'results')
    mkdirSync(folder, { recursive: true })
    const record = { date: new Date().toISOString(), cpu: cpus()[0].model, load, model: MODEL, batch: Number(options.batch), results }
    writeFileSync(join(folder, 'checkpoint.json'), `${JSON.stringify(record, null, 2)}\n`)
  }
}
