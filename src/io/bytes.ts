import type { FileHandle } from 'node:fs/promises'

import type { DType } from '../torch/index.js'
import { arrayTypes } from '../torch/types.js'

/** Bytes that are read or written at once. Larger pieces are no faster, and take memory besides the tensors'. */
export const CHUNK = 1 << 20

/** Bytes of one element. */
export const elementSize = (dtype: DType) => arrayTypes[dtype].BYTES_PER_ELEMENT * (dtype.startsWith('complex') ? 2 : 1)

/** Fills `buffer` from a place of the file. Returns how many bytes there were. */
export async function readAt(file: FileHandle, buffer: Uint8Array, position: number): Promise<number> {
  let done = 0
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

/** Writes all of `bytes`. One write may take only a part: the disk is full, or they are more than the system call takes at once. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten
}
