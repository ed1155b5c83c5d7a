import { addon, addonPath } from './addon.js'

export const manualSeed = (seed: bigint): void => addon.manualSeed(seed)
export const generatorState = (device: string): Uint8Array => addon.generatorState(device)
export const setGeneratorState = (device: string, state: Uint8Array): void => addon.setGeneratorState(device, state)
export const setNumThreads = (count: number): void => addon.setNumThreads(count)
export const numThreads = (): number => addon.numThreads()
/** Ends the process without waiting for its threads. What was written to files, terminals and pipes is written: on Linux these are not buffered. */
export const exitAtOnce = (code: number): never => addon.exitAtOnce(code)
export const loadLibrary = (path: string): void => addon.loadLibrary(path)
export const listOperators = (): string[] => addon.listOperators()
export const buildInfo = () => ({ path: addonPath, ...addon.buildInfo() })
