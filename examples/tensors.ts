// Tensors, operators and gradients in ten lines.
import * as torch from 'gmml/torch'

const x = torch.tensor([[1, 2], [3, 4]], { requiresGrad: true })
const y = torch.scope(() => x.matmul(x).add(1).log().sum()) // what is made in a scope is freed at its end, except what it returns
y.backward()
console.log('y =', y.item())
console.log('dy/dx =', x.grad)
console.log('largest of each row:', x.max(1, {})[0].toArray())
console.log('alive:', torch.memory())
