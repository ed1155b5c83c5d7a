import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

import type { CudaAddon } from './cuda-addon.js'
import { OutOfMemoryError, TorchError } from './errors.js'

/** Slot and generation of a tensor in the native table, packed into one number. Seen by `src/native` alone. */
export type Handle = number

/** What the dispatcher's schema says of one operator. `returns` has one entry per result. */
export interface OperatorInfo {
  readonly id: number
  readonly schema: string
  /** `tensor`, `tensors` (a list), `value` (number, boolean, string, null), or the index of the argument that the result is. */
  readonly returns: readonly ('tensor' | 'tensors' | 'value' | number)[]
}

/** How exactly float32 matrices are multiplied: see {@link setFloat32MatmulPrecision}. */
export type MatmulPrecision = 'highest' | 'high' | 'medium'

/** Switches of libtorch's numerics that are on or off; the last four are kernels of attention. */
export type NumericSwitch = 'matmulTF32' | 'cudnnTF32' | 'cudnnBenchmark' | 'flash' | 'efficient' | 'math' | 'cudnn'

export type Numerics = Readonly<Record<NumericSwitch | 'deterministic' | 'deterministicWarnOnly', boolean>> & {
  readonly matmulPrecision: MatmulPrecision
}

/** Everything that the native addon exports. Nothing else in the project calls it directly. */
export interface Addon extends CudaAddon {
  findOperator(name: string, overload: string): OperatorInfo
  /** Operators of the dispatcher as schema strings. */
  listOperators(): string[]
  /** Loads a shared library that registers operators. */
  loadLibrary(path: string): void
  call(operator: number, ...args: unknown[]): unknown
  setErrorClasses(error: new (...args: never[]) => Error, outOfMemory: new (...args: never[]) => Error): void

  dispose(handle: Handle): void
  isLive(handle: Handle): boolean
  keep(handle: Handle): void
  scopeBegin(): number
  /** Frees what was made since `scopeBegin`, except `survivors`, which move to the enclosing scope. Returns its depth. */
  scopeEnd(depth: number, survivors: readonly Handle[]): number
  memory(): { tensors: number; scopes: number; bytes: Record<string, number> }

  shape(handle: Handle): number[]
  strides(handle: Handle): number[]
  dtype(handle: Handle): string
  device(handle: Handle): string
  layout(handle: Handle): string
  isContiguous(handle: Handle): boolean
  /** Copies `bytes` into a new CPU tensor. */
  fromBytes(bytes: ArrayBufferView, dtype: string, shape: readonly number[]): Handle
  /** Which memory a dense tensor lies in (an identity while a tensor of it lives), and the bytes of that memory. */
  storage(handle: Handle): [identity: number, byteLength: number]
  elementSize(handle: Handle): number
  /** Bytes of all elements; an expanded tensor has more than its memory. */
  byteLength(handle: Handle): number
  /** Copies the elements into `buffer`, of `byteLength` bytes, in row-major order, whatever the layout and device. */
  toBytes(handle: Handle, buffer: ArrayBuffer): void
  /** As `toBytes`, waiting for a device on a libuv worker. What is done to the tensor after the call is not seen. */
  toBytesAsync(handle: Handle, buffer: ArrayBuffer): Promise<void>
  item(handle: Handle): number | bigint | boolean

  backward(outputs: readonly Handle[], gradients: readonly (Handle | null)[] | null, retainGraph: boolean, createGraph: boolean): void
  grad(
    outputs: readonly Handle[], inputs: readonly Handle[], gradients: readonly (Handle | null)[] | null,
    retainGraph: boolean, createGraph: boolean, allowUnused: boolean
  ): (Handle | null)[]
  requiresGrad(handle: Handle): boolean
  setRequiresGrad(handle: Handle, value: boolean): void
  isLeaf(handle: Handle): boolean
  /** Name of the operation that made the tensor (`AddBackward0`), or null if none was recorded. */
  gradFunction(handle: Handle): string | null
  retainGrad(handle: Handle): void
  /** Gradient of a leaf as a new handle, or null. */
  gradient(handle: Handle): Handle | null
  setGradient(handle: Handle, gradient: Handle | null): void
  setData(handle: Handle, data: Handle): void
  gradMode(): boolean
  setGradMode(enabled: boolean): boolean
  /** Inference mode nests: leave in the opposite order. */
  enterInferenceMode(enabled: boolean): number
  leaveInferenceMode(): void
  inferenceMode(): boolean
  /** 0 off, 1 on, 2 on and looking for NaN. Returns the state before. */
  setAnomaly(state: 0 | 1 | 2): 0 | 1 | 2
  /** The JavaScript stack that nodes of the graph made from here on remember, in anomaly mode. */
  setCallSite(stack: string): void
  /** The node whose backward failed, and the stack that it remembers. */
  takeAnomaly(): { node: string; stack: string } | null

  /** Outputs of a region as results of one node that remembers `inputs`; `guarded` are parameters that must not change. */
  checkpointRegion(region: number, inputs: readonly Handle[], guarded: readonly Handle[], outputs: readonly Handle[]): Handle[]
  /** Regions whose graph was freed since the last call. */
  freedRegions(): number[]
  /** A backward pass in steps; returns its number. With `inputs` it gives their gradients, else it accumulates into leaves. */
  beginPass(
    outputs: readonly Handle[], gradients: readonly (Handle | null)[] | null, inputs: readonly Handle[] | null,
    retainGraph: boolean, createGraph: boolean
  ): number
  /** Runs up to the next region; null after the last. */
  advancePass(pass: number): { region: number; inputs: Handle[] } | null
  /** The recomputed outputs of that region. */
  expandPass(pass: number, outputs: readonly Handle[]): void
  finishPass(pass: number): (Handle | null)[]
  endPass(pass: number): void

  autocast(deviceType: string): { enabled: boolean; dtype: string }
  /** Enters or leaves an autocast region of one device type; the weight cache is cleared with the outermost. */
  enterAutocast(deviceType: string, enabled: boolean, dtype: string): void
  leaveAutocast(deviceType: string, enabled: boolean, dtype: string): void
  setAutocastCache(enabled: boolean): boolean
  clearAutocastCache(): void

  manualSeed(seed: bigint): void
  makeGenerator(device: string): Handle
  disposeGenerator(generator: Handle): void
  generatorIsLive(generator: Handle): boolean
  seedGenerator(generator: Handle, seed: bigint): void
  /** Seeds with a number that nobody chose; returns it. */
  reseedGenerator(generator: Handle): bigint
  generatorSeed(generator: Handle): bigint
  /** Of a generator, or of a device's default one. */
  generatorState(generator: Handle | string): Uint8Array
  setGeneratorState(generator: Handle | string, state: Uint8Array): void

  makeGraph(device: string): Handle
  /** Makes the graph's stream the current one, which waits for what was current, until `leaveGraph`. */
  enterGraph(graph: Handle): void
  leaveGraph(graph: Handle): void
  /** Begins a capture on the graph's stream; `other` is a captured graph whose memory it shares. */
  beginCapture(graph: Handle, other: Handle | null): void
  endCapture(graph: Handle): void
  /** Leaves the graph's stream after an error, without a capture. */
  abandonGraph(graph: Handle): void
  replayGraph(graph: Handle): void
  disposeGraph(graph: Handle): void

  /** The upright size of a JPEG file that `decodeJpeg` is likely to take, else null. */
  jpegSize(bytes: Uint8Array): [width: number, height: number] | null
  /**
   * Decodes parts of a JPEG file on a libuv worker: for each part five numbers (left, top, width, height in upright pixels, and 1 to flip).
   * The planes [parts, 3, height, width], or null if the file is unusual or damaged.
   */
  decodeJpeg(bytes: Uint8Array, parts: Int32Array, height: number, width: number): Promise<Uint8Array<ArrayBuffer> | null>
  /** The same on the calling thread, into `planes`: false instead of null, and `planes` is undefined then. */
  decodeJpegSync(bytes: Uint8Array, parts: Int32Array, height: number, width: number, planes: Uint8Array): boolean
  /** Resizes parts of an image, interleaved RGB in rows of `imageWidth` pixels, as `decodeJpeg` does those that it decodes. */
  resizePixels(pixels: Uint8Array, parts: Int32Array, height: number, width: number, imageWidth: number): Promise<Uint8Array<ArrayBuffer>>
  /** The same on the calling thread, into `planes`. */
  resizePixelsSync(pixels: Uint8Array, parts: Int32Array, height: number, width: number, planes: Uint8Array, imageWidth: number): true

  /** State of every switch. */
  numerics(): Numerics
  setMatmulPrecision(precision: MatmulPrecision): void
  setDeterministic(enabled: boolean, warnOnly: boolean): void
  setNumeric(name: NumericSwitch, enabled: boolean): void

  /** Begins to record; one profiler at a time in a process. */
  startProfiler(cpu: boolean, cuda: boolean, shapes: boolean): void
  /** Ends it and writes the trace, or drops it. */
  stopProfiler(path: string | null): Promise<void>
  /** Named parts of a trace nest: leave in the opposite order. */
  enterRegion(name: string): void
  leaveRegion(): void
  nvtxPush(name: string): void
  nvtxPop(): void
  nvtxMark(name: string): void

  setNumThreads(count: number): void
  numThreads(): number
  exitAtOnce(code: number): never
  exitAtSecondSignal(code: number, milliseconds: number, words: string): void
  buildInfo(): { torch: string; napi: number; compiler: string; cuda: boolean; jpeg: string | null; configuration: string }
}

const require = createRequire(import.meta.url)

/** Where a build leaves the addon, in the order of preference: `GMML_ADDON`, cmake-js, node-gyp. */
export function addonPaths(): string[] {
  const built = ['../../build-cmake/Release/gmml.node', '../../build/Release/gmml.node']
  const chosen = process.env['GMML_ADDON']
  return [...(chosen ? [resolve(chosen)] : []), ...built.map((path) => fileURLToPath(new URL(path, import.meta.url)))]
}

/** The addon that is loaded: the first of {@link addonPaths} that exists. */
export const addonPath: string = (() => {
  const paths = addonPaths()
  const path = paths.find((candidate) => existsSync(candidate))
  if (path) return path
  throw new TorchError(
    `The native addon of gmml is not built (looked for ${paths.join(', ')}).\n` +
      'Build it with `npm run build:native` in the folder of gmml, or reinstall the package without `--ignore-scripts`.'
  )
})()

function load(path: string): Addon {
  try {
    return require(path) as Addon
  } catch (error) {
    throw new TorchError(
      `The native addon of gmml does not load (${path}): ${(error as Error).message}\n` +
        'libtorch may have moved or changed since the addon was built: build again with `npm run build:native`.'
    )
  }
}

export const addon: Addon = load(addonPath)
addon.setErrorClasses(TorchError, OutOfMemoryError)
