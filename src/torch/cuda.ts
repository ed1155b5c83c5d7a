import * as system from '../native/system.js'
import type { Device } from './types.js'

/** True if libtorch was built with CUDA and sees a GPU. */
export const isAvailable = (): boolean => system.cudaDeviceCount() > 0

/** Number of GPUs that libtorch sees. */
export const deviceCount = (): number => system.cudaDeviceCount()

/** Waits until a GPU has done all that was asked of it. Does nothing for the CPU. */
export function synchronize(device: Device = 'cuda'): void {
  system.synchronize(device)
}
