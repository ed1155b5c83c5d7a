import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'

import type { StateDict } from '../nn/index.js'
import { scope } from '../torch/index.js'

/**
 * SHA-256 over the content of a file of tensors: names, dtypes, shapes, bytes and metadata, whatever their order in the file. Lets the
 * event loop turn between tensors.
 */
export async function checksumOf(tensors: StateDict, metadata: Readonly<Record<string, string>>): Promise<string> {
  const hash = createHash('sha256')
  hash.update(JSON.stringify(Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1))))
  for (const name of Object.keys(tensors).sort()) {
    const tensor = tensors[name]!
    hash.update(JSON.stringify([name, tensor.dtype, tensor.shape]))
    hash.update(new Uint8Array(scope(() => tensor.toTypedArray()).buffer))
    await setImmediate()
  }
  return hash.digest('hex')
}
