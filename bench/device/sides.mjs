// Who is compared on a device: each a process of its own, with what its configuration adds.
import { startGmml } from '../gmml-server.mjs'
import { startPython } from '../python-server.mjs'
import { hasFused, hasGraphs } from './gmml-device.mjs'

const gmml = (id, name, config) => ({ id, name, config, start: () => startGmml('device/step', name) })
const pytorch = (id, name, config) => ({ id, name, config, start: (libtorch) => startPython('device_step', libtorch, name) })

/** `compiles`: takes a minute to get ready, and is wrong in float32 no other way than in bfloat16. `cuda`: there only. */
export const SIDES = [
  gmml('gmml', 'gmml', { mode: 'eager', fused: false }),
  { ...gmml('gmml-fused', 'gmml, fused operators', { mode: 'eager', fused: true }), missing: () => !hasFused() },
  { ...gmml('gmml-graph', 'gmml, graph', { mode: 'graph', fused: false }), cuda: true, missing: () => !hasGraphs() },
  {
    ...gmml('gmml-graph-fused', 'gmml, graph, fused operators', { mode: 'graph', fused: true }), cuda: true,
    missing: () => !hasGraphs() || !hasFused()
  },
  pytorch('eager', 'PyTorch', { mode: 'eager' }),
  pytorch('eager-fused', 'PyTorch, fused AdamW', { mode: 'eager', optimizer: 'adamw_fused' }),
  { ...pytorch('cudagraph', 'PyTorch, CUDA graph of the step', { mode: 'cudagraph' }), cuda: true },
  { ...pytorch('compile', 'torch.compile', { mode: 'compile', optimizer: 'adamw_fused' }), compiles: true },
  { ...pytorch('reduce-overhead', 'torch.compile reduce-overhead', { mode: 'reduce-overhead', optimizer: 'adamw_fused' }), compiles: true, cuda: true },
  { ...pytorch('max-autotune', 'torch.compile max-autotune', { mode: 'max-autotune', optimizer: 'adamw_fused' }), compiles: true, alone: true }
]

/** Where nothing is chosen: all that the device has; on a CPU, where this only shows that it runs, what needs no compiler. */
const usual = (device) => SIDES.filter(({ cuda, compiles }) => device === 'cuda' || !(cuda || compiles))

/**
 * The sides that can run, and the others with the reason.
 * @param {'cuda' | 'cpu'} device @param {string | undefined} chosen ids, separated by commas
 */
export function chooseSides(device, chosen) {
  const ids = chosen?.split(',')
  const unknown = ids?.filter((id) => !SIDES.some((side) => side.id === id)) ?? []
  if (unknown.length) throw new Error(`expected sides of ${SIDES.map(({ id }) => id).join(', ')}, received ${unknown.join(', ')}`)
  const wanted = ids ? SIDES.filter(({ id }) => ids.includes(id)) : usual(device)
  const reason = ({ cuda, missing }) => (missing?.() ? 'this gmml does not have it' : cuda && device !== 'cuda' ? 'on CUDA only' : null)
  return {
    sides: wanted.filter((side) => reason(side) === null),
    skipped: wanted.flatMap((side) => (reason(side) === null ? [] : [{ side: side.name, reason: reason(side) }]))
  }
}

/** Time that is over: what waits for an answer is told so, and the process that owes it is ended. */
export class Deadline {
  constructor(seconds) {
    this.end = performance.now() + seconds * 1000
  }

  get seconds() {
    return (this.end - performance.now()) / 1000
  }

  /** @template T @param {{ kill(): void, name: string }} server @param {() => Promise<T>} ask @returns {Promise<T>} */
  async within(server, ask) {
    if (this.end === Infinity) return ask()
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        server.kill()
        reject(new Late(`${server.name} was not ready in time`))
      }, Math.max(0, this.seconds) * 1000)
    })
    try {
      return await Promise.race([ask(), late])
    } finally {
      clearTimeout(timer)
    }
  }
}

export class Late extends Error {}
