import { addon, type Handle } from './addon.js'
import { keepResults, refusePromise, requireFunction, type TensorHandle } from './tensor-handle.js'

export const makeGraph = (device: string): Handle => addon.makeGraph(device)
export const replayGraph = (graph: Handle): void => addon.replayGraph(graph)
export const disposeGraph = (graph: Handle): void => addon.disposeGraph(graph)

/** Runs `callback` between two calls of the addon; a third, where it fails, puts everything back. */
function within<T>(graph: Handle, callback: () => T, name: string, end: (graph: Handle) => void): T {
  try {
    const result = callback()
    refusePromise(result, name)
    end(graph)
    return result
  } catch (error) {
    addon.abandonGraph(graph)
    throw error
  }
}

/** Runs `callback` on the graph's stream, after what the current one has been asked to do and before what it is asked next. */
export function onGraphStream<T>(graph: Handle, callback: () => T, name: string): T {
  requireFunction(callback, name)
  addon.enterGraph(graph)
  return within(graph, callback, name, (entered) => addon.leaveGraph(entered))
}

/**
 * Captures what `callback` asks of the GPU.
 *
 * @param memoryOf - A captured graph whose memory this one takes too.
 * @returns What the callback returned, and the tensors in it, taken out of every scope.
 */
export function capture<T>(graph: Handle, callback: () => T, name: string, memoryOf: Handle | null): [result: T, tensors: TensorHandle[]] {
  requireFunction(callback, name)
  addon.beginCapture(graph, memoryOf)
  const result = within(graph, callback, name, (entered) => addon.endCapture(entered))
  return [result, keepResults(result)]
}
