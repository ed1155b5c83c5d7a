/** The block that an image is in. @param firsts - First position of each block, ascending from 0. */
export function blockAt(firsts: Int32Array, index: number): number {
  let [low, high] = [0, firsts.length]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (firsts[middle]! <= index) low = middle
    else high = middle
  }
  return low
}
