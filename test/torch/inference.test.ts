import { describe, expect, it } from 'vitest'

import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, inferenceMode, isGradEnabled, isInferenceModeEnabled, noGrad, tensor } from '../../src/torch/index.js'

const weight = tensor([1, 2], { requiresGrad: true })
const made = inferenceMode(() => tensor([3, 4]))

describe('misuse', () => {
  it('of the region', () => {
    const loose = inferenceMode as unknown as (...values: unknown[]) => unknown
    for (const callback of [null, 3, async () => Promise.resolve()]) expect(() => loose(callback)).toThrow(InputError)
    expect(() => loose(() => 1, 'yes')).toThrow(InputError)
    expect(() => inferenceMode(() => { throw new RangeError('inside') })).toThrow(RangeError)
    expect([isInferenceModeEnabled(), isGradEnabled()]).toEqual([false, true])
  })

  it('of its tensors in autograd', () => {
    const written = inferenceMode(() => tensor([3, 4]))
    expect(() => made.requiresGrad_()).toThrow(/^setRequiresGrad: Setting requires_grad=True on inference tensor outside InferenceMode is not allowed/)
    expect(() => made.mul(weight)).toThrow(
      /^aten::mul\.Tensor: Inference tensors cannot be saved for backward\..*make a clone.*or use noGrad\(\) instead of inferenceMode\(\)/
    )
    expect(() => written.add_(1)).toThrow(/^aten::add_\.Scalar: Inplace update to inference tensor outside InferenceMode is not allowed\. You can make a clone/)
    expect(() => inferenceMode(() => weight.mul(2).sum().backward())).toThrow(/does not require grad/)
    expect(() => inferenceMode(() => weight.add_(1))).not.toThrow() // as under noGrad
  })
})

it('records nothing, and marks what is made inside', () => {
  const [result, view] = inferenceMode(() => [weight.mul(2), weight.view([2])] as const)
  expect([result.requiresGrad, result.isInference(), weight.isInference(), made.isInference()]).toEqual([false, true, false, true])
  expect(view.isInference()).toBe(false)
  expect(made.clone().mul(weight).requiresGrad).toBe(true)
  expect(made.add(1).toArray()).toEqual([4, 5])
  expect(inferenceMode(() => made.add_(0).toArray())).toEqual([3, 4])
})

it('nests with the other modes', () => {
  const seen = () => [isInferenceModeEnabled(), isGradEnabled()]
  const all = [
    seen(), ...inferenceMode(() => [seen(), inferenceMode(seen, false), torch.enableGrad(seen), inferenceMode(seen), seen()]),
    noGrad(() => inferenceMode(seen, false)), noGrad(seen), seen()
  ]
  expect(all).toEqual([
    [false, true], [true, false], [false, true], [true, true], [true, false], [true, false], [false, true], [false, false], [false, true]
  ])
  expect(inferenceMode(() => inferenceMode(() => weight.mul(2), false)).requiresGrad).toBe(true)
})

it('detach and detach_', () => {
  const x = tensor([1, 2], { requiresGrad: true })
  const y = x.mul(3)
  const apart = y.detach()
  expect([apart.requiresGrad, apart.isLeaf, y.requiresGrad]).toEqual([false, true, true])
  apart.add_(1)
  expect(y.toArray()).toEqual([4, 7]) // the same memory
  const same = y.detach_()
  expect(same).toBe(y)
  expect([y.requiresGrad, y.isLeaf]).toEqual([false, true])
  expect(() => x.view([2]).detach_()).toThrow(TorchError) // a view cannot leave its base's graph
})
