// Times single operators on 4x4 tensors, on request: node ops-server.mjs [DEVICE]. The protocol is that of bench/pytorch/ops.py.
import * as torch from 'gmml/torch'
import { runtime } from './gmml-server.mjs'
import { serve } from './json-lines.mjs'

/** The statement is what a user writes. Names are those of bench/pytorch/ops.py. */
const STATEMENTS = {
  add: 'a.add(b)',
  add_grad: 'g.add(b)',
  mul_scalar: 'a.mul(2.5)',
  reshape: 'a.reshape([2, 8])',
  transpose: 'a.transpose(0, 1)',
  matmul: 'torch.matmul(a, b)',
  linear: 'torch.linear(a, w, { bias: v })',
  layer_norm: 'torch.layerNorm(a, [4], { weight: v, bias: u, eps: 1e-6 })',
  gelu: 'torch.gelu(a)',
  softmax: 'torch.softmax(a, -1)',
  cat: 'torch.cat([a, b])',
  sum: 'a.sum()',
  empty_loop: ''
}

/** Calls between two clean-ups: a user's step, or the forward of a module, is about this long. */
const SCOPE = 100

const device = process.argv[2] ?? 'cpu'
torch.setNumThreads(1)
torch.manualSeed(0)
const values = {
  a: torch.randn([4, 4], { device }), b: torch.randn([4, 4], { device }), g: torch.randn([4, 4], { device, requiresGrad: true }),
  w: torch.randn([4, 4], { device }), v: torch.randn([4], { device }), u: torch.randn([4], { device })
}
/** Waits for the device: its work is part of what is timed. Nothing on a CPU, where there is none left. */
const wait = device === 'cpu' ? () => {} : () => torch.cuda.synchronize(device)

// The statement stands in the loop itself, as timeit does it in Python: what is timed is the statement and no call around it.
const timers = Object.fromEntries(Object.entries(STATEMENTS).map(([op, statement]) => [op, new Function('torch', 'values', 'count', 'wait', `
  const { ${Object.keys(values).join(', ')} } = values
  wait()
  const start = process.hrtime.bigint()
  for (let done = 0; done < count; done += ${SCOPE}) {
    torch.scope(() => {
      for (let i = 0; i < ${SCOPE}; i++) {
        ${statement}
      }
    })
  }
  wait()
  return Number(process.hrtime.bigint() - start) / 1e9
`)]))

await serve({ ...runtime(), ops: STATEMENTS, scope: SCOPE }, ({ op, iterations }) => {
  if (!Object.hasOwn(timers, op)) throw new RangeError(`expected op to be one of ${Object.keys(timers).join(', ')}, received ${op}`)
  if (!(iterations > 0) || iterations % SCOPE) {
    throw new RangeError(`expected iterations to be a multiple of ${SCOPE}, received ${iterations}`)
  }
  return { op, iterations, seconds: timers[op](torch, values, iterations, wait) }
})
