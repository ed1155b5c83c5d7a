import { fileURLToPath } from 'node:url'

import { addon } from './addon.js'
import { watchCalls, type Operator } from './dispatch.js'
import { refusePromise, requireFunction } from './tensor-handle.js'

const FRAMES = 50

// Frames of the library itself say nothing to its users.
const own = new URL('..', import.meta.url).href
const ownPath = fileURLToPath(own)

function rememberCall(op: Operator): void {
  const holder: { stack?: string } = {}
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = FRAMES
  Error.captureStackTrace(holder, rememberCall)
  Error.stackTraceLimit = limit
  const frames = (holder.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line))
  const outside = frames.filter((frame) => !frame.includes(own) && !frame.includes(ownPath))
  addon.setCallSite([op.overload ? `${op.name}.${op.overload}` : op.name, ...(outside.length > 0 ? outside : frames)].join('\n'))
}

/** Runs `callback` in anomaly mode. */
export function withAnomaly<T>(checkNan: boolean, callback: () => T): T {
  requireFunction(callback, 'the callback of detectAnomaly()')
  const before = addon.setAnomaly(checkNan ? 2 : 1)
  const watcher = watchCalls(rememberCall)
  try {
    const result = callback()
    refusePromise(result, 'the callback of detectAnomaly()')
    return result
  } finally {
    watchCalls(watcher)
    addon.setAnomaly(before)
  }
}
