import { afterEach, beforeEach, expect, it, vi } from 'vitest'

import { StepClock } from '../../src/train/step-clock.js'
import { TimeMark } from '../../src/train/time-mark.js'

let time = 0
beforeEach(() => {
  time = 1000
  vi.spyOn(performance, 'now').mockImplementation(() => time)
})
afterEach(() => void vi.restoreAllMocks())

const mark = (at: number) => {
  time = at
  return new TimeMark('cpu')
}
/** A step of four images from `start` to `end`, for which the host waited. */
const step = (start: number, end: number, waited: number) =>
  ({ step: 1, loss: 0, finite: true, indices: [0, 1, 2, 3], waited, start: mark(start), end: mark(end) })

it('images per second and the part of the time that images were waited for', () => {
  const clock = new StepClock('cpu')
  time = 1010
  clock.wantBatch()
  time = 1110
  const waited = clock.gotBatch()
  expect(waited).toBe(100)
  // A wait of 100 ms, and 10 ms of other work: 390 ms of computing.
  clock.count(step(1110, 1500, waited))
  expect(clock.lap()).toEqual({ imagesPerSecond: 4 / 0.5, dataShare: 100 / 500 })
})

it('only the steps since the last lap, each from the end of the one before', () => {
  const clock = new StepClock('cpu')
  clock.count(step(1000, 2000, 900))
  clock.lap()
  clock.count(step(2100, 2300, 50))
  clock.count(step(2300, 2700, 0))
  expect(clock.lap()).toEqual({ imagesPerSecond: 8 / 0.7, dataShare: 50 / 700 })
})

it('a wait counts as far as the device had nothing to do: that of a host far ahead costs nothing', () => {
  const clock = new StepClock('cpu')
  clock.count(step(1000, 2000, 300))
  clock.count(step(2020, 3000, 700))
  expect(clock.lap()).toEqual({ imagesPerSecond: 8 / 2, dataShare: 20 / 2000 })
  // Images that the device makes itself are waited for without end.
  clock.count(step(3050, 4000, Infinity))
  expect(clock.lap()).toEqual({ imagesPerSecond: 4, dataShare: 50 / 1000 })
})
