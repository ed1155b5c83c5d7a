import { expect, it } from 'vitest'

import { clean, runChild } from './support.js'

// Every function of the addon gets arguments of every sort: none may end the process, and what is thrown is an error.
const script = `
  const { mkdtempSync, rmSync } = await import('node:fs')
  // Some functions write files where random strings tell them to.
  const folder = mkdtempSync((await import('node:os')).tmpdir() + '/gmml-fuzz-')
  process.chdir(folder)
  process.on('exit', () => rmSync(folder, { recursive: true }))
  let state = Number(process.argv[2])
  const random = (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
  const pick = (list) => list[random(list.length)]
  const raw = (name, ...args) => addon[name](...args)

  const find = (name, overload = '') => raw('findOperator', 'aten::' + name, overload).id
  const operators = [
    find('add', 'Tensor'), find('mul', 'Scalar'), find('cat'), find('reshape'), find('linear'), find('layer_norm'), find('softmax', 'int'),
    find('index', 'Tensor'), find('to', 'dtype_layout'), find('max', 'dim'), find('add_', 'Tensor'), find('_foreach_add', 'Scalar'),
    find('conv2d'), find('empty', 'memory_format'), find('einsum'), find('clamp'), find('result_type', 'Tensor'), find('split', 'Tensor')
  ]
  let live = []
  const refresh = () => {
    for (const handle of live) if (raw('isLive', handle)) raw('dispose', handle)
    while (raw('memory').scopes > 0) raw('scopeEnd', 1, [])
    live = [
      raw('fromBytes', new Float32Array(6), 'float32', [2, 3]), raw('fromBytes', new Float32Array(1), 'float32', []),
      raw('fromBytes', new BigInt64Array(2), 'int64', [2]), raw('fromBytes', new Float32Array(0), 'float32', [0, 3])
    ]
    raw('setRequiresGrad', live[0], true)
  }
  const reenter = { get re() { raw('call', operators[0], live[0], live[0]); refresh(); return 1 }, im: 0 }
  const throwing = { get re() { throw new RangeError('from a getter') } }
  const trap = [1, 2]
  Object.defineProperty(trap, 0, { get() { refresh(); return raw('call', operators[0], live[0], live[1]) } })
  const throwingArray = [1]
  Object.defineProperty(throwingArray, 0, { get() { throw new RangeError('from an element') } })
  const numbers = [NaN, Infinity, -Infinity, -1, -0, 0, 1, 2, 3, 0.5, 2 ** 31, 2 ** 52 + 2 ** 42, 2 ** 53,
    2 ** 60, -(2 ** 63), 1e300, 4.5e12 + 0.5]
  const strings = ['', 'cpu', 'cuda', 'cuda:99', 'cuda:99999999999', 'meta', 'float32', 'bfloat16', 'qint8', 'strided',
    'aten::add', 'Tensor', 'ij,jk->ik', '\\ud800', 'a'.repeat(5000), 'a\\0b', 'aten::', 'prim::']
  const stale = [raw('fromBytes', new Float32Array(1), 'float32', [1])]
  raw('dispose', stale[0])
  const sparse = []
  sparse.length = 2 ** 32 - 1
  const others = [
    undefined, null, true, false, 0n, 5n, -1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 90n, Symbol('x'), () => 1, class {}, {}, [],
    Object.create(null), new Map(), new Date(), /x/, Promise.resolve(), new Proxy({}, {}), new Proxy([], {}), new ArrayBuffer(24),
    new SharedArrayBuffer(24), new Float32Array(6), new Uint8Array(5056), new Float32Array(new SharedArrayBuffer(24)), new DataView(new ArrayBuffer(8)),
    new BigInt64Array(3), { re: 1, im: 2 }, { re: 'x', im: {} }, reenter, throwing, trap, throwingArray, sparse,
    { valueOf() { throw new Error('valueOf') } }, { [Symbol.toPrimitive]() { throw new Error('primitive') } }, globalThis, new Error('x')
  ]
  const value = (depth = 0) => {
    const sort = random(depth < 2 ? 7 : 6)
    if (sort < 2) return pick(live)
    if (sort === 2) return pick(numbers)
    if (sort === 3) return pick(strings)
    if (sort === 4) return pick(stale)
    if (sort === 5) return pick(others)
    return Array.from({ length: random(4) }, () => value(depth + 1))
  }

  const counts = {}
  // These do much on each call, whatever they are given.
  const slow = { listOperators: 3, buildInfo: 200, setNumThreads: 200 }
  for (const name of Object.keys(addon)) {
    if (name === 'exitAtOnce') continue // its purpose is to end the process: a test of its own
    let failed = 0
    const calls = slow[name] ?? 3000
    for (let i = 0; i < calls; i++) {
      if (i % 16 === 0) refresh()
      const args = Array.from({ length: random(random(8) === 0 ? 60 : 7) }, () => value())
      if (name === 'call' && random(10) > 0) args[0] = pick(operators)
      if (name === 'setErrorClasses' && random(2)) args.splice(0, 2, ...[1, 2].map(() => pick([() => 1, class {}, torch.TorchError, Math.max])))
      try {
        const result = raw(name, ...args)
        if (typeof result?.then === 'function') result.catch(() => {})
        for (const handle of [result].flat()) {
          if (typeof handle === 'number' && raw('isLive', handle) && !live.includes(handle)) raw('dispose', handle)
        }
      } catch (error) {
        failed++
        // With setErrorClasses the errors are of whatever class it was given.
        if (name !== 'setErrorClasses' && !(error instanceof Error)) throw new Error(name + ' threw what is no error: ' + String(error))
      }
    }
    addon.setErrorClasses(torch.TorchError, torch.OutOfMemoryError)
    refresh()
    for (const device of ['cpu', 'cuda']) {
      try { while (addon.autocast(device).enabled) addon.leaveAutocast(device, false, 'bfloat16') } catch { break }
    }
    counts[name] = failed
  }
  try { await addon.stopProfiler(null) } catch {}
  try { for (;;) addon.leaveRegion() } catch {}
  addon.setDeterministic(false, false)
  addon.setNumThreads(1)
  addon.setGradMode(true)
  // Nothing is broken: the addon still computes.
  const sum = torch.scope(() => torch.tensor([1, 2]).add(torch.tensor([3, 4])).toArray())
  await tick(50)
  print({ sum, unharmed: Object.keys(counts).filter((name) => counts[name] === 0).sort() })
`

// What takes no arguments cannot fail.
const infallible = [
  'buildInfo', 'clearAutocastCache', 'cudaDeviceCount', 'cudaUnavailableReason', 'freedRegions', 'gradMode', 'inferenceMode', 'listOperators', 'memory', 'numThreads',
  'numerics', 'nvtxPop', 'scopeBegin', 'takeAnomaly'
]

it.each([1, 20_260])('survives thousands of random calls of each raw function (seed %i)', (seed) => {
  const outcome = runChild(script, { args: [String(seed)], seconds: 240 })
  // libtorch itself warns of some of these calls.
  expect({ ...outcome, stderr: '' }, outcome.stderr).toEqual(clean({ sum: [4, 6], unharmed: infallible }))
}, 250_000)
