import { appendFileSync } from 'node:fs'

import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'

import * as torch from '../../../src/torch/index.js'
import { cases, describeCase, sizeOf, type Case } from './cases.js'
import { compare, type Verdict } from './compare.js'
import { cotangentOf, evaluate, type Observed } from './evaluate.js'
import { evaluateInPython } from './exchange.js'
import { fullName } from './schemas.js'
import { table, type Tested } from './table.js'

const seed = Number(process.env['GMML_PARITY_SEED'] ?? 2026)
const wanted = Number(process.env['GMML_PARITY_CASES'] ?? 6000)
// A call that ends the process is the last one in this file.
const trace = process.env['GMML_PARITY_TRACE']
const perOperator = Math.ceil(wanted / table.length)

torch.setNumThreads(1)

interface Run {
  readonly tested: Case
  readonly here: Observed
}

/** A number of its own for each operator, so that the cases of one do not depend on the others. */
const hash = (text: string): number => [...text].reduce((sum, char) => (Math.imul(sum, 31) + char.codePointAt(0)!) | 0, seed)

/** Cases until enough of them give values. Dtypes and shapes that an operator refuses are compared too, but do not count. */
function draw({ row, schema, styles }: Tested): Run[] {
  const arbitrary = cases(row, schema, styles)
  const runs: Run[] = []
  let values = 0
  for (let round = 0; values < perOperator && round < (values === 0 ? 20 : 4); round++) {
    for (const tested of fc.sample(arbitrary, { seed: hash(schema.text) + round, numRuns: perOperator })) {
      if (values === perOperator) break
      if (trace) appendFileSync(trace, `${describeCase(tested)}\n`)
      const here = evaluate(tested, cotangentOf(tested.seed))
      if (here.error === undefined) values++
      runs.push({ tested, here })
    }
  }
  return runs
}

const family = ({ schema }: Case) => schema.name

interface Judged extends Run {
  readonly python: Observed
  readonly verdict: Verdict
}

describe('PyTorch in Python gives the same', () => {
  let judged: Judged[] = []

  beforeAll(async () => {
    const runs = table.flatMap(draw)
    const references = await evaluateInPython(runs.map(({ tested, here }) => [tested, here]))
    expect(references.length).toBe(runs.length)
    judged = runs.map((run, i) => ({ ...run, python: references[i]!, verdict: compare(run.here, references[i]!, run.tested.row) }))
  }, 600_000)

  it('to the bit, in values and gradients, on every case', () => {
    const smallest = new Map<string, Judged>()
    for (const one of judged.filter(({ verdict }) => verdict.kind === 'different')) {
      const name = fullName(one.tested.schema)
      const known = smallest.get(name)
      if (!known || sizeOf(one.tested) < sizeOf(known.tested)) smallest.set(name, one)
    }
    const report = [...smallest.values()].map(({ tested, verdict }) => `${verdict.difference}\n${describeCase(tested)}`)
    expect(report.join('\n\n'), `GMML_PARITY_SEED=${seed} GMML_PARITY_CASES=${wanted}: the smallest failing case of each operator`).toBe('')
  })

  it('on enough operators and cases', () => {
    const equal = judged.filter(({ verdict }) => verdict.kind === 'equal')
    const count = {
      families: new Set(equal.map(({ tested }) => family(tested))).size,
      operators: new Set(equal.map(({ tested }) => tested.schema.text)).size,
      cases: equal.length,
      gradients: equal.filter(({ verdict }) => verdict.gradients).length,
      raised: judged.filter(({ verdict }) => verdict.kind === 'both raised').length
    }
    console.log(`seed ${seed}: ${JSON.stringify(count)}`)
    const silent = table.filter(({ schema }) => !equal.some(({ tested }) => tested.schema === schema)).map(({ schema }) => fullName(schema))
    expect(silent, 'operators of the table without a single value').toEqual([])
    expect(count.families).toBeGreaterThanOrEqual(350)
    expect(count.cases).toBeGreaterThanOrEqual(5000)
    expect(count.gradients).toBeGreaterThanOrEqual(2000)
  })
})
