import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What TypeDoc says with the settings of `npm run docs`, and how it ends; nothing is written. */
function check(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`${root}node_modules/typedoc/bin/typedoc`, '--emit', 'none', ...args], { cwd: root, encoding: 'utf8' })
  return { status, said: stdout + stderr }
}

it('everything public has a comment, and every link in one leads somewhere', () => {
  expect(check()).toEqual({ status: 0, said: '' })
}, 120_000)

it('what has none is named', () => {
  const { status, said } = check('--requiredToBeDocumented', 'Property', '--entryPoints', 'src/optim/index.ts')
  expect(status).not.toBe(0)
  expect(said).toContain('does not have any documentation')
}, 120_000)
