import { afterEach, describe, expect, it } from 'vitest'

import { corrupt, GroupMaskedModel } from '../../src/gmml/index.js'
import { addLayerNorm, checkpoint, DropPath, GELU, getFusion, isFused, LayerNorm, Linear, linearGelu, setFusion } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import { InputError, TorchError, type DType, type Tensor } from '../../src/torch/index.js'
import { patchify, VisionTransformer } from '../../src/vision/index.js'

const norm = torch.operator('gmml::add_layer_norm')
const gelu = torch.operator('gmml::bias_gelu')
const l1 = torch.operator('gmml::masked_l1')

afterEach(() => void setFusion('auto'))

/** The norm of the difference by that of what is wanted. */
function relativeError(received: Tensor, wanted: Tensor): number {
  return torch.scope(() => {
    const [a, b] = [received.to('float64'), wanted.to('float64')]
    return a.sub(b).norm().item() / Math.max(b.norm().item(), 1e-30)
  })
}

/** Results and gradients are those of the reference, in dtype too. */
function expectSame(inputs: readonly Tensor[], run: () => Tensor[], reference: () => Tensor[], tolerance: number): void {
  const derive = (make: () => Tensor[]) => {
    torch.manualSeed(11)
    const outputs = make()
    const weighted = outputs.map((output) => output.mul(torch.randn(output.shape).to(output.dtype)).sum().to('float64'))
    return [...outputs, ...torch.grad([weighted.reduce((sum, one) => sum.add(one))], inputs)]
  }
  const wanted = derive(reference)
  for (const [i, tensor] of derive(run).entries()) {
    expect(tensor.dtype, `dtype of result ${i}`).toBe(wanted[i]!.dtype)
    expect(tensor.shape, `shape of result ${i}`).toEqual(wanted[i]!.shape)
    expect(relativeError(tensor, wanted[i]!), `result ${i}`).toBeLessThan(tolerance)
  }
}

const leaf = (tensor: Tensor) => tensor.detach().requiresGrad_()
// In 16 bits the composition rounds sums that the fused operators keep in float32.
const tolerances = { float64: 1e-12, float32: 1e-6, bfloat16: 4e-2, float16: 4e-3 } as const
const dtypes = Object.keys(tolerances) as (keyof typeof tolerances)[]
const shapes: readonly (readonly number[])[] = [[3, 5, 64], [2, 197, 192], [7, 1], [300, 33], [4, 65, 130], [5], [1, 1, 2048], [2, 3, 5, 7]]

describe('residual + layer norm', () => {
  const composed = (x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | null = null): Tensor[] => {
    const sum = x.add(scale ? branch.mul(scale) : branch)
    return [sum, torch.layerNorm(sum, [x.shape.at(-1)!], { weight, bias, eps: 1e-6 })]
  }
  const fused = (x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | null = null): Tensor[] =>
    torch.call<Tensor[]>(norm, x, branch, weight, bias, 1e-6, scale)
  const make = (shape: readonly number[], dtype: DType) => {
    const row = [shape.at(-1)!]
    return [torch.randn(shape).add(0.5), torch.randn(shape), torch.randn(row).add(1), torch.randn(row)].map((t) => leaf(t.to(dtype)))
  }

  it.each(dtypes)('%s: values and gradients are those of the composition', (dtype) => {
    torch.manualSeed(1)
    for (const shape of shapes) {
      const [x, branch, weight, bias] = make(shape, dtype) as [Tensor, Tensor, Tensor, Tensor]
      // A row of one element has a variance of rounding errors.
      if (shape.at(-1) === 1) continue
      expectSame([x, branch, weight, bias], () => fused(x, branch, weight, bias), () => composed(x, branch, weight, bias), tolerances[dtype])
      if (shape.length < 2) continue
      const scale = torch.rand([shape[0]!, ...shape.slice(1).map(() => 1)]).round().mul(1.25).to(dtype)
      expectSame(
        [x, branch, weight, bias], () => fused(x, branch, weight, bias, scale), () => composed(x, branch, weight, bias, scale), tolerances[dtype]
      )
    }
  })

  it('a row of one element is its bias, and its sum has a gradient of 0 from it', () => {
    const [x, branch, weight, bias] = make([7, 1], 'float32') as [Tensor, Tensor, Tensor, Tensor]
    const [sum, normalised] = fused(x, branch, weight, bias) as [Tensor, Tensor]
    expect(sum.equal(x.add(branch))).toBe(true)
    expect(normalised.equal(bias.expand([7, 1]))).toBe(true)
    expect(torch.grad([normalised.sum()], [x])[0]!.eq(0).all().item()).toBe(true)
  })

  it('takes views, a branch and weights of other dtypes, and gives either result alone a gradient', () => {
    torch.manualSeed(2)
    const x = leaf(torch.randn([6, 40, 3]))
    const branch = leaf(torch.randn([3, 40, 12]))
    const [weight, bias] = [leaf(torch.randn([80]).slice({ step: 2 })), leaf(torch.randn([40]))]
    const views = () => [x.permute([2, 0, 1]), branch.slice({ dim: 2, step: 2 }).transpose(1, 2)] as const
    const inputs = [x, branch, weight, bias]
    expectSame(inputs, () => fused(...views(), weight, bias), () => composed(...views(), weight, bias), 1e-6)
    for (const which of [0, 1]) {
      const pick = (results: Tensor[]) => [results[which]!]
      const needed = which ? inputs : [x, branch]
      expectSame(needed, () => pick(fused(...views(), weight, bias)), () => pick(composed(...views(), weight, bias)), 1e-6)
    }
    const half = leaf(torch.randn([3, 6, 40]).to('bfloat16'))
    const rows = leaf(torch.randn([3, 6, 40]))
    const own = [rows, half, weight, bias] as const
    expectSame(own, () => fused(...own), () => composed(...own), 5e-3)
  })

  it('has the derivatives that finite differences give, and second ones', () => {
    torch.manualSeed(3)
    const inputs = make([2, 3, 5], 'float64') as [Tensor, Tensor, Tensor, Tensor]
    const scale = torch.tensor([[[0]], [[1.25]]], { dtype: 'float64' })
    expect(torch.gradCheck((...args: Tensor[]) => torch.cat(fused(args[0]!, args[1]!, args[2]!, args[3]!, scale)), inputs)).toBe(true)
    const second = (run: typeof fused) => {
      const [sum, normalised] = run(...inputs, scale) as [Tensor, Tensor]
      const first = torch.grad([sum.square().add(normalised.pow(3)).sum()], inputs, { createGraph: true })
      return torch.grad([first.reduce<Tensor>((total, one) => total.add(one.square().sum()), torch.zeros([], { dtype: 'float64' }))], inputs)
    }
    const wanted = second(composed)
    for (const [i, tensor] of second(fused).entries()) expect(relativeError(tensor, wanted[i]!), `input ${i}`).toBeLessThan(1e-11)
  })

  it('of nothing is nothing; of extreme and undefined numbers what the composition gives', () => {
    const [weight, bias] = [leaf(torch.ones([4])), leaf(torch.zeros([4]))]
    const empty = leaf(torch.zeros([0, 3, 4]))
    const [sum, normalised] = fused(empty, empty, weight, bias) as [Tensor, Tensor]
    expect([sum.shape, normalised.shape]).toEqual([[0, 3, 4], [0, 3, 4]])
    normalised.sum().backward()
    expect(weight.grad!.toArray()).toEqual([0, 0, 0, 0])
    for (const value of [NaN, Infinity, -Infinity, 1e15]) {
      const x = torch.tensor([[1, 2, 3, value], [1, 2, 3, 4]])
      const given = fused(x, torch.zerosLike(x), weight, bias)[1]!
      const wanted = composed(x, torch.zerosLike(x), weight, bias)[1]!
      expect(torch.allclose(given.narrow(0, 1, 1), wanted.narrow(0, 1, 1))).toBe(true)
      expect(given.isfinite().equal(wanted.isfinite()), String(value)).toBe(true)
    }
    const tiny = torch.randn([4, 64]).mul(1e-20)
    const ones = torch.ones([64])
    expect(relativeError(fused(tiny, tiny, ones, ones)[1]!, composed(tiny, tiny, ones, ones)[1]!)).toBeLessThan(1e-6)
    const shifted = torch.randn([4, 192]).add(1e4)
    const weights = torch.ones([192])
    const precise = composed(...([shifted, shifted, weights, weights].map((t) => t.to('float64')) as [Tensor, Tensor, Tensor, Tensor]))[1]!
    expect(relativeError(fused(shifted, shifted, weights, weights)[1]!, precise)).toBeLessThan(2e-3)
  })

  it('under autocast has the dtypes of the composition, or that of the layer after it', () => {
    torch.manualSeed(4)
    const [x, weight, bias] = [torch.randn([2, 9, 64]), torch.ones([64]), torch.zeros([64])].map(leaf) as [Tensor, Tensor, Tensor]
    const branch = leaf(torch.randn([2, 9, 64]).to('bfloat16'))
    const inputs = [x, branch, weight, bias] as const
    const under = (run: () => Tensor[]) => torch.autocast<Tensor[]>('cpu', 'bfloat16', run)
    expectSame(inputs, () => under(() => fused(...inputs)), () => under(() => composed(...inputs)), 5e-3)
    const halves = inputs.map((tensor) => leaf(tensor.to('bfloat16'))) as unknown as [Tensor, Tensor, Tensor, Tensor]
    expect(under(() => fused(...halves)).map(({ dtype }) => dtype)).toEqual(under(() => composed(...halves)).map(({ dtype }) => dtype))
    const cast = torch.call<Tensor[]>(norm, x, branch, weight, bias, 1e-6, null, 'bfloat16')
    expect(cast.map(({ dtype }) => dtype)).toEqual(['float32', 'bfloat16'])
    expect(cast[1]!.equal(fused(...inputs)[1]!.to('bfloat16'))).toBe(true)
    expect(() => torch.call(norm, x, branch, weight, bias, 1e-6, null, 'float64')).toThrow(/expected Float or a 16-bit .* received Double/)
  })

  it('refuses what does not fit, by name', () => {
    const [x, row] = [torch.randn([2, 4]), torch.ones([4])]
    const misuse: readonly (readonly [unknown[], RegExp])[] = [
      [[x, torch.randn([2, 5]), row, row], /the shape of x for branch, received Float \[2, 5\] cpu/],
      [[x, x, torch.ones([5]), row], /for weight/],
      [[x, x, row, torch.ones([1, 4])], /for bias/],
      [[x.to('int64'), x, row, row], /float32, float64, bfloat16 or float16 for x/],
      [[x, x, row, row, 1e-6, torch.ones([2])], /the other dimensions 1, for scale/],
      [[x, x, row, row, 1e-6, torch.ones([3, 1])], /for scale/],
      [[x, x, row, row, 1e-6, torch.ones([2, 1], { requiresGrad: true })], /needs no gradient for scale/],
      [[torch.ones([]), torch.ones([]), row, row], /at least one dimension/],
      [[torch.ones([2, 0]), torch.ones([2, 0]), row, row], /the last not empty, for x/],
      [[torch.empty([2, 4], { device: 'meta' }), x, row, row], /on cpu or cuda for x/]
    ]
    for (const [args, message] of misuse) {
      expect(() => torch.call(norm, ...args)).toThrow(TorchError)
      expect(() => torch.call(norm, ...args)).toThrow(message)
    }
  })
})

describe('bias + GELU', () => {
  const composed = (x: Tensor, bias: Tensor) => [torch.gelu(x.add(bias))]
  const fused = (x: Tensor, bias: Tensor) => [torch.call<Tensor>(gelu, x, bias)]

  it.each(dtypes)('%s: values and gradients are those of the composition', (dtype) => {
    torch.manualSeed(5)
    for (const shape of shapes) {
      const [x, bias] = [leaf(torch.randn(shape).mul(2).to(dtype)), leaf(torch.randn([shape.at(-1)!]).to(dtype))]
      expectSame([x, bias], () => fused(x, bias), () => composed(x, bias), tolerances[dtype])
    }
  })

  it('is exact in float32 to a few units in the last place, in both tails too', () => {
    const x = torch.linspace(-13, 13, 100_001)
    const [value] = fused(x, torch.zeros([100_001])) as [Tensor]
    const precise = x.to('float64')
    const wanted = precise.mul(precise.div(-Math.SQRT2).erfc()).div(2)
    expect(value.to('float64').sub(wanted).abs().div(wanted.abs().add(1e-37)).max().item()).toBeLessThan(2e-5) // e^-84 has few digits
    const near = x.abs().le(5)
    const error = value.to('float64').sub(wanted).div(wanted.abs().add(1e-30)).abs()
    expect(torch.where(near, error, torch.zerosLike(error)).max().item()).toBeLessThan(2e-6)
  })

  it('of infinity is infinity, and of other undefined and huge numbers what ATen gives', () => {
    const values = [-Infinity, NaN, 1e30, -1e30, 0, -0, 14, -14, -40]
    const x = leaf(torch.tensor(values))
    const bias = leaf(torch.zeros([values.length]))
    const received = fused(x, bias)[0]!.toArray() as number[]
    const wanted = composed(x, bias)[0]!.toArray() as number[]
    for (const [i, value] of received.entries()) expect(Math.abs(value - wanted[i]!) < 1e-30 || Object.is(value, wanted[i]), `of ${values[i]}`).toBe(true)
    expect(fused(torch.tensor([Infinity]), torch.zeros([1]))[0]!.item()).toBe(Infinity)
    const ofX = (run: typeof fused) => torch.grad([run(x, bias)[0]!.slice({ start: 2 }).sum()], [x])[0]!.slice({ start: 2 })
    expect(torch.allclose(ofX(fused), ofX(composed))).toBe(true)
  })

  it('has the derivatives that finite differences give, and second ones; takes views and nothing at all', () => {
    torch.manualSeed(6)
    const [x, bias] = [leaf(torch.randn([3, 2, 5]).to('float64')), leaf(torch.randn([5]).to('float64'))]
    expect(torch.gradCheck((a: Tensor, b: Tensor) => fused(a, b)[0]!, [x, bias])).toBe(true)
    const second = (run: typeof fused) => {
      const first = torch.grad([run(x, bias)[0]!.square().sum()], [x, bias], { createGraph: true })
      return torch.grad([first[0]!.square().sum().add(first[1]!.square().sum())], [x, bias])
    }
    const wanted = second(composed)
    for (const [i, tensor] of second(fused).entries()) expect(relativeError(tensor, wanted[i]!)).toBeLessThan(1e-11)
    expectSame([x, bias], () => fused(x.transpose(0, 1), bias), () => composed(x.transpose(0, 1), bias), 1e-12)
    const empty = leaf(torch.zeros([0, 5]))
    const row = leaf(torch.zeros([5]))
    fused(empty, row)[0]!.sum().backward()
    expect([empty.grad!.shape, row.grad!.toArray()]).toEqual([[0, 5], [0, 0, 0, 0, 0]])
  })

  it('refuses what does not fit, by name', () => {
    expect(() => torch.call(gelu, torch.ones([2, 4]), torch.ones([5]))).toThrow(/expected as many elements as the rows have for bias, received Float \[5\] cpu/)
    expect(() => torch.call(gelu, torch.ones([2, 4], { dtype: 'int32' }), torch.ones([4]))).toThrow(TorchError)
    expect(() => torch.call(gelu, torch.ones([]), torch.ones([1]))).toThrow(/at least one dimension/)
  })
})

describe('masked L1', () => {
  const composed = (prediction: Tensor, clean: Tensor, mask: Tensor | null, patch: number): Tensor => {
    const precise = prediction.dtype.endsWith('float16') ? prediction.to('float32') : prediction
    const distance = precise.sub(patchify(clean, patch)).abs()
    if (!mask) return distance.mean()
    const channels = clean.shape[1]!
    const weight = patchify(mask.to(distance.dtype), patch)
    return distance.unflatten(-1, [channels, patch ** 2]).mul(weight.unsqueeze(2)).sum().div(weight.sum().mul(channels).clamp({ min: 1 }))
  }
  const fused = (prediction: Tensor, clean: Tensor, mask: Tensor | null, patch: number) => torch.call<Tensor>(l1, prediction, clean, mask, patch)
  const sizes = [[3, 2, 8, 12, 4], [2, 3, 32, 32, 16], [1, 1, 6, 9, 3], [5, 3, 7, 7, 7], [2, 4, 5, 5, 1]] as const

  it.each(dtypes)('%s: values and gradients are those of the composition', (dtype) => {
    torch.manualSeed(7)
    for (const [batch, channels, height, width, patch] of sizes) {
      const clean = torch.randn([batch, channels, height, width])
      const prediction = leaf(patchify(torch.randnLike(clean), patch).to(dtype))
      const bool = torch.rand([batch, 1, height, width]).lt(0.6)
      for (const mask of [bool, bool.to('float32').mul(0.25), bool.to('int64'), null]) {
        for (const image of dtype === 'float64' ? [clean.to(dtype)] : [clean, clean.to(dtype)]) {
          const args = [image, mask, patch] as const
          expectSame([prediction], () => [fused(prediction, ...args)], () => [composed(prediction, ...args)], tolerances[dtype])
        }
      }
    }
  })

  it('takes views, nothing masked, an empty batch, equal pixels and undefined numbers as the composition does', () => {
    const clean = torch.randn([2, 3, 8, 8])
    const prediction = leaf(torch.randn([4, 2, 48]))
    const mask = torch.rand([2, 1, 16, 8]).lt(0.5)
    const views = [prediction.transpose(0, 1), clean.transpose(2, 3), mask.slice({ dim: 2, step: 2 }), 4] as const
    expectSame([prediction], () => [fused(...views)], () => [composed(...views)], 1e-6)
    const nothing = torch.zeros([2, 1, 8, 8], { dtype: 'bool' })
    expectSame([prediction], () => [fused(views[0], clean, nothing, 4)], () => [composed(views[0], clean, nothing, 4)], 1e-6)
    const same = leaf(patchify(clean, 4))
    expect(torch.grad([fused(same, clean, null, 4)], [same])[0]!.eq(0).all().item()).toBe(true)
    const none = [torch.zeros([0, 4, 48]), torch.zeros([0, 3, 8, 8])] as const
    expect(fused(...none, torch.zeros([0, 1, 8, 8]), 4).item()).toBe(0)
    expect(fused(...none, null, 4).item()).toBeNaN()
    const holed = clean.clone()
    holed.select(0, 0).fill_(NaN)
    const seen = torch.zeros([2, 1, 8, 8], { dtype: 'bool' })
    seen.select(0, 1).fill_(true)
    expect(fused(same, holed, seen, 4).item()).toBe(composed(same, holed, seen, 4).item())
  })

  it('has the derivatives that finite differences give, and lets the gradient be differentiated', () => {
    torch.manualSeed(8)
    const clean = torch.randn([2, 2, 4, 4]).to('float64')
    const mask = torch.rand([2, 1, 4, 4]).lt(0.6)
    const prediction = leaf(patchify(torch.randnLike(clean), 2))
    expect(torch.gradCheck((x: Tensor) => fused(x, clean, mask, 2), [prediction])).toBe(true)
    const second = (run: typeof fused) => {
      const first = torch.grad([run(prediction, clean, mask, 2).square()], [prediction], { createGraph: true })
      return torch.grad([first[0]!.square().sum()], [prediction])[0]!
    }
    expect(relativeError(second(fused), second(composed))).toBeLessThan(1e-12)
  })

  it('refuses what does not fit, by name', () => {
    const clean = torch.randn([2, 3, 8, 8])
    const prediction = torch.randn([2, 4, 48])
    const mask = torch.ones([2, 1, 8, 8])
    const misuse: readonly (readonly [unknown[], RegExp])[] = [
      [[prediction, clean, mask, 3], /divisor of the image size 8 x 8 for patch_size, received 3/],
      [[prediction, clean, mask, 0], /for patch_size/],
      [[prediction, clean, mask, 8], /the patches of clean \[B, N, C p p\] for prediction/],
      [[prediction, clean.select(0, 0), mask, 4], /images \[B, C, H, W\] for clean/],
      [[prediction, clean, mask.expand([2, 3, 8, 8]), 4], /\[B, 1, H, W\], as clean is, for mask/],
      [[prediction, clean.clone().requiresGrad_(), mask, 4], /needs no gradient for clean/],
      [[prediction, clean, mask.clone().requiresGrad_(), 4], /needs no gradient for mask/],
      [[prediction.to('complex64'), clean, mask, 4], /for prediction/]
    ]
    for (const [args, message] of misuse) expect(() => torch.call(l1, ...args)).toThrow(message)
  })
})

describe('the choice', () => {
  it('is one of three, gives back the choice before, and knows what no kernel can do', () => {
    expect(getFusion()).toBe('auto')
    expect(setFusion('on')).toBe('auto')
    expect(setFusion('off')).toBe('on')
    for (const value of [true, null, 'yes']) expect(() => setFusion(value as 'on')).toThrow(InputError)
    const x = torch.ones([2])
    expect(isFused('biasGelu', x)).toBe(false)
    setFusion('on')
    expect(isFused('biasGelu', x)).toBe(true)
    expect(isFused('biasGelu', torch.empty([2], { device: 'meta' }))).toBe(false)
    expect(isFused('biasGelu', x.to('int64'))).toBe(false)
  })

  const size = { imageSize: 16, patchSize: 4, channels: 3, embedDim: 64, depth: 4, numHeads: 2, dropPath: 0.3 }
  const variants = {
    plain: {}, 'layer scale': { initValues: 0.1 }, 'norm after pooling': { classToken: false }, registers: { registerTokens: 2, qkvBias: false }
  }

  /** Loss and gradients of one step from the same weights and random numbers. */
  function step(fusion: 'on' | 'off', options: object, { amp = false, checkpoints = false, maskedOnly = true } = {}): Tensor[] {
    setFusion(fusion)
    torch.manualSeed(9)
    const backbone = new VisionTransformer({ ...size, ...options })
    backbone.gradCheckpointing = checkpoints
    const model = new GroupMaskedModel(backbone, { maskedOnly })
    const clean = torch.randn([4, 3, 16, 16])
    const { corrupted, mask } = corrupt(clean)
    const forward = () => model.loss(corrupted, clean, mask)
    const loss = amp ? torch.autocast('cpu', 'bfloat16', forward) : forward()
    loss.backward()
    return [loss.detach(), ...model.parameters().map(({ grad }) => grad ?? torch.zeros([1]))]
  }

  it.each(Object.entries(variants))('a training step has the loss and the gradients of the composition: %s', (_, options) => {
    for (const setting of [{}, { checkpoints: true }, { maskedOnly: false }]) {
      const wanted = step('off', options, setting)
      for (const [i, tensor] of step('on', options, setting).entries()) {
        if (wanted[i]!.abs().max().item() < 1e-7) continue // the bias of a key has no gradient but rounding errors
        expect(relativeError(tensor, wanted[i]!), `${i}, ${JSON.stringify(setting)}`).toBeLessThan(2e-5)
      }
    }
  })

  it('a training step under autocast agrees with the composition as far as bfloat16 does', () => {
    const [wanted, received] = [step('off', {}, { amp: true }), step('on', {}, { amp: true })]
    expect(received.map(({ dtype }) => dtype)).toEqual(wanted.map(({ dtype }) => dtype))
    expect(Math.abs(received[0]!.item() - wanted[0]!.item())).toBeLessThan(2e-3)
    const [a, b] = [received, wanted].map((tensors) => torch.cat(tensors.slice(1).map((tensor) => tensor.flatten()))) as [Tensor, Tensor]
    expect(relativeError(a, b)).toBeLessThan(0.03)
  })

  it('is the same in a checkpoint, in anomaly mode and in evaluation', () => {
    torch.manualSeed(10)
    const x = leaf(torch.randn([2, 5, 32]))
    const layers = { norm: new LayerNorm(32), drop: new DropPath(0.5), linear: new Linear(32, 48), gelu: new GELU() }
    const run = () => {
      const [sum, normalised] = addLayerNorm(x, x.mul(2), layers.drop, layers.norm)
      return linearGelu(normalised, layers.linear, layers.gelu).sum().add(sum.square().sum())
    }
    const gradient = (fusion: 'on' | 'off', wrap: (make: () => Tensor) => Tensor) => {
      setFusion(fusion)
      torch.manualSeed(3)
      return torch.grad([wrap(run)], [x])[0]!
    }
    const wanted = gradient('off', (make) => make())
    expect(relativeError(gradient('on', (make) => make()), wanted)).toBeLessThan(1e-6)
    expect(relativeError(gradient('on', (make) => checkpoint(make)), wanted)).toBeLessThan(1e-6)
    expect(relativeError(gradient('on', (make) => torch.detectAnomaly(make)), wanted)).toBeLessThan(1e-6)
    layers.drop.eval()
    expect(relativeError(gradient('on', (make) => make()), gradient('off', (make) => make()))).toBeLessThan(1e-6)
    const inferred = torch.inferenceMode(() => run())
    expect(inferred.requiresGrad).toBe(false)
  })
})

describe.skipIf(!torch.cuda.isAvailable())('on CUDA', () => {
  const bounds: Partial<Record<DType, number>> = { float32: 2e-6, bfloat16: 8e-3, float16: 1e-3 }

  /** Compares with the composition of the same numbers on the CPU in float64, and a second run with the first to the bit. */
  function expectPrecise(inputs: readonly Tensor[], run: (...given: Tensor[]) => Tensor[], reference: (...given: Tensor[]) => Tensor[]): void {
    const derive = (given: readonly Tensor[], make: typeof run) => {
      torch.manualSeed(13)
      const outputs = make(...given)
      const weights = outputs.map(({ shape, device }) => torch.randn(shape).to('bfloat16').to(device))
      const total = outputs.map((output, i) => output.to('float64').mul(weights[i]!).sum()).reduce((sum, one) => sum.add(one))
      return [...outputs, ...torch.grad([total], given)].map((tensor) => tensor.detach().cpu())
    }
    const there = inputs.map((tensor) => leaf(tensor.detach().cuda()))
    const received = derive(there, run)
    const wanted = derive(inputs.map((tensor) => leaf(tensor.to('float64'))), reference)
    const bound = Math.max(...[...inputs, ...received].map(({ dtype }) => bounds[dtype]!))
    for (const [i, tensor] of received.entries()) expect(relativeError(tensor, wanted[i]!), `result ${i}`).toBeLessThan(bound)
    for (const [i, tensor] of derive(there, run).entries()) expect(tensor.equal(received[i]!), `result ${i} again`).toBe(true)
  }

  it.each([64, 130, 192, 384, 768, 1024, 2048, 4096, 33])('residual + layer norm of width %i, in every mixture of dtypes', (width) => {
    torch.manualSeed(14)
    for (const [x, branch, weight] of [
      ['float32', 'float32', 'float32'], ['float32', 'bfloat16', 'float32'], ['bfloat16', 'bfloat16', 'bfloat16'], ['float16', 'float16', 'float32']
    ] as const) {
      const inputs = [
        leaf(torch.randn([3, 67, width]).to(x)), leaf(torch.randn([3, 67, width]).to(branch)), leaf(torch.randn([width]).add(1).to(weight)),
        leaf(torch.randn([width]).to(weight))
      ]
      for (const scale of [null, torch.tensor([[[0]], [[1.25]], [[1.25]]])]) {
        const reference = (a: Tensor, b: Tensor, w: Tensor, c: Tensor) => {
          const sum = a.add(scale ? b.mul(scale.to('float64')) : b)
          return [sum, torch.layerNorm(sum, [width], { weight: w, bias: c, eps: 1e-6 })]
        }
        expectPrecise(inputs, (a, b, w, c) => torch.call<Tensor[]>(norm, a, b, w, c, 1e-6, scale?.to(branch).cuda()), reference)
      }
    }
  })

  it('bias + GELU of many widths, in every dtype', () => {
    torch.manualSeed(15)
    for (const width of [33, 96, 260, 768, 3072]) {
      for (const [x, bias] of [['float32', 'float32'], ['bfloat16', 'float32'], ['float16', 'float16']] as const) {
        const inputs = [leaf(torch.randn([301, width]).mul(2).to(x)), leaf(torch.randn([width]).to(bias))]
        expectPrecise(inputs, (a, b) => [torch.call<Tensor>(gelu, a, b)], (a, b) => [torch.gelu(a.add(b))])
      }
    }
  })

  it('masked L1 of many patches, in every dtype', () => {
    torch.manualSeed(16)
    for (const [batch, channels, side, patch] of [[8, 3, 224, 16], [64, 3, 32, 4], [3, 1, 28, 2], [2, 2, 15, 5]] as const) {
      const clean = torch.randn([batch, channels, side, side])
      const mask = torch.rand([batch, 1, side, side]).lt(0.6)
      for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
        const prediction = leaf(patchify(torch.randnLike(clean), patch).to(dtype))
        const reference = (given: Tensor) => {
          const weight = patchify(mask.to('float64'), patch).unsqueeze(2)
          const distance = given.sub(patchify(clean.to('float64'), patch)).abs().unflatten(-1, [channels, patch ** 2])
          return [distance.mul(weight).sum().div(weight.sum().mul(channels))]
        }
        expectPrecise([prediction], (given) => [torch.call<Tensor>(l1, given, clean.cuda(), mask.cuda(), patch)], reference)
      }
    }
  })

  it('refuses float64 and rows that are too wide, by name', () => {
    const [wide, row] = [torch.ones([1, 4097], { device: 'cuda' }), torch.ones([4097], { device: 'cuda' })]
    expect(() => torch.call(norm, wide, wide, row, row)).toThrow(/at most 4096 elements/)
    expect(() => torch.call(gelu, wide.to('float64'), row.to('float64'))).toThrow(/no float64 on cuda/)
    setFusion('on')
    expect([isFused('addLayerNorm', wide), isFused('biasGelu', wide), isFused('biasGelu', wide.to('float64'))]).toEqual([false, true, false])
  })

  it.each([null, 'bfloat16'] as const)('a training step has the loss and the gradients of the composition, autocast %s', (amp) => {
    const losses = (['off', 'on'] as const).map((fusion) => {
      setFusion(fusion)
      torch.manualSeed(17)
      const model = new GroupMaskedModel(new VisionTransformer({ imageSize: 32, patchSize: 4, embedDim: 192, depth: 4, numHeads: 3 })).to('cuda')
      const clean = torch.randn([8, 3, 32, 32])
      const { corrupted, mask } = corrupt(clean)
      const views = [corrupted.cuda(), clean.cuda(), mask.cuda()] as const
      const loss = torch.autocast('cuda', amp, () => model.loss(...views))
      loss.backward()
      return [loss.detach().cpu(), torch.cat(model.parameters().map(({ grad }) => grad!.flatten())).cpu()] as const
    })
    const [[off, offGradients], [on, onGradients]] = losses as [readonly [Tensor, Tensor], readonly [Tensor, Tensor]]
    expect(Math.abs(on.item() - off.item())).toBeLessThan(amp ? 2e-3 : 1e-5)
    expect(relativeError(onGradients, offGradients)).toBeLessThan(amp ? 0.05 : 1e-3)
  })
})
