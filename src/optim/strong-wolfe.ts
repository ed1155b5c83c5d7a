import type { Tensor } from '../torch/index.js'

/** A place on the line that is searched. */
export interface Trial {
  /** Distance along the direction. */
  readonly at: number
  readonly loss: number
  readonly gradient: Tensor
  /** Derivative of the loss along the direction. */
  readonly slope: number
}

/** The line from a point along a direction. */
export interface Line {
  readonly start: Trial
  /** Largest absolute element of the direction. */
  readonly length: number
  /** Loss and gradient at a place on it. */
  evaluate(at: number): Trial
}

interface Bracket {
  /** One place that is good, or two with one between them. */
  readonly ends: [Trial] | [Trial, Trial]
  readonly trials: number
}

// The usual constants for quasi-Newton methods: sufficient decrease, curvature, and the bracket that is too small to divide.
const DECREASE = 1e-4
const CURVATURE = 0.9
const SMALLEST = 1e-9

// A loss that is not a number counts as too high, or the search would go on from there.
const decreases = ({ start }: Line, trial: Trial) => trial.loss <= start.loss + DECREASE * trial.at * start.slope
const lowerOf = ([one, other]: readonly [Trial, Trial]) => (one.loss <= other.loss || Number.isNaN(other.loss) ? 0 : 1)
const isFlat = ({ start }: Line, trial: Trial) => Math.abs(trial.slope) <= -CURVATURE * start.slope

/**
 * Searches a line for a place that satisfies the strong Wolfe conditions: sufficient decrease, and a slope much flatter than at the start
 * (Nocedal & Wright, Numerical Optimization, algorithms 3.5 and 3.6). Trial by trial as PyTorch's L-BFGS does it,
 * but for a loss of NaN.
 *
 * @param first - The place to try first.
 * @param limit - Trials after the first one.
 * @returns The best place, and how many were tried. Gradients of the others are freed.
 */
export function strongWolfe(line: Line, first: number, limit: number): { readonly best: Trial; readonly evaluations: number } {
  const bracket = findBracket(line, first, limit)
  const { ends, trials } = bracket.ends.length === 1 ? bracket : divide(line, bracket.ends, bracket.trials, limit)
  const best = ends.length === 1 ? ends[0] : ends[lowerOf(ends)]
  for (const end of ends) if (end !== best) free(line, end)
  return { best, evaluations: trials + 1 }
}

/** Goes ahead, further each time, until a place is good or the way there has passed one. */
function findBracket(line: Line, first: number, limit: number): Bracket {
  let previous = line.start
  let current = line.evaluate(first)
  for (let trials = 0; trials < limit; trials++) {
    const rises = trials > 1 && current.loss >= previous.loss
    if (!decreases(line, current) || rises) return { ends: [previous, current], trials }
    if (isFlat(line, current)) {
      free(line, previous)
      return { ends: [current], trials }
    }
    if (current.slope >= 0) return { ends: [previous, current], trials }
    const next = lowestOfCubic(previous, current, current.at + 0.01 * (current.at - previous.at), current.at * 10)
    free(line, previous)
    previous = current
    current = line.evaluate(next)
  }
  free(line, previous)
  return { ends: [line.start, current], trials: limit }
}

/** Divides a bracket until an end of it is good, it is tiny, or the trials are used up. */
function divide(line: Line, [one, other]: [Trial, Trial], trials: number, limit: number): Bracket {
  const ends: [Trial, Trial] = [one, other]
  let low: 0 | 1 = lowerOf(ends)
  let stuck = false
  for (; trials < limit; trials++) {
    const [left, right] = ends[0].at < ends[1].at ? ends : [ends[1], ends[0]]
    if ((right.at - left.at) * line.length < SMALLEST) break
    let at: number = lowestOfCubic(left, right, left.at, right.at)
    // Close to an end twice, or at it: a tenth of the bracket away from it instead.
    const margin = 0.1 * (right.at - left.at)
    const isClose = Math.min(right.at - at, at - left.at) < margin
    const moves: boolean = isClose && (stuck || at >= right.at || at <= left.at)
    if (moves) at = Math.abs(at - right.at) < Math.abs(at - left.at) ? right.at - margin : left.at + margin
    stuck = isClose && !moves

    const trial = line.evaluate(at)
    const high = low === 0 ? 1 : 0
    if (!decreases(line, trial) || trial.loss >= ends[low].loss) {
      free(line, ends[high])
      ends[high] = trial
      low = lowerOf(ends)
      continue
    }
    const isGood = isFlat(line, trial)
    const turned = !isGood && trial.slope * (ends[high].at - ends[low].at) >= 0
    free(line, ends[turned ? high : low])
    if (turned) ends[high] = ends[low]
    ends[low] = trial
    if (isGood) return { ends, trials: trials + 1 }
  }
  return { ends, trials }
}

function free(line: Line, trial: Trial): void {
  if (trial !== line.start) trial.gradient.dispose()
}

/** The lowest place, within bounds, of the cubic with the losses and slopes of two places; the middle where it has none. */
function lowestOfCubic(one: Trial, other: Trial, least: number, most: number): number {
  const [left, right] = one.at <= other.at ? [one, other] : [other, one]
  const a = left.slope + right.slope - (3 * (left.loss - right.loss)) / (left.at - right.at)
  const square = a ** 2 - left.slope * right.slope
  if (!(square >= 0)) return (least + most) / 2
  const b = Math.sqrt(square)
  const at = right.at - (right.at - left.at) * ((right.slope + b - a) / (right.slope - left.slope + 2 * b))
  return Math.min(Math.max(at, least), most)
}
