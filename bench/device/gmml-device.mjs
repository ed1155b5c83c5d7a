// What the benchmark needs of gmml beside training: captured steps, fused operators, and the allocator's counts.
import * as nn from 'gmml/nn'
import * as torch from 'gmml/torch'
import { memory } from '../gmml-server.mjs'

const MIB = 2 ** 20
/** Steps before the capture, as in a run of `gmml pretrain`. */
const WARM_UP = 3

/** Whether this gmml captures steps, and whether it has fused operators. */
export const hasGraphs = () => typeof torch.cuda.Graph === 'function'
export const hasFused = () => typeof nn.setFusion === 'function'

/** @param {boolean} fused every operator that there is, or none */
export function setFused(fused) {
  if (hasFused()) nn.setFusion(fused ? 'on' : 'off')
  else if (fused) throw new Error('expected a gmml with fused operators, received one without')
}

/**
 * The step as a CUDA graph, captured after the first steps. The learning rate stays as it is then.
 * @param {() => import('gmml/torch').Tensor} step @param {string} device
 */
export function captureStep(step, device) {
  const graph = new torch.cuda.Graph(device)
  let warmedUp = 0
  let loss
  const replay = () => {
    if (warmedUp < WARM_UP) {
      warmedUp++
      return graph.warmUp(step)
    }
    loss ??= graph.capture(step)
    graph.replay()
    // Another handle on the same memory: a scope frees what a step returns.
    return loss.detach()
  }
  return Object.assign(replay, { dispose: () => graph.dispose() })
}

/** Gives unused memory back, and begins to count anew. */
export function forgetPeak(device) {
  if (device === 'cpu') return {}
  torch.cuda.emptyCache()
  torch.cuda.resetPeakMemoryStats(device)
  return {}
}

/** Peaks since then, in MiB: what the allocator took from the device, and what tensors had of it. On a CPU that of the process. */
export function peakMemory(device) {
  if (device === 'cpu') return { reservedMiB: memory().peak_rss_mb, allocatedMiB: null }
  return { reservedMiB: torch.cuda.maxMemoryReserved(device) / MIB, allocatedMiB: torch.cuda.maxMemoryAllocated(device) / MIB }
}
