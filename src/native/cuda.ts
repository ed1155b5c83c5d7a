import { addon, type Handle } from './addon.js'
import type { StreamHandle } from './dispatch.js'
import { refusePromise, requireFunction, wrap, type TensorHandle } from './tensor-handle.js'

export const unavailableReason = (): string | null => addon.cudaUnavailableReason()
export const deviceCount = (): number => addon.cudaDeviceCount()
export const currentDevice = (): string => addon.cudaCurrentDevice()
export const properties = (device: string) => addon.cudaProperties(device)
export const synchronize = (device: string): void => addon.synchronize(device)
export const synchronizeAsync = (device: string): Promise<void> => addon.synchronizeAsync(device)

/** Runs `callback` with another current device. */
export function withDevice<T>(device: string, callback: () => T): T {
  requireFunction(callback, 'the callback of withDevice()')
  const before = addon.cudaSetDevice(device)
  try {
    const result = callback()
    refusePromise(result, 'the callback of withDevice()')
    return result
  } finally {
    addon.cudaSetDevice(before)
  }
}

export const newStream = (device: string, priority: number): Handle => addon.cudaNewStream(device, priority)
export const currentStream = (device: string): Handle => addon.cudaCurrentStream(device)
export const defaultStream = (device: string): Handle => addon.cudaDefaultStream(device)
export const streamDevice = (stream: Handle): string => addon.streamDevice(stream)
export const queryStream = (stream: StreamHandle): boolean => addon.queryStream(stream.handle)
export const synchronizeStream = (stream: StreamHandle): void => addon.synchronizeStream(stream.handle)
export const synchronizeStreamAsync = (stream: StreamHandle): Promise<void> => addon.synchronizeStreamAsync(stream.handle)

/** Runs `callback` with another current stream, and its device as the current device. */
export function withStream<T>(stream: StreamHandle, callback: () => T): T {
  requireFunction(callback, 'the callback of withStream()')
  return withDevice(addon.streamDevice(stream.handle), () => {
    const before = addon.cudaSetStream(stream.handle)
    try {
      const result = callback()
      refusePromise(result, 'the callback of withStream()')
      return result
    } finally {
      addon.cudaSetStream(before)
    }
  })
}

// The safety net for events that nobody disposed of.
const collectedEvents = new FinalizationRegistry<Handle>((handle) => addon.disposeEvent(handle))

/** An event of CUDA in the native table, freed when its object is collected. */
export class EventHandle {
  /** @internal */
  readonly handle: Handle

  /** @internal */
  constructor(timing: boolean) {
    this.handle = addon.makeEvent(timing)
    collectedEvents.register(this, this.handle, this)
  }
}

export function disposeEvent(event: EventHandle): void {
  collectedEvents.unregister(event)
  addon.disposeEvent(event.handle)
}

export const eventIsLive = (event: EventHandle): boolean => addon.eventIsLive(event.handle)
export const recordEvent = (event: EventHandle, stream: Handle): void => addon.recordEvent(event.handle, stream)
export const waitEvent = (event: EventHandle, stream: Handle): void => addon.waitEvent(event.handle, stream)
export const queryEvent = (event: EventHandle): boolean => addon.queryEvent(event.handle)
export const synchronizeEvent = (event: EventHandle): void => addon.synchronizeEvent(event.handle)
export const synchronizeEventAsync = (event: EventHandle): Promise<void> => addon.synchronizeEventAsync(event.handle)
export const elapsedTime = (start: EventHandle, end: EventHandle): number => addon.elapsedTime(start.handle, end.handle)

const collectedMemory = new FinalizationRegistry<Handle>((handle) => addon.unpinMemory(handle))

/** Registered memory in the native table, unpinned when its object is collected. */
export class PinnedHandle {
  /** @internal */
  readonly handle: Handle

  /** @internal */
  constructor(bytes: Uint8Array) {
    this.handle = addon.pinMemory(bytes)
    collectedMemory.register(this, this.handle, this)
  }
}

export function unpin(memory: PinnedHandle): void {
  collectedMemory.unregister(memory)
  addon.unpinMemory(memory.handle)
}

export const pinnedIsIdle = (memory: PinnedHandle): boolean => addon.pinnedIsIdle(memory.handle)
export const fromPinned = (
  memory: PinnedHandle, offset: number, dtype: string, shape: readonly number[], device: string
): TensorHandle => wrap(addon.fromPinned(memory.handle, offset, dtype, shape, device))
