import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach } from 'vitest'

export const root = fileURLToPath(new URL('../..', import.meta.url))
export const embedded = join(root, 'data/fashion-mnist-mini')

/** The command as users run it: built, in a process of its own. */
export const command = join(root, 'dist/cli/main.js')

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs `gmml`. `watch` sees the process and its output so far whenever there is more. */
export function gmml(args: readonly string[], watch?: (child: ChildProcess, output: string) => void): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (data: Buffer) => {
      stdout += data.toString()
      watch?.(child, stdout + stderr)
    })
    child.stderr.on('data', (data: Buffer) => {
      stderr += data.toString()
      watch?.(child, stdout + stderr)
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout, stderr }))
  })
}

const folders: string[] = []

/** A folder that is removed after the test. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gmml-test-'))
  folders.push(folder)
  return folder
}

afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

/** Flags of a run that takes a second: a part of the embedded images. */
export const quick = ['--model', 'vit_micro', '--limit', '48', '--batch-size', '16', '--amp', 'off', '--epochs', '2', '--log-every', '1', '--threads', '1']
