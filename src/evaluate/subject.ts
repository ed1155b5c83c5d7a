import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'

import { defaultStatistics, Loader, type ImageSource, type LoaderOptions, type Statistics } from '../data/index.js'
import { expected, InputError } from '../errors.js'
import { manualSeed, scope, type Device, type Tensor } from '../torch/index.js'
import { buildEncoder, loadEncoder, newestWeights, type EncoderDescription } from '../train/checkpoint.js'
import { describeEncoder } from '../train/encoder.js'
import { RunFolder } from '../train/run-folder.js'
import { settleDevice } from '../train/settle.js'
import type { VisionTransformer, VisionTransformerName } from '../vision/index.js'
import { extractFeatures, pixelFeatures } from './features.js'

/** How images are read that an encoder is measured on, and who is told of those that cannot be. */
export type ReadingOptions = Pick<LoaderOptions, 'maxBroken' | 'dataTimeout' | 'onBroken' | 'onNotice'>

/** Which encoder, and what of it, is to be measured. */
export interface SubjectRequest extends ReadingOptions {
  /** A run's folder, a file of weights, `random` or `pixels`. */
  readonly subject: string
  /** `auto` is a GPU where there is one. Default cpu. */
  readonly device?: Device | 'auto' | undefined
  /** Threads that decode. Default 4. */
  readonly workers?: number | undefined
  /** The CLS token, the mean of the patch tokens, or each of them. Default both. */
  readonly features?: 'cls' | 'mean' | 'both' | undefined
  /** Block, counted from 1, whose tokens are taken. Default: the last. */
  readonly block?: number | undefined
  /** Of a `random` encoder. Default vit_small. */
  readonly model?: VisionTransformerName | undefined
  /** Of a `random` encoder, in pixels. */
  readonly imageSize?: number | undefined
  /** Of a `random` encoder, in pixels. */
  readonly patchSize?: number | undefined
  /** Of a `random` encoder. Default 0. */
  readonly seed?: number | undefined
}

/** Features of images, by kind. */
export interface SubjectFeatures {
  /** Positions of the images; broken ones are left out. */
  readonly indices: readonly number[]
  /** `cls`, `mean` or `pixels`: [N, D], outside scopes. */
  readonly features: Readonly<Record<string, Tensor>>
}

async function chooseEncoder(
  request: SubjectRequest, train: ImageSource
): Promise<{ encoder: EncoderDescription; backbone: VisionTransformer } | null> {
  const { subject } = request
  if (subject === 'pixels') return null
  if (subject === 'random') {
    const { model = 'vit_small', imageSize, patchSize, seed = 0 } = request
    const encoder = describeEncoder({ model, imageSize, patchSize }, train, defaultStatistics(train))
    manualSeed(seed)
    return { encoder, backbone: scope(() => buildEncoder(encoder)) }
  }
  if (!existsSync(subject)) throw expected(`a run's folder, a file of weights, 'random' or 'pixels'`, 'what to measure', subject)
  return loadEncoder((await stat(subject)).isDirectory() ? await newestWeights(new RunFolder(subject)) : subject)
}

/** What is measured: an encoder, or the pixels themselves. */
export class Subject {
  readonly #request: SubjectRequest
  readonly device: Device
  readonly #size: { readonly height: number; readonly width: number }
  readonly #statistics: Statistics

  private constructor(
    request: SubjectRequest, train: ImageSource, readonly encoder: EncoderDescription | null, readonly backbone: VisionTransformer | null
  ) {
    this.#request = request
    this.device = settleDevice(request.device ?? 'cpu')
    const [height, width] = encoder?.imageSize ?? (train.kind === 'memory' ? [train.height, train.width] : [32, 32])
    this.#size = { height, width }
    this.#statistics = encoder ?? defaultStatistics(train)
  }

  /**
   * @param train - Images that it is measured with: a random encoder is made for them.
   * @throws InputError for what is no encoder, one that takes other images, features or a block that it does not have, and what only a random
   *   encoder is told.
   */
  static async open(request: SubjectRequest, train: ImageSource): Promise<Subject> {
    const { features = 'both', block, device = 'cpu', subject, model, imageSize, patchSize } = request
    for (const [name, value] of Object.entries({ model, imageSize, patchSize })) {
      if (subject !== 'random' && value !== undefined) throw expected(`nothing, as '${subject}' is no random encoder,`, name, value)
    }
    const { encoder = null, backbone = null } = (await chooseEncoder(request, train)) ?? {}
    try {
      if (encoder && encoder.channels !== train.channels) {
        throw new InputError(`'${train.path}' has images of ${train.channels} channels, the encoder takes ${encoder.channels}`)
      }
      if (!backbone && (block !== undefined || features !== 'both')) {
        throw expected('none', 'features and block of pixels', block ?? features)
      }
      if (features === 'cls' && backbone?.options.classToken === false) {
        throw expected(`'mean', as '${subject}' has no CLS token,`, 'features', features)
      }
      if (block !== undefined && backbone && !(Number.isInteger(block) && block >= 1 && block <= backbone.depth)) {
        throw expected(`a block from 1 to ${backbone.depth}`, 'block', block)
      }
      return new Subject(request, train, encoder, backbone?.to(settleDevice(device)) ?? null)
    } catch (error) {
      backbone?.dispose()
      throw error
    }
  }

  /** Features of images, without augmentation. The caller disposes of them. @throws InputError if no image can be decoded, or too many not. */
  async features(images: ImageSource): Promise<SubjectFeatures> {
    const { features: wanted = 'both', block, workers, maxBroken, dataTimeout, onBroken, onNotice } = this.#request
    const loader = new Loader(images, {
      size: this.#size, device: this.device, statistics: this.#statistics,
      ...(workers !== undefined && { workers }), ...(maxBroken !== undefined && { maxBroken }), ...(dataTimeout !== undefined && { dataTimeout }),
      ...(onBroken && { onBroken }), ...(onNotice && { onNotice })
    })
    try {
      if (!this.backbone) {
        const { pixels, indices } = await pixelFeatures(loader)
        return { indices, features: { pixels } }
      }
      const { cls, mean, indices } = await extractFeatures(this.backbone, loader, { ...(block && { block }) })
      const unwanted = wanted === 'cls' ? mean : wanted === 'mean' ? cls : null
      unwanted?.dispose()
      return { indices, features: { ...(cls && wanted !== 'mean' && { cls }), ...(wanted !== 'cls' && { mean }) } }
    } finally {
      loader.dispose()
    }
  }

  /** Frees the encoder. */
  dispose(): void {
    this.backbone?.dispose()
  }
}
