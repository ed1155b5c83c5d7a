import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import * as ops from '../../src/torch/ops/index.js'
import { listOperators } from '../../src/torch/index.js'

interface Schema { name: string; args: { keywordOnly: boolean; type: { written: boolean } }[] }
interface Rules {
  parseSchema: (text: string) => Schema
  camelCase: (name: string) => string
  skipped: (schema: Schema) => string | null
  methodsOnly: Map<string, string>
}
const load = async (name: string) => (await import(new URL(`../../scripts/generate/${name}.mjs`, import.meta.url).href)) as Rules
const { parseSchema } = await load('schema')
const { camelCase, methodsOnly, skipped } = await load('rules')

const exported = torch as unknown as Record<string, unknown>
const schemas = [...new Set(listOperators())].filter((text) => text.startsWith('aten::')).map(parseSchema)
const familyOf = ({ name }: Schema) => name.slice('aten::'.length)

/** As the product promises them: every operator but private ones, backward formulas and those that write to `out`. */
const isPublic = (schema: Schema) =>
  !familyOf(schema).startsWith('_') && !familyOf(schema).includes('_backward') &&
  !schema.args.some(({ keywordOnly, type }) => keywordOnly && type.written)

const reasons = new Map<string, Set<string>>() // by family
for (const schema of schemas.filter(isPublic)) {
  const known = reasons.get(familyOf(schema)) ?? new Set()
  reasons.set(familyOf(schema), known.add(skipped(schema) ?? 'generated'))
}

describe('the public operator families', () => {
  const generated = [...reasons].filter(([, found]) => found.has('generated')).map(([family]) => family)
  const missing = [...reasons].filter(([, found]) => !found.has('generated'))

  it('are exported as functions', () => {
    expect(generated.length).toBeGreaterThan(850)
    for (const family of generated) expect(typeof exported[camelCase(family)], family).toBe('function')
  })

  it('are otherwise left out for one of these reasons', () => {
    const counts: Record<string, number> = {}
    for (const [, found] of missing) for (const reason of found) counts[reason] = (counts[reason] ?? 0) + 1
    expect(Object.keys(counts).sort()).toEqual([
      'autograd internals', 'backend kernel', 'functionalization', 'internal', 'no use from here', 'quantization', 'symbolic shape',
      'written by hand'
    ])
    // More of them would mean that a rule covers what it should not.
    expect(missing.length).toBeLessThan(150)
  })

  it('written by hand are members of Tensor, or of another name there', () => {
    const names: Record<string, string> = {
      stride: 'strides', get_device: 'device', set_data: 'setData', requires_grad_: 'requiresGrad_', retain_grad: 'retainGrad',
      is_leaf: 'isLeaf', data: 'detach', record_stream: 'recordStream', output_nr: '', retains_grad: ''
    }
    const byHand = missing.filter(([, found]) => found.has('written by hand')).map(([family]) => family)
    expect(byHand.length).toBeGreaterThan(8)
    // What tells only autograd's own code something has no member.
    for (const family of byHand) if (names[family] !== '') expect(names[family] ?? family in torch.Tensor.prototype, family).toBeTruthy()
    for (const name of Object.values(names)) if (name) expect(name in torch.Tensor.prototype, name).toBe(true)
  })

  it('whose name means something else are methods', () => {
    expect([...methodsOnly.keys()]).toEqual(['slice'])
    for (const [family, why] of methodsOnly) {
      expect(why).not.toBe('')
      expect(family in torch.Tensor.prototype).toBe(true)
    }
    expect(torch.slice(1, 2)).toBeInstanceOf(torch.Slice)
  })

  it('that PyTorch has documented functions for are there', () => {
    // From every chapter of its reference: a rule too wide would lose one of these.
    const known = `abs add addmm allclose amax any arange argmax argsort atan2 avg_pool2d batch_norm bernoulli bincount bmm broadcast_to
      bucketize cat cdist celu chunk clamp conv2d conv_transpose2d cosine_similarity cross cross_entropy_loss cumsum deg2rad diag
      diff dist dropout einsum embedding empty_like equal erf exp eye fake_quantize_per_tensor_affine fft_fft flatten flip
      from_file full gather gelu group_norm hash_tensor histc index_add index_copy index_select isclose istft kthvalue layer_norm
      lerp linalg_solve linalg_svd linear linspace logsumexp lstm masked_fill matmul max_pool2d meshgrid mse_loss multinomial
      narrow nll_loss nonzero normal norm ones outer pad pixel_shuffle pow prod quantile rand randint randn randperm relu
      repeat_interleave reshape roll scaled_dot_product_attention scatter_add searchsorted sigmoid silu softmax sort special_erf
      split squeeze stack std stft sum take_along_dim tensordot tile topk trace transpose tril unbind unfold upsample_bicubic2d
      vander var view_as_real where zeros`.split(/\s+/)
    expect(known.length).toBeGreaterThan(100)
    for (const name of known) expect(typeof exported[camelCase(name)], name).toBe('function')
  })
})

it('every function refuses what it cannot use with an error of ours', () => {
  torch.setNumThreads(1)
  const x = torch.ones([2, 2])
  const functions = Object.entries(ops).filter(([, value]) => typeof value === 'function') as [string, (...args: unknown[]) => unknown][]
  const others: string[] = []
  let refused = 0
  for (const [name, run] of functions) {
    for (const last of [null, 'abc', [], { unheardOf: 1 }]) {
      for (let count = 1; count < 4; count++) {
        torch.scope(() => {
          try {
            // Copies, since an operator may work in place.
            run(...Array.from({ length: count }, () => x.clone()), last)
          } catch (error) {
            refused++
            if (!(error instanceof torch.InputError || error instanceof torch.TorchError)) others.push(`${name}: ${String(error)}`)
          }
        })
      }
    }
  }
  expect(others).toEqual([])
  expect(refused).toBeGreaterThan(functions.length * 8)
})

it.each(['functions', 'inplace', 'methods'])('%s.generated.ts has the schema before every function', (name) => {
  const lines = readFileSync(new URL(`../../src/torch/ops/${name}.generated.ts`, import.meta.url), 'utf8').split('\n')
  const head = name === 'methods' ? /^ {2}(\w+)\(.*\): (?!any)[^;]+$/ : /^(?:export )?function (\S+?)\(.*\): (?!any)/
  let found = 0
  for (const [i, line] of lines.entries()) {
    const match = head.exec(line)
    if (!match) continue
    found++
    const schema = /^ *\/\*\* `aten::(\w+)(?:\.\w+)?\(.*\) -> .*` \*\/$/.exec(lines[i - 1]!)
    expect(schema, `${i}: ${line}`).not.toBeNull()
    expect(camelCase(schema![1]!)).toBe(match[1]!.replace('$', ''))
  }
  expect(found).toBeGreaterThan(150)
})
