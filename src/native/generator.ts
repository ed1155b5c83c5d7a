import { addon } from './addon.js'
import type { GeneratorHandle } from './dispatch.js'

// The safety net for generators that nobody disposed of.
const collected = new FinalizationRegistry<number>((handle) => addon.disposeGenerator(handle))

/** The handle of a new generator, freed when `owner` is collected. */
export const makeGenerator = (device: string): number => addon.makeGenerator(device)

export function freeWithOwner(owner: GeneratorHandle): void {
  collected.register(owner, owner.handle, owner)
}

export function disposeGenerator(generator: GeneratorHandle): void {
  collected.unregister(generator)
  addon.disposeGenerator(generator.handle)
}

export const isLive = (generator: GeneratorHandle): boolean => addon.generatorIsLive(generator.handle)
export const seed = (generator: GeneratorHandle, value: bigint): void => addon.seedGenerator(generator.handle, value)
export const reseed = (generator: GeneratorHandle): bigint => addon.reseedGenerator(generator.handle)
export const seedOf = (generator: GeneratorHandle): bigint => addon.generatorSeed(generator.handle)
export const stateOf = (generator: GeneratorHandle): Uint8Array => addon.generatorState(generator.handle)
export const setState = (generator: GeneratorHandle, state: Uint8Array): void => addon.setGeneratorState(generator.handle, state)
