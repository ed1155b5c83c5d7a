import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64'
import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus'
import { expected } from '../errors.js'

/** A source of random numbers. Its functions need no `this`, so `random.uniform` can be handed on alone. */
export interface Random {
  /** A number in [low, high), [0, 1) unless told; 53 random bits. */
  uniform(this: void, low?: number, high?: number): number
  /** An integer in [low, high), without a bias that could be seen (53 random bits are scaled); low + 1 = high gives low. */
  integer(this: void, low: number, high: number): number
  /** True with this probability. */
  chance(this: void, probability: number): boolean
}

/** What a stream of random numbers belongs to: integers (epoch, index of the image, view) and names of purposes. */
export type RandomKey = number | string

/**
 * The random numbers of one purpose: the same seed and keys give the same numbers on every machine, whoever else draws, in whatever
 * order. Streams of neighbouring seeds or keys are unrelated, and (1, 'a') is another stream than ('a', 1) or (1).
 *
 * xoroshiro128+ with its whole 128-bit state hashed from the keys, so two streams do not meet in practice.
 *
 * @param seed - An integer.
 * @param keys - Integers (of at most 53 bits) and strings.
 * @throws InputError for a number that is not an integer.
 *
 * @example
 * const random = randomFor(seed, epoch, index, view, 'crop')
 */
export function randomFor(seed: number, ...keys: RandomKey[]): Random {
  const generator = xoroshiro128plusFromState(hash([seed, ...keys]))
  const uniform = (low = 0, high = 1): number => low + (high - low) * uniformFloat64(generator)
  return {
    uniform,
    integer: (low, high) => low + Math.floor((high - low) * uniformFloat64(generator)),
    chance: (probability) => uniformFloat64(generator) < probability
  }
}

/** The integers 0 to length - 1 in random order (Fisher-Yates): every order is equally likely, as far as the generator's state reaches. */
export function permutation(length: number, random: Random): Uint32Array {
  if (!Number.isInteger(length) || length < 0 || length > 2 ** 32) throw expected('an integer from 0 to 2^32', 'length', length)
  const order = Uint32Array.from({ length }, (_, index) => index)
  for (let last = length - 1; last > 0; last--) {
    const other = random.integer(0, last + 1)
    const value = order[last]!
    order[last] = order[other]!
    order[other] = value
  }
  return order
}

/** `count` different integers of 0 to length - 1, ascending. From the same numbers, a smaller sample is part of a larger one. */
export function sample(length: number, count: number, random: Random): Uint32Array {
  return permutation(length, random).slice(0, count).sort()
}

// Four 32-bit lanes take in the same words with different odd multipliers (those of MurmurHash3_x86_128), and are mixed with each
// other at the end: every bit of a key decides every bit of the 128-bit state with probability one half.
const lanes = [0x239b961b, 0xab0e9789 | 0, 0x38b34ae5, 0xa1e38b93 | 0] as const

function hash(keys: readonly RandomKey[]): number[] {
  const state = [...lanes] as number[]
  const absorb = (word: number): void => {
    for (let lane = 0; lane < 4; lane++) state[lane] = finalise(Math.imul(state[lane]!, 5) + Math.imul(word + 1, lanes[lane]!))
  }
  for (const key of keys) {
    // The kind and the length come first, or ('ab', 'c') would be ('a', 'bc').
    if (typeof key === 'string') {
      absorb(key.length)
      for (let index = 0; index < key.length; index++) absorb(key.charCodeAt(index))
    } else if (Number.isSafeInteger(key)) {
      absorb(-1)
      absorb(key | 0)
      absorb(Math.floor(key / 2 ** 32))
    } else throw expected('an integer of at most 53 bits or a string', 'a key of random numbers', key)
  }
  for (let round = 0; round < 2; round++) {
    const sum = state.reduce((total, lane) => (total + lane) | 0, 0)
    for (let lane = 0; lane < 4; lane++) state[lane] = finalise(state[lane]! + Math.imul(sum, lanes[lane]!))
  }
  return state
}

/** The finaliser of MurmurHash3: a bijection of 32 bits in which each input bit flips each output bit half of the time. */
function finalise(value: number): number {
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35)
  return value ^ (value >>> 16)
}
