import { join } from 'node:path'

import { ForeignObject } from '../../src/io/index.js'
import { storage } from '../../src/native/storage.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'
import { runPython } from '../parity/python.js'

/** Runs `torch-files.py`. */
export const torchFiles = async <T>(command: 'write' | 'read', ...paths: string[]): Promise<T> =>
  JSON.parse(await runPython(join(import.meta.dirname, 'torch-files.py'), command, ...paths)) as T

const storageOffset = torch.operator('aten::storage_offset')

export const hex = (tensor: Tensor) => Buffer.from(tensor.toTypedArray().buffer).toString('hex')

/** The value as `torch-files.py` describes it. */
export function describeTree(value: unknown, memories = new Map<number, number>()): unknown {
  const inside = (child: unknown) => describeTree(child, memories)
  if (torch.isTensor(value)) {
    const [identity] = storage(value)
    if (!memories.has(identity)) memories.set(identity, memories.size)
    return {
      tensor: value.dtype, shape: value.shape, strides: value.strides, offset: torch.call(storageOffset, value),
      memory: memories.get(identity), grad: value.requiresGrad, bytes: hex(value)
    }
  }
  if (Array.isArray(value)) return { list: value.map(inside) }
  if (value instanceof Map) return { dict: Array.from(value, (pair) => pair.map(inside)) }
  if (value instanceof Set) return { set: Array.from(value, inside).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)) }
  if (value instanceof Uint8Array) return { bytes: Buffer.from(value).toString('hex') }
  if (value instanceof ForeignObject) return { object: `${value.module}.${value.name}`, state: inside(value.state) }
  if (typeof value === 'bigint') return { integer: String(value) }
  if (typeof value === 'number' && !Number.isFinite(value)) return { number: Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf' }
  if (Object.is(value, -0)) return { number: '-0.0' }
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value)
  if (entries.length === 2 && 're' in value && 'im' in value) return { complex: [value.re, value.im] }
  return { dict: entries.map((pair) => pair.map(inside)) }
}
