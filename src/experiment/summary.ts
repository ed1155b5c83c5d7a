import type { Score } from '../evaluate/index.js'
import type { Arm, Cell } from './plan.js'

/** Accuracies of repetitions. */
export interface Spread {
  readonly values: readonly number[]
  readonly mean: number
  /** Standard deviation of a sample; null for a single value. */
  readonly deviation: number | null
}

export function spreadOf(values: readonly number[]): Spread {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return { values: [...values], mean, deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : null }
}

/** What was found for one arm at one label budget. */
export interface Row {
  readonly arm: Arm
  readonly labels: string
  /** Labelled images. */
  readonly images: number
  readonly epochs: number
  /** Of the finetunings that came to their end; null if none did. */
  readonly accuracy: Spread | null
  /** How many did not: their loss or gradients were not finite. */
  readonly diverged: number
}

/** A finetuning that was done. */
export interface Finished {
  readonly cell: Cell
  readonly images: number
  /** Null if it diverged. */
  readonly score: Score | null
}

/** Mean and spread over the seeds, in the order of the finetunings. */
export function summarise(finished: readonly Finished[]): Row[] {
  const groups = new Map<string, Finished[]>()
  for (const one of finished) {
    const key = `${one.cell.labels} ${one.cell.arm}`
    groups.set(key, [...(groups.get(key) ?? []), one])
  }
  return [...groups.values()].map((group) => {
    const { cell: { arm, labels, epochs }, images } = group[0]!
    const accuracies = group.flatMap(({ score }) => score?.accuracy ?? [])
    return {
      arm, labels, images, epochs, accuracy: accuracies.length > 0 ? spreadOf(accuracies) : null, diverged: group.length - accuracies.length
    }
  })
}
