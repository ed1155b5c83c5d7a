import type { Handle } from './addon.js'

/** The part of the addon that is about GPUs. Each function without a GPU throws a TorchError with the reason, except the first two. */
export interface CudaAddon {
  cudaUnavailableReason(): string | null
  cudaDeviceCount(): number
  cudaCurrentDevice(): string
  /** Makes a device the current one of this thread; returns the one before. */
  cudaSetDevice(device: string): string
  cudaProperties(device: string): RawProperties
  /** Does nothing for the CPU. */
  synchronize(device: string): void
  synchronizeAsync(device: string): Promise<void>

  /** A stream has one handle for good: equal streams have equal handles. */
  cudaNewStream(device: string, priority: number): Handle
  cudaCurrentStream(device: string): Handle
  cudaDefaultStream(device: string): Handle
  /** Makes a stream the current one of its device; returns the one before. */
  cudaSetStream(stream: Handle): Handle
  streamDevice(stream: Handle): string
  queryStream(stream: Handle): boolean
  synchronizeStream(stream: Handle): void
  synchronizeStreamAsync(stream: Handle): Promise<void>

  makeEvent(timing: boolean): Handle
  disposeEvent(event: Handle): void
  eventIsLive(event: Handle): boolean
  recordEvent(event: Handle, stream: Handle): void
  /** The stream waits for the event, not the caller. */
  waitEvent(event: Handle, stream: Handle): void
  queryEvent(event: Handle): boolean
  synchronizeEvent(event: Handle): void
  synchronizeEventAsync(event: Handle): Promise<void>
  /** Milliseconds. */
  elapsedTime(start: Handle, end: Handle): number

  /** Registers memory with CUDA, in place, and references it until it is unpinned. */
  pinMemory(bytes: Uint8Array): Handle
  /** Waits for the copies that were started from it. */
  unpinMemory(memory: Handle): void
  /** Starts a copy to a new tensor on the current stream of a GPU. */
  fromPinned(memory: Handle, offset: number, dtype: string, shape: readonly number[], device: string): Handle
  /** Whether the copies that were started are done. */
  pinnedIsIdle(memory: Handle): boolean
}

export interface RawProperties {
  name: string
  major: number
  minor: number
  totalMemory: number
  multiprocessors: number
  maxThreadsPerMultiprocessor: number
  warpSize: number
  sharedMemoryPerBlock: number
  sharedMemoryPerMultiprocessor: number
  registersPerMultiprocessor: number
  l2CacheSize: number
  /** kHz */
  clockRate: number
  /** As CUDA encodes its versions: 13000 is 13.0. */
  driver: number
  runtime: number
}
