import { describe, expect, it } from 'vitest'

import { gmmlAugmentation } from '../../src/data/index.js'
import { SettingsError } from '../../src/errors.js'
import { pretrainAugmentation } from '../../src/train/augmentation.js'
import { resumeConfig } from '../../src/train/config.js'
import { parseConfig, pretrainSchema, type PretrainConfig, type PretrainConfigInput } from '../../src/train/index.js'

const given = { images: 'photos', out: 'runs/a' }

describe('the settings', () => {
  it("have the values of the method's authors as defaults", () => {
    expect(parseConfig(given)).toEqual({
      ...given, model: 'vit_small', registerTokens: 0, classToken: true, epochs: 100, batchSize: 64, lr: 5e-4, minLr: 1e-6, weightDecay: 0.04,
      weightDecayEnd: 0.4,
      warmupEpochs: 10, accumulate: 1, gradCheckpointing: false, ema: 0, clip: 3, dropPath: 0.1, maskBudget: 0.75, alien: 0.3, align: 1,
      overhang: false, fill: 'noise',
      cropScale: [0.05, 1], flip: 0.5, jitter: 0.3, jitterStrength: [0.1, 0.1, 0.1, 0.01], blur: 0.1, blurSigma: [0.1, 2], solarize: 0,
      solarizeThreshold: 0.5,
      allPixels: false, seed: 0, device: 'auto', amp: 'auto', graph: 'auto', workers: 4, hold: 0, maxBroken: 0.01, dataTimeout: 300, knnEvery: 0, tensorboard: false,
      profile: 0,
      logEvery: 10, checkpointEvery: 1,
      checkpointSteps: 0, checkpointMinutes: 15, keepLast: 2, keepEvery: 0, keepBest: false, maxSkipped: 20, override: false, resume: false
    })
  })

  it("make views as the method's authors make them, unless told otherwise", () => {
    const { solarize, ...views } = pretrainAugmentation(parseConfig(given))
    expect(views).toEqual(gmmlAugmentation)
    expect(solarize?.probability).toBe(0)
    const other = {
      cropScale: [0.2, 0.9], flip: 0, jitter: 0.8, jitterStrength: [0.4, 0.3, 0.2, 0.1], blur: 0.5, blurSigma: [1, 3], solarize: 0.2,
      solarizeThreshold: 0.6
    } satisfies Partial<PretrainConfigInput>
    expect(pretrainAugmentation(parseConfig({ ...given, ...other }))).toEqual({
      cropScale: [0.2, 0.9], cropRatio: [3 / 4, 4 / 3], flip: 0,
      jitter: { probability: 0.8, brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1 },
      blur: { probability: 0.5, sigma: [1, 3] }, solarize: { probability: 0.2, threshold: 0.6 }
    })
  })

  it('are all described', () => {
    for (const [name, field] of Object.entries(pretrainSchema.shape)) expect(field.description?.length, name).toBeGreaterThan(5)
  })

  it.each<[setting: Record<string, unknown>, message: RegExp]>([
    [{ images: undefined }, /^Expected a path, or a list of paths .* for images, received undefined$/],
    [{ images: '' }, /^Expected a path, .* for images, received ''$/],
    [{ images: [] }, /^Expected a path, .* for images, received \[\]$/],
    [{ images: [{ path: 'a', weight: 0 }] }, /with weights above 0, for images, received \[ { path: 'a', weight: 0 } \]$/],
    [{ images: ['a', { path: 'b', share: 1 }] }, /a list of paths or of { path, weight }/],
    [{ init: 3 }, /^Expected a string for init, received 3$/],
    [{ model: 'vit_giant' }, /^Expected one of vit_micro, vit_tiny, vit_small, vit_base, vit_large for model, received 'vit_giant'$/],
    [{ epochs: 0 }, /^Expected a number of at least 1 for epochs, received 0$/],
    [{ epochs: 1.5 }, /^Expected an integer for epochs, received 1.5$/],
    [{ epochs: '3' }, /^Expected a number for epochs, received '3'$/],
    [{ lr: 0 }, /^Expected a number above 0 for lr, received 0$/],
    [{ lr: NaN }, /^Expected a number for lr, received NaN$/],
    [{ lr: Infinity }, /^Expected a number for lr, received Infinity$/],
    [{ dropPath: 1.2 }, /^Expected a number of at most 1 for dropPath, received 1.2$/],
    [{ maskBudget: 0 }, /^Expected a number above 0 for maskBudget, received 0$/],
    [{ fill: 'mean' }, /^Expected one of noise, zeros, shuffle for fill, received 'mean'$/],
    [{ cropScale: [0.5] }, /^Expected .* for cropScale.*, received/],
    [{ cropScale: [0.5, 0.6, 1] }, /^Expected 2 values for cropScale, received \[ 0.5, 0.6, 1 \]$/],
    [{ cropScale: [0.5, 1.5] }, /^Expected a number of at most 1 for cropScale.1, received 1.5$/],
    [{ cropScale: [0.6, 0.3] }, /^Expected the smaller part first for cropScale, received \[ 0.6, 0.3 \]$/],
    [{ flip: 1.5 }, /^Expected a number of at most 1 for flip, received 1.5$/],
    [{ jitterStrength: [0.1, 0.1, 0.1] }, /^Expected .* for jitterStrength/],
    [{ jitterStrength: [0.1, -0.1, 0.1, 0.1] }, /^Expected a number of at least 0 for jitterStrength.1, received -0.1$/],
    [{ jitterStrength: [0.1, 0.1, 0.1, 0.6] }, /^Expected a number of at most 0.5 for jitterStrength.3, received 0.6$/],
    [{ blurSigma: [0, 2] }, /^Expected a number above 0 for blurSigma.0, received 0$/],
    [{ blurSigma: [2, 1] }, /^Expected the smaller sigma first for blurSigma, received \[ 2, 1 \]$/],
    [{ solarizeThreshold: 2 }, /^Expected a number of at most 1 for solarizeThreshold, received 2$/],
    [{ device: 'tpu' }, /^Expected 'auto', 'cpu', 'cuda' or 'cuda:N' for device, received 'tpu'$/],
    [{ device: 'meta' }, /^Expected 'auto', 'cpu', 'cuda' or 'cuda:N' for device, received 'meta'$/],
    [{ amp: 'bfloat16' }, /^Expected one of auto, off, bf16, fp16 for amp, received 'bfloat16'$/],
    [{ resume: 'yes' }, /^Expected a boolean for resume, received 'yes'$/],
    [{ epoch: 3, learningRate: 1 }, /^There is no setting epoch, learningRate; there are images, out, model, /]
  ])('%o is refused', (setting, message) => {
    expect(() => parseConfig({ ...given, ...setting })).toThrow(message)
    expect(() => parseConfig({ ...given, ...setting })).toThrow(SettingsError)
  })

  it('are refused all at once, and whatever they are', () => {
    expect(() => parseConfig({ ...given, epochs: -1, lr: 'fast' })).toThrow(/for epochs, received -1\n.*for lr, received 'fast'/)
    expect(() => parseConfig(undefined)).toThrow(/an object for the settings, received undefined/)
    expect(() => parseConfig([])).toThrow(/an object for the settings, received/)
  })
})

describe('resumeConfig', () => {
  const saved: Partial<PretrainConfig> & typeof given = { ...parseConfig({ ...given, epochs: 7, lr: 0.1, cropScale: [0.3, 1] }), ...given }
  delete saved.resume
  const file = { ...saved, encoder: { model: 'vit_small' }, precision: 'bfloat16', imageCount: 12 }

  it('takes what is not given from the run', () => {
    expect(resumeConfig(file, { ...given, resume: true })).toEqual({ ...saved, resume: true })
    const same = { resume: true, lr: 0.1, cropScale: [0.3, 1], model: undefined } as unknown as PretrainConfigInput
    expect(resumeConfig(file, same)).toEqual({ ...saved, resume: true })
  })

  it('lets change what does not change the result', () => {
    const changed = {
      images: 'moved', out: 'runs/b', epochs: 9, device: 'cuda', workers: 1, maxBroken: 0.5, threads: 2, knnEvery: 3, tensorboard: true, profile: 2, gradCheckpointing: true, graph: 'off', logEvery: 1, checkpointEvery: 4,
      checkpointSteps: 5, checkpointMinutes: 1, keepLast: 3, keepEvery: 2, keepBest: true, maxSkipped: 7
    } as const
    expect(resumeConfig(file, { ...changed, resume: true })).toEqual({ ...saved, ...changed, resume: true })
  })

  it('refuses the rest, by name, unless told to override', () => {
    const changes = { ...given, lr: 0.2, seed: 1 }
    const attempt = () => resumeConfig(file, changes)
    expect(attempt).toThrow(/lr \(the run has 0.1, given is 0.2\), seed \(the run has 0, given is 1\).* or say so with override/)
    expect(attempt).toThrow(SettingsError)
    expect(resumeConfig(file, { ...changes, override: true })).toMatchObject({ lr: 0.2, seed: 1 })
    const views = { flip: 0, jitter: 1, jitterStrength: [1, 1, 1, 0.1], blur: 1, blurSigma: [1, 2], solarize: 1, solarizeThreshold: 0 } as const
    for (const [name, value] of Object.entries(views)) {
      expect(() => resumeConfig(file, { ...given, [name]: value }), name).toThrow(`other settings: ${name} (the run has`)
    }
    expect(() => resumeConfig(file, { ...given, epochs: 6 })).toThrow(/other settings: epochs \(the run has 7, given is 6\)/)
    expect(resumeConfig(file, { ...given, epochs: 6, override: true })).toMatchObject({ epochs: 6 })
    const impossible = () => resumeConfig(file, { ...changes, limit: 5, override: true })
    expect(impossible).toThrow(/cannot go on with other settings of limit \(the run has none, given is 5\)/)
    expect(impossible).toThrow(SettingsError)
    expect(() => resumeConfig({ ...file, epochs: 'many' }, given)).toThrow(/a number for epochs/)
  })
})
