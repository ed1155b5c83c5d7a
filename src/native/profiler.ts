import { addon } from './addon.js'
import { refusePromise, requireFunction } from './tensor-handle.js'

export const startProfiler = (cpu: boolean, cuda: boolean, shapes: boolean): void => addon.startProfiler(cpu, cuda, shapes)
export const stopProfiler = (path: string | null): Promise<void> => addon.stopProfiler(path)
export const enterRegion = (name: string): void => addon.enterRegion(name)
export const leaveRegion = (): void => addon.leaveRegion()
export const nvtxMark = (name: string): void => addon.nvtxMark(name)

function between<T>(enter: (name: string) => void, leave: () => void, what: string, name: string, callback: () => T): T {
  requireFunction(callback, `the callback of ${what}()`)
  enter(name)
  try {
    const result = callback()
    refusePromise(result, `the callback of ${what}()`)
    return result
  } finally {
    leave()
  }
}

export const inRegion = <T>(name: string, callback: () => T): T =>
  between(enterRegion, leaveRegion, 'recordFunction', name, callback)

export const inNvtxRange = <T>(name: string, callback: () => T): T =>
  between((text) => addon.nvtxPush(text), () => addon.nvtxPop(), 'nvtxRange', name, callback)
