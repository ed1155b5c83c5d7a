// A training as a file that PyTorch reads and writes too: weights, optimizer, and whatever else belongs to it.
// In Python: file = torch.load('training.pth'); model.load_state_dict(file['model']); optimizer.load_state_dict(file['optimizer'])
import * as torch from 'gmml/torch'
import { GELU, Linear, Sequential } from 'gmml/nn'
import { AdamW, type AdamWStateDict } from 'gmml/optim'
import { inspectTorch, loadTorch, saveTorch, type TensorInfo } from 'gmml/io'

const path = process.argv[2] ?? 'training.pth'

interface Training<T> {
  readonly model: Record<string, T>
  readonly optimizer: AdamWStateDict
  readonly settings: { readonly lr: number; readonly classes: readonly string[] }
}

const settings = { lr: 0.01, classes: ['cat', 'dog'] }
const model = new Sequential(new Linear(4, 16), new GELU(), new Linear(16, 2))
const optimizer = new AdamW(model.parameters(), { lr: settings.lr })
for (let step = 0; step < 3; step++) {
  model.call(torch.randn([8, 4])).square().mean().backward()
  optimizer.step()
  optimizer.zeroGrad()
}
await saveTorch(path, { model: model.stateDict(), optimizer: optimizer.stateDict(), settings })

// What is in it, without reading the tensors.
const found = await inspectTorch<Training<TensorInfo>>(path)
const first = found.model['0.weight']!
console.log(`model: ${Object.keys(found.model).length} tensors, 0.weight is ${first.dtype} [${first.shape.join(', ')}]`)

const file = await loadTorch<Training<torch.Tensor>>(path)
const other = new Sequential(new Linear(4, 16), new GELU(), new Linear(16, 2))
other.loadStateDict(file.model)
const resumed = new AdamW(other.parameters())
resumed.loadStateDict(file.optimizer)
console.log(`goes on after step ${file.optimizer.state.get(0)!.step.item()} at lr ${resumed.groups[0]!.lr}`)
