import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'

import { randomFor } from '../../src/data/index.js'
import { pretrain, RunFolder } from '../../src/train/index.js'
import * as torch from '../../src/torch/index.js'
import { command } from '../cli/support.js'
import { newestCheckpoint, reproducible, small } from './support.js'

torch.setNumThreads(1)

const KILLS = 20
const EPOCHS = 60 // of three steps each: more than the kills let pass

describe('a process that is killed', () => {
  it(`${KILLS} times, at random moments and while it writes, ends as one that was not`, { timeout: 300_000 }, async () => {
    const { images, out, settings } = await small()
    await pretrain({ ...settings, images, out: out('whole'), epochs: EPOCHS, checkpointSteps: 1 })
    const run = new RunFolder(out('killed'))
    await mkdir(run.checkpoints, { recursive: true })

    const given = [
      'pretrain', images, '--out', run.path, '--resume', '--model', 'vit_micro', '--patch-size', '4', '--batch-size', '8', '--epochs', String(EPOCHS),
      '--lr', '0.01', '--amp', 'off', '--threads', '1', '--log-every', '1', '--device', 'cpu', '--checkpoint-steps', '1'
    ]
    const start = () => spawn(process.execPath, [command, ...given], { stdio: 'ignore' })
    const random = randomFor(4, 'kill')
    let whileWriting = 0
    for (let kills = 0; kills < KILLS; kills++) {
      const child = start()
      const ended = once(child, 'exit')
      // A checkpoint is some events in the folder: its temporary file made, written, renamed; the old one removed.
      const [wanted, delay] = [random.integer(1, 12), random.uniform(0, 12)]
      const watcher = watch(run.checkpoints)
      for (let events = 0; events < wanted && child.exitCode === null; events++) await Promise.race([once(watcher, 'change'), ended])
      watcher.close()
      await setTimeout(delay)
      expect(child.exitCode, 'the run went on until it was killed').toBeNull()
      child.kill('SIGKILL')
      expect(await ended).toEqual([null, 'SIGKILL'])
      whileWriting += (await run.listTemporary()).length > 0 ? 1 : 0
    }
    // Some kills left half a checkpoint behind, or this test did not test what it should.
    expect(whileWriting).toBeGreaterThan(0)
    const [code] = (await once(start(), 'exit')) as [number]
    expect(code).toBe(0)
    expect(await newestCheckpoint(run.path)).toEqual(await newestCheckpoint(out('whole')))
    expect(await reproducible(run.path)).toEqual(await reproducible(out('whole')))
    expect(await run.listTemporary()).toEqual([])
  })
})
