import { describe, expect, it } from 'vitest'

import { chooseLabelled, holdOut, openImages, parseLabelBudget, selectImages } from '../../src/data/index.js'
import { photos } from '../train/support.js'
import { stripes } from '../evaluate/support.js'
import { filesOf } from './support.js'

describe('selectImages', () => {
  it('gives some images of IDX files, in the given order', async () => {
    const whole = await openImages(await stripes(9))
    const some = selectImages(whole, [7, 2, 2])
    if (whole.kind !== 'memory' || some.kind !== 'memory') throw new Error('not IDX')
    expect([some.length, [...some.labels!], some.classes]).toEqual([3, [1, 2, 2], whole.classes])
    for (const [to, from] of [7, 2, 2].entries()) {
      expect([...some.images.slice(64 * to, 64 * to + 64)]).toEqual([...whole.images.slice(64 * from, 64 * from + 64)])
      expect(some.name(to)).toBe(whole.name(from))
    }
    expect(() => some.name(3)).toThrow(/from 0 to 2 for index, received 3/)
  })

  it('gives some images of a folder, and of what it gave', async () => {
    const whole = await openImages(await photos())
    const some = selectImages(selectImages(whole, [5, 1, 3]), [2, 0])
    if (whole.kind !== 'encoded' || some.kind !== 'encoded') throw new Error('no folder')
    expect(filesOf(some)).toEqual([whole.name(3), whole.name(5)])
    expect([...some.labels!]).toEqual([whole.labels![3], whole.labels![5]])
    expect(await some.content(1)).toEqual(await whole.content(5))
    expect(() => some.content(2)).toThrow(/from 0 to 1 for index, received 2/)
  })

  it('refuses what is not there', async () => {
    const whole = await openImages(await stripes(3))
    for (const wrong of [3, -1, 0.5, NaN]) expect(() => selectImages(whole, [0, wrong])).toThrow(/integers from 0 to 2 for indices/)
    expect(() => selectImages(whole, [])).toThrow(/at least one position for indices/)
  })
})

describe('parseLabelBudget', () => {
  it('reads parts and numbers', () => {
    expect(parseLabelBudget('1%')).toEqual({ part: 0.01 })
    expect(parseLabelBudget('12.5 %')).toEqual({ part: 0.125 })
    expect(parseLabelBudget('100%')).toEqual({ part: 1 })
    expect(parseLabelBudget('25/class')).toEqual({ perClass: 25 })
  })

  it.each(['', '0%', '101%', '1', '-1%', '0/class', '1.5/class', '1%%', 'all'])('refuses %j', (text) => {
    expect(() => parseLabelBudget(text)).toThrow(/a part like '1%' or a number like '25\/class' for labels/)
  })
})

// 500, 100 and 3 images of classes that are not in order.
const labels = Array.from({ length: 603 }, (_, i) => (i % 200 === 7 ? 2 : i % 6 === 0 ? 1 : 0))
const counts = (positions: ArrayLike<number>) => [0, 1, 2].map((label) => Array.from(positions).filter((i) => labels[i] === label).length)
const sizes = counts(labels.map((_, i) => i))

describe('chooseLabelled', () => {
  it('takes the same part of each class, at least one, each image once', () => {
    for (const part of [0.001, 0.01, 0.1, 0.5, 1]) {
      const chosen = chooseLabelled(labels, { part }, 3)
      expect(counts(chosen)).toEqual(sizes.map((size) => Math.max(1, Math.round(part * size))))
      expect(new Set(chosen).size).toBe(chosen.length)
      expect([...chosen]).toEqual([...chosen].sort((a, b) => a - b))
    }
  })

  it('takes a number of each class, or all of a small one', () => {
    expect(counts(chooseLabelled(labels, { perClass: 5 }, 0))).toEqual([5, 5, 3])
  })

  it('gives with the same seed a part of what a larger budget gives, with another seed others', () => {
    const large = new Set(chooseLabelled(labels, { part: 0.2 }, 1))
    expect([...chooseLabelled(labels, { part: 0.05 }, 1)].every((i) => large.has(i))).toBe(true)
    expect(chooseLabelled(labels, { part: 0.2 }, 1)).toEqual(chooseLabelled(labels, { part: 0.2 }, 1))
    expect(chooseLabelled(labels, { part: 0.2 }, 2)).not.toEqual(chooseLabelled(labels, { part: 0.2 }, 1))
  })

  it('draws every image equally often', () => {
    const drawn = new Int32Array(60)
    const classes = Array.from({ length: 60 }, (_, i) => i % 2)
    for (let seed = 0; seed < 2000; seed++) for (const i of chooseLabelled(classes, { part: 0.1 }, seed)) drawn[i]!++
    // 200 expected; five standard deviations.
    expect(Math.min(...drawn)).toBeGreaterThan(200 - 5 * Math.sqrt(200))
    expect(Math.max(...drawn)).toBeLessThan(200 + 5 * Math.sqrt(200))
  })
})

describe('holdOut', () => {
  it('leaves of each class some, and holds out the part', () => {
    const { kept, heldOut } = holdOut(labels, 0.1, 4)
    expect([...kept, ...heldOut].sort((a, b) => a - b)).toEqual(labels.map((_, i) => i))
    for (const [label, size] of sizes.entries()) {
      expect(Math.abs(counts(heldOut)[label]! - 0.1 * size)).toBeLessThanOrEqual(1)
      expect(counts(kept)[label]).toBeGreaterThanOrEqual(1)
    }
    expect(holdOut(labels, 0.1, 4)).toEqual({ kept, heldOut })
    expect(holdOut(labels, 0.1, 5).heldOut).not.toEqual(heldOut)
  })

  it('keeps one of each class, and refuses what is no part', () => {
    expect(holdOut([0, 1, 2], 0.9, 0)).toEqual({ kept: Int32Array.of(0, 1, 2), heldOut: new Int32Array() })
    for (const part of [0, 1, -1, NaN]) expect(() => holdOut(labels, part, 0)).toThrow(/between 0 and 1 for the part to hold out/)
  })

  it.each([[[40, 40, 20], 0.1], [[3, 3, 3, 3, 3, 3, 3], 0.1], [[1, 1, 100, 2], 0.3], [[5, 0, 9], 0.9], [[1, 1, 1], 0.5], [[10, 2], 0.99]] as const)(
    'of classes of %j rows, %d', (sizes, part) => {
      const labels = sizes.flatMap((size, label) => Array<number>(size).fill(label))
      for (let seed = 0; seed < 20; seed++) {
        const { kept, heldOut } = holdOut(labels, part, seed)
        expect([...kept, ...heldOut].sort((a, b) => a - b)).toEqual(labels.map((_, row) => row))
        let due = 0
        for (const [label, size] of sizes.entries()) {
          const count = heldOut.filter((row) => labels[row] === label).length
          const wanted = Math.min(part * size, Math.max(0, size - 1))
          expect(Math.abs(count - wanted)).toBeLessThan(1)
          expect(count).toBeLessThan(Math.max(size, 1))
          due += wanted
        }
        expect(heldOut).toHaveLength(Math.round(due))
      }
    })

  it('is random, by the seed', () => {
    const labels = Array.from({ length: 300 }, (_, i) => i % 3)
    const rows = (seed: number) => holdOut(labels, 0.2, seed).heldOut
    expect(rows(1)).toEqual(rows(1))
    expect(rows(1)).not.toEqual(rows(2))
    expect(new Set([1, 2, 3, 4, 5, 6].flatMap((seed) => [...rows(seed)])).size).toBeGreaterThan(180)
    // Classes with too few rows take turns.
    const few = (seed: number) => Array.from(holdOut(Array.from({ length: 30 }, (_, i) => i % 10), 0.1, seed).heldOut, (row) => row % 10)
    expect(new Set(Array.from({ length: 30 }, (_, seed) => few(seed)).flat()).size).toBe(10)
  })
})
