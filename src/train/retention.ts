/** What decides whether a checkpoint stays. */
export interface Kept {
  readonly step: number
  /** Epochs done, where it was written at the end of one; else null. */
  readonly epochEnd: number | null
  /** Mean loss of the epoch that it ends. */
  readonly loss: number | null
  /** On held-out images, where it was measured. */
  readonly accuracy: number | null
}

export interface RetentionRule {
  /** The newest ones. */
  readonly keepLast: number
  /** Those at the end of every so many epochs; 0 = none. */
  readonly keepEvery: number
  /** The one with the highest accuracy on held-out images; where that is not measured, with the lowest loss. */
  readonly keepBest: boolean
}

/** The best of some checkpoints, if one was written at the end of an epoch. Of equals the newest. */
export function best<T extends Kept>(checkpoints: readonly T[]): T | null {
  const measured = checkpoints.filter(({ accuracy }) => accuracy !== null)
  const candidates = measured.length ? measured : checkpoints.filter(({ epochEnd, loss }) => epochEnd !== null && loss !== null)
  const score = ({ accuracy, loss }: T) => (measured.length ? accuracy! : -loss!)
  return candidates.reduce<T | null>((top, one) => (top === null || score(one) >= score(top) ? one : top), null)
}

/** Those of the checkpoints, in the order of their steps, that the rule lets go. */
export function superfluous<T extends Kept>(checkpoints: readonly T[], rule: RetentionRule): T[] {
  const newest = new Set(checkpoints.slice(-rule.keepLast))
  const top = rule.keepBest ? best(checkpoints) : null
  const regular = ({ epochEnd }: T) => epochEnd !== null && rule.keepEvery > 0 && epochEnd % rule.keepEvery === 0
  return checkpoints.filter((one) => !newest.has(one) && one !== top && !regular(one))
}
