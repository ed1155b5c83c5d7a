import { expected } from '../errors.js'
import type { Random } from '../data/random.js'

/** A rectangle of pixels. */
export interface Rectangle {
  readonly top: number
  readonly left: number
  readonly height: number
  readonly width: number
}

/** Rectangles that cover a part of an image, and the pixels they cover. */
export interface GroupMask {
  readonly rectangles: readonly Rectangle[]
  /** 1 where covered: [H, W], row by row. */
  readonly covered: Uint8Array
}

const LARGEST_SIDE = 0.3 // of the image's side

// The published statistics come from Python's round(): halves go to the even neighbour.
function roundHalfToEven(value: number): number {
  const rounded = Math.round(value)
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded
}

// Pixels, excluded, that a rectangle's start and its extent are drawn below.
function bounds(side: number, align: number): readonly [start: number, extent: number] {
  const extent = Math.floor(LARGEST_SIDE * side)
  if (extent > align) return [Math.max(1, side - align), extent]
  // The authors' rule has no legal extent here. It becomes one alignment step, which may then start at the last one too: no larger
  // rectangle reaches that far.
  return [side, align + 1]
}

function extentFrom(start: number, drawn: number, side: number, align: number): number {
  return Math.min(Math.max(1, roundHalfToEven(Math.min(drawn, side - start) / align)) * align, side - start)
}

/** Position and extent along one side, both multiples of the alignment (the image's end may cut the extent). */
function drawSide(random: Random, side: number, align: number): readonly [start: number, extent: number] {
  const [startBelow, extentBelow] = bounds(side, align)
  const start = Math.floor(random.integer(0, startBelow) / align) * align
  return [start, extentFrom(start, random.integer(align, extentBelow), side, align)]
}

/**
 * The same for rectangles that may hang over the edges, of which the part inside the image counts: whatever its extent, one covers every
 * pixel with the same probability.
 */
function drawOverhangingSide(random: Random, side: number, align: number): readonly [start: number, extent: number] {
  const [, extentBelow] = bounds(side, align)
  const steps = Math.max(1, roundHalfToEven(random.integer(align, extentBelow) / align))
  const start = random.integer(1 - steps, Math.ceil(side / align)) * align
  const first = Math.max(0, start)
  return [first, Math.min(start + steps * align, side) - first]
}

/** How many pixels of a side rectangles can cover: the last few of some small sides lie beyond every one of them. */
function reach(side: number, align: number): number {
  const [startBelow, extentBelow] = bounds(side, align)
  let furthest = 0
  for (let start = 0; start < startBelow; start += align) {
    furthest = Math.max(furthest, start + extentFrom(start, extentBelow - 1, side, align))
  }
  return furthest
}

/**
 * Draws rectangles until their union covers the number of pixels drawn first: U(min(0.5, budget), budget) of the image. GMML, section
 * "Corruption" of the method; the last rectangle is not trimmed.
 *
 * @param budget - Largest part of the image to cover, in (0, 1].
 * @param align - Pixels that positions and extents are multiples of: 1 = any, the patch size = whole patches.
 * @param overhang - Whether rectangles may hang over the edges: the border is then covered as often as the middle. By the authors' rule,
 *   without, it is covered far less often.
 */
export function drawGroupMask(random: Random, height: number, width: number, budget: number, align = 1, overhang = false): GroupMask {
  if (typeof budget !== 'number' || !(budget > 0 && budget <= 1)) throw expected('a number above 0 and at most 1', 'budget', budget)
  if (!Number.isInteger(align) || align < 1) throw expected('an integer of at least 1', 'align', align)
  if (align > Math.min(height, width)) throw expected(`at most the image's side ${Math.min(height, width)}`, 'align', align)
  const drawn = random.uniform(Math.min(0.5, budget), budget) * height * width
  const wanted = overhang ? drawn : Math.min(drawn, reach(height, align) * reach(width, align))
  const draw = overhang ? drawOverhangingSide : drawSide
  const cover = new Cover(height, width)
  const rectangles: Rectangle[] = []
  for (let count = 0; count < wanted; ) {
    const [top, rows] = draw(random, height, align)
    const [left, columns] = draw(random, width, align)
    const rectangle = { top, left, height: rows, width: columns }
    rectangles.push(rectangle)
    count += cover.add(rectangle)
  }
  return { rectangles, covered: cover.pixels() }
}

/** The pixels that rectangles cover, a byte each, written and counted four at a time: a rectangle has thousands. */
class Cover {
  /** Bytes of a row: whole words. */
  readonly #stride: number
  readonly #words: Uint32Array<ArrayBuffer>
  // A row with the columns of one rectangle. Written as bytes and read as words, it is right for either byte order.
  readonly #row: Uint32Array<ArrayBuffer>
  readonly #rowBytes: Uint8Array<ArrayBuffer>

  constructor(readonly height: number, readonly width: number) {
    this.#stride = Math.ceil(width / 4) * 4
    this.#words = new Uint32Array((this.#stride / 4) * height)
    this.#row = new Uint32Array(this.#stride / 4)
    this.#rowBytes = new Uint8Array(this.#row.buffer)
  }

  /** @returns How many pixels were not covered before. */
  add({ top, left, height, width }: Rectangle): number {
    const [row, words, step] = [this.#row, this.#words, this.#stride / 4]
    const [first, end] = [left >> 2, (left + width + 3) >> 2]
    row.fill(0, first, end)
    this.#rowBytes.fill(1, left, left + width)
    let count = 0
    for (let y = top, start = top * step; y < top + height; y++, start += step) {
      for (let x = first; x < end; x++) {
        const fresh = row[x]! & ~words[start + x]!
        if (fresh === 0) continue
        words[start + x]! |= fresh
        count += Math.imul(fresh, 0x01010101) >>> 24 // the sum of the four bytes
      }
    }
    return count
  }

  /** 1 where covered: [H, W], row by row. */
  pixels(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#words.buffer)
    const { height, width } = this
    if (this.#stride === width) return bytes
    const pixels = new Uint8Array(height * width)
    for (let y = 0; y < height; y++) pixels.set(bytes.subarray(y * this.#stride, y * this.#stride + width), y * width)
    return pixels
  }
}
