import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { InputError } from '../../src/errors.js'
import { RunFolder } from '../../src/train/index.js'
import { folderWith } from '../data/support.js'

describe('a run folder', () => {
  it('is made with its sub-folders and settings, and nothing in it is lost', async () => {
    const folder = await folderWith({ 'run/notes.txt': 'mine', 'run/checkpoints/step-00000001.safetensors': 'x' })
    const run = new RunFolder(join(folder, 'run'))
    expect(run.exists).toBe(false)
    await run.create({ lr: 1 })
    expect(run.exists).toBe(true)
    expect((await readdir(run.path)).sort()).toEqual(['checkpoints', 'config.json', 'exported', 'notes.txt'])
    expect(await run.readConfig()).toEqual({ lr: 1 })
    expect(await readdir(run.checkpoints)).toEqual(['step-00000001.safetensors'])
  })

  it('that cannot be made or read says so', async () => {
    const folder = await folderWith({ file: 'x' })
    const attempt = new RunFolder(join(folder, 'file', 'run')).create({})
    await expect(attempt).rejects.toThrow(/^Cannot write the run folder '.*': ENOTDIR/)
    await expect(attempt).rejects.toThrow(InputError)
    await expect(new RunFolder(folder).readConfig()).rejects.toThrow(/holds no run: there is no config.json in it/)
    const run = new RunFolder(folder)
    await writeFile(run.config, '{"lr": 1')
    await expect(run.readConfig()).rejects.toThrow(/config.json' is no JSON/)
    for (const content of ['null', '[]', '3']) {
      await writeFile(run.config, content)
      await expect(run.readConfig()).rejects.toThrow(/holds no settings: expected names with values/)
    }
  })

  it('lists its checkpoints in order and nothing else', async () => {
    const names = ['step-00000010.safetensors', 'step-00000009.safetensors', 'step-00000011.safetensors.7-0-1.tmp', 'best.safetensors']
    const folder = await folderWith(Object.fromEntries(names.map((name) => [`checkpoints/${name}`, 'x'])))
    const run = new RunFolder(folder)
    expect(await run.listCheckpoints()).toEqual([9, 10].map((step) => run.checkpoint(step)))
    expect(await new RunFolder(join(folder, 'none')).listCheckpoints()).toEqual([])
  })

  it('forgets metrics after a step, and lines that a crash cut short', async () => {
    const run = new RunFolder(await folderWith())
    await run.truncateMetrics(3) // nothing there yet
    expect(await readdir(run.path)).toEqual([])
    for (const step of [1, 2, 3, 4]) await run.appendMetrics({ step, loss: 1 / step })
    await run.appendMetrics({ step: 3, epochLoss: 0.5 })
    await appendFile(run.metrics, '{"step": 3, "lo')
    await run.truncateMetrics(3)
    const lines = (await readFile(run.metrics, 'utf8')).split('\n')
    expect(lines.pop()).toBe('')
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      { step: 1, loss: 1 }, { step: 2, loss: 1 / 2 }, { step: 3, loss: 1 / 3 }, { step: 3, epochLoss: 0.5 }
    ])
    await run.truncateMetrics(0)
    expect(await readFile(run.metrics, 'utf8')).toBe('')
    const none = new RunFolder(join(run.path, 'none'))
    await expect(none.appendMetrics({ step: 1 })).rejects.toThrow(/^Cannot write '.*metrics.jsonl': ENOENT/)
  })
})
