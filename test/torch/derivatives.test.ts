import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, grad, gradCheck, hessian, jacobian, tensor, type Tensor } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'

const f64 = { dtype: 'float64' } as const
const leaf = (values: unknown) => tensor(values as number[], { ...f64, requiresGrad: true })

describe('misuse', () => {
  it('of grad', () => {
    const x = leaf([1, 2])
    expect(() => grad(x.sum(), x, { materializeGrads: true, allowUnused: false })).toThrow(/allowUnused/)
    expect(() => grad(x.mul(2), x, { gradOutputs: [torch.ones([1], f64)] })).toThrow(/expected a gradient of the shape of output 0/)
    expect(() => grad(x.mul(2), x, { gradOutputs: [torch.ones([2], { dtype: 'complex128' })] })).toThrow(/complex where it is/)
    expect(() => grad(x.mul(2), x, { gradOutputs: [] })).toThrow(/only for scalar outputs/)
    expect(() => grad([x.sum(), x.sum()], x, { gradOutputs: [null] })).toThrow(/expected 2 gradients, one for each output, received 1/)
    expect(() => grad(x.sum(), [x, leaf(1)])).toThrow(/Give allowUnused: true to get null/)
    const loss = x.square().sum()
    grad(loss, x)
    expect(() => grad(loss, x)).toThrow(/^grad: Trying to backward .* a second time: .*retainGraph: true/)
  })

  it('of jacobian, hessian and gradCheck', () => {
    const x = leaf([1, 2])
    const loose = { jacobian, hessian, gradCheck } as unknown as Record<string, (...values: unknown[]) => unknown>
    for (const name of ['jacobian', 'hessian']) {
      for (const fn of [null, 3, () => 3, () => [x]]) expect(() => loose[name]!(fn, x), name).toThrow(InputError)
      expect(() => loose[name]!(torch.sin, 3)).toThrow(InputError)
    }
    expect(() => hessian(torch.sin, x)).toThrow(/Expected a tensor with one element for the result of fn, received 'shape \[2\]'/)
    expect(() => gradCheck(torch.sin, [torch.ones([2], { requiresGrad: true })])).toThrow(/float64/)
    expect(() => gradCheck(torch.sin, [torch.ones([2], f64)])).toThrow(/requires grad/)
    for (const inputs of [null, x, [3]]) expect(() => loose['gradCheck']!(torch.sin, inputs)).toThrow(InputError)
    // A gradient that is wrong: the sine through a path that autograd does not see.
    const wrong = (z: Tensor) => z.sin().detach().add(z.mul(0.5))
    expect(() => gradCheck(wrong, [x])).toThrow(/^gradCheck: the gradient for inputs\[0\] differs from the numerical one by up to \d/)
    expect(() => gradCheck((a: Tensor, b: Tensor) => a.mul(wrong(b)), [x, x])).toThrow(TorchError)
    expect(torch.memory().scopes).toBe(0)
  })
})

it('PyTorch’s numbers for second and third derivatives', async () => {
  const script = `
import json, torch
from torch.autograd import grad
from torch.autograd.functional import jacobian, hessian
x = torch.tensor([[0.3, -1.2, 0.7], [1.1, 0.4, -0.5]], dtype=torch.float64, requires_grad=True)
w = torch.tensor([[0.2, -0.4], [0.5, 0.9], [-0.3, 0.1]], dtype=torch.float64, requires_grad=True)
f = lambda x, w: torch.nn.functional.layer_norm((x @ w).tanh() * x.sum(1, keepdim=True).exp(), (2,)).square().sum() + (x @ w).softmax(1)[:, 0].log().sum()
out = []
# gradient penalty
score = (x @ w).tanh().sum(1)
g, = grad(score, x, torch.ones_like(score), create_graph=True)
penalty = (g.norm(dim=1) - 1).square().mean()
penalty.backward()
out += [penalty, w.grad, x.grad]
# Hessian-vector product, both ways
v = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
g, = grad(f(x, w), x, create_graph=True)
hv, = grad(g, x, v, retain_graph=True)
hv2, = grad((g * v).sum(), x, create_graph=True)
third = grad(hv2.square().sum(), [x, w], create_graph=True)
out += [g, hv, hv2, *third, *grad(third[0].sum() + third[1].sum(), [x, w])]
unused = torch.ones(2, requires_grad=True)
zeros = grad(x.sum(), [x, unused], materialize_grads=True)
out += list(zeros)
out += [jacobian(lambda x: (x @ w).sin(), x), hessian(lambda x: f(x, w), x)]
out += [jacobian(lambda x: torch.ones(2, dtype=torch.float64), x)]
z = torch.tensor([1 + 2j, -0.5 + 1j], dtype=torch.complex128, requires_grad=True)
out += [torch.view_as_real(grad((z * z.conj() * z).abs().sum(), z)[0])]
print(json.dumps([[t.tolist(), t.requires_grad] for t in out]))`
  const reference = JSON.parse(await runPython('-c', script)) as [unknown, boolean][]

  const x = leaf([[0.3, -1.2, 0.7], [1.1, 0.4, -0.5]])
  const w = leaf([[0.2, -0.4], [0.5, 0.9], [-0.3, 0.1]])
  const f = (a: Tensor, b: Tensor) =>
    torch.layerNorm(a.matmul(b).tanh().mul(a.sum(1, { keepdim: true }).exp()), [2]).square().sum()
      .add(a.matmul(b).softmax(1).select(1, 0).log().sum())
  const score = x.matmul(w).tanh().sum(1)
  const [direction] = grad(score, x, { gradOutputs: torch.onesLike(score), createGraph: true })
  const penalty = direction.square().sum(1).sqrt().sub(1).square().mean()
  penalty.backward()
  const ours: Tensor[] = [penalty, w.grad!, x.grad!]

  const v = torch.linspace(-1, 1, 6, f64).reshape([2, 3])
  const [g] = grad(f(x, w), x, { createGraph: true })
  const [hv] = grad(g, x, { gradOutputs: [v], retainGraph: true })
  const [hv2] = grad(g.mul(v).sum(), x, { createGraph: true })
  const third = grad(hv2.square().sum(), [x, w], { createGraph: true })
  ours.push(g, hv, hv2, ...third, ...(grad(third[0]!.sum().add(third[1]!.sum()), [x, w])))
  const unused = torch.ones([2], { requiresGrad: true })
  ours.push(...(grad(x.sum(), [x, unused], { materializeGrads: true })))
  ours.push(jacobian((a) => a.matmul(w).sin(), x), hessian((a) => f(a, w), x), jacobian(() => torch.ones([2], f64), x))
  const z = tensor([{ re: 1, im: 2 }, { re: -0.5, im: 1 }], { dtype: 'complex128', requiresGrad: true })
  ours.push(torch.viewAsReal(grad(z.mul(z.conj()).mul(z).abs().sum(), z)[0]))

  expect(ours.length).toBe(reference.length)
  for (const [i, [values, requiresGrad]] of reference.entries()) {
    const expected = tensor(values as number[], f64)
    expect(ours[i]!.shape, `result ${i}`).toEqual(expected.shape)
    expect(ours[i]!.to('float64').allclose(expected, { rtol: 1e-10, atol: 1e-12 }), `result ${i}: ${ours[i]} and ${expected}`).toBe(true)
    expect(ours[i]!.requiresGrad, `result ${i}`).toBe(requiresGrad)
  }
})

describe('gradCheck', () => {
  it('passes for what is right, of several inputs, whatever their layout', () => {
    const [a, b] = [torch.randn([3, 2], f64).t().requiresGrad_(), torch.randn([2, 3], { ...f64, requiresGrad: true })]
    expect(gradCheck((x, y) => x.mul(y).sin().matmul(y.t()), [a, b])).toBe(true)
    expect(gradCheck((x, y) => x.mul(y), [a, b.detach()])).toBe(true)
    expect(gradCheck((x) => x.exp(), [torch.zeros([0], { ...f64, requiresGrad: true })])).toBe(true)
    expect([a.grad, b.grad]).toEqual([null, null])
  })
})

it('a Jacobian can be differentiated further', () => {
  const x = leaf([1, 2, 3])
  const derivative = jacobian((z) => z.pow(3), x, { createGraph: true })
  const [second] = grad(derivative.sum(), x)
  expect(second.toArray()).toEqual([6, 12, 18])
  const third = jacobian((z) => hessian((y) => y.pow(3).sum(), z, { createGraph: true }).sum(), x)
  expect(third.toArray()).toEqual([6, 6, 6])
})
