import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { expect, it } from 'vitest'

import { addonPath } from '../../src/native/addon.js'
import { buildInfo } from '../../src/torch/index.js'
import { clean, runChild } from './support.js'

const withAddon = (path: string) => runChild('print(addonPath)', { env: { GMML_ADDON: path } })

it('an addon that does not load is named, with the command that mends it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gmml-addon-'))
  try {
    const broken = join(folder, 'gmml.node')
    writeFileSync(broken, 'not a library')
    const { status, stderr } = withAddon(broken)
    expect(status).toBe(1)
    expect(stderr).toContain(`TorchError: The native addon of gmml does not load (${broken})`)
    expect(stderr).toContain('npm run build:native')
  } finally {
    rmSync(folder, { recursive: true })
  }
})

it('GMML_ADDON chooses, by absolute or relative path', () => {
  for (const path of [addonPath, relative(process.cwd(), addonPath)]) expect(withAddon(path)).toEqual(clean(addonPath))
})

it('what it was built of is told', () => {
  const info = buildInfo()
  expect(info.torch).toMatch(/^2\.1[1-4]\.\d/)
  expect(info.path).toBe(addonPath)
  expect(typeof info.cuda).toBe('boolean')
})

it('the process ends at once where it is asked to, with its code, and not for what is none', () => {
  const script = `
    for (const code of [-1, 256, 0.5, NaN, '3', undefined]) {
      try { addon.exitAtOnce(code) } catch (error) { print(error.name) }
    }
    const { Worker } = await import('node:worker_threads')
    new Worker('for (;;);', { eval: true })
    addon.exitAtOnce(7)
    print('still there')
  `
  const { status, printed } = runChild(script)
  expect({ status, printed }).toEqual({ status: 7, printed: Array(6).fill('TorchError') })
})
