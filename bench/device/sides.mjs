// Who is compared on a device: each a process of its own, with what its configuration adds.
import { startGmml } from '../gmml-server.mjs'
import { startPython } from '../python-server.mjs'
import { hasFused, hasGraphs } from './gmml-device.mjs'

const gmml = (id, name, config) => ({ id, name, config, start: () => startGmml('device/step', name) })
const pytorch = (id, name, config) => ({ id, name, config, start: (libtorch) => startPython('device_step', libtorch, name) })
const compiled = (mode, name) => ({ ...pytorch(mode, name, { mode, optimizer: 'adamw_fused' }), compiles: true })

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
  compiled('compile', 'torch.compile'),
  { ...compiled('reduce-overhead', 'torch.compile reduce-overhead'), cuda: true },
  { ...compiled('max-autotune', 'torch.compile max-autotune'), alone: true }
]

/**
 * Where nothing is chosen: all that the device has, but for what has to be alone for minutes to get ready; on a CPU, where this only shows
 * that it runs, what needs no compiler.
 */
const usual = (device) => SIDES.filter(({ cuda, compiles, alone }) => !alone && (device === 'cuda' || !(cuda || compiles)))

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

export class Late extends Error {}

/** The time that a benchmark may take. */
export class Deadline {
  constructor(seconds) {
    this.end = performance.now() + seconds * 1000
  }

  get seconds() {
    return (this.end - performance.now()) / 1000
  }

  /** What `ask` gives; after the deadline, or after so many seconds, the process that owes it is ended. */
  async within(server, ask, seconds = Infinity) {
    const limit = Math.min(this.seconds, seconds)
    if (limit === Infinity) return ask()
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        server.kill()
        reject(new Late('it was not ready in time'))
      }, Math.max(0, limit) * 1000)
    })
    try {
      return await Promise.race([ask(), late])
    } finally {
      clearTimeout(timer)
    }
  }
}

/** The sides of a case, each with the process that stands for it. One that fails or is late is named and left out from there on. */
export class Contest {
  /** @type {{ side: string, reason: string, failed: boolean }[]} */
  skipped = []

  constructor(live, deadline) {
    this.live = live
    this.deadline = deadline
  }

  /** Starts all at the same time, but for the first, which tells which libtorch the others must have. One that does not start is left out. */
  static async start([first, ...others], deadline) {
    const server = await first.start()
    const contest = new Contest([{ ...first, server }], deadline)
    const started = await Promise.allSettled(others.map((side) => side.start(server.greeting.libtorch)))
    for (const [i, { value, reason }] of started.entries()) {
      if (value) contest.live.push({ ...others[i], server: value })
      else contest.leaveOut(others[i], reason)
    }
    return contest
  }

  leaveOut(side, error) {
    console.error(`${side.name} is left out: ${error.message}`)
    this.skipped.push({ side: side.name, reason: error.message, failed: !(error instanceof Late) })
  }

  get ours() {
    return this.live.filter(({ id }) => id.startsWith('gmml'))
  }

  get theirs() {
    return this.live.filter(({ id }) => !id.startsWith('gmml'))
  }

  /** Asks some sides at the same time, which have so many seconds for it. */
  async together(sides, ask, seconds) {
    await Promise.all(sides.map(async (side) => {
      try {
        await this.deadline.within(side.server, () => ask(side), seconds)
      } catch (error) {
        side.server.kill()
        this.live = this.live.filter((other) => other !== side)
        this.leaveOut(side, error)
      }
    }))
    if (this.live.length > 0) return
    const kind = this.skipped.some(({ failed }) => failed) ? Error : Late
    throw new kind(`nothing is left: ${this.skipped.map(({ side, reason }) => `${side}: ${reason}`).join('; ')}`)
  }

  /** Asks some sides one after the other. */
  async inTurn(sides, ask) {
    for (const side of sides) await this.together([side], ask)
  }

  /**
   * Asks all: compilers at the same time, but for those that choose kernels by their time, which must be alone.
   * @param {() => number} compiling the seconds that a compiler has: what it takes must not be that of all the others
   */
  async ready(ask, compiling) {
    await this.inTurn(this.live.filter(({ compiles }) => !compiles), ask)
    await this.together(this.live.filter(({ compiles, alone }) => compiles && !alone), ask, compiling())
    for (const side of this.live.filter(({ alone }) => alone)) await this.together([side], ask, compiling())
  }

  end() {
    for (const { server } of this.live) server.kill()
  }
}
