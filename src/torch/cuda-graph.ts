import { expected } from '../errors.js'
import * as native from '../native/graph.js'
import type { Synchronous, TensorHandle } from '../native/tensor-handle.js'
import { requireCudaDevice, type CudaDevice } from './types.js'

/** Whose memory a graph takes. PyTorch: `torch.cuda.graph`. */
export interface GraphOptions {
  /**
   * A captured graph whose memory this one takes too, instead of its own. Safe where the two are replayed in turns in the order of their
   * capture, and nobody reads the results of the one after a replay of the other. PyTorch: `pool`.
   */
  readonly memoryOf?: Graph
}

// A graph that nobody disposed of is freed when its object is collected.
const collected = new FinalizationRegistry<number>((handle) => native.disposeGraph(handle))

/**
 * A CUDA graph: what a function asks of a GPU, recorded once and launched again as a whole, which takes the host some microseconds instead
 * of some for each operator. PyTorch: `torch.cuda.CUDAGraph` with `torch.cuda.graph`.
 *
 * A replay does what the function did, on the same memory: new inputs are written into tensors that the function read (`copy_`), and its
 * results are in the tensors that it returned. What was no tensor on the GPU is frozen: numbers of JavaScript, shapes, branches. Random
 * numbers are not: each replay draws what the function would draw now from the default generator, which `manualSeed` seeds.
 *
 * The function must not wait for the GPU or read from it (`item`, `toArray`, masks of unknown size), and must not copy from or to memory
 * of the host that is not pinned. Nor may it draw from a generator of its own, or use gradient checkpointing, which saves the generator's
 * state. It may call `backward`, if gradients are `null` when it begins, and step an optimizer whose state is there and whose learning
 * rate is a tensor if it changes.
 *
 * @example
 * const graph = new cuda.Graph()
 * for (let i = 0; i < 3; i++) graph.warmUp(step)
 * const loss = graph.capture(step)
 * for (const batch of batches) {
 *   images.copy_(batch)
 *   graph.replay()
 *   console.log(await loss.itemAsync())
 * }
 */
export class Graph {
  readonly #handle: number
  #results: readonly TensorHandle[] = []

  /**
   * @param device - Where the function computes.
   * @throws InputError for what is no CUDA device. TorchError with the reason where there is no such GPU, and where the addon was built without
   *   CUDA's headers.
   */
  constructor(device: CudaDevice = 'cuda') {
    this.#handle = native.makeGraph(requireCudaDevice(device))
    collected.register(this, this.#handle, this)
  }

  /**
   * Runs `callback` on the stream that {@link capture} will use, as it must run a few times before: only so is there what libraries make
   * once (handles, workspaces, the choice of a kernel), and the state that an optimizer begins with.
   *
   * @returns What the callback returns.
   * @throws InputError if the callback is async.
   */
  warmUp<T>(callback: (() => T) & (() => Synchronous<T>)): T {
    return native.onGraphStream<T>(this.#handle, callback, 'the callback of warmUp()')
  }

  /**
   * Captures what `callback` asks of the GPU. Nothing of it is computed until {@link replay}. If it fails, all is as it was before, but
   * for what the callback itself has changed in JavaScript (gradients that it left, for instance).
   *
   * @returns What the callback returns. Tensors in it (also in arrays, plain objects, maps and sets) are kept: they lie in the graph's
   *   memory, each replay writes them anew, and they live until the graph is disposed of.
   * @throws InputError if the callback is async. TorchError for what cannot be captured, naming the operator, and for a second capture.
   */
  capture<T>(callback: (() => T) & (() => Synchronous<T>), options: GraphOptions = {}): T {
    const { memoryOf } = options
    if (memoryOf !== undefined && !(memoryOf instanceof Graph)) throw expected('a Graph', 'memoryOf', memoryOf)
    const other = memoryOf === undefined ? null : memoryOf.#handle
    const [result, tensors] = native.capture<T>(this.#handle, callback, 'the callback of capture()', other)
    this.#results = tensors
    return result
  }

  /** Launches what was captured on the current stream, and does not wait for it. @throws TorchError without a capture. */
  replay(): void {
    native.replayGraph(this.#handle)
  }

  /** Frees the graph, its memory and its results. Doing it twice is harmless. */
  dispose(): void {
    native.disposeGraph(this.#handle)
    collected.unregister(this)
    for (const tensor of this.#results) tensor.dispose()
    this.#results = []
  }

  /** What `using` calls at the end of its block: {@link dispose}. */
  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Where a function is captured, and at which call. */
export interface GraphedOptions {
  /** Where the function computes. Default 'cuda'. */
  readonly device?: CudaDevice
  /** Calls that are run as they are before the one that is captured. Default 3. */
  readonly warmup?: number
}

/** A function that is captured at one of its calls. */
export interface GraphedFunction<T> {
  (): T
  /** Frees the graph, its memory and the results of the calls since the capture. */
  dispose(): void
  /** What `using` calls at the end of its block: {@link dispose}. */
  [Symbol.dispose](): void
}

/**
 * `callback` as a function that is run as it is a few times, then captured, and from then on replayed: see {@link Graph} for what it may
 * do. Every call does its work once. PyTorch: `torch.cuda.make_graphed_callables`, for a whole training step.
 *
 * @returns The function. Its results from the capture on are the same tensors each time, written anew by the next call.
 * @throws InputError for options that are not legal. TorchError as of {@link Graph}.
 *
 * @example
 * const step = cuda.graphed(() => {
 *   const loss = model.loss(corrupted, clean, mask)
 *   loss.backward()
 *   optimizer.step()
 *   optimizer.zeroGrad()
 *   return loss.detach()
 * })
 */
export function graphed<T>(callback: (() => T) & (() => Synchronous<T>), options: GraphedOptions = {}): GraphedFunction<T> {
  const { device = 'cuda', warmup = 3 } = options
  if (typeof callback !== 'function') throw expected('a function', 'the callback of graphed()', callback)
  if (!Number.isInteger(warmup) || warmup < 0) throw expected('an integer of at least 0', 'warmup', warmup)
  const graph = new Graph(device)
  let calls = 0
  let captured: { readonly result: T } | null = null
  const call = (): T => {
    if (calls++ < warmup) return graph.warmUp<T>(callback)
    captured ??= { result: graph.capture<T>(callback) }
    graph.replay()
    return captured.result
  }
  const dispose = () => graph.dispose()
  return Object.assign(call, { dispose, [Symbol.dispose]: dispose })
}
