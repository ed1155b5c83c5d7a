import { addon, type Handle } from './addon.js'
import { handleOf, scope, wrap, type TensorHandle } from './tensor-handle.js'

type Recompute = (inputs: TensorHandle[]) => readonly TensorHandle[]

// The functions of regions whose graph is alive. The graph itself knows them by number, since libtorch must not call them.
const regions = new Map<number, Recompute>()
let last = 0

function forgetFreed(): void {
  for (const region of addon.freedRegions()) regions.delete(region)
}

/** Whether a backward pass may meet a region. */
export function anyRegions(): boolean {
  if (regions.size > 0) forgetFreed()
  return regions.size > 0
}

/**
 * Makes tensors that were computed without a graph the outputs of a region, which a backward pass computes again.
 *
 * @param inputs - The tensors that the region was given; `recompute` gets them again, as part of their graph.
 * @param guarded - Tensors that must not change before the region is recomputed.
 * @param outputs - What the region gave.
 * @param recompute - Computes the outputs with gradients recorded.
 */
export function recordRegion(
  inputs: readonly TensorHandle[], guarded: readonly TensorHandle[], outputs: readonly TensorHandle[], recompute: Recompute
): TensorHandle[] {
  forgetFreed()
  const region = ++last
  const handles = addon.checkpointRegion(region, inputs.map(handleOf), guarded.map(handleOf), outputs.map(handleOf))
  regions.set(region, recompute)
  return handles.map(wrap)
}

/**
 * A backward pass that computes regions again where it meets them, the latest first. Gradients reach the leaves at its end: a pass that
 * fails half-way changes none.
 *
 * @returns The gradients of `inputs`, if given.
 */
export function passThroughRegions(
  outputs: readonly Handle[], gradients: readonly (Handle | null)[] | null, inputs: readonly Handle[] | null,
  retainGraph: boolean, createGraph: boolean
): (Handle | null)[] {
  const pass = addon.beginPass(outputs, gradients, inputs, retainGraph, createGraph)
  const step = () => {
    const next = addon.advancePass(pass)
    if (!next) return false
    const recomputed = regions.get(next.region)!(next.inputs.map(wrap))
    addon.expandPass(pass, recomputed.map(handleOf))
    return true
  }
  try {
    // Each region's tensors are freed before the next one's are made.
    while (scope(step));
    return addon.finishPass(pass)
  } finally {
    addon.endPass(pass)
  }
}

/** Runs `callback` so that autocast keeps no casts of weights. */
export function withoutAutocastCache<T>(callback: () => T): T {
  const before = addon.setAutocastCache(false)
  try {
    return callback()
  } finally {
    addon.setAutocastCache(before)
  }
}

/** Runs `callback` with no casts of weights from before, and leaves none behind. */
export function withFreshAutocastCache<T>(callback: () => T): T {
  addon.clearAutocastCache()
  try {
    return callback()
  } finally {
    addon.clearAutocastCache()
  }
}
