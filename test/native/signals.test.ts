import { spawn } from 'node:child_process'
import { setTimeout } from 'node:timers/promises'
import { expect, it } from 'vitest'

import { addonPath } from '../../src/native/addon.js'
import { runChild } from './support.js'

const WINDOW = 500
const listen = `for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => console.log('heard ' + name))`
const watch = `addon.exitAtSecondSignal(130, ${WINDOW}, 'at once\\n')`

/** What a process that runs `script` says, and how it ends, where signals come with pauses of milliseconds between them. */
async function signalled(script: string, signals: readonly (NodeJS.Signals | number)[]) {
  const source = `const addon = process.dlopen(module, ${JSON.stringify(addonPath)}) ?? module.exports; console.log('ready'); ${script}`
  const child = spawn(process.execPath, ['-e', source], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 20_000, killSignal: 'SIGKILL' })
  const said = { stdout: '', stderr: '' }
  child.stderr.on('data', (data: Buffer) => (said.stderr += data.toString()))
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((resolve) => child.once('close', (code, signal) => resolve([code, signal])))
  await new Promise<void>((resolve) => child.stdout.on('data', (data: Buffer) => {
    said.stdout += data.toString()
    if (said.stdout.includes('ready')) resolve()
  }))
  await setTimeout(200)
  for (const entry of signals) {
    if (typeof entry === 'number') await setTimeout(entry)
    else child.kill(entry)
  }
  const start = performance.now()
  const [code, signal] = await ended
  return { code, signal, ...said, milliseconds: performance.now() - start }
}

it('the second signal ends a process that never comes back to its event loop', async () => {
  const { code, stdout, stderr, milliseconds } = await signalled(`${listen}; ${watch}; for (;;);`, ['SIGTERM', WINDOW + 200, 'SIGINT'])
  expect({ code, stdout, stderr }).toEqual({ code: 130, stdout: 'ready\n', stderr: 'at once\n' })
  expect(milliseconds).toBeLessThan(2000)
})

it('one that comes soon after the first is the same one, and listeners hear what they heard before', async () => {
  const script = `${listen}; ${watch}; setInterval(() => {}, 1000)`
  const { code, stdout } = await signalled(script, ['SIGINT', 100, 'SIGINT', WINDOW + 200, 'SIGINT'])
  expect({ code, stdout }).toEqual({ code: 130, stdout: 'ready\nheard SIGINT\nheard SIGINT\n' })
})

it('without a listener the first one ends the process as ever', async () => {
  expect(await signalled(`${watch}; setInterval(() => {}, 1000)`, ['SIGTERM'])).toMatchObject({ code: null, signal: 'SIGTERM' })
})

it('refuses what is no code, no time and no words', () => {
  const { printed } = runChild(`
    for (const args of [[-1, 1, ''], [256, 1, ''], [1, -1, ''], [1, NaN, ''], [1, 1, 3], [1, 1, 'x'.repeat(257)], []]) {
      try { addon.exitAtSecondSignal(...args); print('taken') } catch (error) { print(error.message) }
    }
  `)
  expect(printed).toHaveLength(7)
  for (const message of printed as string[]) expect(message).toMatch(/argument [0-2]: expected .*, received/)
})
