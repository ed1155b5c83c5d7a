import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'

import { pretrain } from '../../src/train/index.js'
import { WARM_UP } from '../../src/train/step-profiler.js'
import { interrupted, newestCheckpoint, small } from './support.js'

async function stepsOf(path: string): Promise<string[]> {
  const { traceEvents } = JSON.parse(await readFile(path, 'utf8')) as { traceEvents: { ph: string; cat?: string; name: string }[] }
  return traceEvents.filter(({ ph, cat, name }) => ph === 'X' && cat === 'user_annotation' && /^ProfilerStep/.test(name)).map(({ name }) => name)
}

it('records the steps after the first ones, and changes nothing else', async () => {
  const { images, out, settings } = await small()
  const notices: string[] = []
  const config = { ...settings, images, epochs: 3 }
  await pretrain({ ...config, out: out('plain') })
  await pretrain({ ...config, out: out('a'), profile: 2 }, { onNotice: (notice) => notices.push(notice) })
  const files = await readdir(join(out('a'), 'profile'))
  expect(files).toEqual([`trace-${WARM_UP + 1}-${WARM_UP + 2}.json`])
  const path = join(out('a'), 'profile', files[0]!)
  expect(await stepsOf(path)).toEqual([`ProfilerStep#${WARM_UP + 1}`, `ProfilerStep#${WARM_UP + 2}`])
  expect(await readFile(path, 'utf8')).toMatch(/"aten::linear"/)
  expect(notices).toEqual([`The trace of steps 6 to 7 is in '${path}': open it in ui.perfetto.dev`])
  expect(await newestCheckpoint(out('a'))).toEqual(await newestCheckpoint(out('plain')))
  expect(existsSync(join(out('plain'), 'profile'))).toBe(false)
})

it('writes what there is where the training ends earlier, and can be switched on for a continuation', async () => {
  const { images, out, settings } = await small()
  const config = { ...settings, images, epochs: 4, out: out('a') }
  await interrupted(config, 1)
  await pretrain({ ...config, resume: true, profile: 100 })
  expect(await readdir(join(out('a'), 'profile'))).toEqual(['trace-7-12.json'])
  expect(await stepsOf(join(out('a'), 'profile', 'trace-7-12.json'))).toHaveLength(6)
})
