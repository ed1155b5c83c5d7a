import { holdOut } from '../data/index.js'
import { expected } from '../errors.js'
import * as torch from '../torch/index.js'
import { keep, noGrad, scope, type Tensor } from '../torch/index.js'
import { type Classifiers, type Fit, fitOf, type ProbeSettings, type Rows } from './classifier.js'
import { type Labelled, requireLabelled, requireWidth } from './knn.js'
import { fitByLbfgs, type LbfgsOptions } from './probe-lbfgs.js'
import { fitBySgd, type SgdOptions } from './probe-sgd.js'

export type { ProbeSettings } from './classifier.js'

/** How far training is: settings by L-BFGS, epochs by SGD. */
export interface ProbeProgress {
  /** `sweep`: all settings, on a part of the rows. `final`: the chosen ones, on all rows. */
  readonly phase: 'sweep' | 'final'
  readonly done: number
  readonly total: number
}

/** How a linear probe is trained, and what its settings are chosen from. */
export interface LinearProbeOptions extends LbfgsOptions, SgdOptions {
  /** `lbfgs`: the optimum of the logistic regression. `sgd`: for features of more rows than one can go through often. Default lbfgs. */
  readonly method?: 'lbfgs' | 'sgd'
  /**
   * L2 penalties to choose from: `weightDecay / 2 * |W|^2` is added to the mean cross entropy of the (standardised) features. A single one
   * (by SGD, beside a single learning rate) is taken as it is: no rows are held out. Default by L-BFGS 1e-6, 1e-5 ... 10; by SGD
   * 0, 1e-4, 1e-3, 0.01.
   */
  readonly weightDecays?: readonly number[]
  /** By SGD: step sizes at the beginning to choose from. Default 0.001, 0.003, 0.01, 0.03, 0.1, 0.3. */
  readonly learningRates?: readonly number[]
  /** Part of the training rows, of each class, that is held out to choose by. Default 0.1. */
  readonly validation?: number
  /** Bring each feature to mean 0 and variance 1 over the training rows, as MAE (arXiv 2111.06377) does by a BatchNorm. Default true. */
  readonly standardise?: boolean
  /** Decides the rows that are held out, and by SGD the order of the rows. Default 0. */
  readonly seed?: number
  /** Told of the progress, in between. */
  readonly onProgress?: (progress: ProbeProgress) => void
}

/** Settings, and what the held-out rows say of them. */
export interface ProbeTrial extends ProbeSettings, Fit {}

/** A linear classifier on features. */
export interface LinearProbe {
  /** [C, D], for the features as they are: what standardises them is in it. */
  readonly weight: Tensor
  /** [C]. */
  readonly bias: Tensor
  readonly chosen: ProbeSettings
  /** What the chosen settings reached on the rows held out; null where there was nothing to choose. */
  readonly heldOut: { readonly accuracy: number; readonly loss: number; readonly images: number } | null
  /** All settings. Empty where there was nothing to choose. */
  readonly sweep: readonly ProbeTrial[]
  /** Logits [M, C] of features [M, D]. @throws InputError for features of another width. */
  scores(features: Tensor): Tensor
  /** Frees weight and bias. */
  dispose(): void
}

// MAE's BatchNorm adds this to the variance; a feature that is constant stays finite.
const EPSILON = 1e-6

type Choices = Required<Omit<LinearProbeOptions, 'onProgress'>>

function withDefaults({ onProgress: _, ...options }: LinearProbeOptions): Choices {
  const { method = 'lbfgs' } = options
  const weightDecays = method === 'sgd' ? [0, 1e-4, 1e-3, 0.01] : [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10]
  const defaults = {
    method, weightDecays, learningRates: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3], validation: 0.1, standardise: true, seed: 0,
    tolerance: 1e-4, maxIterations: 1000, epochs: 30, batchSize: 256
  }
  return { ...defaults, ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) }
}

const ONLY = { lbfgs: ['tolerance', 'maxIterations'], sgd: ['learningRates', 'epochs', 'batchSize'] } as const

function check(given: LinearProbeOptions, choices: Choices): void {
  const { method, weightDecays, learningRates, validation, standardise, seed, tolerance, maxIterations, epochs, batchSize } = choices
  if (method !== 'lbfgs' && method !== 'sgd') throw expected(`'lbfgs' or 'sgd'`, 'method', method)
  for (const name of ONLY[method === 'lbfgs' ? 'sgd' : 'lbfgs']) {
    if (given[name] !== undefined) throw expected(`nothing beside method '${method}'`, name, given[name])
  }
  for (const [name, values] of Object.entries({ weightDecays, learningRates })) {
    if (!Array.isArray(values) || values.length === 0) throw expected('one or more numbers', name, values)
    const illegal = (values as number[]).find((value) => !(typeof value === 'number' && value >= 0 && Number.isFinite(value)))
    if (illegal !== undefined) throw expected('numbers of at least 0', name, illegal)
  }
  const isPart = typeof validation === 'number' && validation > 0 && validation < 1
  if (!isPart) throw expected('a number between 0 and 1', 'validation', validation)
  if (typeof standardise !== 'boolean') throw expected('a boolean', 'standardise', standardise)
  if (!Number.isSafeInteger(seed)) throw expected('an integer', 'seed', seed)
  if (!(typeof tolerance === 'number' && tolerance >= 0)) throw expected('a number of at least 0', 'tolerance', tolerance)
  for (const [name, value] of Object.entries({ maxIterations, epochs, batchSize })) {
    if (!Number.isInteger(value) || value < 1) throw expected('an integer of at least 1', name, value)
  }
}

/**
 * Learns a linear classifier on features, the usual measure of what a representation is worth. Settings are chosen by a part of the
 * training rows that is held out, then the classifier is learned anew on all training rows. Test rows have no part in it.
 *
 * The same seed gives the same classifier, and the global generator is left alone. Synchronous: it may take minutes.
 *
 * @param train - Features [N, D] and the classes of their rows. Computed in float64 if they are, else in float32, on their device, on a
 *   copy of them.
 * @param classes - Number of classes. A class without rows is learned to be unlikely.
 * @returns The classifier. Dispose of it when done.
 * @throws InputError for options, labels or shapes that are not legal, features that are not finite, and too few rows to hold some out.
 */
export function trainLinearProbe(train: Labelled, classes: number, options: LinearProbeOptions = {}): LinearProbe {
  const choices = withDefaults(options)
  check(options, choices)
  if (!Number.isInteger(classes) || classes < 1) throw expected('an integer of at least 1', 'classes', classes)
  requireLabelled(train, classes)
  const settings = settingsOf(choices)
  const fit = (rows: Rows, settings: readonly ProbeSettings[], start: Classifiers | null, phase: ProbeProgress['phase']) => {
    const report = (done: number, total: number) => options.onProgress?.({ phase, done, total })
    return choices.method === 'lbfgs'
      ? fitByLbfgs(rows, classes, settings, choices, start, report)
      : fitBySgd(rows, classes, settings as Required<ProbeSettings>[], choices, choices.seed, report)
  }
  return noGrad(() => scope(() => {
    const { kept: fitted, heldOut } = settings.length > 1 ? splitOf(train, choices) : { kept: new Int32Array(), heldOut: new Int32Array() }
    let sweep: ProbeTrial[] = []
    let chosen = 0
    const start = settings.length === 1 ? null : scope(() => {
      const { rows } = prepare(train, [...fitted, ...heldOut], fitted.length, choices.standardise)
      const part = (from: number, length: number) =>
        ({ features: rows.features.narrow(0, from, length), labels: rows.labels.narrow(0, from, length) })
      const found = fit(part(0, fitted.length), settings, null, 'sweep')
      const scores = fitOf(found, part(fitted.length, heldOut.length))
      sweep = settings.map((setting, i) => ({ ...setting, ...scores[i]! }))
      chosen = best(sweep)
      return { weight: found.weight.narrow(0, chosen, 1).clone(), bias: found.bias.narrow(0, chosen, 1).clone() }
    })
    const { rows, mean, deviation } = prepare(train, null, train.labels.length, choices.standardise)
    const found = fit(rows, [settings[chosen]!], start, 'final')
    const trial = sweep[chosen]
    return probeOf(fold(found, mean, deviation), {
      chosen: settings[chosen]!, sweep, heldOut: trial ? { accuracy: trial.accuracy, loss: trial.loss, images: heldOut.length } : null
    })
  }))
}

function settingsOf({ method, weightDecays, learningRates }: Choices): ProbeSettings[] {
  if (method === 'lbfgs') return weightDecays.map((weightDecay) => ({ weightDecay }))
  return learningRates.flatMap((learningRate) => weightDecays.map((weightDecay) => ({ weightDecay, learningRate })))
}

function splitOf({ labels }: Labelled, { method, validation, seed }: Choices) {
  const split = holdOut(labels, validation, seed)
  if (split.heldOut.length > 0) return split
  const fixed = method === 'sgd' ? 'weightDecays: [0], learningRates: [0.01]' : 'weightDecays: [0.001]'
  const what = `more rows to hold out ${validation * 100} % of each class (or a larger validation, or fixed settings: ${fixed})`
  throw expected(what, 'the choice of settings', `${labels.length} rows`)
}

/** The trial with the best accuracy; among equals, with the least loss. */
function best(sweep: readonly ProbeTrial[]): number {
  const ranked = [...sweep.entries()].filter(([, { loss }]) => Number.isFinite(loss))
  ranked.sort(([, a], [, b]) => b.accuracy - a.accuracy || a.loss - b.loss)
  if (!ranked[0]) throw expected('settings of which one stays finite', 'the choice of settings', sweep)
  return ranked[0][0]
}

/**
 * The rows to learn from.
 *
 * @param order - Positions of rows; null: all.
 * @param fitted - The first so many of them are what mean and deviation are taken from.
 */
function prepare(train: Labelled, order: ArrayLike<number> | null, fitted: number, standardise: boolean) {
  return scope(() => {
    const { dtype: given, device } = train.features
    const dtype = given === 'float64' ? given : 'float32'
    const index = (values: ArrayLike<number>) => torch.fromTypedArray(Int32Array.from(values)).to({ device, dtype: 'int64' })
    const labels = index(order ? Array.from(order, (row) => train.labels[row]!) : train.labels)
    const all = train.features.detach()
    // The only copy of the features. It is written to.
    const features = order ? all.indexSelect(0, index(order)).to(dtype) : all.to({ dtype, copy: true, memoryFormat: 'contiguous' })
    const [variance, mean] = torch.varMean(features.narrow(0, 0, fitted), [0], { unbiased: false })
    if (!torch.all(variance.isfinite()).item()) throw expected('finite numbers', 'the training features', 'NaN or infinity among them')
    const rows = { features, labels }
    if (!standardise) return { rows, mean: mean.zerosLike(), deviation: mean.onesLike() }
    const deviation = variance.add(EPSILON).sqrt()
    features.sub_(mean).div_(deviation)
    return { rows, mean, deviation }
  })
}

/** Weight and bias for features that are not standardised. */
function fold({ weight, bias }: Classifiers, mean: Tensor, deviation: Tensor): { weight: Tensor; bias: Tensor } {
  const { dtype } = weight
  const scaled = weight.squeeze([0]).to('float64').div(deviation)
  return { weight: scaled.to(dtype), bias: bias.squeeze([0]).to('float64').sub(scaled.matmul(mean.to('float64'))).to(dtype) }
}

function probeOf(
  { weight, bias }: { weight: Tensor; bias: Tensor }, found: Pick<LinearProbe, 'chosen' | 'heldOut' | 'sweep'>
): LinearProbe {
  for (const tensor of [weight, bias]) keep(tensor)
  return {
    weight, bias, ...found,
    scores(features) {
      requireWidth(features, weight.shape[1]!, 'features')
      return noGrad(() => scope(() => torch.linear(features.to(weight.dtype), weight, { bias })))
    },
    dispose() {
      for (const tensor of [weight, bias]) tensor.dispose()
    }
  }
}
