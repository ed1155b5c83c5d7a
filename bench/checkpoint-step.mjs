// One case of the benchmark "checkpoint", in a process of its own: its peak of resident memory is then its own too.
//   node checkpoint-step.mjs '{"case": "blocks", "model": {...}, "batch": 16, "steps": 4}'
import { readFileSync } from 'node:fs'
import { checkpointSequential } from 'gmml/nn'
import * as torch from 'gmml/torch'
import { VisionTransformer } from 'gmml/vision'

const { case: name, model: size, batch, steps } = JSON.parse(process.argv[2])

/** Peak resident memory of this process so far, in MiB. */
const peak = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024

torch.manualSeed(0)
const model = new VisionTransformer(size)
model.gradCheckpointing = name === 'each block'
const images = torch.randn([batch, 3, size.imageSize, size.imageSize])
const tokens = torch.randn([batch, model.numPatches + 1, size.embedDim])
// The segments begin behind the patch embedding.
const forward =
  name === 'segments of 4 blocks' ? () => checkpointSequential(model.blocks, size.depth / 4, tokens) : () => model.call(images)

const before = peak()
const seconds = []
for (let i = 0; i < steps; i++) {
  const start = performance.now()
  torch.scope(() => {
    const loss = forward().square().mean()
    loss.backward()
    model.zeroGrad()
    return loss.item()
  })
  seconds.push((performance.now() - start) / 1000)
}
console.log(JSON.stringify({ peakMiB: peak() - before, seconds: seconds.slice(1) })) // the first step warms up
