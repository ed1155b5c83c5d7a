import { expected } from '../errors.js'

/** Gives a value for each step, counted from 0. */
export type Schedule = (step: number) => number

/** Ends and length of a {@link cosineSchedule}. */
export interface CosineOptions {
  /** Value after the warm-up. */
  readonly base: number
  /** Value that the cosine ends at. */
  readonly final: number
  /** Steps in all, warm-up included. */
  readonly steps: number
  /** Steps of linear warm-up. Default 0. */
  readonly warmupSteps?: number
  /** Value that the warm-up starts from. Default 0. */
  readonly start?: number
}

/** Linear warm-up from `start` to `base`, then half a cosine from `base` to `final`, as DINO and GMML schedule lr and weight decay. */
export function cosineSchedule({ base, final, steps, warmupSteps = 0, start = 0 }: CosineOptions): Schedule {
  if (!Number.isInteger(steps) || steps < 1) throw expected('an integer of at least 1', 'steps', steps)
  if (!Number.isInteger(warmupSteps) || warmupSteps < 0) throw expected('an integer of at least 0', 'warmupSteps', warmupSteps)
  return (step) => {
    // The warm-up reaches `base` at its last step.
    if (step < warmupSteps) return warmupSteps === 1 ? base : start + ((base - start) * step) / (warmupSteps - 1)
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, steps - warmupSteps))
    return final + ((base - final) * (1 + Math.cos(Math.PI * progress))) / 2
  }
}
