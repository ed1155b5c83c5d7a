/** The last of ascending numbers that is at most `value`: its position, 0 if there is none. */
export function lastAtMost(numbers: { readonly length: number; readonly [index: number]: number }, value: number): number {
  let [low, high] = [0, numbers.length]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (numbers[middle]! <= value) low = middle
    else high = middle
  }
  return low
}
