import { join } from 'node:path'

import { beforeAll, describe, expect, it } from 'vitest'

import { holdOut, permutation, randomFor } from '../../src/data/index.js'
import { accuracy, trainLinearProbe, type LinearProbe, type LinearProbeOptions, type ProbeProgress } from '../../src/evaluate/index.js'
import { fitOf } from '../../src/evaluate/classifier.js'
import { fitBySgd } from '../../src/evaluate/probe-sgd.js'
import { InputError } from '../../src/errors.js'
import { loadSafetensors } from '../../src/io/index.js'
import { Parameter } from '../../src/nn/index.js'
import { cosineSchedule, SGD } from '../../src/optim/index.js'
import * as torch from '../../src/torch/index.js'
import type { DType, Tensor } from '../../src/torch/index.js'

torch.setNumThreads(1)

const distance = (a: Tensor, b: Tensor) => a.sub(b).norm().item() / b.norm().item()
const classesOf = (scores: Tensor) => Array.from(scores.argmax({ dim: 1 }).toTypedArray(), Number)

/** Features in which classes differ by their first elements, and labels, a tenth of them wrong. */
function blobs(rows: number, width: number, classes: number, seed = 1) {
  torch.manualSeed(seed)
  const labels = Array.from({ length: rows }, (_, i) => (i * 7) % classes)
  const features = torch.randn([rows, width])
  for (const [i, label] of labels.entries()) features.at(i, label % width).add_(2)
  return { features, labels: labels.map((label, i) => (i % 10 === 3 ? (label + 1) % classes : label)) }
}

describe("the optimum is scikit-learn's", () => {
  let data: Record<string, Tensor>
  beforeAll(async () => {
    data = (await loadSafetensors(join(import.meta.dirname, '../fixtures/logistic.safetensors'))).tensors
  })
  const cases = ['standardised', 'plain'].flatMap((name) =>
    ['0.0001', '0.01', '1'].flatMap((decay) => (['float64', 'float32'] as const).map((dtype) => [name, decay, dtype] as const)))

  it.each(cases)('%s features, weight decay %s, %s', (name, decay, dtype) => {
    const labels = Array.from(data['y']!.toTypedArray(), Number)
    const options = { weightDecays: [Number(decay)], standardise: name === 'standardised', tolerance: dtype === 'float64' ? 1e-10 : 1e-6 }
    const probe = trainLinearProbe({ features: data['x']!.to(dtype), labels }, 3, options)
    const [weight, bias, scores] = ['weight', 'bias', 'scores'].map((key) => data[`${name}/${decay}/${key}`]!) as [Tensor, Tensor, Tensor]
    const near = dtype === 'float64' ? 1e-5 : 1e-3
    const found = probe.scores(data['queries']!.to(dtype))
    const distances = [distance(probe.weight.double(), weight), distance(probe.bias.double(), bias), distance(found.double(), scores)]
    const measured = distances.map((value) => value.toExponential(1))
    if (process.env['GMML_MEASURED']) console.log(`measured probe, ${name} ${decay} ${dtype}: ${measured}`)
    for (const value of distances) expect(value).toBeLessThan(near)
    expect(classesOf(found)).toEqual(classesOf(scores))
    expect([probe.weight.dtype, found.dtype]).toEqual([dtype, dtype])
    probe.dispose()
  })
})

describe('by L-BFGS', () => {
  it('is at an optimum, also of more rows than are gone through at once', () => {
    const { features, labels } = blobs(3000, 400, 5)
    const weightDecay = 0.003
    const probe = trainLinearProbe({ features, labels }, 5, { weightDecays: [weightDecay], standardise: false, tolerance: 1e-5 })
    const [weight, bias] = [probe.weight.detach().double().requiresGrad_(), probe.bias.detach().double().requiresGrad_()]
    const logits = features.double().matmul(weight.t()).add(bias)
    const loss = torch.crossEntropyLoss(logits, torch.tensor(labels, { dtype: 'int64' })).add(weight.square().sum().mul(weightDecay / 2))
    for (const gradient of torch.grad(loss, [weight, bias])) expect(gradient.abs().max().item()).toBeLessThan(2e-5)
    expect(weight.norm().item()).toBeGreaterThan(0.5)
    probe.dispose()
  })

  it('standardised is as if the features had been', () => {
    const { features, labels } = blobs(300, 6, 3)
    const shifted = features.mul(torch.tensor([0.01, 1, 50, 1, 3, 1])).add(torch.tensor([0, 40, 0, -2, 1, 0]))
    const [variance, mean] = torch.varMean(shifted.double(), [0], { unbiased: false })
    const standard = shifted.double().sub(mean).div(variance.add(1e-6).sqrt())
    const exact = { weightDecays: [0.01], tolerance: 1e-9 }
    const probe = trainLinearProbe({ features: shifted.double(), labels }, 3, exact)
    const wanted = trainLinearProbe({ features: standard, labels }, 3, { ...exact, standardise: false })
    expect(distance(probe.scores(shifted), wanted.scores(standard))).toBeLessThan(1e-6)
    const plain = trainLinearProbe({ features: shifted.double(), labels }, 3, { ...exact, standardise: false })
    expect(distance(plain.scores(shifted), wanted.scores(standard))).toBeGreaterThan(0.01)
    // The penalty weighs on the standardised weights, so their norm is what a stronger one lowers.
    expect(probe.weight.mul(variance.add(1e-6).sqrt()).norm().item()).toBeCloseTo(wanted.weight.norm().item(), 5)
  })
})

describe('by SGD', () => {
  it('trains each setting as SGD would alone', () => {
    const { features, labels } = blobs(50, 4, 3)
    const rows = { features, labels: torch.tensor(labels, { dtype: 'int64' }) }
    const settings = [0.5, 0.02].flatMap((learningRate) => [0, 0.3].map((weightDecay) => ({ learningRate, weightDecay })))
    const [epochs, batchSize, seed] = [3, 16, 5]
    const epochsTold: number[] = []
    const all = fitBySgd(rows, 3, settings, { epochs, batchSize }, seed, (done) => epochsTold.push(done))
    expect(epochsTold).toEqual([1, 2, 3])
    for (const [s, { learningRate, weightDecay }] of settings.entries()) {
      const [weight, bias] = [new Parameter(torch.zeros([3, 4])), new Parameter(torch.zeros([3]))]
      const optimizer = new SGD([{ parameters: [weight], weightDecay }, { parameters: [bias] }], { momentum: 0.9 })
      const schedule = cosineSchedule({ base: learningRate, final: 0, steps: epochs * 4 })
      let step = 0
      for (let epoch = 0; epoch < epochs; epoch++) {
        const order = permutation(50, randomFor(seed, 'linear probe', epoch))
        for (let first = 0; first < 50; first += batchSize) {
          const batch = torch.fromTypedArray(Int32Array.from(order.subarray(first, first + batchSize)))
          const logits = torch.linear(features.indexSelect(0, batch), weight, { bias })
          optimizer.zeroGrad()
          torch.crossEntropyLoss(logits, rows.labels.indexSelect(0, batch)).backward()
          for (const group of optimizer.groups) group.lr = schedule(step)
          step++
          optimizer.step()
        }
      }
      expect(distance(all.weight.at(s), weight.detach()), `weight of setting ${s}`).toBeLessThan(1e-5)
      expect(distance(all.bias.at(s), bias.detach()), `bias of setting ${s}`).toBeLessThan(1e-5)
    }
  })

  it('comes to the optimum of L-BFGS', () => {
    const { features, labels } = blobs(400, 8, 4)
    const sgd = trainLinearProbe({ features, labels }, 4, { method: 'sgd', weightDecays: [0.05], learningRates: [0.1], epochs: 100 })
    const lbfgs = trainLinearProbe({ features, labels }, 4, { weightDecays: [0.05] })
    expect(distance(sgd.weight, lbfgs.weight)).toBeLessThan(0.02)
    expect(sgd.chosen).toEqual({ weightDecay: 0.05, learningRate: 0.1 })
  })
})

const both: readonly [string, LinearProbeOptions][] = [
  ['lbfgs', { weightDecays: [1e-3, 0.1, 10], tolerance: 1e-6 }],
  ['sgd', { method: 'sgd', weightDecays: [0, 0.1], learningRates: [0.01, 0.3, 1e-6], epochs: 4, batchSize: 32 }]
]

describe.each(both)('%s: the choice', (method, options) => {
  it('is made on rows that were not learned from, and the rest on all of them', () => {
    const data = blobs(200, 20, 4)
    const probe = trainLinearProbe(data, 4, { ...options, seed: 3, validation: 0.25 })
    const { kept: fit, heldOut } = holdOut(data.labels, 0.25, 3)
    const pick = (rows: Int32Array) =>
      ({
        features: data.features.indexSelect(0, torch.tensor([...rows], { dtype: 'int64' })),
        labels: Array.from(rows, (row) => data.labels[row]!)
      })
    const only = (weightDecay: number, learningRate: number | undefined): LinearProbeOptions =>
      ({ ...options, weightDecays: [weightDecay], ...(learningRate !== undefined && { learningRates: [learningRate] }), seed: 3 })
    const [fitted, held] = [pick(fit), pick(heldOut)]
    const accuracies = probe.sweep.map(({ weightDecay, learningRate, accuracy: wanted, loss }) => {
      const fixed = only(weightDecay, learningRate)
      const alone = trainLinearProbe(fitted, 4, fixed)
      const scores = alone.scores(held.features)
      expect(accuracy(classesOf(scores), held.labels)).toBe(wanted)
      expect(torch.crossEntropyLoss(scores, torch.tensor(held.labels, { dtype: 'int64' })).item()).toBeCloseTo(loss, 3)
      return wanted
    })
    expect(accuracies).toHaveLength(method === 'sgd' ? 6 : 3)
    const { weightDecay, learningRate } = probe.chosen
    const chosen = probe.sweep.find((trial) => trial.weightDecay === weightDecay && trial.learningRate === learningRate)!
    expect(chosen.accuracy).toBe(Math.max(...accuracies))
    for (const trial of probe.sweep) if (trial.accuracy === chosen.accuracy) expect(trial.loss).toBeGreaterThanOrEqual(chosen.loss)
    expect(probe.heldOut).toEqual({ accuracy: chosen.accuracy, loss: chosen.loss, images: 50 })

    const fixed = only(weightDecay, learningRate)
    const whole = trainLinearProbe(data, 4, fixed)
    expect([whole.heldOut, whole.sweep, whole.chosen]).toEqual([null, [], probe.chosen])
    expect(distance(probe.weight, whole.weight)).toBeLessThan(1e-3)
    const less = trainLinearProbe(fitted, 4, fixed)
    expect(distance(less.weight, whole.weight)).toBeGreaterThan(0.02)
  })

  it('is the same for the same seed, and leaves the global generator, the features and the tensors alone', () => {
    const data = blobs(120, 5, 3)
    const copy = data.features.clone()
    const [generator, { tensors }] = [torch.getRngState(), torch.memory()]
    const train = (seed: number): LinearProbe => trainLinearProbe(data, 3, { ...options, seed })
    const [one, other, third] = [train(1), train(1), train(2)]
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors + 6)
    expect(torch.getRngState()).toEqual(generator)
    expect(torch.equal(data.features, copy)).toBe(true)
    expect(torch.equal(one.weight, other.weight) && torch.equal(one.bias, other.bias)).toBe(true)
    expect(one.sweep).toEqual(other.sweep)
    expect(one.sweep).not.toEqual(third.sweep)
    for (const probe of [one, other, third]) probe.dispose()
    expect(one.weight.isLive || one.bias.isLive).toBe(false)
  })

  it('tells of its progress', () => {
    const told: ProbeProgress[] = []
    trainLinearProbe(blobs(60, 5, 3), 3, { ...options, onProgress: (progress) => told.push(progress) })
    const phase = (name: 'sweep' | 'final', total: number) => Array.from({ length: total }, (_, i) => ({ phase: name, done: i + 1, total }))
    expect(told).toEqual(method === 'sgd' ? [...phase('sweep', 4), ...phase('final', 4)] : [...phase('sweep', 3), ...phase('final', 1)])
  })

  it('takes features as they come', () => {
    const data = blobs(90, 5, 3)
    const wanted = trainLinearProbe(data, 3, options)
    const given: Record<string, Tensor> = {
      'that require grad': data.features.clone().requiresGrad_(), 'that are not contiguous': data.features.t().contiguous().t(),
      'of inference mode': torch.inferenceMode(() => data.features.clone())
    }
    for (const [name, features] of Object.entries(given)) {
      const probe = torch.noGrad(() => trainLinearProbe({ features, labels: Int32Array.from(data.labels) }, 3, options))
      expect(torch.equal(probe.weight, wanted.weight), name).toBe(true)
      expect(probe.weight.requiresGrad || probe.scores(features).requiresGrad, name).toBe(false)
    }
    const half = trainLinearProbe({ ...data, features: data.features.bfloat16() }, 3, options)
    expect(half.weight.dtype).toBe('float32')
    expect(distance(half.scores(data.features.bfloat16()), wanted.scores(data.features))).toBeLessThan(0.1)
    // A feature that never differs says nothing, and does not become infinite; nor does a class without rows.
    const constant = torch.cat([data.features, torch.full([90, 1], 1e4)], { dim: 1 })
    const probe = trainLinearProbe({ ...data, features: constant }, 4, options)
    expect(probe.weight.at(torch.slice(), 5).abs().max().item()).toBeLessThan(1e-3)
    expect(torch.all(probe.scores(constant).isfinite()).item()).toBe(true)
    expect(new Set(classesOf(probe.scores(constant)))).toEqual(new Set([0, 1, 2]))
    expect(probe.scores(torch.zeros([0, 6])).shape).toEqual([0, 4])
  })

  it('leaves a row of each class to learn from, and says so where there are not enough', () => {
    const single = { features: torch.eye(4), labels: [0, 1, 2, 3] }
    expect(() => trainLinearProbe(single, 4, options)).toThrow(/more rows to hold out 10 % .*weightDecays: \[.*received '4 rows'/)
    const fixed = { ...options, weightDecays: [1e-3], ...(method === 'sgd' && { learningRates: [0.1] }) }
    expect(classesOf(trainLinearProbe(single, 4, fixed).scores(single.features))).toEqual([0, 1, 2, 3])
    const few = { features: torch.cat([torch.eye(4), torch.eye(4)]), labels: [0, 1, 2, 3, 0, 1, 2, 0] }
    expect(trainLinearProbe(few, 4, { ...options, validation: 0.5 }).heldOut!.images).toBe(4)
  })
})

it('prefers less loss among settings of the same accuracy, and takes none that is not finite', () => {
  const rows = Array.from({ length: 40 }, (_, i) => [i % 2 ? 1 : -1, (i % 7) * 0.01])
  const data = { features: torch.tensor(rows), labels: rows.map(([x]) => (x! > 0 ? 1 : 0)) }
  const probe = trainLinearProbe(data, 2, { weightDecays: [10, 1e-3, 1], seed: 1 })
  expect(probe.sweep.map((trial) => trial.accuracy)).toEqual([1, 1, 1])
  expect(probe.chosen).toEqual({ weightDecay: 1e-3 })
  const wild = { method: 'sgd', weightDecays: [0], learningRates: [1e38, 0.01], epochs: 5, batchSize: 4 } as const
  expect(trainLinearProbe(blobs(60, 3, 2), 2, wild).chosen.learningRate).toBe(0.01)
  expect(() => trainLinearProbe(blobs(60, 3, 2), 2, { ...wild, learningRates: [1e38, 2e38] })).toThrow(/settings of which one stays finite/)
})

it('scores are the same where the rows are too many to be scored at once', () => {
  torch.manualSeed(2)
  // Of so many classes two rows at a time.
  const [count, classes, rows] = [2, 2 ** 20, 5]
  const classifiers = { weight: torch.randn([count, classes, 1]), bias: torch.randn([count, classes]) }
  const features = torch.randn([rows, 1])
  const logits = [0, 1].map((s) => features.matmul(classifiers.weight.at(s).t()).add(classifiers.bias.at(s)))
  // The first classifier is right in all rows, the second by chance at most.
  const labels = logits[0]!.argmax({ dim: 1 })
  const scores = fitOf(classifiers, { features, labels })
  expect(scores.map((score) => score.accuracy)).toEqual([1, accuracy(classesOf(logits[1]!), Array.from(labels.toTypedArray(), Number))])
  for (const [s, { loss }] of scores.entries()) expect(loss).toBeCloseTo(torch.crossEntropyLoss(logits[s]!, labels).item(), 3)
})

describe('trainLinearProbe refuses', () => {
  const data = blobs(30, 4, 3)
  const withValue = (value: number) => ({ ...data, features: data.features.clone().setAt([3, 2], value) })
  const misuse: Record<string, readonly [unknown, number, object, RegExp]> = {
    'an unknown method': [data, 3, { method: 'newton' }, /'lbfgs' or 'sgd' for method, received 'newton'/],
    'what belongs to the other method': [data, 3, { epochs: 3 }, /nothing beside method 'lbfgs' for epochs, received 3/],
    'a tolerance for SGD': [data, 3, { method: 'sgd', tolerance: 1 }, /nothing beside method 'sgd' for tolerance/],
    'no weight decays': [data, 3, { weightDecays: [] }, /one or more numbers for weightDecays/],
    'a single number': [data, 3, { weightDecays: 0.1 }, /one or more numbers for weightDecays, received 0.1/],
    'a negative decay': [data, 3, { weightDecays: [1, -1] }, /numbers of at least 0 for weightDecays, received -1/],
    'a learning rate of NaN': [data, 3, { method: 'sgd', learningRates: [NaN] }, /for learningRates, received NaN/],
    'nothing held out': [data, 3, { validation: 0 }, /a number between 0 and 1 for validation, received 0/],
    'all held out': [data, 3, { validation: 1 }, /for validation, received 1/],
    'half a seed': [data, 3, { seed: 0.5 }, /an integer for seed, received 0.5/],
    'a negative tolerance': [data, 3, { tolerance: -1 }, /for tolerance, received -1/],
    'no iterations': [data, 3, { maxIterations: 0 }, /at least 1 for maxIterations, received 0/],
    'no epochs': [data, 3, { method: 'sgd', epochs: 0 }, /at least 1 for epochs, received 0/],
    'a batch of 1.5': [data, 3, { method: 'sgd', batchSize: 1.5 }, /for batchSize, received 1.5/],
    'standardise: yes': [data, 3, { standardise: 'yes' }, /a boolean for standardise, received 'yes'/],
    'no classes': [data, 0, {}, /at least 1 for classes, received 0/],
    'a label beyond the classes': [data, 2, {}, /classes from 0 to 1 for labels, received 2/],
    'fewer labels than rows': [{ ...data, labels: [1] }, 3, {}, /30 labels for labels, received 1/],
    'features without rows': [{ features: torch.zeros([0, 4]), labels: [] }, 3, {}, /at least one row \[N, D\]/],
    'NaN': [withValue(NaN), 3, {}, /finite numbers for the training features/],
    'infinity': [withValue(Infinity), 3, { weightDecays: [1], standardise: false }, /finite numbers for the training features/]
  }
  it.each(Object.entries(misuse))('%s', (_, [train, classes, options, message]) => {
    const attempt = () => trainLinearProbe(train as typeof data, classes, options)
    expect(attempt).toThrow(InputError)
    expect(attempt).toThrow(message)
  })

  it('queries of another width', () => {
    const probe = trainLinearProbe(data, 3, { weightDecays: [1] })
    expect(() => probe.scores(torch.zeros([2, 5]))).toThrow(/shape \[M, 4\] for features, received 'shape \[2, 5\]'/)
  })

  it.each(['int32', 'uint8'] as DType[])('nothing about features of %s: they are numbers', (dtype) => {
    const whole = data.features.mul(10).abs().to(dtype)
    expect(trainLinearProbe({ ...data, features: whole }, 3, { weightDecays: [1] }).scores(whole).dtype).toBe('float32')
  })
})
