// Runs and times GMML training steps, on request. Protocol and configuration are those of bench/pytorch/step.py.
import { GroupMaskedModel } from 'gmml'
import { loadSafetensors } from 'gmml/io'
import { AdamW, clipGradNorm } from 'gmml/optim'
import * as torch from 'gmml/torch'
import { VisionTransformer } from 'gmml/vision'
import { memory, runtime } from './gmml-server.mjs'
import { serve } from './json-lines.mjs'

class Trainer {
  static async create(config) {
    const { threads, seed = 0, model, weights, inputs } = config
    if (threads) torch.setNumThreads(threads)
    torch.manualSeed(seed)
    const trainer = new Trainer(config, torch.scope(() => buildModel(config, model)))
    if (weights) {
      const { tensors } = await loadSafetensors(weights)
      trainer.model.loadStateDict(tensors)
      for (const tensor of Object.values(tensors)) tensor.dispose()
    }
    trainer.inputs = (await loadSafetensors(inputs)).tensors
    return trainer
  }

  constructor(config, model) {
    this.config = { lr: 5e-4, weight_decay: 0.04, clip: 3, amp: null, ...config }
    this.model = model
    this.parameters = model.parameters()
    const { lr, weight_decay: weightDecay } = this.config
    const named = [...model.namedParameters()]
    const isDecayed = ([name, parameter]) => parameter.ndim > 1 && !name.endsWith('.bias')
    const decayed = named.filter(isDecayed).map(([, parameter]) => parameter)
    const plain = named.filter((entry) => !isDecayed(entry)).map(([, parameter]) => parameter)
    this.optimizer = new AdamW([{ parameters: decayed, weightDecay }, { parameters: plain, weightDecay: 0 }], { lr })
  }

  /** What a user's loop does, see src/train/pretrain.ts. */
  step() {
    const { model, optimizer, parameters, config: { amp, clip } } = this
    const { corrupted, clean, mask } = this.inputs
    return torch.scope(() => {
      const forward = () => model.loss(corrupted, clean, mask)
      const loss = amp ? torch.autocast('cpu', amp, forward) : forward()
      loss.backward()
      if (clip) clipGradNorm(parameters, clip, { perTensor: true })
      optimizer.step()
      optimizer.zeroGrad()
      return loss.item()
    })
  }

  run(steps) {
    const seconds = []
    const losses = []
    for (let i = 0; i < steps; i++) {
      const start = performance.now()
      losses.push(this.step())
      seconds.push((performance.now() - start) / 1000)
    }
    return { seconds, losses, ...memory() }
  }
}

function buildModel({ image_size, patch_size, channels, drop_path = 0.1 }, { dim, depth, heads, mlp_ratio = 4, layers }) {
  const backbone = new VisionTransformer({
    imageSize: image_size, patchSize: patch_size, channels, embedDim: dim, depth, numHeads: heads, mlpRatio: mlp_ratio, dropPath: drop_path
  })
  return new GroupMaskedModel(backbone, layers ? { blocks: layers } : {})
}

let trainer
await serve(runtime(), async (request) => {
  if (request.model) {
    trainer = await Trainer.create(request)
    const parameters = trainer.parameters.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0)
    return { ready: true, parameters, layers: trainer.model.blocks, ...runtime(), ...memory() }
  }
  if (!trainer) throw new Error('expected a configuration before the first steps, received none')
  return trainer.run(request.steps)
})
