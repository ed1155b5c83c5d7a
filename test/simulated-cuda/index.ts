// Import this first: libtorch asks once for its GPU, and modules do so while they are loaded.
import { call, loadLibrary } from '../../src/torch/index.js'
import { buildLibrary, libtorch } from './build.js'

/** Whether `cuda:0` is the simulated GPU: where libtorch is one of CUDA, it has the real one, or none. */
export const simulated = !libtorch.cuda

/** The library, for processes that are started; null where there is no simulation. */
export const library = simulated ? await buildLibrary() : null
if (library !== null) loadLibrary(library)

/** What the device has done since {@link reset}. */
export interface Counts {
  /** Copies from the host, and to it. */
  readonly toDevice: number
  readonly toHost: number
  /** Times that the host waited for the device inside an operator. */
  readonly waits: number
  readonly kernels: number
}

export function counts(): Counts {
  const [toDevice, toHost, waits, kernels] = call<[number, number, number, number]>('gmml_simulated::counts')
  return { toDevice, toHost, waits, kernels }
}

/** Work of two streams on the same memory that nothing orders, since {@link reset}. */
export const problems = (): string[] => call('gmml_simulated::problems')

/** Starts counting anew. */
export const reset = (): void => call('gmml_simulated::reset')

/** From now on an operator that makes the host wait for the device is an error, or no longer. */
export const forbidWaiting = (forbidden: boolean): void => call('gmml_simulated::forbid_waiting', forbidden)
