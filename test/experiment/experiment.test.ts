import { readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'

import { readResults } from '../../src/evaluate/index.js'
import { experiment, type ExperimentConfig, type ExperimentConfigInput } from '../../src/experiment/index.js'
import { parseExperimentConfig } from '../../src/experiment/config.js'
import { commandLine } from '../../src/experiment/command.js'
import { finetuneSettings, planCells } from '../../src/experiment/plan.js'
import * as torch from '../../src/torch/index.js'
import { finetune, pretrain, RunFolder } from '../../src/train/index.js'
import { gmml } from '../cli/support.js'
import { folderWith } from '../data/support.js'
import { stripeFiles, stripes } from '../evaluate/support.js'

torch.setNumThreads(1)

let images: string
let out: string

beforeEach(async () => {
  images = await folderWith({ ...stripeFiles(48, 0, 'train-'), ...stripeFiles(18, 1, 't10k-') })
  out = join(await folderWith(), 'experiment')
})

const settings = (changes: Partial<ExperimentConfigInput> = {}): ExperimentConfigInput => ({
  images, out, model: 'vit_micro', pretrainEpochs: 2, labels: ['25%', '100%'], finetuneEpochs: [3, 1], seeds: 2, totalSeeds: 1, device: 'cpu', threads: 1,
  patchSize: 4, pretrain: { batchSize: 16, amp: 'off' }, finetune: { batchSize: 8, amp: 'off' },
  ...changes
})

/** What an experiment does, and whether each part had been done before. */
async function parts(config: ExperimentConfigInput, signal?: AbortSignal): Promise<[name: string, done: boolean][]> {
  const told: [string, boolean][] = []
  await experiment(config, { onPart: ({ name, done }) => void told.push([name, done]), ...(signal && { signal }) })
  return told
}

describe('experiment', () => {
  it('pretrains, finetunes every arm, and reports', async () => {
    const { tensors } = torch.memory()
    const { status, report, found } = await experiment(settings())
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    expect(status).toBe('done')
    const names = (await readdir(join(out, 'finetune'))).sort()
    expect(names).toEqual(
      ['pretrained', 'scratch', 'scratch-total'].flatMap((arm) =>
        ['100', '25'].flatMap((labels) => (arm === 'scratch-total' ? [0] : [0, 1]).map((seed) => `${arm}-${labels}-percent-seed-${seed}`))
      )
    )
    // The total budget: two views of 48 images, twice, beside the 3 times 12 images of the finetuning.
    const total = (await readResults(join(out, 'finetune/scratch-total-25-percent-seed-0')))!
    expect(total.settings['epochs']).toBe(3 + (2 * 2 * 48) / 12)
    expect(total.settings['layerDecay']).toBe(1)
    const text = await readFile(report!, 'utf8')
    const row = found.finished.filter(({ cell }) => cell.arm === 'pretrained' && cell.labels === '25%').map(({ score }) => score!.accuracy)
    const mean = (100 * (row[0]! + row[1]!)) / 2
    expect(text).toContain(`${mean.toFixed(2)} ± ${(100 * Math.abs(row[0]! - row[1]!) / Math.SQRT2).toFixed(2)} (n = 2)`)
    expect(text).toMatch(/\| 25% +\| 12 +\|/)
    expect(text).toContain('| knn ')
    expect((await sharp(join(out, 'accuracy.png')).metadata()).width).toBeGreaterThan(600)
    const { rows, images: count } = JSON.parse(await readFile(join(out, 'results.json'), 'utf8')) as { rows: unknown[]; images: number }
    expect([rows.length, count]).toEqual([6, 48])

    // The commands of the report give the same.
    const command = /^gmml finetune .*pretrained-25-percent-seed-1 .*$/m.exec(text)![0]
    expect(command).toBe(
      `gmml finetune ${out}/pretrain/seed-0 --train ${images} --test ${images} --out ${out}/finetune/pretrained-25-percent-seed-1 ` +
        '--labels 25% --seed 1 --epochs 3 --threads 1 --device cpu --workers 4 --batch-size 8 --amp off'
    )
    const again = await finetune({
      from: join(out, 'pretrain/seed-0'), train: images, test: images, out: join(out, 'again'), labels: '25%', seed: 1, epochs: 3, threads: 1,
      device: 'cpu', batchSize: 8, amp: 'off'
    })
    expect(again.results!.scores).toEqual((await readResults(join(out, 'finetune/pretrained-25-percent-seed-1')))!.scores)

    expect(text).toContain(`gmml probe random --train ${images} --test ${images} --out ${out}/probe/random --model vit_micro --patch-size 4 --threads 1 `)
    const measuring = /^gmml knn .*pretrained .*$/m.exec(text)![0]
    expect(measuring).toBe(
      `gmml knn ${out}/pretrain/seed-0 --train ${images} --test ${images} --out ${out}/knn/pretrained --threads 1 --device cpu --workers 4`
    )
    const elsewhere = measuring.replace('/knn/pretrained', '/knn/again').split(' ').slice(1)
    expect((await gmml(elsewhere)).code).toBe(0)
    expect((await readResults(join(out, 'knn/again')))!.scores).toEqual((await readResults(join(out, 'knn/pretrained')))!.scores)

    // Nothing is done twice; what is missing is done.
    expect((await parts(settings())).filter(([, done]) => !done)).toEqual([])
    await rm(join(out, 'finetune/scratch-25-percent-seed-1'), { recursive: true })
    await rm(join(out, 'knn/random'), { recursive: true })
    expect((await parts(settings())).filter(([, done]) => !done)).toHaveLength(2)
    expect((await parts(settings({ seeds: 3 }))).filter(([, done]) => !done)).toHaveLength(4)
  }, 120_000)

  it('goes on where it was interrupted, to the same results', async () => {
    const config = settings({ labels: ['100%'], finetuneEpochs: [2], seeds: 1, totalSeeds: 0 })
    const stopAt = async (step: number, folder: string) => {
      const controller = new AbortController()
      const onStep = (report: { step: number }) => void (report.step >= step && controller.abort())
      return experiment({ ...config, out: folder }, { signal: controller.signal, onStep })
    }
    const logged = { ...config, pretrain: { ...config.pretrain, logEvery: 1 }, finetune: { ...config.finetune, logEvery: 1 } }
    Object.assign(config, logged)
    const whole = await experiment({ ...config, out: `${out}-whole` })
    expect(await stopAt(2, out)).toMatchObject({ status: 'interrupted', report: null })
    const second = await stopAt(7, out)
    expect(second).toMatchObject({ status: 'interrupted', report: join(out, 'report.md') })
    await expect(experiment({ ...config, finetuneEpochs: [3] })).rejects.toThrow(/pretrained-100-percent-seed-0' was finetuned with epochs 2, not 3: remove it/)
    const resumed = await experiment(config)
    expect(resumed.found.finished.map(({ score }) => score)).toEqual(whole.found.finished.map(({ score }) => score))
  }, 120_000)

  it('computes on as many threads as it is told to, also when it goes on', async () => {
    const config = settings({ labels: ['100%'], finetuneEpochs: [1], seeds: 1, totalSeeds: 0 })
    await experiment(config)
    await rm(join(out, 'probe'), { recursive: true })
    torch.setNumThreads(2)
    const threads: number[] = []
    await experiment(config, { onPart: () => void threads.push(torch.getNumThreads()) })
    expect(new Set(threads)).toEqual(new Set([1]))
  }, 60_000)

  it('takes a pretraining that is there, and reports its budget', async () => {
    const run = join(out, '../photos')
    await pretrain({ images, out: run, model: 'vit_micro', patchSize: 4, batchSize: 16, epochs: 1, amp: 'off', threads: 1, device: 'cpu' })
    const config = settings({ pretrained: run, labels: ['4/class'], finetuneEpochs: [1], seeds: 1 })
    expect((await parts(config)).map(([name]) => name)).toEqual([
      'kNN and linear probe of the features', 'pretrained, 4/class of the labels, 1 epochs, seed 0', 'scratch, 4/class of the labels, 1 epochs, seed 0',
      'scratch-total, 4/class of the labels, 9 epochs, seed 0'
    ])

    // Another network would be compared with another network; what was finetuned has seen labels; what is unfinished was not trained for its epochs.
    const other = { ...config, out: `${out}-other` }
    const refused = (changes: Partial<ExperimentConfigInput>) => expect(experiment({ ...other, ...changes })).rejects
    await refused({ model: 'vit_tiny' }).toThrow(
      `Expected the encoder of '${run}' (vit_micro, images of 8 x 8, patches of 4) for model, imageSize and patchSize, received 'vit_tiny, images of 8 x 8, patches of 4'`
    )
    await refused({ patchSize: 2 }).toThrow(/received 'vit_micro, images of 8 x 8, patches of 2'/)
    const finetuned = join(out, 'finetune/pretrained-4-per-class-seed-0')
    await refused({ pretrained: finetuned }).toThrow(`the folder of a pretraining run for pretrained, received '${finetuned.slice(0, 20)}`)
    const controller = new AbortController()
    await pretrain({ images, out: run, epochs: 3, resume: true, logEvery: 1 }, { signal: controller.signal, onStep: () => void controller.abort() })
    await refused({}).toThrow(/a pretraining whose 3 epochs are done for pretrained, received/)
    await expect(readdir(other.out)).rejects.toThrow(/ENOENT/)
  }, 60_000)

  it('chooses learning rates by images held out of the training images', async () => {
    const config = settings({ labels: ['25%', '8/class'], finetuneEpochs: [3, 1], seeds: 1, lrs: [1e-3, 1e30, 2e-3], heldOut: 0.25, finetune: { batchSize: 8, amp: 'off', maxSkipped: 1 } })
    const { found, report } = await experiment(config)
    expect(found.choices.map(({ labels, arm }) => `${labels} ${arm}`)).toEqual(['25% pretrained', '25% scratch', '8/class pretrained', '8/class scratch'])
    for (const { accuracies, lr } of found.choices) {
      expect(accuracies.map((one) => one.lr)).toEqual([1e-3, 1e30, 2e-3])
      expect(accuracies[1]!.accuracy).toBeNull()
      const [low, high] = [accuracies[0]!.accuracy!, accuracies[2]!.accuracy!]
      expect(lr).toBe(high > low ? 2e-3 : 1e-3)
    }
    // 12 of 48 to learn from, 12 others to measure on; 24 and 12.
    for (const [labels, images] of [['25-percent', 12], ['8-per-class', 24]] as const) {
      const trial = (await readResults(join(out, `choice/pretrained-${labels}-lr-0.001`)))!
      expect(trial.measuredOn).toMatchObject({ split: 'validation', images: 12 })
      expect(trial.train!.images).toBe(images)
    }
    // What is measured on test images takes what was chosen, with the total budget too.
    for (const { cell } of found.finished) {
      const start = cell.arm === 'pretrained' ? 'pretrained' : 'scratch'
      const chosen = found.choices.find(({ arm, labels }) => arm === start && labels === cell.labels)!.lr
      const { settings: used, measuredOn } = (await readResults(cell.out))!
      expect([used['lr'], measuredOn.split]).toEqual([chosen, 'test'])
    }
    const text = await readFile(report!, 'utf8')
    expect(text).toMatch(/\| 25% +\| pretrained \| [\d.]+ +\| diverged \| [\d.]+ +\| 0.00[12] +\|/)
    expect(text).toContain(`--out ${out}/choice/scratch-8-per-class-lr-0.002 --labels 12/class --seed 0 --epochs 1`)
    expect(text).not.toMatch(/choice.* --test/)
    const written = JSON.parse(await readFile(join(out, 'results.json'), 'utf8')) as { choices: unknown }
    expect(written.choices).toEqual(found.choices)

    const again = await parts(config)
    expect(again.filter(([name, done]) => !done && !name.includes('lr 1e+30'))).toEqual([])
    await expect(experiment({ ...config, lrs: [1e-3, 2e-3] })).rejects.toThrow(/other settings of lrs/)
    await expect(experiment({ ...config, heldOut: 0.1 })).rejects.toThrow(/other settings of heldOut/)
  }, 120_000)

  it('leaves out a learning rate with which a network gives no numbers, also after fewer steps than stop a training', async () => {
    const { found } = await experiment(settings({ labels: ['25%'], finetuneEpochs: [2], seeds: 1, totalSeeds: 0, lrs: [1e-3, 1e30], heldOut: 0.25 }))
    for (const { accuracies, lr } of found.choices) expect([accuracies[1]!.accuracy, lr]).toEqual([null, 1e-3])
  }, 60_000)

  it('reports a finetuning that diverges as such, does the others, and tries it again when asked', async () => {
    const config = settings({ labels: ['100%'], finetuneEpochs: [1], totalSeeds: 0, scratch: { lr: 1e30, maxSkipped: 1 } })
    const notices: string[] = []
    const { status, report, found } = await experiment(config, { onNotice: (message) => void notices.push(message) })
    expect([status, notices.length, found.finished.map(({ score }) => score === null)]).toEqual(['done', 2, [false, true, false, true]])
    expect(notices[0]).toMatch(/steps without success in a row|network that made them has diverged/)
    const row = (await readFile(report!, 'utf8')).split('\n').find((line) => line.startsWith('| 100%'))!
    expect(row).toMatch(/^\| 100% +\| 48 +\| \d+\.\d\d ± \d+\.\d\d \(n = 2\) \| 2 of 2 diverged +\| - +\| - +\|$/)
    const file = join(await folderWith({ 'settings.json': JSON.stringify({ ...config, images: undefined, out: undefined }) }), 'settings.json')
    const outcome = await gmml(['experiment', images, '--out', out, '--config', file])
    expect(outcome.code, outcome.stderr).toBe(1)
    expect(outcome.stderr).toContain('2 of 4 finetunings diverged, and are in no mean.')
  }, 60_000)

  it('refuses what cannot be, before anything is done', async () => {
    const cases: readonly [Partial<ExperimentConfigInput>, RegExp][] = [
      [{ finetuneEpochs: [1] }, /as many finetuneEpochs as labels \(2\), received 1/],
      [{ labels: ['5'], finetuneEpochs: [1] }, /parts like '1%' or numbers like '25\/class' for labels.0, received '5'/],
      [{ totalSeeds: 5 }, /at most seeds \(2\) for totalSeeds, received 5/],
      [{ images: await stripes(12) }, /another folder than --train, or one with IDX, CIFAR or Parquet files of two splits/],
      [{ finetune: { mixup: -1 } }, /a number of at least 0 for finetune.mixup, received -1/],
      [{ pretrain: { epochs: 3 } }, /^There is no setting pretrain.epochs; there are registerTokens, /],
      [{ scratch: { lrr: 3, mixUp: 1 } }, /^There is no setting scratch.lrr, scratch.mixUp; there are validation, .*, mixup, /],
      [{ test: 'nowhere' }, /a folder that exists/],
      [{ lrs: [1e-3] }, /lrs/],
      [{ lrs: [1e-3, 2e-3], scratch: { lr: 1e-3 } }, /either lrs, to choose a learning rate, or one in the sections finetune and scratch, received both/],
      [{ lrs: [1e-3, 2e-3], heldOut: 0.001 }, /more labelled images, to choose a learning rate \(lrs\) by 0.1 % of them, for .*, received '48 images'/]
    ]
    for (const [changes, message] of cases) {
      await expect(experiment(settings(changes))).rejects.toThrow(message)
      await expect(readdir(out)).rejects.toThrow(/ENOENT/)
    }
  })

  it('refuses to mix what was done with other settings', async () => {
    const config = settings({ labels: ['100%'], finetuneEpochs: [1], seeds: 1, totalSeeds: 0 })
    await experiment(config)
    await expect(experiment({ ...config, pretrainEpochs: 3 })).rejects.toThrow(/other settings of pretrainEpochs \(there: 2, given: 3\)/)
    await expect(experiment({ ...config, finetuneEpochs: [2] })).rejects.toThrow(/was finetuned with epochs 1, not 2: remove it/)
    // What is reported of other images would be what was found on these.
    const others = await folderWith({ ...stripeFiles(48, 3, 'train-'), ...stripeFiles(18, 4, 't10k-') })
    const before = await readFile(join(out, 'report.md'), 'utf8')
    await expect(experiment({ ...config, images: others })).rejects.toThrow(/other settings of images \(there: ".*", given: ".*"\)/)
    await expect(experiment({ ...config, test: await stripes(18) })).rejects.toThrow(/other settings of test \(there: undefined, given: ".*"\)/)
    expect(await readFile(join(out, 'report.md'), 'utf8')).toBe(before)
    await symlink(images, join(others, 'link'))
    expect((await experiment({ ...config, images: join(others, 'link') })).status).toBe('done')
    await rename(images, join(others, 'moved'))
    expect((await experiment({ ...config, images: join(others, 'moved') })).status).toBe('done')
  }, 60_000)

  it('settles once what precision auto is, for all that is compared', async () => {
    const config = settings({
      labels: ['100%'], finetuneEpochs: [1], seeds: 1, totalSeeds: 0, pretrain: { batchSize: 16 }, finetune: { batchSize: 8 }, scratch: { amp: 'auto' }
    })
    const { tensors } = torch.memory()
    const { report } = await experiment(config)
    expect(torch.memory().tensors).toBeLessThanOrEqual(tensors)
    const path = join(out, 'experiment.json')
    const settled = JSON.parse(await readFile(path, 'utf8')) as ExperimentConfig
    const { amp } = settled.finetune as { amp: string }
    expect(['off', 'bf16']).toContain(amp)
    expect(['off', 'bf16']).toContain(settled.pretrain['amp'])
    expect(settled.scratch).toEqual({})
    const commands = (await readFile(report!, 'utf8')).split('\n').filter((line) => line.startsWith('gmml finetune'))
    expect(commands).toHaveLength(2)
    for (const command of commands) expect(command).toContain(` --amp ${amp}`)
    // It stays when the experiment goes on, whatever would be measured now.
    const other = amp === 'off' ? 'bf16' : 'off'
    await writeFile(path, JSON.stringify({ ...settled, finetune: { ...settled.finetune, amp: other } }))
    expect((await experiment({ ...config, seeds: 2 })).status).toBe('done')
    expect(await new RunFolder(join(out, 'finetune/scratch-100-percent-seed-1')).readConfig()).toMatchObject({ amp: other })
    await expect(experiment({ ...config, finetune: { batchSize: 8, amp } })).rejects.toThrow(/other settings of finetune/)
  }, 60_000)

  it('refuses files that are damaged, by name', async () => {
    const config = settings({ labels: ['100%'], finetuneEpochs: [1], seeds: 1, totalSeeds: 0 })
    await experiment(config)
    for (const path of [join(out, 'knn/random/results.json'), join(out, 'finetune/scratch-100-percent-seed-0/results.json')]) {
      const whole = await readFile(path)
      await writeFile(path, '{}')
      await expect(experiment(config)).rejects.toThrow(`'${path}' holds no results of a measurement: remove it to measure again`)
      await writeFile(path, whole)
    }
    for (const content of ['', '{"images": "a"', '{}', 'null', '[]']) {
      await writeFile(join(out, 'experiment.json'), content)
      await expect(experiment(config), content).rejects.toThrow(/experiment.json' does not hold the settings of an experiment, .* or mend it: /)
    }
  }, 60_000)
})

describe('finetuneSettings', () => {
  const sizes = { pretrain: 48, pretrainEpochs: 2, perClass: 16, labelled: new Map([['25%', 12], ['100%', 48]]) }
  const decayOf = (changes: Partial<ExperimentConfigInput>) => {
    const config = parseExperimentConfig(settings(changes))
    return planCells(config, sizes).slice(0, 2).map((cell) => finetuneSettings(config, cell).layerDecay)
  }

  it('lets all layers of a network without pretraining learn alike, unless told otherwise', () => {
    expect(decayOf({})).toEqual([undefined, 1])
    expect(decayOf({ scratch: { lr: 2e-3 }, finetune: { layerDecay: 0.9 } })).toEqual([0.9, 1])
    expect(decayOf({ scratch: { layerDecay: 0.8 } })).toEqual([undefined, 0.8])
  })
})

describe('commandLine', () => {
  it('quotes what a shell would take apart, and leaves out what is not given', () => {
    const line = commandLine('pretrain', 'images', { images: "my photo's/", out: 'runs/a b', cropScale: [0.3, 1], allPixels: true, init: undefined, classToken: false })
    expect(line).toBe(`gmml pretrain 'my photo'\\''s/' --out 'runs/a b' --crop-scale 0.3,1 --all-pixels --no-class-token`)
  })
})

describe('the settings in bench/', () => {
  it.each(['fashion-mnist.yaml', 'fashion-mnist-gpu.yaml'])('%s holds legal settings', async (name) => {
    const text = await readFile(new URL(`../../bench/${name}`, import.meta.url), 'utf8')
    const config = parseExperimentConfig({ images, out, ...(parse(text) as object) })
    expect(config.finetuneEpochs).toHaveLength(config.labels.length)
    expect(config.scratch.layerDecay).toBe(1)
  })
})
