// The PyTorch side: a script of bench/pytorch, in a Python whose torch is the libtorch that the addon is linked to.
import { fileURLToPath } from 'node:url'
import { pythonEnvironment } from '../scripts/python.mjs'
import { startServer } from './json-lines.mjs'

/**
 * @param {'ops' | 'step' | 'device_step'} script
 * @param {{ version: string, git: string }} libtorch the gmml side's, from its greeting
 * @param {string} [name]
 * @param {string[]} [args]
 */
export async function startPython(script, libtorch, name = 'PyTorch', args = []) {
  // These scripts need torch alone, which is what a host of GPUs is sure to have.
  const { python, env } = pythonEnvironment({ modules: [] })
  const server = await startServer(name, python, [fileURLToPath(new URL(`pytorch/${script}.py`, import.meta.url)), ...args], env)
  const { torch, git } = server.greeting
  if (torch !== libtorch.version || git !== libtorch.git) {
    await server.stop()
    throw new Error(`Not the same libtorch: gmml has ${libtorch.version} (${libtorch.git}), ${name} has ${torch} (${git})`)
  }
  return server
}
