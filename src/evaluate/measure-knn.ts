import { existsSync } from 'node:fs'
import { realpath, stat } from 'node:fs/promises'

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

/** The images to learn from and to classify. One folder for both can only mean its two splits. */
async function openBoth({ train, test, limit }: KnnRequest): Promise<{ train: ImageSource; test: ImageSource }> {
  const known = await openImages(train, { limit })
  const same = existsSync(test) && (await realpath(test)) === (await realpath(train))
  const other = () => expected('another folder than --train, or one with IDX files of two splits,', '--test', test)
  if (same && known.kind !== 'idx') throw other()
  const queries = await openImages(test, { limit, split: same ? 'test' : undefined })
  // A folder with a single pair of files, of neither split, gives that pair for both.
  const file = (source: ImageSource) => source.name(0).replace(/#\d+$/, '')
  if (same && file(known) === file(queries)) throw other()
  return { train: known, test: queries }
}

interface Subject {
  readonly encoder: EncoderDescription | null
  readonly backbone: VisionTransformer | null
}

async function chooseEncoder(request: KnnRequest, train: ImageSource): Promise<Subject> {
  const { subject, device = 'cpu' } = request
  if (subject === 'pixels') return { encoder: null, backbone: null }
  if (subject === 'random') {
    const { model = 'vit_small', imageSize, patchSize, seed = 0 } = request
    const config = parseConfig({ images: request.train, out: 'none', model, imageSize, patchSize })
    const encoder = describeEncoder(config, train, defaultStatistics(train))
    manualSeed(seed)
    return { encoder, backbone: scope(() => buildEncoder(encoder)).to(device) }
  }
  if (!existsSync(subject)) throw expected(`a run's folder, a file of weights, 'random' or 'pixels'`, 'what to measure', subject)
  const path = (await stat(subject)).isDirectory() ? await newestWeights(new RunFolder(subject)) : subject
  const { encoder, backbone } = await loadEncoder(path)
  return { encoder, backbone: backbone.to(device) }
}

/**
 * Measures kNN accuracy: by CLS token and mean patch token of an encoder, or by pixels.
 *
 * @throws InputError for images without classes, of classes or channels that do not go together, and for what is no encoder.
 */
export async function measureKnn(request: KnnRequest): Promise<KnnResult> {
  const { device = 'cpu', k = 20, temperature = 0.07 } = request
  const { train, test } = await openBoth(request)
  const labels = testLabels(train, test)
  const { encoder, backbone } = await chooseEncoder(request, train)
  const owned: { dispose(): void }[] = backbone ? [backbone] : []
  const own = <T extends { dispose(): void }>(resource: T): T => {
    owned.push(resource)
    return resource
  }
  try {
    const channels = encoder?.channels ?? train.channels
    for (const source of [train, test]) {
      if (source.channels !== channels) {
        const taker = encoder ? 'the encoder takes' : 'the training images have'
        throw new InputError(`'${source.path}' has images of ${source.channels} channels, ${taker} ${channels}`)
      }
    }
    const [height, width] = encoder?.imageSize ?? (train.kind === 'idx' ? [train.height, train.width] : [32, 32])
    const statistics = encoder ? { mean: encoder.mean, std: encoder.std } : defaultStatistics(train)
    const compute = async (source: ImageSource): Promise<{ indices: readonly number[]; features: Record<string, Tensor> }> => {
      const loader = own(new Loader(source, { size: { height, width }, device, statistics }))
      if (!backbone) {
        const { pixels, indices } = await pixelFeatures(loader)
        return { indices, features: { pixels: own(pixels) } }
      }
      const { cls, mean, indices } = await extractFeatures(backbone, loader)
      return { indices, features: { ...(cls && { cls: own(cls) }), mean: own(mean) } }
    }
    const bank = await compute(train)
    const queries = await compute(test)
    return Object.fromEntries(
      Object.keys(bank.features).map((name) => {
        const known = { features: bank.features[name]!, labels: bank.indices.map((i) => train.labels![i]!) }
        const predicted = knnPredict(known, queries.features[name]!, train.classes!.length, { k, temperature, centre: !backbone })
        return [name, accuracy(predicted, queries.indices.map((i) => labels[i]!))]
      })
    )
  } finally {
    for (const resource of owned) resource.dispose()
  }
}
