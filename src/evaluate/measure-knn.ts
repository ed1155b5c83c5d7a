import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'

import { expected, InputError } from '../errors.js'
import { defaultStatistics, Loader, openImages, type ImageSource } from '../data/index.js'
import { manualSeed, scope, type Device, type Tensor } from '../torch/index.js'
import { buildEncoder, loadEncoder, newestWeights, type EncoderDescription } from '../train/checkpoint.js'
import { parseConfig } from '../train/config.js'
import { describeEncoder } from '../train/encoder.js'
import { RunFolder } from '../train/run-folder.js'
import type { VisionTransformer, VisionTransformerName } from '../vision/index.js'
import { extractFeatures, pixelFeatures } from './features.js'
import { accuracy, knnPredict } from './knn.js'

/** What to measure by kNN. */
export interface KnnRequest {
  /** A run's folder, a file of weights, `random` or `pixels`. */
  readonly subject: string
  readonly train: string
  readonly test: string
  /** Neighbours that vote. Default 20. */
  readonly k?: number
  /** Votes weigh exp(similarity / temperature). Default 0.07. */
  readonly temperature?: number
  /** Default cpu. */
  readonly device?: Device
  /** At most so many images of each folder. */
  readonly limit?: number
  /** Of a `random` encoder. Default vit_small. */
  readonly model?: VisionTransformerName
  /** Of a `random` encoder, in pixels. */
  readonly imageSize?: number
  /** Of a `random` encoder, in pixels. */
  readonly patchSize?: number
  /** Of a `random` encoder. Default 0. */
  readonly seed?: number
}

/** Accuracy by the features that it was measured on. */
export type KnnResult = Readonly<Record<string, number>>

/** Test labels in the numbers of the training classes. */
function testLabels(train: ImageSource, test: ImageSource): number[] {
  if (!train.classes || !train.labels) throw expected('images with classes (sub-folders or labels)', '--train', train.path)
  if (!test.classes || !test.labels) throw expected('images with classes (sub-folders or labels)', '--test', test.path)
  const numbers = new Map(train.classes.map((name, i) => [name, i]))
  const unknown = test.classes.filter((name) => !numbers.has(name))
  if (unknown.length) throw expected('classes that the training images have', '--test', `class ${unknown.slice(0, 3).join(', ')}`)
  return Array.from(test.labels, (label) => numbers.get(test.classes![label]!)!)
}

async function chooseEncoder(request: KnnRequest, train: ImageSource): Promise<{ encoder: EncoderDescription | null; backbone: VisionTransformer | null }> {
  const { subject, device = 'cpu' } = request
  if (subject === 'pixels') return { encoder: null, backbone: null }
  if (subject === 'random') {
    const { model = 'vit_small', imageSize, patchSize, seed = 0 } = request
    const config = parseConfig({ images: request.train, out: 'none', model, ...(imageSize && { imageSize }), ...(patchSize && { patchSize }) })
    const encoder = describeEncoder(config, train, defaultStatistics(train))
    manualSeed(seed)
    return { encoder, backbone: scope(() => buildEncoder(encoder)).to(device) }
  }
  if (!existsSync(subject)) throw expected(`a run's folder, a file of weights, 'random' or 'pixels'`, 'what to measure', subject)
  const path = (await stat(subject)).isDirectory() ? await newestWeights(new RunFolder(subject)) : subject
  const { encoder, backbone } = await loadEncoder(path)
  return { encoder, backbone: backbone.to(device) }
}

/** Measures kNN accuracy: by CLS token and mean patch token of an encoder, or by pixels. */
export async function measureKnn(request: KnnRequest): Promise<KnnResult> {
  const { device = 'cpu', limit, k = 20, temperature = 0.07 } = request
  const train = await openImages(request.train, { limit })
  // One folder for both can only mean its two splits.
  const test = await openImages(request.test, { limit, split: request.test === request.train ? 'test' : undefined })
  if (test.path === train.path && test.kind !== 'idx') throw expected('another folder than --train', '--test', request.test)
  const labels = testLabels(train, test)
  const { encoder, backbone } = await chooseEncoder(request, train)
  const channels = encoder?.channels ?? train.channels
  for (const source of [train, test]) {
    if (source.channels !== channels) throw new InputError(`'${source.path}' has images of ${source.channels} channels, the encoder takes ${channels}`)
  }
  const [height, width] = encoder?.imageSize ?? (train.kind === 'idx' ? [train.height, train.width] : [32, 32])
  const own = encoder && { mean: encoder.mean, std: encoder.std }
  const trainLoader = new Loader(train, { size: { height, width }, device, ...(own && { statistics: own }) })
  const testLoader = new Loader(test, { size: { height, width }, device, statistics: trainLoader.statistics })
  const compute = async (loader: Loader): Promise<{ indices: readonly number[]; features: Record<string, Tensor> }> => {
    if (!backbone) {
      const { pixels, indices } = await pixelFeatures(loader)
      return { indices, features: { pixels } }
    }
    const { cls, mean, indices } = await extractFeatures(backbone, loader)
    return { indices, features: { cls, mean } }
  }
  const bank = await compute(trainLoader)
  const queries = await compute(testLoader)
  const result = Object.fromEntries(
    Object.keys(bank.features).map((name) => {
      const known = { features: bank.features[name]!, labels: bank.indices.map((i) => train.labels![i]!) }
      const predicted = knnPredict(known, queries.features[name]!, train.classes!.length, { k, temperature, centre: !backbone })
      return [name, accuracy(predicted, queries.indices.map((i) => labels[i]!))]
    })
  )
  for (const tensor of [...Object.values(bank.features), ...Object.values(queries.features)]) tensor.dispose()
  for (const loader of [trainLoader, testLoader]) loader.dispose()
  backbone?.dispose()
  return result
}
