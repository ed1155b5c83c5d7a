import { expected } from '../errors.js'
import * as system from '../native/system.js'
import { requireDevice, type Device } from './types.js'

/** @throws InputError unless `seed` is an integer from 0 to 2^64 - 1. */
export function requireSeed(seed: unknown): bigint {
  const legal = typeof seed === 'bigint' ? BigInt.asUintN(64, seed) === seed : Number.isSafeInteger(seed) && (seed as number) >= 0
  if (!legal) throw expected('an integer from 0 to 2^53 - 1, or a bigint to 2^64 - 1', 'seed', seed)
  return BigInt(seed as number | bigint)
}

/** @throws InputError unless `state` is what a generator's state is kept in. */
export function requireState(state: unknown): Uint8Array {
  if (state instanceof Uint8Array) return state
  throw expected('a Uint8Array from getRngState() or getState()', 'state', state)
}

/** Seeds the default generators of every device. PyTorch: `torch.manual_seed`. */
export function manualSeed(seed: number | bigint): void {
  system.manualSeed(requireSeed(seed))
}

/** State of a device's default generator. PyTorch: `torch.get_rng_state`. */
export function getRngState(device: Device = 'cpu'): Uint8Array {
  return system.generatorState(requireDevice(device))
}

/** Restores what {@link getRngState} gave. */
export function setRngState(state: Uint8Array, device: Device = 'cpu'): void {
  requireState(state)
  system.setGeneratorState(requireDevice(device), state)
}
