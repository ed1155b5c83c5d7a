import { expected } from '../errors.js'
import { permutation, type Random } from './random.js'
import type { ImageSource } from './source.js'

/**
 * Images that wait to be drawn: some hundred megabytes of photographs, which is what has to be at hand where they come from a network, and
 * several shards of the usual thousand, so neighbours in a shard come far from each other.
 */
export const SHUFFLE_BUFFER = 4096

/** Blocks read side by side: shards may be longer than the buffer, and even then a batch is not from a single one. */
const OPEN_BLOCKS = 4

/**
 * The order of an epoch: every image once.
 *
 * Where any order is as good to read (`blocks === null`) it is a {@link permutation}. Else blocks (shards, row groups) are drawn at random
 * and read from their first image to the last, four at a time in random turns, through a shuffle buffer as WebDataset has it: a random one
 * of the waiting images comes next, and the next one read takes its place. Images that are near each other in this order lie in few blocks.
 *
 * @param random - Decides everything: the same numbers give the same order.
 * @param buffer - Images that wait in the shuffle buffer; 1 leaves those of a block in their order.
 * @returns uint32 [source.length], positions in the source.
 * @throws InputError for a buffer that is not a positive integer.
 */
export function epochOrder(
  source: Pick<ImageSource, 'length'> & { readonly blocks?: Int32Array | null }, random: Random, buffer = SHUFFLE_BUFFER
): Uint32Array {
  if (!Number.isInteger(buffer) || buffer < 1) throw expected('an integer of at least 1', 'buffer', buffer)
  const { length, blocks = null } = source
  if (blocks === null) return permutation(length, random)
  return throughBuffer(readBlocks(length, blocks, random), Math.min(buffer, length), random)
}

/** The images as they are read: those of a few blocks at a time, of each from the first to the last. */
function readBlocks(length: number, blocks: Int32Array, random: Random): Uint32Array {
  const order = new Uint32Array(length)
  const waiting = permutation(blocks.length, random)
  const open: { next: number; readonly end: number }[] = []
  let opened = 0
  for (let i = 0; i < length; i++) {
    while (open.length < OPEN_BLOCKS && opened < waiting.length) {
      const block = waiting[opened++]!
      open.push({ next: blocks[block]!, end: blocks[block + 1] ?? length })
    }
    const turn = random.integer(0, open.length)
    const block = open[turn]!
    order[i] = block.next++
    if (block.next === block.end) open.splice(turn, 1)
  }
  return order
}

/** In place: what is drawn is written where the images have been read already. */
function throughBuffer(order: Uint32Array, size: number, random: Random): Uint32Array {
  const waiting = order.slice(0, size)
  for (let i = 0; i < order.length; i++) {
    const left = Math.min(size, order.length - i)
    const drawn = random.integer(0, left)
    const image = waiting[drawn]!
    // At the end nothing comes after: the last that waits takes the place.
    waiting[drawn] = i + size < order.length ? order[i + size]! : waiting[left - 1]!
    order[i] = image
  }
  return order
}
