import { expected } from '../errors.js'
import * as native from '../native/cuda.js'
import { StreamHandle } from '../native/dispatch.js'
import type { Synchronous } from '../native/tensor-handle.js'
import { requireCudaDevice, type CudaDevice } from './types.js'

/** @throws InputError unless `value` is a stream. */
export function requireStream(value: unknown, name = 'stream'): Stream {
  if (value instanceof Stream) return value
  throw expected('a Stream', name, value)
}

function requireEvent(value: unknown, name = 'event'): Event {
  if (value instanceof Event) return value
  throw expected('an Event', name, value)
}

/**
 * A queue of work of one GPU: what is put on the same stream runs in order, what is put on different ones may run at the same time. Made by
 * {@link stream}; lives as long as the process. PyTorch: `torch.cuda.Stream`.
 */
export class Stream extends StreamHandle {
  /** The GPU, as `cuda:0`. */
  readonly device: CudaDevice

  /** @internal */
  constructor(handle: number) {
    super(handle)
    this.device = native.streamDevice(handle) as CudaDevice
  }

  /** True if all work that was put on the stream is done. PyTorch: `Stream.query`. */
  query(): boolean {
    return native.queryStream(this)
  }

  /** Blocks until all work that was put on the stream is done. PyTorch: `Stream.synchronize`. */
  synchronize(): void {
    native.synchronizeStream(this)
  }

  /** As {@link synchronize}, without blocking the event loop. */
  synchronizeAsync(): Promise<void> {
    return native.synchronizeStreamAsync(this)
  }

  /** Marks this place of the stream by an event, a new one without timing if none is given. PyTorch: `Stream.record_event`. */
  recordEvent(at?: Event): Event {
    const marked = at === undefined ? event() : requireEvent(at)
    native.recordEvent(marked, this.handle)
    return marked
  }

  /** What is put on this stream from here on waits for `event`; the caller does not. PyTorch: `Stream.wait_event`. */
  waitEvent(event: Event): void {
    native.waitEvent(requireEvent(event), this.handle)
  }

  /** What is put on this stream from here on waits for all that `other` has now. PyTorch: `Stream.wait_stream`. */
  waitStream(other: Stream): void {
    const passed = requireStream(other, 'other').recordEvent()
    native.waitEvent(passed, this.handle)
    passed.dispose()
  }
}

// One object for each stream, so that equal streams are the same object. There are some tens of each device.
const streams = new Map<number, Stream>()

function streamOf(handle: number): Stream {
  const known = streams.get(handle)
  if (known) return known
  const made = new Stream(handle)
  streams.set(handle, made)
  return made
}

/** Device and priority of a {@link Stream}. PyTorch: `torch.cuda.Stream`. */
export interface StreamOptions {
  /** Default: the current GPU. */
  readonly device?: CudaDevice
  /** 0 (default) or a negative number: the lower, the sooner its work is begun. The GPU has about six levels. */
  readonly priority?: number
}

/**
 * A stream beside the default one. libtorch has 32 of each device and priority, which it gives in turn. PyTorch: `torch.cuda.Stream()`.
 *
 * @throws InputError for what is no CUDA device or a positive priority. TorchError with the reason where there is no such GPU.
 */
export function stream(options: StreamOptions = {}): Stream {
  if (typeof options !== 'object' || options === null) throw expected('an object', 'the options of stream()', options)
  const { device = 'cuda', priority = 0 } = options
  requireCudaDevice(device)
  if (!Number.isInteger(priority) || priority > 0 || priority < -1000) throw expected('0 or a negative integer', 'priority', priority)
  return streamOf(native.newStream(device, priority))
}

/** The stream that operators on `device` are put on. PyTorch: `torch.cuda.current_stream`. */
export function currentStream(device: CudaDevice = 'cuda'): Stream {
  return streamOf(native.currentStream(requireCudaDevice(device)))
}

/** The stream that operators on `device` are put on unless another is chosen. PyTorch: `torch.cuda.default_stream`. */
export function defaultStream(device: CudaDevice = 'cuda'): Stream {
  return streamOf(native.defaultStream(requireCudaDevice(device)))
}

/**
 * Runs `callback` so that its operators are put on `stream`; the stream's device is the current one inside. The gradient of an operator
 * is computed on the stream of the operator. PyTorch: `torch.cuda.stream`.
 *
 * A tensor that is used on another stream than the one it was made on needs care: see `Tensor.recordStream`.
 *
 * @throws InputError for what is no stream, and if the callback is async.
 */
export function withStream<T>(stream: Stream, callback: (() => T) & (() => Synchronous<T>)): T {
  return native.withStream<T>(requireStream(stream), callback)
}

/**
 * A mark in a stream, to wait for and to measure time with. Lives until it is disposed of or its object is collected. Made by
 * {@link event}. PyTorch: `torch.cuda.Event`.
 */
export class Event extends native.EventHandle {
  /** Puts the mark on `stream`, by default the current one of its device. Again moves it. PyTorch: `Event.record`. */
  record(stream: Stream = currentStream()): this {
    native.recordEvent(this, requireStream(stream).handle)
    return this
  }

  /** True if the work before the mark is done, and for an event that was never recorded. PyTorch: `Event.query`. */
  query(): boolean {
    return native.queryEvent(this)
  }

  /** Blocks until the work before the mark is done. PyTorch: `Event.synchronize`. */
  synchronize(): void {
    native.synchronizeEvent(this)
  }

  /** As {@link synchronize}, without blocking the event loop. */
  synchronizeAsync(): Promise<void> {
    return native.synchronizeEventAsync(this)
  }

  /**
   * Milliseconds between this mark and `end`. PyTorch: `Event.elapsed_time`.
   *
   * @throws TorchError unless both were made with `timing`, recorded, and have passed.
   */
  elapsed(end: Event): number {
    return native.elapsedTime(this, requireEvent(end, 'end'))
  }

  /** What is put on `stream` (default: the current one) from here on waits for the mark. PyTorch: `Event.wait`. */
  wait(stream: Stream = currentStream()): void {
    native.waitEvent(this, requireStream(stream).handle)
  }

  /** False once the event was disposed of. */
  get isLive(): boolean {
    return native.eventIsLive(this)
  }

  /** Frees it now; streams that wait for it still do. Doing it twice is harmless. */
  dispose(): void {
    native.disposeEvent(this)
  }

  /** What `using` calls at the end of its block: {@link dispose}. */
  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** What an {@link Event} can do. PyTorch: `torch.cuda.Event`. */
export interface EventOptions {
  /** Whether {@link Event.elapsed} can be asked. Default false: an event without times is cheaper to wait for. */
  readonly timing?: boolean
}

/**
 * A new event, which belongs to the GPU of the stream that it is recorded on first. PyTorch: `torch.cuda.Event`.
 *
 * @throws TorchError with the reason where there is no GPU.
 */
export function event(options: EventOptions = {}): Event {
  if (typeof options !== 'object' || options === null) throw expected('an object', 'the options of event()', options)
  const { timing = false } = options
  if (typeof timing !== 'boolean') throw expected('a boolean', 'timing', timing)
  return new Event(timing)
}
