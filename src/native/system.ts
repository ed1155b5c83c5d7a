import { addon, addonPath } from './addon.js'

export const manualSeed = (seed: bigint): void => addon.manualSeed(seed)
export const generatorState = (device: string): Uint8Array => addon.generatorState(device)
export const setGeneratorState = (device: string, state: Uint8Array): void => addon.setGeneratorState(device, state)
/** How many threads libtorch computes with on the CPU, 1 to 4096. PyTorch: `torch.set_num_threads`. */
export const setNumThreads = (count: number): void => addon.setNumThreads(count)
/** PyTorch: `torch.get_num_threads`. */
export const numThreads = (): number => addon.numThreads()
/** Ends the process without waiting for its threads. What was written to files, terminals and pipes is written: on Linux these are not buffered. */
export const exitAtOnce = (code: number): never => addon.exitAtOnce(code)
/**
 * Ends the process with `code` and some last words at the second SIGINT or SIGTERM, also while an operator or a loop keeps Node from hearing of
 * it. Call it once the listeners for the first one are there. One that comes within so many milliseconds of the first counts as the same.
 */
export const exitAtSecondSignal = (code: number, milliseconds: number, words: string): void => addon.exitAtSecondSignal(code, milliseconds, words)
export const loadLibrary = (path: string): void => addon.loadLibrary(path)
/** The schemas of all operators that the dispatcher knows, those of loaded libraries too. */
export const listOperators = (): string[] => addon.listOperators()
/** Path of the addon, and what it was built of. */
export const buildInfo = () => ({ path: addonPath, ...addon.buildInfo() })
