import { addon, addonPath } from './addon.js'

export const manualSeed = (seed: bigint): void => addon.manualSeed(seed)
export const generatorState = (device: string): Uint8Array => addon.generatorState(device)
export const setGeneratorState = (device: string, state: Uint8Array): void => addon.setGeneratorState(device, state)
export const setNumThreads = (count: number): void => addon.setNumThreads(count)
export const numThreads = (): number => addon.numThreads()
export const loadLibrary = (path: string): void => addon.loadLibrary(path)
export const listOperators = (): string[] => addon.listOperators()
export const buildInfo = () => ({ path: addonPath, ...addon.buildInfo() })
