// Fused operators against the ATen operators that they replace, forward and backward, alternating in one process: see README.md.
import { corrupt, GroupMaskedModel } from 'gmml'
import { addLayerNorm, DropPath, GELU, LayerNorm, Linear, linearGelu, setFusion } from 'gmml/nn'
import { AdamW, clipGradNorm } from 'gmml/optim'
import * as torch from 'gmml/torch'
import { visionTransformer } from 'gmml/vision'
import { runtime } from './gmml-server.mjs'
import { median, spread, summary, table } from './statistics.mjs'

const SHAPES = [
  { name: 'vit_tiny 32/4 batch 64', model: 'vit_tiny', batch: 64, image: 32, patch: 4, dim: 192 },
  { name: 'vit_tiny 224/16 batch 16', model: 'vit_tiny', batch: 16, image: 224, patch: 16, dim: 192 }
]
const ON_CUDA = [
  { name: 'vit_small 32/4 batch 512', model: 'vit_small', batch: 512, image: 32, patch: 4, dim: 384 },
  { name: 'vit_base 224/16 batch 128', model: 'vit_base', batch: 128, image: 224, patch: 16, dim: 768 }
]
const PRECISIONS = ['float32', 'bfloat16']
const TIMING = { full: { rounds: 31, warmUp: 3 }, quick: { rounds: 3, warmUp: 1 } }
const THREADS = 2

const device = torch.cuda.isAvailable() ? 'cuda' : 'cpu'
const randn = (shape, options = {}) => torch.keep(torch.randn(shape, { device, ...options }))

/** A model whose prediction is given: what is left of its loss is the comparison. */
class Given extends GroupMaskedModel {
  forward() {
    return this.prediction()
  }
}

/** Parts of a step, each a function that runs forward and backward once. `amp` is autocast's dtype or null. */
function parts({ batch, image, patch, dim, model }, amp) {
  const tokens = [batch, (image / patch) ** 2 + 1, dim]
  const cast = (callback) => (amp ? torch.autocast(device, amp, callback) : callback())
  const [norm, drop, linear, gelu] = [new LayerNorm(dim), new DropPath(0.1), new Linear(dim, 4 * dim), new GELU()]
  for (const module of [norm, linear]) module.to(device)
  const x = randn(tokens, { requiresGrad: true })
  const branch = torch.keep(randn(tokens).to(amp ?? 'float32').detach().requiresGrad_())
  const [ofSum, ofNormalised, ofHidden] = [randn(tokens), randn(tokens), randn([...tokens.slice(0, 2), 4 * dim])]
  const size = { imageSize: image, patchSize: patch, dropPath: 0.1 }
  // Made when it is first used: the parts of other cases need none.
  let trainer
  const training = () => {
    if (trainer) return trainer
    const network = new GroupMaskedModel(visionTransformer(model, size)).to(device)
    return (trainer = { network, optimizer: new AdamW(network.parameters(), { lr: 5e-4, weightDecay: 0.04 }) })
  }
  const clean = randn([batch, 3, image, image])
  const { corrupted, mask } = torch.scope(() => corrupt(clean))
  const given = new Given(visionTransformer('vit_micro', { ...size, depth: 1 }))
  const prediction = torch.keep(randn([batch, (image / patch) ** 2, 3 * patch ** 2]).to(amp ?? 'float32').detach().requiresGrad_())
  given.prediction = () => prediction
  const like = (gradient, output) => gradient.to(output.dtype)
  return {
    'residual + layer norm': () => {
      const [sum, normalised] = cast(() => addLayerNorm(x, branch, drop, norm))
      torch.grad([sum, normalised], [x, branch, ...norm.parameters()], { gradOutputs: [ofSum, like(ofNormalised, normalised)] })
    },
    'linear + GELU': () => {
      const hidden = cast(() => linearGelu(x, linear, gelu))
      torch.grad([hidden], [x, ...linear.parameters()], { gradOutputs: [like(ofHidden, hidden)] })
    },
    'masked L1': () => void torch.grad(cast(() => given.loss(corrupted, clean, mask)), prediction),
    'training step': () => {
      const { network, optimizer } = training()
      const loss = cast(() => network.loss(corrupted, clean, mask))
      loss.backward()
      clipGradNorm(network.parameters(), 3, { perTensor: true })
      optimizer.step()
      optimizer.zeroGrad()
    }
  }
}

/** Wall-clock and processor seconds of one run. */
function time(run, fusion) {
  setFusion(fusion)
  const cpu = process.cpuUsage()
  const start = performance.now()
  torch.scope(() => void run())
  if (device === 'cuda') torch.cuda.synchronize()
  const seconds = (performance.now() - start) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return { seconds, processor: (user + system) / 1e6 }
}

function compare(run, { rounds, warmUp }) {
  const samples = { on: [], off: [] }
  for (let round = -warmUp; round < rounds; round++) {
    const order = round % 2 ? ['on', 'off'] : ['off', 'on']
    for (const fusion of order) {
      const sample = time(run, fusion)
      if (round >= 0) samples[fusion].push(sample)
    }
  }
  const ratios = (key) => summary(samples.off.map((sample, round) => sample[key] / samples.on[round][key]))
  const best = (fusion, key) => Math.min(...samples[fusion].map((sample) => sample[key]))
  return {
    milliseconds: { fused: median(samples.on.map(({ seconds }) => 1000 * seconds)), aten: median(samples.off.map(({ seconds }) => 1000 * seconds)) },
    faster: ratios('seconds'),
    fasterBest: best('off', 'seconds') / best('on', 'seconds'),
    processor: ratios('processor'),
    processorBest: best('off', 'processor') / best('on', 'processor')
  }
}

/**
 * @param {{ quick: boolean, only?: string, seconds?: string, threads?: number, save?: (result: object) => unknown }} options `only`: cases whose
 *   name has this in it; `seconds`: what is not begun by then is left out by name; `save`: is called after each case
 */
export async function run({ quick, only = '', seconds, threads = Number(process.env['GMML_BENCH_THREADS'] ?? THREADS), save = () => {} }) {
  const timing = TIMING[quick ? 'quick' : 'full']
  const end = performance.now() + (seconds ? Number(seconds) * 1000 : Infinity)
  torch.setNumThreads(threads)
  torch.manualSeed(0)
  const rows = []
  const skipped = []
  const result = () => ({
    name: 'fused',
    what: [
      'forward and backward, fused operators against ATen alone (setFusion), alternating',
      'faster: time of ATen / time of the fused ones by round, above 1 the fused are faster; processor: the same of processor time'
    ],
    device, runtime: runtime(), threads, rounds: timing.rounds, rows, skipped
  })
  for (const { name, ...shape } of device === 'cuda' ? [...SHAPES, ...ON_CUDA] : SHAPES) {
    for (const precision of PRECISIONS) {
      const amp = precision === 'float32' ? null : precision
      for (const [part, body] of Object.entries(parts(shape, amp))) {
        const title = `${part}, ${name}, ${precision}`
        if (!title.includes(only)) continue
        if (performance.now() < end) rows.push({ name: title, ...compare(body, timing) })
        else skipped.push(title)
      }
      save(result())
    }
  }
  return result()
}

export function print({ rows, skipped, rounds, threads, device: type }) {
  console.log(`\nfused: ${type}, ${threads} threads; median of ${rounds} rounds (quartiles)`)
  console.log(table(
    ['', 'ATen ms', 'fused ms', 'fused is faster by', 'best rounds', 'by processor time', 'best rounds'],
    rows.map(({ name, milliseconds, faster, fasterBest, processor, processorBest }) => [
      name, milliseconds.aten.toFixed(2), milliseconds.fused.toFixed(2), spread(faster), fasterBest.toFixed(3), spread(processor),
      processorBest.toFixed(3)
    ])
  ))
  for (const name of skipped) console.log(`not measured: ${name}: the time was up`)
}
