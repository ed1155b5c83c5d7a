// The tables of bench/device/step.mjs.
import { spread, table } from '../statistics.mjs'

const part = (value) => (value === null ? '' : `${(100 * value).toFixed(1)} %`)
const mib = (value) => (value === null || value === undefined ? '' : value.toFixed(0))
const scientific = (value) => value.toExponential(1)

export function print({ rows, skipped, device, tolerance }) {
  for (const { name, batch, rounds, checked, disagree, matmul, bestGmml, results, skipped: left } of rows) {
    const product = matmul ? `; bfloat16 product of ${matmul.size}: ${matmul.teraflops.toFixed(matmul.teraflops < 10 ? 2 : 0)} TFLOP/s` : ''
    console.log(`\nstep on ${device}: ${name}, ${batch} crops, bfloat16; median of ${rounds} rounds (quartiles)${product}`)
    for (const { side, float32, bfloat16, agrees } of checked.sides) {
      const apart = [['float32', float32], ['bfloat16', bfloat16]].flatMap(([precision, found]) =>
        found ? [`${precision} ${scientific(found.largest)} (mean ${scientific(found.mean)})`] : [])
      console.log(`  losses, ${side}, from ${checked.reference}: ${apart.join(', ')}${agrees ? '' : '  DISAGREE'}`)
    }
    if (disagree.length) console.log(`  above ${JSON.stringify(tolerance)}: the times of ${disagree.join(', ')} are of something else`)
    console.log(table(
      ['', 'crops/s', bestGmml ? `${bestGmml} is faster by` : '', 'MFU', 'reserved MiB', 'allocated MiB', 'host ms', 'ready in s'],
      results.map(({ side, cropsPerSecond, bestGmmlFaster, mfu, reservedMiB, allocatedMiB, hostMilliseconds, readySeconds }) => [
        side, spread(cropsPerSecond, 0), bestGmmlFaster ? spread(bestGmmlFaster) : '', part(mfu), mib(reservedMiB), mib(allocatedMiB),
        spread(hostMilliseconds), readySeconds.toFixed(0)
      ])
    ))
    for (const { side, reason } of left) console.log(`  not measured: ${side}: ${reason}`)
  }
  for (const { case: name, side, reason } of skipped) console.log(`not measured: ${name ?? side}: ${reason}`)
}
