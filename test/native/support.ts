import { spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** The compiled package: processes and threads of their own run no TypeScript. `npm test` builds it first. */
export const torchModule = `${root}/dist/torch/index.js`
const native = `${root}/dist/native`

/** What every child script can use. */
const prelude = `
  import * as torch from ${JSON.stringify(torchModule)}
  import { addon, addonPath } from ${JSON.stringify(`${native}/addon.js`)}
  import { handleOf } from ${JSON.stringify(`${native}/tensor-handle.js`)}
  const tick = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms))
  const print = (value) => console.log(JSON.stringify(value))
  void [torch, addon, addonPath, handleOf, tick, print];
`

export interface Outcome {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stderr: string
  /** Each line that the script gave to `print`. */
  readonly printed: unknown[]
}

export interface ChildOptions {
  readonly flags?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  readonly seconds?: number
}

/** Runs a script in a process of its own: a crash is an exit code there, and a hang a signal. */
export function runChild(script: string, { flags = [], args = [], env = {}, seconds = 60 }: ChildOptions = {}): Outcome {
  const command = [...flags, '--input-type=module', '--eval', prelude + script, '--', ...args]
  const settings = { encoding: 'utf8', timeout: seconds * 1000, env: { ...process.env, ...env } } as const
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, command, settings)
  const printed = stdout.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as unknown)
  return { status, signal, stderr, printed }
}

/** As {@link runChild}, killed by a signal as soon as it prints. */
export async function interruptChild(script: string, kill: NodeJS.Signals): Promise<Pick<Outcome, 'status' | 'signal'>> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', prelude + script], { stdio: ['ignore', 'pipe', 'ignore'] })
  child.stdout.once('data', () => child.kill(kill))
  return new Promise((resolve) => child.once('exit', (status, signal) => resolve({ status, signal })))
}

/** What went well, for `expect(...).toEqual`. */
export const clean = (...printed: unknown[]): Outcome => ({ status: 0, signal: null, stderr: '', printed })
