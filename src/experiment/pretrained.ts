import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'

import { defaultStatistics, type ImageSource } from '../data/index.js'
import { expected } from '../errors.js'
import { keptCheckpoints, type EncoderDescription } from '../train/checkpoint.js'
import { describeEncoder } from '../train/encoder.js'
import { RunFolder } from '../train/index.js'
import { imagePaths } from '../train/settings.js'
import { describedIn } from '../train/settle.js'
import type { ExperimentConfig } from './config.js'

const finishedSchema = z.object({ images: imagePaths, epochs: z.int().min(1), imageCount: z.int().min(1) })

/**
 * What a pretraining saw that is to be taken.
 *
 * @param train - Images that the encoder is compared on.
 * @throws InputError for what is no finished pretraining, or one of another encoder than training from scratch would begin with.
 */
export async function requireFinished(path: string, config: ExperimentConfig, train: ImageSource): Promise<{ images: number; epochs: number }> {
  const run = new RunFolder(path)
  const saved = await run.readConfig()
  const settings = finishedSchema.safeParse(saved).data
  if (!settings) throw expected('the folder of a pretraining run', 'pretrained', path)
  const { epochs, imageCount } = settings
  const newest = (await keptCheckpoints(run)).at(-1)
  const unfinished = newest ? newest.epochEnd !== epochs : !existsSync(join(run.exported, 'backbone.safetensors'))
  if (unfinished) throw expected(`a pretraining whose ${epochs} epochs are done`, 'pretrained', path)
  const describe = ({ model, imageSize, patchSize }: EncoderDescription) => `${model}, images of ${imageSize.join(' x ')}, patches of ${patchSize}`
  const [there, wanted] = [describe(describedIn(saved)), describe(describeEncoder(config, train, defaultStatistics(train)))]
  if (there === wanted) return { images: imageCount, epochs }
  throw expected(`the encoder of '${path}' (${there})`, 'model, imageSize and patchSize', wanted)
}
