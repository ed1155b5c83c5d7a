// Time per call of single operators on 4x4 float32, one thread: gmml against PyTorch from Python, alternating. On a CPU, or on a GPU,
// whose work on so few numbers takes less time than launching it: there it is the launch that is timed.
import { startGmml } from './gmml-server.mjs'
import { startPython } from './python-server.mjs'
import { median, spread, summary, table } from './statistics.mjs'

/** What is compared: the name of the row, gmml's operator, PyTorch's. */
const ROWS = [
  'add', 'add_grad', 'mul_scalar', 'reshape', 'transpose', 'matmul', 'linear', 'layer_norm',
  ['layer_norm_aten', 'layer_norm', 'layer_norm_aten'], 'gelu', 'softmax', 'cat', 'sum'
].map((row) => (typeof row === 'string' ? [row, row, row] : row))

const TIMING = { full: { rounds: 15, seconds: 0.03, warmUp: 0.3 }, quick: { rounds: 3, seconds: 0.01, warmUp: 0.1 } }

/** @param {{ quick: boolean, device?: 'cpu' | 'cuda' }} options `device`: given, the record has its name */
export async function run({ quick, device }) {
  const { rounds, seconds, warmUp } = TIMING[quick ? 'quick' : 'full']
  const gmml = await startGmml('ops', 'gmml', [device ?? 'cpu'])
  const python = await startPython('ops', gmml.greeting.libtorch, 'PyTorch', [device ?? 'cpu'])
  const time = async (server, op, iterations) => (await server.ask({ op, iterations })).seconds / iterations
  try {
    // All operators before the first measurement: a program that has only ever called one operator is optimised for that one.
    const iterations = new Map()
    for (const [name, own, theirs] of ROWS) {
      let count = 1000
      for (let spent = 0; spent < warmUp; ) {
        const perCall = Math.min(await time(gmml, own, count), await time(python, theirs, count))
        spent += perCall * count
        count = Math.max(100, Math.round(seconds / perCall / 100) * 100)
      }
      iterations.set(name, count)
    }
    const samples = new Map(ROWS.map(([name]) => [name, { gmml: [], pytorch: [] }]))
    for (let round = 0; round < rounds; round++) {
      for (const [name, own, theirs] of ROWS) {
        const { gmml: ours, pytorch } = samples.get(name)
        const turns = [
          async () => ours.push(await time(gmml, own, iterations.get(name))),
          async () => pytorch.push(await time(python, theirs, iterations.get(name)))
        ]
        // Neither side is always the second, on a processor that the other has warmed or throttled.
        for (const turn of round % 2 ? turns.reverse() : turns) await turn()
      }
    }
    const rows = ROWS.map(([name, own, theirs]) => {
      const { gmml: ours, pytorch } = samples.get(name)
      return {
        name,
        statements: { gmml: gmml.greeting.ops[own], pytorch: python.greeting.ops[theirs] },
        iterations: iterations.get(name),
        microseconds: { gmml: summary(ours.map((s) => s * 1e6)), pytorch: summary(pytorch.map((s) => s * 1e6)) },
        best: { gmml: Math.min(...ours) * 1e6, pytorch: Math.min(...pytorch) * 1e6 },
        ratio: summary(ours.map((value, round) => value / pytorch[round]))
      }
    })
    return {
      name: device ? `ops-${device}` : 'ops',
      ...(device && { device }),
      what: 'time per call in microseconds, 4x4 float32, one thread, freeing included; ratio gmml / PyTorch by round: below 1 is faster',
      runtimes: { gmml: gmml.greeting, pytorch: python.greeting },
      rounds,
      scope: gmml.greeting.scope,
      rows
    }
  } finally {
    await Promise.all([gmml.stop(), python.stop()])
  }
}

export function print({ rows, rounds, device = 'cpu' }) {
  const micro = (value) => value.toFixed(2)
  console.log(`\nops on ${device}: microseconds per call, 4x4 float32, one thread; median of ${rounds} rounds (quartiles)`)
  console.log(table(
    ['', 'gmml', 'PyTorch', 'gmml / PyTorch', 'of the best rounds'],
    rows.map(({ name, microseconds, best, ratio }) => [
      name, micro(microseconds.gmml.median), micro(microseconds.pytorch.median), spread(ratio), micro(best.gmml / best.pytorch)
    ])
  ))
  console.log(`median of the ratios: ${median(rows.map(({ ratio }) => ratio.median)).toFixed(2)}`)
}
