import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { expect } from 'vitest'

import { loadSafetensors, saveSafetensors } from '../../src/io/index.js'
import type { Module } from '../../src/nn/index.js'
import * as torch from '../../src/torch/index.js'
import type { Tensor } from '../../src/torch/index.js'

export type Tensors = Record<string, Tensor>

interface PythonScripts {
  pythonEnvironment(options: { ensure: boolean }): { python: string; env: NodeJS.ProcessEnv; torch: string }
}

const scripts = (await import(new URL('../../scripts/python.mjs', import.meta.url).href)) as PythonScripts

/** Python with the very torch that the addon is linked to. */
export const python = scripts.pythonEnvironment({ ensure: false })

// The reference runs on one thread: sums of floats depend on how they are divided among threads.
torch.setNumThreads(1)

const run = promisify(execFile)

/** Runs a Python script. Its standard output is the result. */
export async function runPython(...args: string[]): Promise<string> {
  try {
    return (await run(python.python, args, { env: python.env, maxBuffer: 2 ** 26 })).stdout
  } catch (error) {
    // Without the command line, which may be long.
    throw new Error(`Python failed:\n${(error as { stderr: string }).stderr}`)
  }
}

/** A folder that is gone after `use`. */
export async function inFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'gmml-parity-'))
  try {
    return await use(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Something for PyTorch to compute: see `reference.py`. */
export interface Task {
  readonly task: 'vit_forward' | 'gmml_step' | 'adamw_steps' | 'sgd_steps' | 'lbfgs' | 'grad_scaler' | 'module' | 'ops' | 'ema'
  readonly tensors: Tensors
  readonly config?: unknown
}

/** What PyTorch computes, task by task, in one Python process. */
export async function references(tasks: readonly Task[]): Promise<Tensors[]> {
  return inFolder(async (folder) => {
    const [input, output] = [join(folder, 'in.safetensors'), join(folder, 'out.safetensors')]
    const named = tasks.flatMap(({ tensors }, i) => Object.entries(tensors).map(([name, tensor]) => [`${i}/${name}`, tensor] as const))
    await saveSafetensors(input, Object.fromEntries(named))
    const config = tasks.map(({ task, config }) => ({ task, config: config ?? {} }))
    await runPython(join(import.meta.dirname, 'reference.py'), 'many', input, output, JSON.stringify(config))
    const results: Tensors[] = tasks.map(() => ({}))
    for (const [name, tensor] of Object.entries((await loadSafetensors(output)).tensors)) {
      const slash = name.indexOf('/')
      results[Number(name.slice(0, slash))]![name.slice(slash + 1)] = tensor
    }
    return results
  })
}

/** The names by which `reference.py` knows parameters. */
export const weights = (state: Tensors): Tensors =>
  Object.fromEntries(Object.entries(state).map(([name, tensor]) => [`weights.${name}`, tensor]))

/** Every parameter away from its initial value, so that no bias is zero and no scale one. */
export function perturb<M extends Module>(module: M, std = 0.05): M {
  torch.noGrad(() => {
    torch.scope(() => {
      for (const parameter of module.parameters()) parameter.add_(torch.randnLike(parameter).mul(std))
    })
  })
  return module
}

/** An output gradient that differs between elements, the same as the reference's. */
export const probe = (output: Tensor): Tensor =>
  torch.arange(output.numel(), { dtype: 'float32' }).cos().to(output.dtype).reshape(output.shape)

/** How far two tensors are apart. NaN and infinities must be the same in both. */
export interface Difference {
  /** Largest absolute difference of an element. */
  readonly absolute: number
  /** Norm of the difference by the norm of the reference. */
  readonly relative: number
}

const wide = (tensor: Tensor): Tensor =>
  (tensor.dtype.startsWith('complex') ? torch.viewAsReal(tensor.resolveConj()) : tensor).to('float64')

export function difference(received: Tensor, reference: Tensor, name = 'result'): Difference {
  expect(received.shape, `shape of ${name}`).toEqual(reference.shape)
  return torch.noGrad(() =>
    torch.scope(() => {
      const [a, b] = [wide(received), wide(reference)]
      // What is not finite has no difference: it is equal or not.
      const finite = b.isfinite()
      const same = a.isclose(b, { rtol: 0, atol: 0, equalNan: true }).logicalOr(finite.logicalAnd(a.isfinite()))
      expect(torch.all(same).item(), `NaN and infinities of ${name} are those of the reference`).toBe(true)
      const distance = torch.where(finite, a.sub(b), 0)
      if (distance.numel() === 0) return { absolute: 0, relative: 0 }
      const norm = torch.where(finite, b, 0).norm().item()
      return { absolute: distance.abs().max().item(), relative: distance.norm().item() / Math.max(norm, Number.MIN_VALUE) }
    })
  )
}

export interface Tolerance {
  readonly absolute: number
  readonly relative: number
}

/** The project's promise in float32, and a bound that small values do not pass by being small. */
export const PROMISED: Tolerance = { absolute: 1e-5, relative: 1e-4 }

export function expectNear(received: Tensor, reference: Tensor | undefined, name: string, tolerance: Tolerance = PROMISED): Difference {
  if (!reference) throw new Error(`the reference has no ${name}`)
  expect(received.dtype, `dtype of ${name}`).toBe(reference.dtype)
  const found = difference(received, reference, name)
  expect(found.absolute, `largest difference of ${name}`).toBeLessThanOrEqual(tolerance.absolute)
  expect(found.relative, `relative difference of ${name}`).toBeLessThanOrEqual(tolerance.relative)
  return found
}

/** Compares tensors by name and gives the largest difference. The names must be the same. */
export function expectAllNear(received: Tensors, reference: Tensors, tolerance: Tolerance = PROMISED): Difference {
  expect(Object.keys(received).sort()).toEqual(Object.keys(reference).sort())
  let [absolute, relative] = [0, 0]
  for (const [name, tensor] of Object.entries(received)) {
    const found = expectNear(tensor, reference[name], name, tolerance)
    absolute = Math.max(absolute, found.absolute)
    relative = Math.max(relative, found.relative)
  }
  return { absolute, relative }
}

/** Prints what was measured where `GMML_MEASURED` is set. */
export function report(name: string, { absolute, relative }: Difference): void {
  if (process.env['GMML_MEASURED'])
    console.log(`measured ${name}: absolute ${absolute.toExponential(1)}, relative ${relative.toExponential(1)}`)
}
