import { expected } from '../errors.js'
import * as native from '../native/numerics.js'
import type { MatmulPrecision } from '../native/numerics.js'

export type { MatmulPrecision }

/**
 * How exactly float32 matrices are multiplied, in the whole process: `highest` (default) in float32, `high` in TensorFloat32 or as good
 * as that, `medium` in bfloat16 where there is such a kernel. A GPU of compute capability 8.0 or above multiplies several times faster
 * with `high`, and so do some CPUs with `medium`. PyTorch: `torch.set_float32_matmul_precision`.
 */
export function setFloat32MatmulPrecision(precision: MatmulPrecision): void {
  const names: readonly string[] = ['highest', 'high', 'medium']
  if (!names.includes(precision)) throw expected(`'highest', 'high' or 'medium'`, 'precision', precision)
  native.setMatmulPrecision(precision)
}

/** PyTorch: `torch.get_float32_matmul_precision`. */
export const getFloat32MatmulPrecision = (): MatmulPrecision => native.numerics().matmulPrecision

/** What is done where there is no deterministic algorithm. */
export interface DeterministicOptions {
  /** Warn on stderr instead of failing. Default false. */
  readonly warnOnly?: boolean
}

/**
 * Makes operators choose kernels that give the same result in each run, in the whole process; those without one throw a TorchError that says
 * so. New memory is filled (NaN), so that reading what was never written is the same each time too. On CUDA matrix products also need
 * `CUBLAS_WORKSPACE_CONFIG=:4096:8` in the environment of the process, of which their error reminds. PyTorch:
 * `torch.use_deterministic_algorithms`.
 */
export function useDeterministicAlgorithms(enabled: boolean, options: DeterministicOptions = {}): void {
  if (typeof enabled !== 'boolean') throw expected('a boolean', 'enabled', enabled)
  if (typeof options !== 'object' || options === null) throw expected('an object', 'the options of useDeterministicAlgorithms()', options)
  const { warnOnly = false } = options
  if (typeof warnOnly !== 'boolean') throw expected('a boolean', 'warnOnly', warnOnly)
  native.setDeterministic(enabled, warnOnly)
}

/** PyTorch: `torch.are_deterministic_algorithms_enabled`. */
export const areDeterministicAlgorithmsEnabled = (): boolean => native.numerics().deterministic

/** PyTorch: `torch.is_deterministic_algorithms_warn_only_enabled`. */
export const isDeterministicAlgorithmsWarnOnlyEnabled = (): boolean => native.numerics().deterministicWarnOnly
