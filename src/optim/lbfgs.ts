import { expected } from '../errors.js'
import type { Parameter } from '../nn/index.js'
import { cat, enableGrad, isTensor, keep, noGrad, scope, type Tensor } from '../torch/index.js'
import { InverseHessian } from './inverse-hessian.js'
import { forgetGradients, type Group, isLegal, makeGroups, type ParameterGroup } from './optimizer.js'
import { strongWolfe, type Trial } from './strong-wolfe.js'

/** Options of {@link LBFGS}. PyTorch: `torch.optim.LBFGS`. */
export interface LBFGSOptions {
  /** Step size; with a line search the first one that it tries. Default 1. */
  readonly lr?: number
  /** Most iterations of one `step`. Default 20. */
  readonly maxIter?: number
  /** Evaluations after which a `step` ends. Default 1.25 times `maxIter`. */
  readonly maxEval?: number
  /** The end is reached where no element of the gradient is larger. Default 1e-7. */
  readonly toleranceGrad?: number
  /** A `step` ends where loss or parameters change by no more. Default 1e-9. */
  readonly toleranceChange?: number
  /** Steps that the curvature is estimated from; each takes twice the memory of the parameters. Default 100. */
  readonly historySize?: number
  /** How the length of a step is found; null: it is `lr`. Default null. */
  readonly lineSearch?: 'strong_wolfe' | null
}

type Options = Group<LBFGSOptions>

function check({ lr, maxIter, maxEval, toleranceGrad, toleranceChange, historySize, lineSearch }: Options): void {
  for (const [name, value] of Object.entries({ lr, toleranceGrad, toleranceChange })) {
    if (!isLegal(value)) throw expected('a number of at least 0', name, value)
  }
  for (const [name, value] of Object.entries({ maxIter, maxEval, historySize })) {
    if (!Number.isInteger(value) || value < 1) throw expected('an integer of at least 1', name, value)
  }
  if (lineSearch !== null && lineSearch !== 'strong_wolfe') throw expected(`'strong_wolfe' or null`, 'lineSearch', lineSearch)
}

interface Point {
  readonly loss: number
  /** Of all parameters, flat. Kept. */
  readonly gradient: Tensor
}

const largest = (tensor: Tensor): number => scope(() => tensor.abs().max().item())

/**
 * The quasi-Newton method for what is smooth and computed on all data at once: few, long steps, whose directions come from the curvature
 * along the last ones. PyTorch: `torch.optim.LBFGS`.
 *
 * @example
 * const optimizer = new LBFGS(model.parameters(), { lineSearch: 'strong_wolfe', maxIter: 100 })
 * optimizer.step(() => {
 *   optimizer.zeroGrad()
 *   const loss = crossEntropy(model.call(x), labels)
 *   loss.backward()
 *   return loss
 * })
 */
export class LBFGS {
  /** The only group: its options may be changed between steps. */
  readonly groups: readonly [Options]
  readonly #hessian = new InverseHessian()
  #direction: Tensor | null = null
  // How far the last step went along the direction, and the gradient that it came from.
  #distance = 0
  #previous: Tensor | null = null

  /**
   * @param parameters - Parameters, real and all on one device, or a single group of them.
   * @throws InputError for an option that is not legal, more than one group, what is no Parameter, and a Parameter given twice.
   */
  constructor(parameters: Iterable<Parameter> | readonly ParameterGroup<LBFGSOptions>[], options: LBFGSOptions = {}) {
    const { maxIter = 20 } = options
    const defaults = {
      lr: 1, maxIter, maxEval: Math.max(1, Math.floor(maxIter * 1.25)), toleranceGrad: 1e-7, toleranceChange: 1e-9, historySize: 100,
      lineSearch: null
    }
    const groups = makeGroups<LBFGSOptions>(parameters, { ...defaults, ...options }, check)
    if (groups.length !== 1) throw expected('a single group', 'parameters', `${groups.length} groups`)
    if (groups[0]!.parameters.length === 0) throw expected('at least one Parameter', 'parameters', 'none')
    const complex = groups[0]!.parameters.find(({ dtype }) => dtype.startsWith('complex'))
    if (complex) throw expected('real numbers', 'an element of parameters', complex.dtype)
    this.groups = [groups[0]!]
  }

  /**
   * Up to `maxIter` iterations.
   *
   * @param closure - Computes the loss and its gradients, and returns the loss, of one element. Called for each evaluation, with gradients
   *   on, in a scope of its own. It must forget the gradients of the last call (`zeroGrad`).
   * @returns The loss before the step.
   * @throws InputError for options that are not legal, and a closure that gives no loss.
   */
  step(closure: () => Tensor): Tensor {
    if (typeof closure !== 'function') throw expected('a function that gives the loss', 'closure', closure)
    check(this.groups[0])
    return noGrad(() =>
      scope(() => {
        let loss: Tensor | undefined
        const evaluate = (): Point => {
          const value = scope(() => enableGrad(closure))
          if (!isTensor(value) || value.numel() !== 1) throw expected('a loss of one element', `the closure's result`, value)
          if (loss) return { loss: scope(() => value.item()), gradient: this.#gradient() }
          loss = value.detach()
          return { loss: loss.item(), gradient: this.#gradient() }
        }
        this.#descend(evaluate)
        return loss!
      })
    )
  }

  /** Iterates until an end is reached. */
  #descend(evaluate: () => Point): void {
    const { maxIter, maxEval, toleranceGrad, toleranceChange } = this.groups[0]
    let point = evaluate()
    let evaluations = 1
    let isOptimal = largest(point.gradient) <= toleranceGrad
    for (let iteration = 1; iteration <= maxIter && !isOptimal; iteration++) {
      const { gradient, loss } = point
      this.#aim(gradient)
      const slope = scope(() => gradient.dot(this.#direction!).item())
      if (slope > -toleranceChange) break
      // In the last iteration nobody asks where a step of fixed length leads.
      const moved = this.#move({ ...point, slope }, evaluate, maxEval - evaluations, iteration === maxIter)
      point = moved.point
      evaluations += moved.evaluations
      isOptimal = largest(point.gradient) <= toleranceGrad
      const change = largest(this.#direction!) * this.#distance
      if (evaluations >= maxEval || change <= toleranceChange || Math.abs(point.loss - loss) < toleranceChange) break
    }
    if (point.gradient !== this.#previous) point.gradient.dispose()
  }

  /** Learns from the last step, and sets out in a new direction. Takes the gradient over. */
  #aim(gradient: Tensor): void {
    const { lr, historySize } = this.groups[0]
    const [direction, previous] = [this.#direction, this.#previous]
    scope(() => {
      if (direction && previous) this.#hessian.learn(direction.mul(this.#distance), gradient.sub(previous), historySize)
      this.#direction = keep(this.#hessian.times(gradient.neg()))
      // Nothing is known of the curvature yet: a short step.
      this.#distance = previous ? lr : Math.min(1, 1 / gradient.abs().sum().item()) * lr
    })
    direction?.dispose()
    if (previous !== gradient) previous?.dispose()
    this.#previous = gradient
  }

  /** Goes along the direction. */
  #move(from: Omit<Trial, 'at'>, evaluate: () => Point, limit: number, isLast: boolean): { point: Point; evaluations: number } {
    return scope(() => {
      const [direction, origin] = [this.#direction!, this.#flat((parameter) => parameter)]
      const goTo = (at: number) => { scope(() => { this.#place(origin.add(direction, { alpha: at })) }) }
      if (this.groups[0].lineSearch === null) {
        goTo(this.#distance)
        return isLast ? { point: from, evaluations: 0 } : { point: evaluate(), evaluations: 1 }
      }
      const trial = (at: number): Trial => {
        goTo(at)
        const point = evaluate()
        return { ...point, at, slope: scope(() => point.gradient.dot(direction).item()) }
      }
      const line = { start: { ...from, at: 0 }, length: largest(direction), evaluate: trial }
      const { best, evaluations } = strongWolfe(line, this.#distance, limit)
      goTo(best.at)
      this.#distance = best.at
      return { point: best, evaluations }
    })
  }

  #gradient(): Tensor {
    return scope(() => keep(this.#flat((parameter) => parameter.grad ?? parameter.zerosLike())))
  }

  /** A tensor for each parameter, all in a row. */
  #flat(of: (parameter: Parameter) => Tensor): Tensor {
    return scope(() => cat(this.groups[0].parameters.map((parameter) => of(parameter).reshape([-1]))))
  }

  /** Writes values in a row into the parameters. */
  #place(values: Tensor): void {
    const { parameters } = this.groups[0]
    const parts = values.split(parameters.map((parameter) => parameter.numel()))
    for (const [i, parameter] of parameters.entries()) parameter.copy_(parts[i]!.viewAs(parameter))
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    forgetGradients(this.groups)
  }

  /** Frees what is known of the curvature: the next step begins anew. */
  dispose(): void {
    this.#hessian.dispose()
    this.#direction?.dispose()
    this.#previous?.dispose()
    this.#direction = this.#previous = null
  }
}
