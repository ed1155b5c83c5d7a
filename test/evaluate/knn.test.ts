import { describe, expect, it } from 'vitest'

import { accuracy, knnPredict, knnScores } from '../../src/evaluate/index.js'
import * as torch from '../../src/torch/index.js'

torch.setNumThreads(1)

interface Options {
  readonly k: number
  readonly temperature: number
  readonly centre?: boolean
}

/**
 * DINO's votes row by row in plain JavaScript: each of the k nearest gives its class exp(similarity / temperature). Source:
 * `knn_classifier` of its `eval_knn.py`.
 */
function votesOf(features: number[][], labels: readonly number[], queries: number[][], classes: number, options: Options): number[][] {
  const { k, temperature, centre = false } = options
  const mean = features[0]!.map((_, i) => (centre ? features.reduce((sum, row) => sum + row[i]!, 0) / features.length : 0))
  const unit = (row: number[]) => {
    const centred = row.map((value, i) => value - mean[i]!)
    const norm = Math.hypot(...centred)
    return centred.map((value) => value / norm)
  }
  const bank = features.map(unit)
  return queries.map((query) => {
    const row = unit(query)
    const similar = bank.map((other, i) => ({ similarity: other.reduce((sum, value, j) => sum + value * row[j]!, 0), label: labels[i]! }))
    similar.sort((a, b) => b.similarity - a.similarity)
    const votes = Array<number>(classes).fill(0)
    for (const { similarity, label } of similar.slice(0, k)) votes[label]! += Math.exp(similarity / temperature)
    return votes
  })
}

const reference = (...inputs: Parameters<typeof votesOf>) => votesOf(...inputs).map((votes) => votes.indexOf(Math.max(...votes)))

function random(rows: number, classes: number, shift = 0) {
  torch.manualSeed(rows + classes)
  const width = 6
  const labels = Array.from({ length: rows }, (_, i) => (i * 7) % classes)
  const features = torch.randn([rows, width]).add(shift)
  const queries = torch.randn([1500, width]).add(shift)
  return { features, labels, queries, rows: features.toArray() as number[][], queryRows: queries.toArray() as number[][] }
}

const cases: readonly [name: string, rows: number, classes: number, shift: number, options: Options][] = [
  ['the usual options', 300, 5, 0, { k: 20, temperature: 0.07 }],
  ['one neighbour', 300, 5, 0, { k: 1, temperature: 0.07 }],
  ['k larger than the bank', 9, 3, 0, { k: 20, temperature: 0.07 }],
  ['a high temperature: a plain vote', 200, 2, 0, { k: 9, temperature: 50 }],
  ['a low temperature', 300, 5, 0, { k: 20, temperature: 0.02 }],
  ['features far from the origin', 300, 5, 4, { k: 20, temperature: 0.07 }],
  ['features far from the origin, centred', 300, 5, 4, { k: 20, temperature: 0.07, centre: true }]
]

describe('knnPredict', () => {
  it.each(cases)('equals the same in plain JavaScript: %s', (_, rows, classes, shift, options) => {
    const { features, labels, queries, rows: bank, queryRows } = random(rows, classes, shift)
    const predicted = knnPredict({ features, labels }, queries, classes, options)
    const wanted = reference(bank, labels, queryRows, classes, options)
    // Nearly equal votes may fall either way in float32.
    const differing = wanted.filter((label, i) => label !== predicted[i]).length
    expect(differing).toBeLessThanOrEqual(shift && !options.centre ? 6 : 2)
    expect(new Set(predicted).size).toBe(classes)
  })

  it('the options matter', () => {
    const { features, labels, queries } = random(300, 5, 4)
    const predict = (options: Options) => [...knnPredict({ features, labels }, queries, 5, options)]
    const usual = predict({ k: 20, temperature: 0.07 })
    for (const other of [{ k: 3, temperature: 0.07 }, { k: 20, temperature: 0.0005 }, { k: 20, temperature: 0.07, centre: true }]) {
      const same = predict(other).filter((label, i) => label === usual[i]).length
      expect(same).toBeLessThan(1450)
    }
    expect([...knnPredict({ features, labels }, queries, 5)]).toEqual(usual)
  })

  it('stays finite at a temperature that exp(1 / temperature) is not: the nearest decides', () => {
    const { features, labels, queries } = random(300, 5)
    const nearest = [...knnPredict({ features, labels }, queries, 5, { k: 1 })]
    expect([...knnPredict({ features, labels }, queries, 5, { k: 20, temperature: 1e-5 })]).toEqual(nearest)
  })

  it('does not mind features of 16 bits, zeros, or autograd, and leaves nothing behind', () => {
    const { features, labels, queries } = random(300, 5)
    const wanted = knnPredict({ features, labels }, queries, 5)
    const half = knnPredict({ features: features.to('bfloat16').requiresGrad_(), labels }, queries, 5)
    expect([...half].filter((label, i) => label === wanted[i]).length).toBeGreaterThan(1350)
    const { tensors } = torch.memory()
    expect(knnPredict({ features, labels: Int32Array.from(labels) }, queries.mul(0), 5)).toHaveLength(1500)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors + 1) // queries.mul(0)
  })

  it('refuses what is not legal', () => {
    const features = torch.randn([4, 3])
    const known = { features, labels: [0, 1, 0, 1] }
    const queries = torch.randn([2, 3])
    const refused: readonly [() => unknown, RegExp][] = [
      [() => knnPredict(known, queries, 2, { k: 0 }), /at least 1 for k, received 0/],
      [() => knnPredict(known, queries, 2, { k: 1.5 }), /for k, received 1.5/],
      [() => knnPredict(known, queries, 2, { temperature: 0 }), /above 0 for temperature, received 0/],
      [() => knnPredict(known, queries, 2, { temperature: NaN }), /above 0 for temperature, received NaN/],
      [() => knnPredict({ features, labels: [0, 1] }, queries, 2), /4 labels for labels, received 2/],
      [() => knnPredict({ features, labels: [0, 1, 2, 1] }, queries, 2), /classes from 0 to 1 for labels, received 2/],
      [() => knnPredict({ features, labels: [0, -1, 0, 1] }, queries, 2), /classes from 0 to 1 for labels, received -1/],
      [() => knnPredict({ features: torch.zeros([0, 3]), labels: [] }, queries, 2), /at least one row \[N, D\] for the training features/],
      [() => knnPredict(known, torch.randn([2, 4]), 2), /shape \[M, 3\] for queries, received 'shape \[2, 4\]'/]
    ]
    for (const [attempt, message] of refused) expect(attempt).toThrow(message)
    expect(knnPredict(known, torch.zeros([0, 3]), 2)).toHaveLength(0)
  })
})

describe('knnScores', () => {
  it.each(cases)('are DINO\'s votes, by a factor for each row: %s', (_, rows, classes, shift, options) => {
    const { features, labels, queries, rows: bank, queryRows } = random(rows, classes, shift)
    const scores = knnScores({ features, labels }, queries, classes, options)
    expect([scores.shape, scores.dtype]).toEqual([[1500, classes], 'float32'])
    const share = (votes: readonly number[]) => votes.map((vote) => vote / votes.reduce((sum, other) => sum + other))
    const wanted = votesOf(bank, labels, queryRows, classes, options).map(share)
    const got = (scores.toArray() as number[][]).map(share)
    // A neighbour at the edge of the k nearest may be another one in float32, and a vote is as exact as a similarity by the temperature.
    const far = got.filter((votes, i) => votes.some((vote, j) => Math.abs(vote - wanted[i]![j]!) > 1e-5 / options.temperature + 1e-6))
    expect(far.length).toBeLessThanOrEqual(shift && !options.centre ? 8 : 2)
  })

  it('their order is the votes\' order to the last class, and their highest is the prediction', () => {
    const { features, labels, queries, rows: bank, queryRows } = random(300, 12)
    const options = { k: 30, temperature: 0.07 }
    const scores = knnScores({ features, labels }, queries, 12, options)
    const order = scores.sort({ stable: true, dim: 1, descending: true })[1].toArray() as number[][]
    const ranked = (votes: number[]) => votes.map((_, i) => i).sort((a, b) => votes[b]! - votes[a]! || a - b)
    const wanted = votesOf(bank, labels, queryRows, 12, options).map(ranked)
    expect(order.filter((row, i) => String(row) !== String(wanted[i])).length).toBeLessThanOrEqual(8)
    expect([...knnPredict({ features, labels }, queries, 12, options)]).toEqual(order.map(([first]) => first))
  })

  it('classes without a vote have 0 and rank last by number, also where the votes are tiny', () => {
    const features = torch.tensor([[1, 0], [0.8, 0.6], [-1, 0], [0, 1]])
    const known = { features, labels: [4, 2, 5, 0] }
    const queries = torch.tensor([[1, 0], [-1, 0.01]])
    for (const temperature of [0.07, 1e-4, 50]) {
      const scores = knnScores(known, queries, 7, { k: 3, temperature })
      const [first] = scores.toArray() as [number[]]
      expect(first.map((score) => score > 0)).toEqual([true, false, true, false, true, false, false])
      const order = scores.sort({ stable: true, dim: 1, descending: true })[1].select(0, 0).toArray() as number[]
      expect(order.slice(3)).toEqual([1, 3, 5, 6])
      if (temperature === 0.07) expect(order.slice(0, 3)).toEqual([4, 2, 0])
    }
    // Equal votes are for the lower number.
    const twins = { features: torch.tensor([[1, 0], [1, 0]]), labels: [3, 1] }
    expect([...knnPredict(twins, torch.tensor([[2, 0]]), 4)]).toEqual([1])
  })

  it('the nearest neighbour gives 1', () => {
    const known = { features: torch.tensor([[1, 0], [0, 1]]), labels: [0, 1] }
    const [[nearest, other]] = knnScores(known, torch.tensor([[3, 0]]), 2, { temperature: 0.5 }).toArray() as [[number, number]]
    expect(nearest).toBe(1)
    expect(other).toBeCloseTo(Math.exp(-2), 6)
  })

  it('leaves one tensor, has a row for no query, and refuses other similarities', () => {
    const { features, labels, queries } = random(300, 5)
    const { tensors } = torch.memory()
    const scores = knnScores({ features: features.requiresGrad_(), labels }, queries, 5)
    expect(scores.requiresGrad).toBe(false)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors + 1)
    scores.dispose()
    expect(knnScores({ features, labels }, torch.zeros([0, 6]), 5).shape).toEqual([0, 5])
    const other = { similarity: 'dot' as never }
    expect(() => knnScores({ features, labels }, queries, 5, other)).toThrow(/'cosine' for similarity, received 'dot'/)
    expect(() => knnScores({ features, labels }, queries, 5, { k: 0 })).toThrow(/at least 1 for k, received 0/)
    expect(() => knnScores({ features, labels }, queries, 3)).toThrow(/classes from 0 to 2 for labels, received 4/)
  })
})

describe('accuracy', () => {
  it('is the part that is right', () => {
    expect(accuracy([1, 2, 3, 4], Int32Array.from([1, 0, 3, 0]))).toBe(0.5)
    expect(() => accuracy([1], [1, 2])).toThrow(/2 predictions, one for each label, for predicted, received 1/)
    expect(() => accuracy([], [])).toThrow(/at least one label/)
  })
})
