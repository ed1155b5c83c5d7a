import { join } from 'node:path'
import { expect } from 'vitest'
import type { AffineMap, Interpolation, Mixing, Random, Rectangle } from '../../src/data/index.js'
import { loadSafetensors } from '../../src/io/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'

torch.setNumThreads(1)

/** A call of one of torchvision's functions on a batch, with a parameter for each image. */
export interface Case {
  readonly set: string
  readonly function: string
  readonly parameters: readonly unknown[]
  readonly result: string
  readonly mode?: Interpolation
  readonly filled?: boolean
  readonly centre?: AffineMap['centre'] | null
}

interface Reference {
  readonly fill: Record<string, number[]>
  readonly cases: readonly Case[]
  /** Operation, magnitude, sign. */
  readonly plans: readonly (readonly (readonly [string, number, number])[])[]
  /** So many plans are of one operation. */
  readonly single: number
  readonly spaces: readonly { bins: number; size: [number, number]; strengths: Record<string, number[]> }[]
  readonly erasing: readonly { height: number; width: number; wide: boolean; drawn: number[]; rectangle: Rectangle | null }[]
  readonly mixing: readonly { smoothing: number; mixing: Mixing | null | readonly (Mixing | null)[] }[]
  readonly boxes: readonly { height: number; width: number; given: number; centre: [number, number]; box: Rectangle; lambda: number }[]
  readonly betaProbabilities: readonly number[]
  readonly betaQuantiles: Record<string, number[]>
}

// What torchvision, timm and scipy compute, see make-augmentation.py beside it.
const { tensors, metadata } = await loadSafetensors(join(import.meta.dirname, '../fixtures/augmentation.safetensors'))

export const reference = JSON.parse(metadata['data']!) as Reference

export function tensorOf(name: string): Tensor {
  const tensor = tensors[name]
  if (!tensor) throw new Error(`the fixture has no ${name}`)
  return tensor
}

/** Bytes as numbers from 0 to 1. */
export const unit = (tensor: Tensor): Tensor => (tensor.dtype === 'uint8' ? tensor.to('float32').div(255) : tensor)

export const casesOf = (name: string): Case[] => reference.cases.filter((entry) => entry.function === name)

/** The images of a case, and what torchvision makes of them. */
export const pair = (entry: Case): [images: Tensor, wanted: Tensor] => [unit(tensorOf(`${entry.set}.images`)), unit(tensorOf(entry.result))]

export function distance(a: Tensor, b: Tensor): number {
  expect(a.shape).toEqual(b.shape)
  expect(a.isfinite().all().item()).toBe(true)
  return a.sub(b).abs().max().item()
}

/** Pixels that differ at all, as a part. */
export const differing = (a: Tensor, b: Tensor): number => a.sub(b).abs().gt(1e-5).to('float32').mean().item()

/** Random numbers that are these, in turn: `uniform` scales them, `integer` takes them as they are. More than these is an error. */
export function scripted(numbers: readonly number[]): Random {
  const left = [...numbers]
  const next = (): number => {
    if (left.length === 0) throw new Error('One number too many was drawn')
    return left.shift()!
  }
  return {
    uniform: (low = 0, high = 1) => low + (high - low) * next(),
    integer: next,
    chance: (probability) => next() < probability
  }
}
