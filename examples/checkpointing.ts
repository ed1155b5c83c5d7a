// Gradient checkpointing: a vision transformer whose blocks keep only their inputs, and compute the rest again in backward.
import { checkpoint, checkpointSequential } from 'gmml/nn'
import * as torch from 'gmml/torch'
import { VisionTransformer } from 'gmml/vision'

torch.manualSeed(0)
const model = new VisionTransformer({ imageSize: 64, patchSize: 8, embedDim: 96, depth: 6, numHeads: 3, dropPath: 0.1 })
const images = torch.randn([4, 3, 64, 64])

/** The gradient of the first weight, and how the random numbers go on. */
function step(gradCheckpointing: boolean) {
  torch.manualSeed(1)
  model.gradCheckpointing = gradCheckpointing
  model.zeroGrad()
  torch.scope(() => model.call(images).square().mean().backward())
  return { gradient: model.cls_token!.grad!, next: torch.rand([1]).item() }
}

const [plain, checkpointed] = [step(false), step(true)]
console.log(`the same gradients, to the bit: ${torch.equal(plain.gradient, checkpointed.gradient)}`)
console.log(`the same random numbers after it: ${plain.next === checkpointed.next}`)

// Any function of tensors, and any list of blocks.
const x = torch.randn([4, 65, 96], { requiresGrad: true })
const some = checkpoint((tokens: torch.Tensor) => tokens.softmax(-1).mul(tokens), x)
const all = checkpointSequential(model.blocks, 3, some)
const [gradient] = torch.grad(all.square().mean(), x)
console.log(`gradient of the input: ${gradient.shape.join(' x ')}`)
