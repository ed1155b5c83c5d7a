import { cuda, scope, type Device, type Tensor } from '../torch/index.js'
import { requireCudaDevice } from '../torch/types.js'
import type { StaticInputs } from './static-inputs.js'

/** Steps before the capture: they make the optimizer's state and what libraries set up once, and choose kernels. */
export const WARMUP_STEPS = 3

/** Whether steps are captured, and who is told if that fails. */
export interface CaptureOptions {
  readonly graph: boolean
  readonly onNotice?: ((message: string) => void) | undefined
}

/** What of `cuda.Graph` is needed here. */
export interface StepGraph {
  warmUp(step: () => Tensor): Tensor
  capture(step: () => Tensor): Tensor
  replay(): void
  dispose(): void
}

/**
 * A step that is a function of {@link StaticInputs} alone. On a GPU it is run a few times, captured as a CUDA graph, and replayed from
 * then on: the host's work is then one launch. Where it cannot be captured, or an input's shape changes later, it is run as it is, to the
 * end, after one notice.
 */
export class CapturedStep {
  readonly #step: () => Tensor
  readonly #inputs: StaticInputs
  readonly #options: CaptureOptions
  #graph: StepGraph | null = null
  /** The result of the captured step; each replay writes it anew. */
  #result: Tensor | null = null
  #stepsBefore = 0
  #changes = 0

  /**
   * @param step - Reads the inputs and what stays the same; gives one tensor.
   * @param forget - Puts away what a step that was broken off may have left: gradients.
   * @param makeGraph - A graph on the inputs' device.
   */
  constructor(
    step: () => Tensor, inputs: StaticInputs, options: CaptureOptions, readonly forget: () => void,
    makeGraph: (device: Device) => StepGraph = (device) => new cuda.Graph(requireCudaDevice(device, 'the device of a graph'))
  ) {
    this.#step = step
    this.#inputs = inputs
    this.#options = options
    if (options.graph) this.#graph = makeGraph(inputs.device)
  }

  /** Does the step. @returns Its result, the caller's own. */
  run(): Tensor {
    const { changes } = this.#inputs
    if (this.#graph && this.#stepsBefore > 0 && changes !== this.#changes) this.#giveUp('the shape of a batch has changed')
    this.#changes = changes
    const graph = this.#graph
    if (!graph) return scope(this.#step)
    if (this.#stepsBefore < WARMUP_STEPS) {
      this.#stepsBefore++
      return graph.warmUp(() => scope(this.#step))
    }
    try {
      this.#result ??= graph.capture(() => scope(this.#step))
    } catch (error) {
      // Nothing was computed: the step is still to be done.
      this.forget()
      this.#giveUp((error as Error).message)
      return scope(this.#step)
    }
    graph.replay()
    return this.#result.clone()
  }

  #giveUp(reason: string): void {
    this.dispose()
    this.#options.onNotice?.(`Steps are not replayed as a CUDA graph, which is slower: ${reason}`)
  }

  dispose(): void {
    this.#graph?.dispose()
    this.#graph = this.#result = null
  }
}
