import { describe, expect, it } from 'vitest'

import { scoreOf, wilsonInterval } from '../../src/evaluate/index.js'
import { combineScores } from '../../src/evaluate/score.js'
import * as torch from '../../src/torch/index.js'

const names = (count: number) => Array.from({ length: count }, (_, i) => `class ${i}`)

describe('wilsonInterval', () => {
  // By statsmodels 0.14, proportion_confint(correct, images, method='wilson').
  it.each([
    [8, 10, 0.490162, 0.943318],
    [0, 10, 0, 0.277533],
    [10, 10, 0.722467, 1],
    [1, 1, 0.206549, 1],
    [9550, 10000, 0.950756, 0.958894]
  ])('of %d of %d', (correct, images, low, high) => {
    const [from, to] = wilsonInterval(correct, images)
    expect(from).toBeCloseTo(low, 5)
    expect(to).toBeCloseTo(high, 5)
  })

  it('refuses what is no count', () => {
    expect(() => wilsonInterval(0, 0)).toThrow(/at least 1 for images/)
    expect(() => wilsonInterval(3, 2)).toThrow(/from 0 to 2 for correct/)
  })
})

it('two scores together are that of all images', () => {
  torch.manualSeed(1)
  for (const classes of [3, 8]) {
    const scores = torch.randn([301, classes])
    const labels = Array.from({ length: 301 }, (_, i) => (i * 7) % classes)
    const part = (from: number, to: number) => scoreOf(scores.narrow(0, from, to - from), labels.slice(from, to), names(classes))
    const whole = part(0, 301)
    expect([part(0, 100), part(100, 101), part(101, 301)].reduce(combineScores)).toEqual(whole)
  }
})

describe('scoreOf', () => {
  it('agrees with a count by hand', () => {
    torch.manualSeed(0)
    const scores = torch.randn([200, 8])
    const labels = Array.from({ length: 200 }, (_, i) => (i * 7) % 8)
    const { tensors } = torch.memory()
    const score = scoreOf(scores, labels, names(8))
    expect(torch.memory().tensors).toBe(tensors)
    const rows = scores.toArray() as number[][]
    const ranked = rows.map((row) => row.map((value, i) => [value, i] as const).sort((a, b) => b[0] - a[0]).map(([, i]) => i))
    expect(score.accuracy).toBe(ranked.filter((order, i) => order[0] === labels[i]).length / 200)
    expect(score.top5).toBe(ranked.filter((order, i) => order.slice(0, 5).includes(labels[i]!)).length / 200)
    expect(score.interval).toEqual(wilsonInterval(score.accuracy * 200, 200))
    for (let truth = 0; truth < 8; truth++) {
      for (let predicted = 0; predicted < 8; predicted++) {
        const count = ranked.filter((order, i) => labels[i] === truth && order[0] === predicted).length
        expect(score.confusion[truth]![predicted]).toBe(count)
      }
    }
    scores.dispose()
  })

  it('takes the lower class of equal ones, has no top-5 of five classes, and takes infinite scores', () => {
    const score = scoreOf(torch.tensor([[1, 1, 0], [-Infinity, 0, 0], [0, 0, Infinity]]), [0, 1, 2], names(3))
    expect([score.accuracy, score.top5]).toEqual([1, null])
    expect(scoreOf(torch.zeros([1, 5]), [4], names(5)).top5).toBeNull()
    expect(scoreOf(torch.zeros([1, 6]), [5], names(6)).top5).toBe(0)
    expect(scoreOf(torch.zeros([1, 6]), [4], names(6)).top5).toBe(1)
  })

  it('refuses what does not go together', () => {
    const scores = torch.zeros([2, 3])
    expect(() => scoreOf(scores, [0], names(3))).toThrow(/as many as labels \(1\), for scores, received 'shape \[2, 3\]'/)
    expect(() => scoreOf(scores, [0, 3], names(3))).toThrow(/classes from 0 to 2 for labels, received 3/)
    expect(() => scoreOf(scores, [0, 1], names(2))).toThrow(/one score for each of 2 classes for scores/)
    expect(() => scoreOf(torch.zeros([0, 3]), [], names(3))).toThrow(/at least one row/)
    expect(() => scoreOf(torch.tensor([[0, NaN, 1]]), [0], names(3))).toThrow(/not numbers \(NaN\)/)
  })
})
