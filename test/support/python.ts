import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

interface PythonScripts {
  pythonEnvironment(options: { modules: readonly string[] }): { python: string; env: NodeJS.ProcessEnv }
}

/** Runs a program in Python with the addon's torch, and nothing else: a GPU host may lack what the parity tests import. @returns What it prints. */
export async function runTorch(program: string): Promise<string> {
  const scripts = (await import(new URL('../../scripts/python.mjs', import.meta.url).href)) as PythonScripts
  const { python, env } = scripts.pythonEnvironment({ modules: [] })
  return (await promisify(execFile)(python, ['-c', program], { env })).stdout
}
