// Runs and times GMML training steps on a device, on request. Protocol and configuration are those of bench/pytorch/device_step.py.
import { GroupMaskedModel } from 'gmml'
import { loadSafetensors } from 'gmml/io'
import { AdamW, clipGradNorm } from 'gmml/optim'
import * as torch from 'gmml/torch'
import { VisionTransformer, costOf } from 'gmml/vision'
import { runtime } from '../gmml-server.mjs'
import { serve } from '../json-lines.mjs'
import { captureStep, forgetPeak, peakMemory, setFused } from './gmml-device.mjs'

const now = () => performance.now() / 1000

class Trainer {
  static async create(config) {
    if (config.threads) torch.setNumThreads(config.threads)
    torch.manualSeed(config.seed ?? 0)
    const model = buildModel(config)
    const { tensors: weights } = await loadSafetensors(config.weights)
    model.loadStateDict(weights)
    const { tensors: inputs } = await loadSafetensors(config.inputs)
    const trainer = new Trainer(config, model.to(config.device), inputs)
    for (const tensor of [...Object.values(weights), ...Object.values(inputs)]) tensor.dispose()
    return trainer
  }

  constructor(config, model, inputs) {
    const { device, mode, lr = 5e-4, weight_decay: weightDecay = 0.04 } = config
    this.config = config
    this.model = model
    this.parameters = model.parameters()
    const groups = [true, false].map((decays) => ({
      parameters: this.parameters.filter(({ ndim }) => ndim > 1 === decays), weightDecay: decays ? weightDecay : 0
    }))
    this.optimizer = new AdamW(groups, { lr })
    /** The batches of the file, on the device, and the one that a step reads: a captured step always reads the same memory. */
    this.batches = Array.from({ length: config.batches }, (_, i) =>
      ['corrupted', 'clean', 'mask'].map((name) => torch.keep(inputs[`${name}.${i}`].to(device))))
    this.current = this.batches[0].map((tensor) => torch.keep(tensor.clone()))
    this.step = mode === 'graph' ? captureStep(() => this.eager(), device) : () => this.eager()
  }

  /** What a user's loop does; the loss stays on the device. */
  eager() {
    const { model, optimizer, parameters, current, config: { device, amp, clip = 3 } } = this
    return torch.scope(() => {
      const forward = () => model.loss(...current)
      const loss = amp ? torch.autocast(device, amp, forward) : forward()
      loss.backward()
      if (clip) clipGradNorm(parameters, clip, { perTensor: true })
      optimizer.step()
      optimizer.zeroGrad()
      return loss.detach()
    })
  }

  /** Losses of steps over the batches in turn. */
  curve(steps) {
    return Array.from({ length: steps }, (_, i) =>
      torch.scope(() => {
        torch.noGrad(() => this.current.forEach((tensor, part) => tensor.copy_(this.batches[i % this.batches.length][part])))
        return this.step().item()
      }))
  }

  /** Steps on one batch, with nothing waiting for the device until the last. */
  time(steps) {
    this.synchronize()
    const start = now()
    const loss = torch.scope(() => {
      for (let i = 1; i < steps; i++) torch.scope(() => void this.step())
      return this.step()
    })
    this.synchronize()
    const seconds = now() - start
    const last = loss.item()
    loss.dispose()
    return { steps, seconds, loss: last }
  }

  /** Time until a step is launched, the device idle before. */
  host(steps) {
    return Array.from({ length: steps }, () => {
      this.synchronize()
      const start = now()
      torch.scope(() => void this.step())
      return now() - start
    })
  }

  synchronize() {
    torch.cuda.synchronize(this.config.device)
  }

  dispose() {
    this.step.dispose?.()
    this.optimizer.dispose()
    this.model.dispose()
    for (const tensor of [...this.batches.flat(), ...this.current]) tensor.dispose()
  }
}

function buildModel({ image_size: imageSize, patch_size: patchSize, channels, drop_path: dropPath, model: { dim, depth, heads } }) {
  return new GroupMaskedModel(new VisionTransformer({ imageSize, patchSize, channels, embedDim: dim, depth, numHeads: heads, dropPath }))
}

/** Floating-point operations per second of a product of two bfloat16 matrices: the most that a step could reach. */
function matmulSpeed({ size, seconds, device }) {
  const [a, b] = [0, 1].map(() => torch.randn([size, size], { device, dtype: 'bfloat16' }))
  const times = (count) => {
    torch.cuda.synchronize(device)
    const start = now()
    for (let i = 0; i < count; i++) torch.scope(() => void a.matmul(b))
    torch.cuda.synchronize(device)
    return now() - start
  }
  times(3)
  const count = Math.max(1, Math.round(seconds / Math.max(times(3) / 3, 1e-6)))
  const flops = (2 * size ** 3 * count) / times(count)
  a.dispose()
  b.dispose()
  return { size, flops }
}

let trainer
await serve(runtime(), async (request) => {
  if (request.matmul) return matmulSpeed(request.matmul)
  if (request.model) {
    trainer?.dispose()
    trainer = undefined
    forgetPeak(request.device)
    setFused(request.fused)
    const start = now()
    trainer = await Trainer.create(request)
    const { flops, reconstruction } = costOf(trainer.model.backbone)
    return { ...runtime(), flopsPerCrop: 3 * (flops + reconstruction.flops), seconds: now() - start }
  }
  if (!trainer) throw new Error('expected a configuration before the first steps, received none')
  if (request.curve) return { losses: trainer.curve(request.curve) }
  if (request.host) return { seconds: trainer.host(request.host) }
  if (request.forget) return forgetPeak(trainer.config.device)
  if (request.memory) return peakMemory(trainer.config.device)
  return trainer.time(request.steps)
})
