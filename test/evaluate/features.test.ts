import { describe, expect, it } from 'vitest'

import { Loader, openImages } from '../../src/data/index.js'
import { extractFeatures, pixelFeatures, reconstructionError } from '../../src/evaluate/index.js'
import * as torch from '../../src/torch/index.js'
import { VisionTransformer } from '../../src/vision/index.js'
import { folderWith, noise } from '../data/support.js'
import { stripes, tinyEncoder, tinyModel } from './support.js'

torch.setNumThreads(1)

const size = { height: 8, width: 8 }
const loaderOf = async (folder: string) => new Loader(await openImages(folder), { size, device: 'cpu' })

describe('extractFeatures', () => {
  it('gives CLS and the mean of the patch tokens, one row per image in the order of the source', async () => {
    const model = tinyEncoder()
    const loader = await loaderOf(await stripes(150)) // more than one batch
    const { cls, mean, indices } = await extractFeatures(model, loader)
    expect([cls!.shape, mean.shape]).toEqual([[150, 8], [150, 8]])
    expect(indices).toEqual([...Array(150).keys()])
    for await (const { images } of loader.all(150)) {
      const tokens = torch.noGrad(() => model.call(images))
      expect(cls!.sub(tokens.select(1, 0)).abs().max().item()).toBeLessThan(1e-5)
      expect(mean.sub(tokens.narrow(1, 1, 4).mean(1)).abs().max().item()).toBeLessThan(1e-5)
    }
    expect(cls!.requiresGrad).toBe(false)
  })

  it.each([{ fcNorm: true }, { fcNorm: false }])('gives the patches alone where there is no CLS token, with %o', async (norm) => {
    const tokens = { classToken: false, registerTokens: 2, ...norm }
    const model = torch.scope(() => new VisionTransformer({ ...tinyEncoder().options, ...tokens, pool: 'avg' }))
    torch.noGrad(() => model.parameters().forEach((parameter) => parameter.add_(torch.randn(parameter.shape).mul(0.1))))
    const loader = await loaderOf(await stripes(5))
    const { cls, mean } = await extractFeatures(model, loader)
    expect(cls).toBe(null)
    for await (const { images } of loader.all(5)) {
      const patches = torch.noGrad(() => model.call(images)).narrow(1, 2, 4).mean(1)
      const wanted = norm.fcNorm ? torch.noGrad(() => model.fc_norm.call(patches)) : patches
      expect(mean.sub(wanted).abs().max().item()).toBeLessThan(1e-5)
      expect(mean.sub(patches).abs().max().item() > 1e-3).toBe(norm.fcNorm)
    }
  })

  it.each([1, 2, 3])('gives the features after block %i, through the final norm', async (block) => {
    const model = torch.scope(() => new VisionTransformer({ ...tinyEncoder().options, depth: 3 }))
    torch.noGrad(() => model.parameters().forEach((parameter) => parameter.add_(torch.randn(parameter.shape).mul(0.2))))
    const loader = await loaderOf(await stripes(7))
    const { cls, mean } = await extractFeatures(model, loader, { block })
    for await (const { images } of loader.all(7)) {
      // Block by block.
      const tokens = torch.noGrad(() => [...model.blocks].slice(0, block).reduce((x, part) => part.call(x), model.embed(images)))
      const normed = torch.noGrad(() => model.norm.call(tokens))
      expect(cls!.sub(normed.select(1, 0)).abs().max().item()).toBeLessThan(1e-5)
      expect(mean.sub(normed.narrow(1, 1, 4).mean(1)).abs().max().item()).toBeLessThan(1e-5)
    }
    const last = await extractFeatures(model, loader)
    expect(torch.equal(last.mean, mean)).toBe(block === 3)
  })

  it('refuses a block that the encoder does not have', async () => {
    const loader = await loaderOf(await stripes(3))
    const model = tinyEncoder().train()
    for (const block of [0, 3, 1.5, NaN]) {
      await expect(extractFeatures(model, loader, { block })).rejects.toThrow(`a block from 1 to 2 for block, received ${block}`)
    }
    expect(model.training).toBe(true)
  })

  it('runs in evaluation mode, and leaves the mode as it was', async () => {
    const model = tinyEncoder(1, 0.9)
    const loader = await loaderOf(await stripes(20))
    for (const training of [true, false]) {
      model.train(training)
      const [first, second] = [await extractFeatures(model, loader), await extractFeatures(model, loader)]
      expect(torch.equal(first.mean, second.mean)).toBe(true)
      for (const [, part] of model.namedModules()) expect(part.training).toBe(training)
    }
    const wrong = await loaderOf(await folderWith({ 'a.png': await noise(9, 9).png().toBuffer() }))
    model.train()
    await expect(extractFeatures(model, wrong)).rejects.toThrow(/\[B, 1, 8, 8\] for images/)
    expect(model.training).toBe(true)
  })

  it('leaves two tensors, and none where it fails', async () => {
    const model = tinyEncoder()
    const loader = await loaderOf(await stripes(150))
    const { tensors } = torch.memory()
    const { cls, mean } = await extractFeatures(model, loader)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors + 2)
    for (const tensor of [cls, mean]) tensor!.dispose()
    const { pixels } = await pixelFeatures(loader)
    pixels.dispose()
    const none = await loaderOf(await folderWith({ 'a.png': 'no image' }))
    await expect(extractFeatures(model, none)).rejects.toThrow(/none of the images can be decoded/)
    const wrong = await loaderOf(await folderWith({ 'a.png': await noise(9, 9).png().toBuffer() }))
    await expect(extractFeatures(model, wrong)).rejects.toThrow(/for images/)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('leaves out what is broken', async () => {
    const picture = await noise(9, 9).png().toBuffer()
    const loader = await loaderOf(await folderWith({ 'a.png': picture, 'b.png': 'no image', 'c.png': picture }))
    const { cls, indices } = await extractFeatures(tinyEncoder(3), loader)
    expect(indices).toEqual([0, 2])
    expect(torch.equal(cls!.select(0, 0), cls!.select(0, 1))).toBe(true)
  })
})

describe('pixelFeatures', () => {
  it('are the normalised pixels', async () => {
    const loader = await loaderOf(await stripes(5))
    const { pixels, indices } = await pixelFeatures(loader)
    expect(pixels.shape).toEqual([5, 64])
    expect(indices).toEqual([0, 1, 2, 3, 4])
    for await (const { images } of loader.all(5)) expect(torch.equal(pixels, images.reshape([5, 64]))).toBe(true)
  })
})

describe('reconstructionError', () => {
  it('of a model that predicts zeros is that of the mean pixel, of one that knows the images nothing', async () => {
    const model = tinyModel()
    torch.noGrad(() => {
      model.head_recons.convTrans.weight.zero_()
      model.head_recons.convTrans.bias!.zero_()
    })
    const loader = await loaderOf(await stripes(150))
    const { l1, meanPixelL1 } = await reconstructionError(model, loader)
    expect(l1).toBe(meanPixelL1)
    // The deviation is 1: noise of N(0, 1) would give 0.8, stripes of two values about 0.9.
    expect(meanPixelL1).toBeGreaterThan(0.6)
    expect(meanPixelL1).toBeLessThan(1.1)

    torch.noGrad(() => model.head_recons.convTrans.bias!.fill_(1))
    const shifted = await reconstructionError(model, loader)
    expect(shifted.meanPixelL1).toBe(meanPixelL1)
    expect(shifted.l1).toBeGreaterThan(meanPixelL1 + 0.1)
  })

  it('is the same for the same seed, whatever the mode, which it leaves', async () => {
    const model = tinyModel()
    const loader = await loaderOf(await stripes(40))
    const { tensors } = torch.memory()
    model.train()
    const first = await reconstructionError(model, loader, { seed: 1 })
    expect(model.backbone.training).toBe(true)
    torch.manualSeed(1234)
    model.eval()
    expect(await reconstructionError(model, loader, { seed: 1 })).toEqual(first)
    expect(model.training).toBe(false)
    expect(await reconstructionError(model, loader, { seed: 2 })).not.toEqual(first)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })

  it('restores the mode and frees the batch where it fails', async () => {
    const model = tinyModel()
    const loader = await loaderOf(await stripes(40))
    const { tensors } = torch.memory()
    await expect(reconstructionError(model, loader, { budget: 7 })).rejects.toThrow(/budget/)
    expect(model.training).toBe(true)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
  })
})
