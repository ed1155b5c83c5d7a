import { createHash } from 'node:crypto'
import { readFileSync, realpathSync, statSync } from 'node:fs'
import { resolve } from 'node:path'

import { expected } from '../errors.js'
import { isLeaf, setRequiresGrad } from '../native/autograd.js'
import { call, operator, Operator } from '../native/dispatch.js'
import { TensorHandle } from '../native/tensor-handle.js'
import * as system from '../native/system.js'
import type { Tensor } from './tensor.js'

export { call, operator, Operator }

const named = new Map<string, Operator>()

// `namespace::name.overload`. Kept, so that an operator is looked up once however often it is called by its name.
function operatorNamed(text: string): Operator {
  const known = named.get(text)
  if (known) return known
  const [, name, overload] = /^(\w+::\w+)(?:\.(\w+))?$/.exec(text) ?? []
  if (name === undefined) throw expected(`an operator's name, as 'aten::add.Tensor'`, 'the operator of call()', text)
  const found = operator(name, overload)
  void found.info // one that does not exist is not kept
  named.set(text, found)
  return found
}

/**
 * Calls any operator that PyTorch's dispatcher knows, of any namespace, with its arguments in the schema's order: `undefined` stands for
 * the schema's default, `null` for None. An operator that works in place returns its argument itself.
 *
 * @param op - The operator's name with its overload (`'aten::add.Tensor'`), or an `operator()` that was looked up before.
 * @throws TorchError naming the operator, the reason and the tensors; InputError for what is no name.
 */
export function callByName<R = Tensor>(op: Operator | string, ...args: unknown[]): R {
  if (typeof op === 'string') return call<R>(operatorNamed(op), ...args)
  if (!(op instanceof Operator)) throw expected(`an operator or its name, as 'aten::add.Tensor'`, 'the operator of call()', op)
  return call<R>(op, ...args)
}

/**
 * Loads a shared library that registers operators with PyTorch's dispatcher (`TORCH_LIBRARY`), which `call` then reaches by name. The
 * library must be linked to the libtorch that is in use: see `buildInfo()`. It stays loaded; again does nothing. PyTorch:
 * `torch.ops.load_library`.
 *
 * A library that fails while it is loaded, such as one that registers another one's operators again, ends the process, as it does in
 * Python: the system's loader cannot be stopped half-way.
 *
 * @param path - File of the library, from the working directory.
 * @throws InputError where there is no such file, and where it has changed since it was loaded: that takes a new process. TorchError with
 *   the loader's reason where it is no library that fits.
 */
export function loadLibrary(path: string): void {
  if (typeof path !== 'string' || path === '') throw expected('the path of a shared library', 'path', path)
  if (!statSync(resolve(path), { throwIfNoEntry: false })?.isFile()) throw expected('the file of a shared library', 'path', path)
  const file = realpathSync(path)
  const content = createHash('sha256').update(readFileSync(file)).digest('hex')
  const before = loaded.get(file)
  if (before !== undefined && before !== content) throw expected('a library that has not changed since it was loaded', 'path', path)
  // A copy of a loaded library would register its operators again.
  if (![...loaded.values()].includes(content)) system.loadLibrary(file)
  loaded.set(file, content)
}

// By file, a hash of what was loaded.
const loaded = new Map<string, string>()

/** Whether a value is a Tensor, disposed of or not. */
export function isTensor(value: unknown): value is Tensor {
  return value instanceof TensorHandle
}

const detach_ = operator('aten::detach_')

/** Factories take `requiresGrad` although ATen's schemas do not, and they record nothing: `randint_like` would in the dispatcher. */
export function withGrad<T extends Tensor>(tensor: T, requiresGrad: boolean | undefined): T {
  if (!isLeaf(tensor)) call(detach_, tensor)
  if (requiresGrad) setRequiresGrad(tensor, true)
  return tensor
}
