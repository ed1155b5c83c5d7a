import type { Tensor } from '../torch/index.js'
import { Module } from './module.js'

interface Unary extends Module {
  forward(x: Tensor): Tensor
}

/** Modules in a list, named by their positions. PyTorch: `nn.ModuleList`. */
export class ModuleList<M extends Module = Module> extends Module implements Iterable<M> {
  readonly [index: number]: M
  readonly #modules: readonly M[]

  constructor(modules: Iterable<M>) {
    super()
    this.#modules = [...modules]
    // Own properties with the positions as names make them children like any other.
    Object.assign(this, this.#modules)
  }

  get length(): number {
    return this.#modules.length
  }

  /** The modules, in their order. */
  [Symbol.iterator](): Iterator<M> {
    return this.#modules[Symbol.iterator]()
  }

  override forward(): never {
    throw new TypeError('A ModuleList has no forward: call its modules')
  }
}

/** Modules run one after the other. PyTorch: `nn.Sequential`. */
export class Sequential extends Module {
  readonly #modules: readonly Unary[]

  constructor(...modules: Unary[]) {
    super()
    this.#modules = modules
    Object.assign(this, modules)
  }

  override forward(x: Tensor): Tensor {
    return this.#modules.reduce((value, module) => module.call(value), x)
  }
}
