import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { ellipsis, slice, type Index, type Tensor } from '../../src/torch/index.js'
import { inFolder, runPython } from './python.js'

type Position = number | null | undefined
type Item =
  | number | boolean | null | '...' | { slice: [Position, Position, Position] }
  | { tensor: (number | boolean)[]; shape: number[]; dtype: string }
interface Case { shape: number[]; index: Item[]; value?: number | { drop: number; ones: boolean[] } }
interface Answer { shape?: number[]; values?: number[]; grad?: number[]; valueGrad?: number[]; error?: string }

const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1)

// Drawn so that most cases are legal: a position is out of range, a mask of another shape or an index too many now and then.
const position = (size: number) =>
  fc.oneof({ weight: 40, arbitrary: fc.integer({ min: -size, max: Math.max(size - 1, 0) }) }, fc.constant(size))
const end = fc.option(fc.integer({ min: -6, max: 6 }))
const range = fc.tuple(end, end, fc.option(fc.integer({ min: 1, max: 3 })))

function mask(shape: readonly number[]): fc.Arbitrary<Item> {
  const sizes = fc.tuple(...shape.map((size) => fc.oneof({ weight: 40, arbitrary: fc.constant(size) }, fc.constant(size + 1))))
  return sizes.chain((sizes) =>
    fc.array(fc.boolean(), { minLength: product(sizes), maxLength: product(sizes) })
      .map((tensor) => ({ tensor, shape: sizes, dtype: 'bool' }))
  )
}

function positions(size: number, common: readonly number[]): fc.Arbitrary<Item> {
  const shape = fc.tuple(fc.nat(common.length), fc.array(fc.boolean(), { minLength: common.length, maxLength: common.length }))
  return fc.tuple(shape, fc.constantFrom('int64', 'int32')).chain(([[drop, ones], dtype]) => {
    const sizes = common.map((size, i) => (ones[i] ? 1 : size)).slice(drop)
    const count = product(sizes)
    return fc.array(position(size), { minLength: count, maxLength: count }).map((tensor) => ({ tensor, shape: sizes, dtype }))
  })
}

const extra: fc.Arbitrary<Item[]> = fc.oneof(
  { weight: 5, arbitrary: fc.constant<Item[]>([]) },
  { weight: 2, arbitrary: fc.constant<Item[]>([null]) },
  fc.constantFrom<Item[]>([true], [false], [{ tensor: [true], shape: [], dtype: 'bool' }])
)

/** Indices for all these dimensions. */
function section(shape: readonly number[], common: readonly number[]): fc.Arbitrary<Item[]> {
  if (shape.length === 0) return extra
  const [size = 0] = shape
  const one = fc.oneof<fc.Arbitrary<Item>[]>(
    position(size), range.map((slice) => ({ slice })), range.map((slice) => ({ slice })), positions(size, common), mask([size])
  )
  const rest = (width: number) => section(shape.slice(width), common)
  const single = fc.tuple(extra, one, rest(1))
  const double = shape.length < 2 ? single : fc.tuple(extra, mask(shape.slice(0, 2)), rest(2))
  return fc.oneof({ weight: 4, arbitrary: single }, double).map(([before, index, after]) => [...before, index, ...after])
}

const sizes = fc.array(fc.oneof({ weight: 12, arbitrary: fc.integer({ min: 1, max: 4 }) }, fc.constant(0)), { maxLength: 4 })
const broadcast = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 })
const indexed: fc.Arbitrary<Case> = fc.tuple(sizes, fc.nat(4), fc.nat(4), broadcast, fc.nat(30))
  .chain(([shape, first, last, common, tooMany]) => {
    const front = Math.min(first, shape.length)
    const back = Math.min(last, shape.length - front)
    const middle = back > 0 || first % 2 ? ['...' as const] : []
    return fc.tuple(section(shape.slice(0, front), common), section(shape.slice(shape.length - back), common))
      .map(([before, after]) => ({ shape, index: [...before, ...middle, ...(back > 0 ? after : []), ...(tooMany ? [] : [0, 0, 0])] }))
  })
const value = fc.oneof(
  fc.integer({ min: -9, max: 9 }), fc.record({ drop: fc.nat(3), ones: fc.array(fc.boolean(), { maxLength: 4 }) })
)
const assigned: fc.Arbitrary<Case> = fc.tuple(indexed, value).map(([drawn, value]) => ({ ...drawn, value }))

const cases = [...fc.sample(indexed, { numRuns: 2500, seed: 3 }), ...fc.sample(assigned, { numRuns: 1500, seed: 4 })]

const counted = (shape: number[]) => torch.arange(product(shape), { dtype: 'float64' }).reshape(shape).requiresGrad_()

function toIndex(item: Item): Index {
  if (item === '...') return ellipsis
  if (typeof item !== 'object' || item === null) return item
  if ('slice' in item) return slice(...item.slice)
  return torch.tensor(item.tensor).to(item.dtype as 'int64').reshape(item.shape)
}

/** Elements as Python lists them: bit for bit, apart from the sign of zero. */
const list = (x: Tensor) => [...(x.toTypedArray() as Float64Array)].map((value) => value + 0)

function evaluate({ shape, index, value }: Case): Answer {
  const x = counted(shape)
  const indices = index.map(toIndex)
  const leaves = [x]
  let result = x.at(...indices)
  if (value !== undefined) {
    const part = result
    result = x.clone()
    if (typeof value === 'number') result.setAt(indices, value)
    else {
      const given = counted(part.shape.slice(value.drop).map((size, i) => (value.ones[i] ? 1 : size)))
      leaves.push(given)
      result.setAt(indices, given)
    }
  }
  const probe = torch.arange(result.numel(), { dtype: 'float64' }).cos().reshape(result.shape)
  const [grad, valueGrad] = torch.grad(result.mul(probe).sum(), leaves)
  return { shape: result.shape, values: list(result), grad: list(grad!), ...(valueGrad && { valueGrad: list(valueGrad) }) }
}

let answers: Answer[]
beforeAll(async () => {
  answers = await inFolder(async (folder) => {
    const file = join(folder, 'cases.json')
    await writeFile(file, JSON.stringify(cases))
    return JSON.parse(await runPython(join(import.meta.dirname, 'indexing.py'), file)) as Answer[]
  })
})

describe('indexing gives what PyTorch gives', () => {
  it('for thousands of legal cases and some illegal ones', () => {
    const refused = answers.filter(({ error }) => error !== undefined).length
    expect(refused).toBeGreaterThan(100)
    expect(answers.length - refused).toBeGreaterThan(2500)
    const indices = cases.filter((_, i) => answers[i]!.error === undefined).flatMap(({ index }) => index)
    const kinds = [(item: Item) => item === '...', (item: Item) => item === null, (item: Item) => typeof item === 'number',
      (item: Item) => typeof item === 'object' && item !== null && 'slice' in item,
      (item: Item) => typeof item === 'object' && item !== null && 'tensor' in item && item.dtype === 'bool' && item.shape.length === 2,
      (item: Item) => typeof item === 'object' && item !== null && 'tensor' in item && item.dtype !== 'bool' && item.shape.length === 2]
    for (const kind of kinds) expect(indices.filter(kind).length).toBeGreaterThan(50)
  })

  it('values, gradients and refusals', () => {
    for (const [i, drawn] of cases.entries()) {
      const wanted = answers[i]!
      const name = JSON.stringify(drawn)
      torch.scope(() => {
        if (wanted.error !== undefined) expect(() => evaluate(drawn), `${name}: ${wanted.error}`).toThrow()
        else expect(evaluate(drawn), name).toEqual({ ...wanted, values: wanted.values!.map((value) => value + 0) })
      })
    }
  })
})
