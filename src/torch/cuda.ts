import * as native from '../native/cuda.js'
import type { Synchronous } from '../native/tensor-handle.js'
import { requireCudaDevice, requireDevice, type CudaDevice, type Device } from './types.js'

export {
  currentStream, defaultStream, event, Event, stream, Stream, withStream, type EventOptions, type StreamOptions
} from './cuda-streams.js'
export * from './cuda-memory.js'
export * from './cuda-numerics.js'
export { nvtxMark, nvtxRange } from './profiler.js'
export { pinSharedMemory, PinnedMemory } from './cuda-pinned.js'
export { Graph, graphed, type GraphedFunction, type GraphedOptions, type GraphOptions } from './cuda-graph.js'

/** True if libtorch was built with CUDA and sees a GPU. PyTorch: `torch.cuda.is_available`. */
export const isAvailable = (): boolean => native.deviceCount() > 0

/** Why {@link isAvailable} is false, in the words of libtorch and the driver; null where it is true. */
export const unavailableReason = (): string | null => native.unavailableReason()

/** Number of GPUs that libtorch sees: `CUDA_VISIBLE_DEVICES` hides some. PyTorch: `torch.cuda.device_count`. */
export const deviceCount = (): number => native.deviceCount()

/** What a GPU is. Sizes in bytes. */
export interface DeviceProperties {
  readonly name: string
  /** As `9.0`. */
  readonly computeCapability: string
  readonly major: number
  readonly minor: number
  readonly totalMemory: number
  readonly multiprocessors: number
  readonly maxThreadsPerMultiprocessor: number
  readonly warpSize: number
  readonly sharedMemoryPerBlock: number
  readonly sharedMemoryPerMultiprocessor: number
  readonly registersPerMultiprocessor: number
  readonly l2CacheSize: number
  /** kHz */
  readonly clockRate: number
  /** The newest CUDA that the driver knows, as `13.0`. */
  readonly driverVersion: string
  /** The CUDA that libtorch runs on. */
  readonly runtimeVersion: string
}

const versionText = (version: number) => `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`

/**
 * What a GPU is. PyTorch: `torch.cuda.get_device_properties`.
 *
 * @throws InputError for what is no CUDA device. TorchError with the reason where there is no such GPU, and where the addon was built
 *   without CUDA's headers.
 */
export function properties(device: CudaDevice = 'cuda'): DeviceProperties {
  const { driver, runtime, ...found } = native.properties(requireCudaDevice(device))
  const versions = { driverVersion: versionText(driver), runtimeVersion: versionText(runtime) }
  return { ...found, computeCapability: `${found.major}.${found.minor}`, ...versions }
}

/** The GPU that `'cuda'` means in this thread, as `cuda:0`. PyTorch: `torch.cuda.current_device`. */
export const currentDevice = (): CudaDevice => native.currentDevice() as CudaDevice

/**
 * Runs `callback` so that `'cuda'` means `device` in it. PyTorch: `torch.cuda.device`.
 *
 * @throws InputError for what is no CUDA device, and if the callback is async. TorchError with the reason where there is no such GPU.
 */
export function withDevice<T>(device: CudaDevice, callback: (() => T) & (() => Synchronous<T>)): T {
  return native.withDevice<T>(requireCudaDevice(device), callback)
}

/**
 * Blocks until a GPU has done all that was asked of it. Does nothing for the CPU. PyTorch: `torch.cuda.synchronize`.
 *
 * @throws TorchError with the reason where there is no such GPU, and with the error of work that failed.
 */
export function synchronize(device: Device = 'cuda'): void {
  native.synchronize(requireDevice(device))
}

/** As {@link synchronize}, for a GPU, without blocking the event loop. What is wrong is thrown, what fails rejects. */
export function synchronizeAsync(device: CudaDevice = 'cuda'): Promise<void> {
  return native.synchronizeAsync(requireCudaDevice(device))
}
