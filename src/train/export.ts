import { existsSync } from 'node:fs'
import { mkdir, readdir, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { expected, InputError, SettingsError } from '../errors.js'
import { saveTorch } from '../io/index.js'
import { scope } from '../torch/index.js'
import { exportOnnx, loadTimm, saveHuggingFace, saveTimm, VisionTransformer, type ImageSize } from '../vision/index.js'
import { loadEncoder, newestWeights, type EncoderDescription } from './checkpoint.js'
import { RunFolder } from './run-folder.js'

/** What to export and how. */
export interface ExportRequest {
  /** `timm`, `huggingface`: a folder that timm and transformers load. `onnx`: a file. `pytorch`: a state dict of timm's names, a file. */
  readonly to: ExportFormat
  /** Default: `backbone-timm`, `backbone-huggingface`, `backbone.onnx` or `backbone.pth` in the run's `exported`, or beside the file. */
  readonly out?: string | undefined
  /** Step of the run's checkpoint to take. Default: the newest weights. */
  readonly checkpoint?: number | undefined
  /** Size of the images that it is for: the position embedding is resampled, as timm does. Default: the encoder's. */
  readonly imageSize?: ImageSize | undefined
  /** Version of ONNX's operators. Default 17. */
  readonly opset?: number | undefined
  /** Whether what is there may be overwritten. Default false. */
  readonly force?: boolean | undefined
}

/** What was written, and how it is loaded there. */
export interface ExportResult {
  /** What was written. */
  readonly path: string
  /** The weights that were taken. */
  readonly weights: string
  /** The lines of Python, or JavaScript for ONNX, that load it. */
  readonly load: readonly string[]
}

interface Format {
  /** What follows the weights' name in the default path. */
  readonly suffix: string
  readonly folder: boolean
  readonly write: (path: string, backbone: VisionTransformer, encoder: EncoderDescription, request: ExportRequest) => Promise<void>
  readonly load: (path: string, backbone: VisionTransformer) => readonly string[]
}

const formats = {
  timm: {
    suffix: '-timm',
    folder: true,
    write: (path, backbone, encoder) => saveTimm(path, backbone, encoder, { encoder: JSON.stringify(encoder) }),
    load: (path) => ['import timm', `model = timm.create_model(${JSON.stringify(`local-dir:${path}`)}, pretrained=True)`]
  },
  huggingface: {
    suffix: '-huggingface',
    folder: true,
    write: (path, backbone, encoder) => saveHuggingFace(path, backbone, encoder),
    load: (path, { head }) => {
      const [kind, options] = head ? ['ViTForImageClassification', ''] : ['ViTModel', ', add_pooling_layer=False']
      return [`from transformers import ${kind}`, `model = ${kind}.from_pretrained(${JSON.stringify(path)}${options})`]
    }
  },
  onnx: {
    suffix: '.onnx',
    folder: false,
    write: (path, backbone, { mean, std }, { opset }) => exportOnnx(path, backbone, { mean, std, opset }),
    load: (path) => [
      `import { InferenceSession } from 'onnxruntime-node'`, `const session = await InferenceSession.create(${JSON.stringify(path)})`
    ]
  },
  pytorch: {
    suffix: '.pth',
    folder: false,
    write: (path, backbone) => saveTorch(path, backbone.stateDict()),
    load: (path) => ['import torch', `state = torch.load(${JSON.stringify(path)}, weights_only=True)`]
  }
} as const satisfies Record<string, Format>

/** What an encoder can be written for. */
export type ExportFormat = keyof typeof formats

/** Names of the formats of {@link exportBackbone}. */
export const exportFormats = Object.keys(formats) as readonly ExportFormat[]

async function findWeights(subject: string, checkpoint: number | undefined): Promise<string> {
  if (!existsSync(subject)) throw expected(`a run's folder or a file of weights`, 'what to export', subject)
  if (!(await stat(subject)).isDirectory()) {
    if (checkpoint !== undefined) throw new SettingsError(`A checkpoint can be chosen of a run's folder; '${subject}' is a file`)
    return subject
  }
  const run = new RunFolder(subject)
  if (checkpoint === undefined) return newestWeights(run)
  const path = run.checkpoint(checkpoint)
  if (existsSync(path)) return path
  const steps = (await run.listCheckpoints()).map((file) => Number(/\d+/.exec(basename(file))![0]))
  throw expected(steps.length ? `one of the steps ${steps.join(', ')}` : 'a run with checkpoints', 'the checkpoint', checkpoint)
}

/** @throws InputError for a place where something would be lost. */
async function requireFree(path: string, folder: boolean, force: boolean, weights: string): Promise<void> {
  if (!existsSync(path)) return
  const target = folder ? join(path, 'model.safetensors') : path
  if (existsSync(target) && (await realpath(target)) === (await realpath(weights))) {
    throw new InputError(`'${target}' is what is exported: choose another place`)
  }
  if ((await stat(path)).isDirectory() !== folder) {
    throw expected(folder ? `a folder's path` : `a file's path`, 'out', `the ${folder ? 'file' : 'folder'} ${path}`)
  }
  // A run has a config.json too.
  if (folder && existsSync(new RunFolder(path).checkpoints)) throw new InputError(`'${path}' is the folder of a run: choose another place`)
  if (force || (folder && (await readdir(path)).length === 0)) return
  throw new InputError(`'${path}' is there already. Write there all the same (force), or choose another place`)
}

/** A model for images of another size, with the same weights but for the position embedding. */
function resized(model: VisionTransformer, imageSize: ImageSize): VisionTransformer {
  const other = scope(() => new VisionTransformer({ ...model.options, imageSize }))
  loadTimm(other, model.stateDict(), { trainedAt: model.imageSize })
  return other
}

/**
 * Writes a trained encoder in a format of others.
 *
 * @param subject - A run's folder, a checkpoint, or an exported file of weights.
 * @throws SettingsError for an unknown format; InputError for what holds no encoder, what the format cannot hold, and a place that is
 *   taken; then nothing has been written.
 */
export async function exportBackbone(subject: string, request: ExportRequest): Promise<ExportResult> {
  const { to, checkpoint, imageSize, force = false } = request
  if (!Object.hasOwn(formats, to)) throw new SettingsError(expected(`one of ${exportFormats.join(', ')}`, 'to', to).message)
  if (request.out === '') throw new SettingsError(expected('a path', 'out', '').message)
  const { suffix, folder, write, load }: Format = formats[to]
  const weights = await findWeights(subject, checkpoint)
  const stem = (await stat(subject)).isDirectory() ? join(new RunFolder(subject).exported, 'backbone') : weights.replace(/\.[^./\\]+$/, '')
  const path = request.out ?? stem + suffix
  await requireFree(path, folder, force, weights)
  const { encoder, backbone } = await loadEncoder(weights)
  let model = backbone
  try {
    if (imageSize !== undefined) model = resized(backbone, imageSize)
    if (!folder) await mkdir(dirname(path), { recursive: true })
    await write(path, model, { ...encoder, imageSize: [...model.imageSize] }, request)
    return { path, weights, load: load(path, model) }
  } finally {
    for (const each of new Set([backbone, model])) each.dispose()
  }
}
