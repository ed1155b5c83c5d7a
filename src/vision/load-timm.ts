import { expected } from '../errors.js'
import { requireStateDict, type StateDict } from '../nn/index.js'
import * as torch from '../torch/index.js'
import type { Tensor } from '../torch/index.js'
import { mlpRatioFor } from './block.js'
import { sides, VisionTransformer, type ImageSize, type VisionTransformerOptions } from './vision-transformer.js'

const bicubicAntialiased = torch.operator('aten::_upsample_bicubic2d_aa')

const POSITIONS = 'pos_embed'
const PATCHES = 'patch_embed.proj.weight'
const CLASSIFIER = 'head.'

type Grid = readonly [rows: number, columns: number]

/** @param maps - [B, C, H, W], float32. PyTorch: `interpolate(mode='bicubic', antialias=True)`. */
const resize = (maps: Tensor, size: Grid): Tensor => torch.call<Tensor>(bicubicAntialiased, maps, [...size], false)

/** @param positions - [1, P + rows columns, D], of which P are left alone. timm: `resample_abs_pos_embed`. */
function resamplePositions(positions: Tensor, prefix: number, from: Grid, to: Grid): Tensor {
  const maps = positions.narrow(1, prefix, from[0] * from[1]).to('float32').unflatten(1, [...from]).permute([0, 3, 1, 2])
  const resized = resize(maps, to).flatten({ startDim: 2 }).transpose(1, 2).to(positions.dtype)
  return torch.cat([positions.narrow(1, 0, prefix), resized], { dim: 1 })
}

/**
 * The kernel that answers to an enlarged image as the given one does to the image itself: multiplied by the pseudo-inverse of the resizing.
 * Paper: arXiv 2212.08013. timm: `resample_patch_embed`.
 *
 * @param kernel - [D, C, h, w].
 */
function resampleKernel(kernel: Tensor, patchSize: number): Tensor {
  const [rows, columns] = kernel.shape.slice(2) as [number, number]
  const pixels = torch.eye(rows * columns, { device: kernel.device }).reshape([-1, 1, rows, columns])
  const resizing = resize(pixels, [patchSize, patchSize]).flatten({ startDim: 1 }) // [h w, p p]: what becomes of each pixel
  const resampled = torch.matmul(kernel.to('float32').flatten({ startDim: 2 }), torch.linalgPinv(resizing.t()))
  return resampled.unflatten(2, [patchSize, patchSize]).to(kernel.dtype)
}

/** A kernel for RGB, for other channels: summed for one, else repeated, and scaled as the sum grows. timm: `adapt_input_conv`. */
function adaptChannels(kernel: Tensor, channels: number): Tensor {
  const precise = kernel.to('float32')
  if (channels === 1) return precise.sum(1, { keepdim: true }).to(kernel.dtype)
  const repeated = precise.repeat([1, Math.ceil(channels / 3), 1, 1]).narrow(1, 0, channels)
  return repeated.mul(3 / channels).to(kernel.dtype)
}

function adaptPatches(kernel: Tensor, { channels, patchSize }: VisionTransformer): Tensor {
  const resampled = kernel.shape.slice(2).some((side) => side !== patchSize) ? resampleKernel(kernel, patchSize) : kernel
  const given = kernel.shape[1]!
  if (given === channels) return resampled
  if (given === 3) return adaptChannels(resampled, channels)
  throw expected(`weights for 3 channels or for the model's own ${channels}`, PATCHES, `weights for ${given}`)
}

const patchOf = (kernel: Tensor): Grid => [kernel.shape[2]!, kernel.shape[3]!]

/** Rows and columns of patches in an image; fractions where they do not fit. */
function gridIn(size: ImageSize, name: string, patch: Grid): Grid {
  const [height, width] = sides(size, name)
  return [height / patch[0], width / patch[1]]
}

/** The grid of `count` patches: that of `trainedAt`, else a square; null if they make no such grid. */
function findGrid(count: number, kernel: Tensor, trainedAt: ImageSize | undefined): Grid | null {
  const square = Math.round(Math.sqrt(count))
  const grid: Grid = trainedAt === undefined ? [square, square] : gridIn(trainedAt, 'trainedAt', patchOf(kernel))
  return count > 0 && grid[0] * grid[1] === count && grid.every(Number.isInteger) ? grid : null
}

/** As {@link findGrid}. @throws InputError if there is no such grid. */
function requireGrid(count: number, kernel: Tensor, trainedAt: ImageSize | undefined): Grid {
  const grid = findGrid(count, kernel, trainedAt)
  if (grid) return grid
  const image = trainedAt && `an image of ${sides(trainedAt, 'trainedAt').join(' x ')} in patches of ${patchOf(kernel).join(' x ')}`
  throw expected(`positions of ${image ?? 'a square of patches (or trainedAt beside them)'}`, POSITIONS, `${count} positions of patches`)
}

function adaptPositions(positions: Tensor, kernel: Tensor, model: VisionTransformer, trainedAt: ImageSize | undefined): Tensor {
  const prefix = model.options.noEmbedClass ? 0 : model.numPrefixTokens
  const count = positions.shape[1]! - prefix
  // Without a word on the grid, as many positions as the model has are taken for the model's, as timm takes them.
  if (trainedAt === undefined && count === model.numPatches) return positions
  const from = requireGrid(count, kernel, trainedAt)
  return String(from) === String(model.grid) ? positions : resamplePositions(positions, prefix, from, model.grid)
}

/** How weights of timm are fitted to another encoder. */
export interface LoadTimmOptions {
  /**
   * What becomes of `head.weight` and `head.bias`: `load` takes them into the model's classifier, which must have as many classes; `ignore`
   * leaves them out, and a classifier of the model as it is. Default: `load` for a model with a classifier, `ignore` for one without.
   */
  readonly classifier?: 'load' | 'ignore'
  /** Size of the images that the weights were made for. Default: a square, or the model's own where it has as many patches. */
  readonly trainedAt?: ImageSize
}

/**
 * Copies the weights of a timm `VisionTransformer` into a model of the same width, depth and tokens. Another image size, patch size or
 * number of channels is adapted to as timm does when it loads pretrained weights: position embedding resampled (bicubic, antialiased) but
 * for the rows of CLS and registers; patch embedding resampled by the pseudo-inverse of the resizing, and from RGB summed (1 channel) or
 * repeated and scaled (any other number).
 *
 * @param state - Tensors by timm's names, of any floating-point dtype, on any device. Left as they are.
 * @throws InputError for names or shapes that do not fit (the first ten of each kind), positions of no grid, and channels that cannot be
 *   adapted; then the model has not been changed.
 */
export function loadTimm(model: VisionTransformer, state: StateDict, options: LoadTimmOptions = {}): void {
  if (!(model instanceof VisionTransformer)) throw expected('a VisionTransformer', 'the model', model)
  requireStateDict(state)
  const { classifier = model.head ? 'load' : 'ignore', trainedAt } = options
  if (classifier !== 'load' && classifier !== 'ignore') throw expected("'load' or 'ignore'", 'classifier', classifier)
  torch.noGrad(() => {
    torch.scope(() => {
      const adapted = { ...state }
      const [kernel, positions] = [state[PATCHES], state[POSITIONS]]
      // What is of another width, or missing, is for loadStateDict to name, with everything else that does not fit.
      if (kernel?.ndim === 4 && kernel.shape[0] === model.embedDim && kernel.numel() > 0) {
        adapted[PATCHES] = adaptPatches(kernel, model)
        if (positions?.ndim === 3 && positions.shape[0] === 1 && positions.shape[2] === model.embedDim) {
          adapted[POSITIONS] = adaptPositions(positions, kernel, model, trainedAt)
        }
      }
      if (classifier === 'ignore') {
        const ofClassifier = (tensors: StateDict) => Object.keys(tensors).filter((name) => name.startsWith(CLASSIFIER))
        for (const name of ofClassifier(adapted)) delete adapted[name]
        const own = model.stateDict()
        for (const name of ofClassifier(own)) adapted[name] = own[name]!
      }
      model.loadStateDict(adapted)
    })
  })
}

/** What shapes say of a model. Heads they do not: 64 elements each, as in every size of the paper. */
function inferOptions(
  state: StateDict, given: Partial<VisionTransformerOptions>, trainedAt: ImageSize | undefined
): VisionTransformerOptions {
  const need = (name: string, ndim: number): Tensor => {
    const tensor = state[name]
    if (tensor?.ndim === ndim) return tensor
    const received = tensor ? `${name} of shape [${tensor.shape.join(', ')}]` : `none among ${Object.keys(state).length} names`
    throw expected(`${name} with ${ndim} dimensions`, "the state dict of timm's VisionTransformer", received)
  }
  const kernel = need(PATCHES, 4)
  const positions = need(POSITIONS, 3).shape[1]!
  const hidden = need('blocks.0.mlp.fc1.weight', 2).shape[0]!
  const [embedDim, channels, patchSize, width] = kernel.shape as [number, number, number, number]
  if (patchSize !== width) throw expected('square patches', PATCHES, `shape [${kernel.shape.join(', ')}]`)
  const numHeads = given.numHeads ?? embedDim / 64
  if (!Number.isInteger(numHeads)) throw expected(`numHeads for a width of ${embedDim}, no multiple of 64,`, 'the options', given)
  const has = (name: string) => Object.hasOwn(state, name)
  const depth = new Set(Object.keys(state).flatMap((name) => /^blocks\.(\d+)\./.exec(name)?.[1] ?? [])).size
  const classToken = has('cls_token')
  const registerTokens = state['reg_token']?.shape[1] ?? 0
  const prefix = (classToken ? 1 : 0) + registerTokens
  const asked = given.patchSize ?? patchSize
  const wanted = given.imageSize === undefined ? null : gridIn(given.imageSize, 'imageSize', [asked, asked])
  // As loadTimm will understand them: positions of the model that is asked for, or of another grid.
  const own = (count: number) => trainedAt === undefined && wanted !== null && wanted[0] * wanted[1] === count
  const fits = (count: number) => own(count) || findGrid(count, kernel, trainedAt) !== null
  const noEmbedClass = given.noEmbedClass ?? (!fits(positions - prefix) && fits(positions))
  const trained = (): Grid => requireGrid(positions - (noEmbedClass ? 0 : prefix), kernel, trainedAt)
  const pixels = ([rows, columns]: Grid): Grid => [rows * patchSize, columns * patchSize]
  const fcNorm = has('fc_norm.weight')
  return {
    imageSize: given.imageSize ?? pixels(trained()),
    patchSize, channels, embedDim, depth, numHeads, classToken, registerTokens, noEmbedClass, fcNorm,
    mlpRatio: mlpRatioFor(hidden, embedDim),
    qkvBias: has('blocks.0.attn.qkv.bias'),
    initValues: has('blocks.0.ls1.gamma') ? 1e-5 : null,
    pool: fcNorm || !classToken ? 'avg' : 'token',
    numClasses: state['head.weight']?.shape[0] ?? 0
  }
}

/**
 * A model with the weights of a timm `VisionTransformer`, its options read from the shapes: width, depth, patches, channels, tokens, norms,
 * classes, and the image size if it is a square.
 *
 * @param options - Options of {@link loadTimm}, and those of the model that shapes cannot say or that are to be others: `numHeads`
 *   (default: width / 64), `pool` (default: `avg` where there is `fc_norm` or no CLS token), `noEmbedClass` (default: where the positions
 *   make a square only if none of them is of CLS or a register), `imageSize`, `patchSize`, `channels`, `dropPath`, and `numClasses` (0:
 *   without classifier; with another number of classes comes `classifier: 'ignore'`).
 * @throws InputError for what is no such state dict, and as {@link loadTimm}.
 */
export function visionTransformerFromTimm(
  state: StateDict, options: Partial<VisionTransformerOptions> & LoadTimmOptions = {}
): VisionTransformer {
  requireStateDict(state)
  const { classifier, trainedAt, ...others } = options
  const given: Partial<VisionTransformerOptions> = Object.fromEntries(Object.entries(others).filter(([, value]) => value !== undefined))
  const inferred = inferOptions(state, given, trainedAt)
  const model = torch.scope(() => new VisionTransformer({ ...inferred, ...given }))
  try {
    loadTimm(model, state, { ...(classifier && { classifier }), ...(trainedAt && { trainedAt }) })
    return model
  } catch (error) {
    model.dispose()
    throw error
  }
}
