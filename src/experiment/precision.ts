import { defaultStatistics } from '../data/index.js'
import type { LabelledImages } from '../evaluate/index.js'
import { GroupMaskedModel } from '../gmml/index.js'
import { buildEncoder } from '../train/checkpoint.js'
import { describeEncoder } from '../train/encoder.js'
import { classificationTrial } from '../train/finetune-step.js'
import type { Precision } from '../train/precision.js'
import { reconstructionTrial } from '../train/pretrain-step.js'
import { settleDevice, settlePrecision } from '../train/settle.js'
import type { Module } from '../nn/index.js'
import { scope, type Tensor } from '../torch/index.js'
import { parseExperimentConfig, type ExperimentConfig } from './config.js'

const amps = { float32: 'off', bfloat16: 'bf16', float16: 'fp16' } as const satisfies Record<Precision, string>

/** A section whose `amp` is to be settled. */
type Section = 'pretrain' | 'finetune'

const isOpen = (config: ExperimentConfig, section: Section): boolean => [undefined, 'auto'].includes(config[section]['amp'] as string | undefined)

/** With the precisions in place. Those of training from scratch are those of finetuning, unless something else than `auto` is said. */
function withAmps(config: ExperimentConfig, found: Readonly<Partial<Record<Section, unknown>>>): ExperimentConfig {
  const changed = { ...config }
  for (const [section, amp] of Object.entries(found) as [Section, unknown][]) {
    if (amp !== undefined && isOpen(config, section)) changed[section] = { ...config[section], amp }
  }
  if (config.scratch['amp'] === 'auto') changed.scratch = Object.fromEntries(Object.entries(config.scratch).filter(([name]) => name !== 'amp'))
  // In the order of the schema, as it is read again.
  return parseExperimentConfig(changed)
}

/** Where `auto` is asked for, what an experiment that goes on has settled before. */
export const keepPrecisions = (config: ExperimentConfig, before: ExperimentConfig): ExperimentConfig =>
  withAmps(config, { pretrain: before.pretrain['amp'], finetune: before.finetune['amp'] })

/**
 * Settles what `amp: auto` means, once for all pretrainings and once for all finetunings: a short measurement may come out otherwise the next
 * time, and what a table compares must be computed alike.
 *
 * @param train - Images that are learned from.
 */
export function settlePrecisions(config: ExperimentConfig, train: LabelledImages): ExperimentConfig {
  const device = settleDevice(config.device)
  const encoder = describeEncoder(config, train, defaultStatistics(train))
  const settle = (section: Section, prepare: () => { readonly model: Module; readonly trial: () => () => Tensor }) => {
    if (!isOpen(config, section)) return undefined
    const { model, trial } = prepare()
    try {
      return amps[settlePrecision('auto', null, model, device, trial)]
    } finally {
      model.dispose()
    }
  }
  const pretrain = () => {
    const model = scope(() => new GroupMaskedModel(buildEncoder(encoder)).to(device))
    return { model, trial: () => reconstructionTrial(model, device) }
  }
  const finetune = () => {
    const model = scope(() => buildEncoder({ ...encoder, classes: [...train.classes], pool: 'avg' }).to(device))
    return { model, trial: () => classificationTrial(model, device) }
  }
  return withAmps(config, { ...(config.pretrained === undefined && { pretrain: settle('pretrain', pretrain) }), finetune: settle('finetune', finetune) })
}
