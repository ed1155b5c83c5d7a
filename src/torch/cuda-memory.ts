import { expected } from '../errors.js'
import * as native from '../native/cuda.js'
import { requireCudaDevice, type CudaDevice } from './types.js'

export type { MemoryStat, MemoryStatByPool, MemoryStats } from '../native/cuda-addon.js'

/**
 * What the caching allocator of a GPU holds and has held. PyTorch: `torch.cuda.memory_stats_as_nested_dict`.
 *
 * @throws InputError for what is no CUDA device. TorchError with the reason where there is no such GPU. So do all functions here.
 */
export const memoryStats = (device: CudaDevice = 'cuda') => native.memoryStats(requireCudaDevice(device))

/** Bytes that tensors hold on a GPU. PyTorch: `torch.cuda.memory_allocated`. */
export const memoryAllocated = (device: CudaDevice = 'cuda'): number => memoryStats(device).allocatedBytes.all.current

/** The most bytes that tensors held since the start or {@link resetPeakMemoryStats}. PyTorch: `torch.cuda.max_memory_allocated`. */
export const maxMemoryAllocated = (device: CudaDevice = 'cuda'): number => memoryStats(device).allocatedBytes.all.peak

/** Bytes that the caching allocator holds on a GPU, in use or not. PyTorch: `torch.cuda.memory_reserved`. */
export const memoryReserved = (device: CudaDevice = 'cuda'): number => memoryStats(device).reservedBytes.all.current

/** The most bytes that it held since the start or {@link resetPeakMemoryStats}. PyTorch: `torch.cuda.max_memory_reserved`. */
export const maxMemoryReserved = (device: CudaDevice = 'cuda'): number => memoryStats(device).reservedBytes.all.peak

/** From here on peaks count anew. PyTorch: `torch.cuda.reset_peak_memory_stats`. */
export function resetPeakMemoryStats(device: CudaDevice = 'cuda'): void {
  native.resetPeakStats(requireCudaDevice(device))
}

/** Bytes of a GPU's memory, of all processes together. PyTorch: `torch.cuda.mem_get_info`. */
export const memoryInfo = (device: CudaDevice = 'cuda'): { readonly free: number; readonly total: number } =>
  native.memoryInfo(requireCudaDevice(device))

/**
 * The most of a GPU's memory that this process may hold: beyond it an OutOfMemoryError is thrown. PyTorch:
 * `torch.cuda.set_per_process_memory_fraction`.
 *
 * @param fraction - Part of the total memory, above 0 and up to 1.
 */
export function setMemoryFraction(fraction: number, device: CudaDevice = 'cuda'): void {
  if (!(typeof fraction === 'number' && fraction > 0 && fraction <= 1)) throw expected('a number above 0, up to 1', 'fraction', fraction)
  native.setMemoryFraction(fraction, requireCudaDevice(device))
}

/** Gives what the caching allocator holds and nobody uses back to the GPU, for other processes. PyTorch: `torch.cuda.empty_cache`. */
export const emptyCache = (): void => native.emptyCache()
