import { keep, scope, type Tensor } from '../torch/index.js'

/** A step taken and what it did to the gradient. */
interface Pair {
  readonly step: Tensor
  readonly change: Tensor
  /** 1 / (step . change). */
  readonly rho: Tensor
}

// Less than this and the curvature along a step is taken for rounding, as in PyTorch.
const LEAST_CURVATURE = 1e-10

/**
 * What L-BFGS knows of the curvature: the inverse of the Hessian, as the last steps and the changes of the gradient along them tell. It
 * is never written out: {@link times} multiplies by it (the two-loop recursion, Nocedal & Wright, Numerical Optimization, algorithm 7.4).
 */
export class InverseHessian {
  readonly #pairs: Pair[] = []
  #diagonal: Tensor | null = null

  /**
   * Learns from a step and the change of the gradient along it; both are kept. A step along which the gradient did not grow says nothing.
   *
   * @param size - The steps that are remembered.
   */
  learn(step: Tensor, change: Tensor, size: number): void {
    scope(() => {
      const curvature = change.dot(step)
      if (!(curvature.item() > LEAST_CURVATURE)) return
      while (this.#pairs.length >= size) disposePair(this.#pairs.shift()!)
      this.#pairs.push({ step: keep(step), change: keep(change), rho: keep(curvature.reciprocal()) })
      this.#diagonal?.dispose()
      this.#diagonal = keep(curvature.div(change.dot(change)))
    })
  }

  /** The product with a vector. Factors stay on the device: nothing waits for it. */
  times(vector: Tensor): Tensor {
    return scope(() => {
      const product = vector.clone()
      const factors = this.#pairs.map(() => null as Tensor | null)
      for (const [i, { step, change, rho }] of [...this.#pairs.entries()].reverse()) {
        const factor = (factors[i] = step.dot(product).mul(rho))
        product.addcmul_(change, factor, { value: -1 })
      }
      if (this.#diagonal) product.mul_(this.#diagonal)
      for (const [i, { step, change, rho }] of this.#pairs.entries()) {
        product.addcmul_(step, factors[i]!.sub(change.dot(product).mul(rho)))
      }
      return product
    })
  }

  dispose(): void {
    for (const pair of this.#pairs.splice(0)) disposePair(pair)
    this.#diagonal?.dispose()
    this.#diagonal = null
  }
}

function disposePair({ step, change, rho }: Pair): void {
  for (const tensor of [step, change, rho]) tensor.dispose()
}
