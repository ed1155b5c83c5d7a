import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'

import { confusionChart } from '../../src/report/index.js'

const root = new URL('../../', import.meta.url).pathname
const input = { classes: ['cat', 'dög', 'cow'], counts: [[8, 2, 0], [1, 9, 0], [0, 0, 0]], title: 'Pets & others' }
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** Imports the built module, draws, and tells which native libraries were loaded before and after, and the picture's digest. */
const script = `
  const libraries = () => process.report.getReport().sharedObjects.map((path) => path.split('/').at(-1))
  const { confusionChart } = await import('./dist/report/index.js')
  const before = libraries()
  const { png } = await confusionChart(${JSON.stringify(input)})
  const { createHash } = await import('node:crypto')
  console.log(JSON.stringify({ before, after: libraries(), digest: createHash('sha256').update(png).digest('hex') }))`
const node = [process.execPath, '--input-type=module', '-e', script]

/** A shell command before which the folders of fonts are empty, where the system lets one do that. */
const hide = 'for d in /usr/share/fonts /etc/fonts; do [ ! -d $d ] || mount -t tmpfs none $d || exit 1; done; exec "$@"'
const hidden = ['-rm', 'sh', '-c', hide, 'sh']
const canHide = spawnSync('unshare', [...hidden, 'true']).status === 0

interface Outcome {
  readonly before: string[]
  readonly after: string[]
  readonly digest: string
}

describe('charts', () => {
  it('load their libraries when the first is drawn, and libtorch never', () => {
    const { before, after } = JSON.parse(execFileSync(node[0]!, node.slice(1), { cwd: root, encoding: 'utf8' })) as Outcome
    const has = (libraries: string[], name: string) => libraries.some((library) => library.includes(name))
    expect([has(before, 'skia'), has(after, 'skia'), has(after, 'torch')]).toEqual([false, true, false])
  })

  it.skipIf(!canHide)('are the same bytes on a machine without fonts', async () => {
    const options = { cwd: root, encoding: 'utf8', env: { ...process.env, FONTCONFIG_PATH: '/nonexistent' } } as const
    const { digest: without } = JSON.parse(execFileSync('unshare', [...hidden, ...node], options)) as Outcome
    expect(without).toBe(digest((await confusionChart(input)).png))
  })
})
