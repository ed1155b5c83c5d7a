// Runs a command with a limit of time, all that it prints going to a file.
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'

/** @typedef {{ code: number | null, timedOut: boolean, seconds: number }} Outcome */

/**
 * @param {string} command @param {string[]} args
 * @param {{ log: string, seconds: number, cwd: string, env?: NodeJS.ProcessEnv }} options
 * @returns {Promise<Outcome>} `code` is null where it did not run or was ended by a signal
 */
export function runTimed(command, args, { log, seconds, cwd, env = process.env }) {
  const started = performance.now()
  const file = openSync(log, 'a')
  return new Promise((resolve) => {
    let timedOut = false
    // A group of its own: what it has started ends with it.
    const child = spawn(command, args, { cwd, env, detached: true, stdio: ['ignore', file, file] })
    /** @param {NodeJS.Signals} signal */
    const end = (signal) => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, signal)
      } catch {
        // It has ended meanwhile.
      }
    }
    const interrupt = () => end('SIGTERM')
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt)
    const stop = setTimeout(() => {
      timedOut = true
      end('SIGTERM')
    }, seconds * 1000)
    const kill = setTimeout(() => end('SIGKILL'), seconds * 1000 + 5000)
    /** @param {number | null} code */
    const done = (code) => {
      clearTimeout(stop)
      clearTimeout(kill)
      // What it started may outlive it: a compiler's workers hold the GPU.
      end('SIGKILL')
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt)
      closeSync(file)
      resolve({ code, timedOut, seconds: (performance.now() - started) / 1000 })
    }
    child.once('error', () => done(null))
    child.once('exit', done)
  })
}
