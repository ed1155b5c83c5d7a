// node bench/recipes.mjs pretrain|finetune --images FOLDER --out FOLDER: what each setting is worth, one changed at a time, on images held
// out of the training images. See docs/recipes.md. What is done is not done again.
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { finetune, measureKnn, measureProbe, pretrain, RunFolder } from 'gmml'
import { readResults } from 'gmml/evaluate'
import * as torch from 'gmml/torch'
import { describeDevice, writeRecord } from './record.mjs'

const USAGE = `node bench/recipes.mjs pretrain|finetune --images FOLDER --out FOLDER
  [--epochs 4] [--limit 10000] [--threads 1] [--device auto] [--only NAME,NAME] [--write]`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    images: { type: 'string' }, out: { type: 'string' }, epochs: { type: 'string', default: '4' }, limit: { type: 'string', default: '10000' },
    threads: { type: 'string', default: '1' }, device: { type: 'string', default: 'auto' }, only: { type: 'string' },
    write: { type: 'boolean', default: false }
  }
})
const [part] = positionals
if (!values.images || !values.out || !['pretrain', 'finetune'].includes(part)) {
  console.error(USAGE)
  process.exit(2)
}

const { images, device } = values
const [epochs, limit, threads] = [Number(values.epochs), Number(values.limit), Number(values.threads)]
torch.setNumThreads(threads)

// Half as many images more than are pretrained on, of which a third is held out.
const pool = { limit: 1.5 * limit, validation: 1 / 3 }
const pretraining = {
  images, model: 'vit_micro', limit, epochs, batchSize: 64, lr: 0.008, minLr: 1e-6, warmupEpochs: epochs / 10, weightDecayEnd: 0.04, dropPath: 0,
  allPixels: true, cropScale: [0.6, 1], amp: 'off', threads, device
}

/** What is changed of the pretraining. */
const pretrainings = {
  base: {}, 'seed 1': { seed: 1 },
  'crop 1-1': { cropScale: [1, 1] }, 'crop 0.3-1': { cropScale: [0.3, 1] }, 'crop 0.05-1': { cropScale: [0.05, 1] },
  overhang: { overhang: true }, 'align 2': { align: 2 }, 'align 4': { align: 4 },
  'budget 0.5': { maskBudget: 0.5 }, 'budget 0.9': { maskBudget: 0.9 }, 'alien 0': { alien: 0 }, 'alien 0.5': { alien: 0.5 },
  'last block': { featureBlocks: [4] }, 'loss of corrupted pixels': { allPixels: false },
  'lr 0.004': { lr: 0.004 }, 'lr 0.016': { lr: 0.016 }, zeros: { fill: 'zeros' }, shuffle: { fill: 'shuffle' },
  'overhang, crop 1-1': { overhang: true, cropScale: [1, 1] }, 'overhang, align 2': { overhang: true, align: 2 }
}

// 4 % of the pool's labels to learn from, 30 % to measure on.
const finetuning = {
  train: images, limit: pool.limit, labels: '34%', validation: 30 / 34, validateEvery: 1000, model: 'vit_micro', epochs: 60, batchSize: 64, lr: 0.008,
  cropPadding: 2, mixup: 0, cutmix: 0, randAugment: 0, erasing: 0, amp: 'off', threads, device, checkpointEvery: 1000
}
const scratch = { from: 'random', layerDecay: 1, lr: 0.016 }

/** What is changed of the finetuning, which starts from the pretraining `base`. */
const finetunings = {
  base: {}, 'seed 1': { seed: 1 }, 'lr 0.004': { lr: 0.004 }, 'lr 0.016': { lr: 0.016 }, 'layer decay 0.5': { layerDecay: 0.5 }, 'layer decay 0.9': { layerDecay: 0.9 },
  erasing: { erasing: 0.25 }, RandAugment: { randAugment: 2 }, 'mixup, CutMix': { mixup: 0.8, cutmix: 1, mixProbability: 0.5 },
  'no shifts': { cropPadding: 0, cropScale: [1, 1] }, 'crop 0.6-1': { cropPadding: 0, cropScale: [0.6, 1] }, 'no smoothing': { labelSmoothing: 0 },
  'CLS token': { pool: 'token' }, 'running mean 0.99': { ema: 0.99 },
  'from scratch': scratch, 'from scratch, lr 0.008': { ...scratch, lr: 0.008 }, 'from scratch, lr 0.032': { ...scratch, lr: 0.032 },
  'from scratch, RandAugment': { ...scratch, randAugment: 2 }, 'from scratch, 240 epochs': { ...scratch, epochs: 240 }
}

const folderOf = (kind, name) => new RunFolder(join(values.out, kind, name.replaceAll(/[ ,]+/g, '-')))
const percent = (share) => (100 * share).toFixed(2)

/** kNN and linear probe on images held out of the training images. */
async function measureFeatures(subject) {
  const request = { subject, train: images, ...pool, device, ...(subject === 'random' && { model: 'vit_micro' }) }
  const accuracies = async (measure, options) => {
    const { scores, measuredOn } = await measure({ ...request, ...options })
    return { images: measuredOn.images, ...Object.fromEntries(Object.entries(scores).map(([kind, { accuracy }]) => [kind, accuracy])) }
  }
  return { knn: await accuracies(measureKnn, { k: 20 }), probe: await accuracies(measureProbe, { weightDecays: [0.001, 0.01, 0.1] }) }
}

async function measurePretraining(name, changes) {
  const run = folderOf('pretrain', name)
  const start = performance.now()
  if (!existsSync(join(run.exported, 'backbone.safetensors'))) await pretrain({ ...pretraining, ...changes, out: run.path, resume: run.exists })
  const lines = (await readFile(run.metrics, 'utf8')).trim().split('\n').map((line) => JSON.parse(line))
  const loss = lines.findLast((line) => 'epochLoss' in line).epochLoss
  const row = { name, changes, seconds: (performance.now() - start) / 1000, loss, ...(await measureFeatures(run.path)) }
  const { knn, probe } = row
  console.log(`${name.padEnd(26)} kNN ${percent(knn.cls)} cls ${percent(knn.mean)} mean, probe ${percent(probe.cls)} cls ${percent(probe.mean)} mean`)
  return row
}

async function measureFinetuning(name, changes) {
  const run = folderOf('finetune', name)
  const from = folderOf('pretrain', 'base').path
  const before = await readResults(run.path)
  const results = before ?? (await finetune({ from, ...finetuning, ...changes, out: run.path, resume: run.exists })).results
  const { accuracy, interval, images: count } = results.scores.classifier
  console.log(`${name.padEnd(26)} ${percent(accuracy)}`)
  return { name, changes, images: results.train.images, measuredOn: count, accuracy, interval }
}

const { variants, measure } = { pretrain: { variants: pretrainings, measure: measurePretraining }, finetune: { variants: finetunings, measure: measureFinetuning } }[part]
const wanted = values.only?.split(';') ?? Object.keys(variants)
const measured = []
for (const [name, changes] of Object.entries(variants)) if (wanted.includes(name)) measured.push(await measure(name, changes))

if (values.write) {
  const untrained = part === 'pretrain' ? { random: await measureFeatures('random') } : {}
  const what = {
    pretrain: 'accuracy on images held out of the training images, by kNN (k = 20) and linear probe, after a short pretraining; one setting changed at a time',
    finetune: 'accuracy on images held out of the training images, after a short finetuning; one setting changed at a time'
  }[part]
  const { images: _, device: __, ...base } = part === 'pretrain' ? pretraining : finetuning
  const command = `node bench/recipes.mjs ${part} --epochs ${epochs} --limit ${limit}`
  writeRecord({ name: `recipes-${part}`, what: [what], base, pool, ...untrained, variants: measured }, describeDevice(), command)
}
