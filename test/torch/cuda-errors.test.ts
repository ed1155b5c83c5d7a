import { describe, expect, it } from 'vitest'

import { addon } from '../../src/native/addon.js'
import * as torch from '../../src/torch/index.js'

const { cuda } = torch
const bytes = () => new SharedArrayBuffer(16)

/** Each function of `cuda` that needs a GPU. */
const entries: Record<string, () => unknown> = {
  currentDevice: () => cuda.currentDevice(),
  memoryStats: () => cuda.memoryStats(),
  memoryAllocated: () => cuda.memoryAllocated('cuda:0'),
  maxMemoryAllocated: () => cuda.maxMemoryAllocated(),
  memoryReserved: () => cuda.memoryReserved(),
  maxMemoryReserved: () => cuda.maxMemoryReserved(),
  resetPeakMemoryStats: () => cuda.resetPeakMemoryStats(),
  memoryInfo: () => cuda.memoryInfo(),
  setMemoryFraction: () => cuda.setMemoryFraction(0.5),
  emptyCache: () => cuda.emptyCache(),
  properties: () => cuda.properties(),
  withDevice: () => cuda.withDevice('cuda:0', () => 1),
  synchronize: () => cuda.synchronize(),
  synchronizeAsync: () => cuda.synchronizeAsync('cuda'),
  stream: () => cuda.stream(),
  currentStream: () => cuda.currentStream(),
  defaultStream: () => cuda.defaultStream('cuda:0'),
  event: () => cuda.event({ timing: true }),
  pinSharedMemory: () => cuda.pinSharedMemory(bytes()),
  Graph: () => new cuda.Graph('cuda:0'),
  graphed: () => cuda.graphed(() => 1)
}

/** What needs a stream, an event or pinned memory, which there are none of without a GPU. */
const needHandles = ['withStream', 'Stream', 'Event', 'PinnedMemory']
/** What tells of GPUs, and does without. */
const without = [
  'isAvailable', 'unavailableReason', 'deviceCount', 'allowTF32', 'sdpBackends', 'setCudnnBenchmark', 'cudnnBenchmark', 'nvtxRange', 'nvtxMark'
]

it('the lists are complete', () => {
  expect([...Object.keys(entries), ...needHandles, ...without].sort()).toEqual(Object.keys(cuda).sort())
})

describe.skipIf(cuda.isAvailable())('without a GPU', () => {
  const reason = /no CUDA device 0: \w+|CUDA is not available: \w+/

  it('the reason is said', () => {
    expect(cuda.isAvailable()).toBe(false)
    expect(cuda.deviceCount()).toBe(0)
    const built = torch.buildInfo().cuda
    expect(cuda.unavailableReason()).toMatch(built ? /NVIDIA|CUDA GPUs/ : /^this libtorch is built without CUDA$/)
  })

  it.each(Object.entries(entries))('%s is refused with the reason', (_, call) => {
    expect(call).toThrow(torch.TorchError)
    expect(call).toThrow(reason)
    expect(call).toThrow(cuda.unavailableReason()!)
  })

  it.each([
    ['zeros', () => torch.zeros([2], { device: 'cuda' })],
    ['to', () => torch.tensor(1).to({ device: 'cuda', nonBlocking: true })],
    ['pinMemory', () => torch.zeros([2]).pinMemory()],
    ['the option pinMemory', () => torch.zeros([2], { pinMemory: true })],
    ['generator', () => torch.generator({ device: 'cuda' })]
  ])('so is %s', (_, call) => {
    expect(call).toThrow(torch.TorchError)
    expect(call).toThrow(/NVIDIA|CUDA/)
    const { message } = (() => {
      try {
        call()
      } catch (error) {
        return error as Error
      }
      throw new Error('not refused')
    })()
    expect(message.length).toBeLessThan(400)
  })

  it('no tensor is pinned', () => expect(torch.zeros([2]).isPinned()).toBe(false))

  it('what was refused changed nothing', () => expect(torch.tensor([1, 2]).add(1).toArray()).toEqual([2, 3]))
})

it.each([
  [() => cuda.properties('cpu' as 'cuda'), /'cuda' or 'cuda:N' for device, received 'cpu'/],
  [() => cuda.synchronizeAsync('meta' as 'cuda'), /'cuda' or 'cuda:N' for device/],
  [() => cuda.withDevice('cuda:x' as 'cuda', () => 1), /'cuda' or 'cuda:N' for device/],
  [() => cuda.synchronize('gpu' as 'cuda'), /for device, received 'gpu'/],
  [() => cuda.setMemoryFraction(0), /a number above 0, up to 1 for fraction, received 0/],
  [() => cuda.memoryInfo('cpu' as 'cuda'), /'cuda' or 'cuda:N' for device/],
  [() => cuda.stream({ priority: 1 }), /0 or a negative integer for priority, received 1/],
  [() => cuda.stream(null as never), /an object for the options of stream\(\)/],
  [() => cuda.event({ timing: 1 as never }), /a boolean for timing, received 1/],
  [() => cuda.withStream(1 as never, () => 1), /a Stream for stream, received 1/],
  [() => torch.zeros([1]).recordStream(2 as never), /a Stream for stream, received 2/],
  [() => new cuda.Graph('cpu' as 'cuda'), /'cuda' or 'cuda:N' for device, received 'cpu'/],
  [() => cuda.graphed(1 as never), /a function for the callback of graphed\(\), received 1/],
  [() => cuda.graphed(() => 1, { warmup: -1 }), /an integer of at least 0 for warmup, received -1/],
  [() => cuda.pinSharedMemory(new ArrayBuffer(8) as never), /a SharedArrayBuffer with bytes for buffer, received ArrayBuffer/],
  [() => cuda.pinSharedMemory(new SharedArrayBuffer(0)), /a SharedArrayBuffer with bytes/]
])('input is refused before any GPU is asked: %s', (call, message) => {
  expect(call).toThrow(torch.InputError)
  expect(call).toThrow(message)
})

it('raw functions refuse what is no handle', () => {
  for (const call of [
    () => addon.queryStream(3), () => addon.synchronizeEvent(1.5), () => addon.recordEvent(2 ** 50, 2 ** 50), () => addon.unpinMemory(-1),
    () => addon.fromPinned(2 ** 50, 0, 'float32', [1], 'cuda'), () => addon.cudaSetStream(2 ** 50),
    () => addon.enterGraph(3), () => addon.beginCapture(2 ** 53, null), () => addon.endCapture(2 ** 50), () => addon.abandonGraph(2 ** 50),
    () => addon.leaveGraph(2 ** 50), () => addon.replayGraph(2 ** 50), () => addon.disposeGraph(NaN)
  ]) {
    expect(call).toThrow(/expected (a Stream|an Event|a graph|pinned memory)|(stream|event|graph|pinned memory) was disposed of/)
  }
})
