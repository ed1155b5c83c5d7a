// Parts of a tensor as in Python: views, masks, index tensors, and writing into them.
import * as torch from 'gmml/torch'
import { ellipsis, slice } from 'gmml/torch'

const x = torch.arange(24).reshape(2, 3, 4)
console.log('x[0, 1:3] =', x.at(0, slice(1, 3)))
console.log('x[..., -1] =', x.at(ellipsis, -1))
console.log('shape of x[:, None, ::2] =', x.at(slice(), null, slice(null, null, 2)).shape)

const even = x.remainder(2).eq(0)
console.log('even ones:', x.at(even).toArray())
console.log('rows 2 and 0:', x.at(1, [2, 0]))

x.setAt([even], 0).setAt([ellipsis, -1], [10, 20, 30]) // x[even] = 0; x[..., -1] = torch.tensor([10, 20, 30])
for (const matrix of x) {
  using sums = matrix.sum(1) // freed at the end of each turn
  console.log('sums of the rows:', sums.toArray())
}

// Gradients flow through all of it.
const w = torch.ones([3], { requiresGrad: true })
const y = torch.zeros([2, 3]).setAt([1], w).at([1, 1], [0, 2])
y.sum().backward()
console.log('y =', y)
console.log('dy/dw =', w.grad)
