// node bench/recipes.mjs --images FOLDER --out FOLDER: what each setting of a short pretraining is worth, on images held out of the
// training images. See docs/recipes.md. What is done is not done again.
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { measureKnn, measureProbe, pretrain, RunFolder } from 'gmml'
import * as torch from 'gmml/torch'
import { describeDevice, writeRecord } from './record.mjs'

const { values } = parseArgs({
  options: {
    images: { type: 'string' }, out: { type: 'string' }, epochs: { type: 'string', default: '4' }, limit: { type: 'string', default: '10000' },
    threads: { type: 'string', default: '1' }, device: { type: 'string', default: 'auto' }, only: { type: 'string' }, write: { type: 'boolean', default: false }
  }
})
if (!values.images || !values.out) {
  console.error('node bench/recipes.mjs --images FOLDER --out FOLDER [--epochs 4] [--limit 10000] [--threads 1] [--device auto] [--only NAME,NAME] [--write]')
  process.exit(2)
}

const [epochs, limit, threads] = [Number(values.epochs), Number(values.limit), Number(values.threads)]
const base = {
  images: values.images, model: 'vit_micro', limit, epochs, batchSize: 64, lr: 0.008, minLr: 1e-6, warmupEpochs: epochs / 10, weightDecayEnd: 0.04, dropPath: 0,
  allPixels: true, cropScale: [0.6, 1], amp: 'off', threads, device: values.device
}

/** What is changed of the base, one thing at a time. */
const variants = {
  base: {}, 'seed 1': { seed: 1 },
  'crop 1-1': { cropScale: [1, 1] }, 'crop 0.3-1': { cropScale: [0.3, 1] }, 'crop 0.05-1': { cropScale: [0.05, 1] },
  overhang: { overhang: true }, 'align 2': { align: 2 }, 'align 4': { align: 4 },
  'budget 0.5': { maskBudget: 0.5 }, 'budget 0.9': { maskBudget: 0.9 }, 'alien 0': { alien: 0 }, 'alien 0.5': { alien: 0.5 },
  'last block': { featureBlocks: [4] }, 'loss of corrupted pixels': { allPixels: false },
  'lr 0.004': { lr: 0.004 }, 'lr 0.016': { lr: 0.016 }, zeros: { fill: 'zeros' }, shuffle: { fill: 'shuffle' }
}

const VALIDATION = 1 / 3
const wanted = values.only?.split(',')
const measured = []
torch.setNumThreads(threads)
for (const [name, changes] of Object.entries(variants)) {
  if (wanted && !wanted.includes(name)) continue
  const run = new RunFolder(join(values.out, name.replaceAll(' ', '-')))
  const start = performance.now()
  if (!existsSync(join(run.exported, 'backbone.safetensors'))) await pretrain({ ...base, ...changes, out: run.path, resume: run.exists })
  const seconds = (performance.now() - start) / 1000
  const lines = (await readFile(run.metrics, 'utf8')).trim().split('\n').map((line) => JSON.parse(line))
  // Half as many images more than are pretrained on, of which a third is held out: as many as are measured on have not been seen.
  const request = { subject: run.path, train: values.images, limit: 1.5 * limit, validation: VALIDATION, device: values.device }
  const accuracies = async (measure, options) => {
    const { scores, measuredOn } = await measure({ ...request, ...options })
    return { images: measuredOn.images, ...Object.fromEntries(Object.entries(scores).map(([kind, { accuracy }]) => [kind, accuracy])) }
  }
  const row = {
    name, changes, seconds, loss: lines.findLast((line) => 'epochLoss' in line).epochLoss,
    knn: await accuracies(measureKnn, { k: 20 }), probe: await accuracies(measureProbe, { weightDecays: [0.001, 0.01, 0.1] })
  }
  measured.push(row)
  const percent = (part) => (100 * part).toFixed(2)
  console.log(`${name.padEnd(26)} kNN ${percent(row.knn.cls)} cls ${percent(row.knn.mean)} mean, probe ${percent(row.probe.cls)} cls ${percent(row.probe.mean)} mean, loss ${row.loss.toFixed(4)}`)
}
if (values.write) {
  const what = 'accuracy on images held out of the training images, by kNN (k = 20) and linear probe, after a short pretraining; one setting changed at a time'
  writeRecord({ name: 'recipes', what, base, validation: VALIDATION, variants: measured }, describeDevice(), `node bench/recipes.mjs --epochs ${epochs} --limit ${limit}`)
}
