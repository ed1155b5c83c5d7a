import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'

import { saveSafetensors, writeFileAtomic } from '../io/index.js'
import { requireStatistics, type ImageStatistics } from './statistics.js'
import { timmArguments } from './timm.js'
import type { VisionTransformer } from './vision-transformer.js'

// timm builds by a registered name. The sizes that this one stands for are all overruled by the arguments.
const ARCHITECTURE = 'vit_base_patch16_224'

/**
 * Writes the folder that `timm.create_model('local-dir:FOLDER', pretrained=True)` reads: config.json and model.safetensors. `model_args` of
 * config.json are the keyword arguments of timm's `VisionTransformer`. Each file is written atomically; others in the folder are left
 * alone.
 *
 * @param metadata - Strings for the header of model.safetensors.
 * @throws InputError as {@link timmArguments} does, and for a mean or standard deviation of another number of channels; then nothing has
 *   been written.
 */
export async function saveTimm(
  folder: string, model: VisionTransformer, statistics: ImageStatistics = {}, metadata: Readonly<Record<string, string>> = {}
): Promise<void> {
  const { mean, std } = requireStatistics(model, statistics)
  const { numClasses, pool, embedDim, channels, imageSize } = model.options
  const config = {
    architecture: ARCHITECTURE,
    num_classes: numClasses,
    num_features: embedDim,
    global_pool: pool,
    model_args: timmArguments(model),
    pretrained_cfg: {
      input_size: [channels, ...imageSize], fixed_input_size: true, interpolation: 'bicubic', crop_pct: 1, ...(mean && { mean, std }),
      num_classes: numClasses, pool_size: null, first_conv: 'patch_embed.proj', classifier: 'head', license: null
    }
  }
  await mkdir(folder, { recursive: true })
  await saveSafetensors(join(folder, 'model.safetensors'), model.stateDict(), { format: 'pt', ...metadata })
  await writeFileAtomic(join(folder, 'config.json'), `${JSON.stringify(config, null, 2)}\n`)
}
