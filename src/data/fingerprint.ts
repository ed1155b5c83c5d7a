import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import { setImmediate } from 'node:timers/promises'

import type { ImageSource } from './source.js'

// Names between two turns of the event loop.
const PART = 10_000

/** Without the folders above it, and, of joined sources, without `source: ` before it. */
const fileName = (name: string): string => basename(name).replace(/^.*: /s, '')

/**
 * SHA-256 that tells images from others without decoding them: over the names of the files, their order and their classes; of images in
 * memory over what they show. Folders above a file do not count, since images may move.
 */
export async function fingerprintOf(source: ImageSource): Promise<string> {
  const hash = createHash('sha256')
  hash.update(JSON.stringify([source.length, source.classes]))
  if (source.labels) hash.update(source.labels)
  for (let first = 0; first < source.length; first += PART) {
    const names = Array.from({ length: Math.min(PART, source.length - first) }, (_, i) => fileName(source.name(first + i)))
    hash.update(JSON.stringify(names))
    await setImmediate()
  }
  if (source.kind === 'memory') hash.update(source.images)
  return hash.digest('hex')
}
