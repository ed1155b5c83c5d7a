import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

import { TorchError } from './errors.js'

/** Slot and generation of a tensor in the native table, packed into one number. Seen by `src/native` alone. */
export type Handle = number

/** What the dispatcher's schema says of one operator. `returns` has one entry per result. */
export interface OperatorInfo {
  readonly id: number
  readonly schema: string
  /** `tensor`, `tensors` (a list), `value` (number, boolean, string, null), or the index of the argument that the result is. */
  readonly returns: readonly ('tensor' | 'tensors' | 'value' | number)[]
}

/** Everything that the native addon exports. Nothing else in the project calls it directly. */
export interface Addon {
  findOperator(name: string, overload: string): OperatorInfo
  /** Operators of the dispatcher as schema strings. */
  listOperators(): string[]
  call(operator: number, ...args: unknown[]): unknown
  setErrorClass(constructor: new (...args: never[]) => Error): void

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
  isContiguous(handle: Handle): boolean
  /** Copies `bytes` into a new CPU tensor. */
  fromBytes(bytes: ArrayBufferView, dtype: string, shape: readonly number[]): Handle
  /** Which memory a dense tensor lies in (an identity while a tensor of it lives), and the bytes of that memory. */
  storage(handle: Handle): [identity: number, byteLength: number]
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
  retainGrad(handle: Handle): void
  /** Gradient of a leaf as a new handle, or null. */
  gradient(handle: Handle): Handle | null
  setGradient(handle: Handle, gradient: Handle | null): void
  setData(handle: Handle, data: Handle): void
  gradMode(): boolean
  setGradMode(enabled: boolean): boolean
  autocast(deviceType: string): { enabled: boolean; dtype: string }
  /** Enters or leaves an autocast region of one device type; the weight cache is cleared with the outermost. */
  enterAutocast(deviceType: string, enabled: boolean, dtype: string): void
  leaveAutocast(deviceType: string, enabled: boolean, dtype: string): void

  manualSeed(seed: bigint): void
  generatorState(device: string): Uint8Array
  setGeneratorState(device: string, state: Uint8Array): void

  setNumThreads(count: number): void
  numThreads(): number
  cudaDeviceCount(): number
  synchronize(device: string): void
  buildInfo(): { torch: string; napi: number; compiler: string; cuda: boolean; configuration: string }
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
addon.setErrorClass(TorchError)
