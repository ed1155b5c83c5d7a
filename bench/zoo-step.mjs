// One training step in a process of its own: prints the peak of resident memory during the step, in bytes.
//   node bench/zoo-step.mjs '{"model": {...}, "step": "encoder" | "gmml", "dtype": "float32" | "bfloat16", "batch": 8}'
import { readFileSync, writeFileSync } from 'node:fs'
import { corrupt, GroupMaskedModel } from 'gmml'
import * as torch from 'gmml/torch'
import { VisionTransformer } from 'gmml/vision'

const { model: options, step, dtype, batch } = JSON.parse(process.argv[2])
torch.setNumThreads(1)
torch.manualSeed(0)

const encoder = new VisionTransformer(options)
const model = new GroupMaskedModel(encoder)

function lossOf(images) {
  if (step === 'encoder') return encoder.call(images).to('float32').mean()
  const { corrupted, mask } = corrupt(images, { budget: 0.75, alien: 0, align: 1, fill: 'noise' })
  return model.loss(corrupted, images, mask)
}

function train(count) {
  torch.scope(() => {
    const images = torch.randn([count, encoder.channels, ...encoder.imageSize])
    const loss = dtype === 'float32' ? lossOf(images) : torch.autocast('cpu', dtype, () => lossOf(images))
    loss.backward()
  })
}

// Gradients are there before the step that is measured, so that its peak is where most activations live, whatever the batch.
train(1)
writeFileSync('/proc/self/clear_refs', '5') // forgets the peak so far
train(batch)
console.log(1024 * Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1]))
