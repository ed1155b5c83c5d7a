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

  cudaMemoryStats(device: string): MemoryStats
  cudaResetPeakStats(device: string): void
  cudaMemoryInfo(device: string): { free: number; total: number }
  cudaSetMemoryFraction(fraction: number, device: string): void
  cudaEmptyCache(): void

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

/** A figure of the allocator over time. */
export interface MemoryStat {
  readonly current: number
  /** The largest since the last reset. */
  readonly peak: number
  /** Sum of all increases. */
  readonly allocated: number
  /** Sum of all decreases. */
  readonly freed: number
}

/** By the pool that blocks come from: small ones are up to 1 MiB. */
export interface MemoryStatByPool {
  readonly all: MemoryStat
  readonly smallPool: MemoryStat
  readonly largePool: MemoryStat
}

/** What the caching allocator of a GPU holds: PyTorch's names in camelCase, nested as `torch.cuda.memory_stats_as_nested_dict`. */
export interface MemoryStats {
  /** Tensors' memory blocks. */
  readonly allocation: MemoryStatByPool
  /** Pieces asked of CUDA. */
  readonly segment: MemoryStatByPool
  /** Blocks in use by tensors or by streams. */
  readonly active: MemoryStatByPool
  /** Free parts of segments that are in use. */
  readonly inactiveSplit: MemoryStatByPool
  readonly allocatedBytes: MemoryStatByPool
  readonly reservedBytes: MemoryStatByPool
  readonly activeBytes: MemoryStatByPool
  readonly inactiveSplitBytes: MemoryStatByPool
  /** What was asked for, before rounding to blocks. */
  readonly requestedBytes: MemoryStatByPool
  readonly oversizeAllocations: MemoryStat
  readonly oversizeSegments: MemoryStat
  /** Times that the cache was emptied because CUDA had no more. */
  readonly numAllocRetries: number
  readonly numOoms: number
  readonly numSyncAllStreams: number
  readonly numDeviceAlloc: number
  readonly numDeviceFree: number
  /** Bytes; -1 for no limit. */
  readonly maxSplitSize: number
}
