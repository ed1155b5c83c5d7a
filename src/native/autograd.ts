import { expected } from '../errors.js'
import { addon, type Handle } from './addon.js'
import { TorchError } from './errors.js'
import { readable } from './autograd-errors.js'
import { anyRegions, passThroughRegions } from './checkpoint.js'
import { handleOf, refusePromise, requireFunction, requireHandle, wrap, type TensorHandle } from './tensor-handle.js'

type Gradients = readonly (TensorHandle | null)[] | undefined

function toHandles(tensors: readonly TensorHandle[], name: string): Handle[] {
  if (!Array.isArray(tensors) || tensors.length === 0) throw expected('one or more Tensors', name, tensors)
  return tensors.map((tensor: TensorHandle, i) => requireHandle(tensor, `${name}[${i}]`))
}

function toGradients(tensors: Gradients): (Handle | null)[] | null {
  if (tensors === undefined) return null
  if (!Array.isArray(tensors)) throw expected('an array of Tensors', 'the gradients', tensors)
  return tensors.map((tensor: TensorHandle | null, i) => (tensor === null ? null : requireHandle(tensor, `gradients[${i}]`)))
}

/** Options of {@link grad}. PyTorch: `torch.autograd.grad`. */
export interface GradOptions {
  /** Keep the graph for a second pass. Default: the value of `createGraph`. */
  readonly retainGraph?: boolean
  /** Make the gradients themselves differentiable. */
  readonly createGraph?: boolean
  /** Give null for inputs that the outputs do not depend on, instead of an error. */
  readonly allowUnused?: boolean
}

/** Accumulates gradients into the leaves that `outputs` depend on. PyTorch: `torch.autograd.backward`. */
export function backward(outputs: readonly TensorHandle[], gradients?: Gradients, options: GradOptions = {}): void {
  const { createGraph = false, retainGraph = createGraph } = options
  const [from, given] = [toHandles(outputs, 'outputs'), toGradients(gradients)]
  readable('backward', () => {
    if (anyRegions()) passThroughRegions(from, given, null, retainGraph, createGraph)
    else addon.backward(from, given, retainGraph, createGraph)
  })
}

/** Gradients of `outputs` with respect to `inputs`, without touching `.grad`. PyTorch: `torch.autograd.grad`. */
export function gradientsOf(
  outputs: readonly TensorHandle[], inputs: readonly TensorHandle[], gradients?: Gradients, options: GradOptions = {}
): (TensorHandle | null)[] {
  const { createGraph = false, retainGraph = createGraph, allowUnused = false } = options
  const [from, to, given] = [toHandles(outputs, 'outputs'), toHandles(inputs, 'inputs'), toGradients(gradients)]
  return readable('grad', () => {
    const handles = anyRegions()
      ? passThroughRegions(from, given, to, retainGraph, createGraph)
      : addon.grad(from, to, given, retainGraph, createGraph, allowUnused)
    const found = handles.map((handle) => (handle === null ? null : wrap(handle)))
    if (!allowUnused && found.includes(null)) {
      for (const gradient of found) gradient?.dispose()
      throw new TorchError('grad: One of the differentiated Tensors appears to not have been used in the graph', 'grad')
    }
    return found
  })
}

export const requiresGrad = (tensor: TensorHandle): boolean => addon.requiresGrad(handleOf(tensor))

export function setRequiresGrad(tensor: TensorHandle, value: boolean): void {
  addon.setRequiresGrad(handleOf(tensor), value)
}

export const isLeaf = (tensor: TensorHandle): boolean => addon.isLeaf(handleOf(tensor))

export const gradFunction = (tensor: TensorHandle): string | null => addon.gradFunction(handleOf(tensor))

export function retainGrad(tensor: TensorHandle): void {
  addon.retainGrad(handleOf(tensor))
}

export function gradient(tensor: TensorHandle): TensorHandle | null {
  const handle = addon.gradient(handleOf(tensor))
  return handle === null ? null : wrap(handle)
}

export function setGradient(tensor: TensorHandle, value: TensorHandle | null): void {
  addon.setGradient(handleOf(tensor), value === null ? null : requireHandle(value, 'grad'))
}

export function setData(tensor: TensorHandle, data: TensorHandle): void {
  addon.setData(handleOf(tensor), requireHandle(data, 'data'))
}

export const isGradEnabled = (): boolean => addon.gradMode()

/** Runs `callback` with gradient recording on or off. */
export function withGradMode<T>(enabled: boolean, name: string, callback: () => T): T {
  requireFunction(callback, `the callback of ${name}()`)
  const before = addon.setGradMode(enabled)
  try {
    const result = callback()
    refusePromise(result, `the callback of ${name}()`)
    return result
  } finally {
    addon.setGradMode(before)
  }
}

export const autocastState = (deviceType: string): { enabled: boolean; dtype: string } => addon.autocast(deviceType)

/** Runs `callback` in inference mode, or out of it. */
export function withInferenceMode<T>(enabled: boolean, callback: () => T): T {
  requireFunction(callback, 'the callback of inferenceMode()')
  addon.enterInferenceMode(enabled)
  try {
    const result = callback()
    refusePromise(result, 'the callback of inferenceMode()')
    return result
  } finally {
    addon.leaveInferenceMode()
  }
}

export const isInferenceModeEnabled = (): boolean => addon.inferenceMode()

/**
 * Runs `callback` with autocast for one device type: matrix products and convolutions in `dtype`, reductions in float32. With `enabled`
 * false autocast is off inside. PyTorch: `torch.autocast`.
 */
export function withAutocast<T>(deviceType: string, dtype: string, enabled: boolean, callback: () => T): T {
  requireFunction(callback, 'the callback of autocast()')
  const before = addon.autocast(deviceType)
  addon.enterAutocast(deviceType, enabled, dtype)
  try {
    const result = callback()
    refusePromise(result, 'the callback of autocast()')
    return result
  } finally {
    addon.leaveAutocast(deviceType, before.enabled, before.dtype)
  }
}
