import { expected } from '../errors.js'
import { autocastState, withAutocast } from '../native/autograd.js'
import { recordRegion, withFreshAutocastCache, withoutAutocastCache } from '../native/checkpoint.js'
import { watchGenerators } from '../native/dispatch.js'
import { refusePromise } from '../native/tensor-handle.js'
import * as torch from '../torch/index.js'
import { Generator, type Device, type Tensor } from '../torch/index.js'
import { Module } from './module.js'

type Outputs = Tensor | readonly Tensor[]
type Block = Module | ((...inputs: never[]) => unknown)

/** A module with one input and one output. */
export interface UnaryModule extends Module {
  /** Its output. */
  forward(x: Tensor): Tensor
}

/** A part of a network with one input and one output: a module, or a function. */
export type UnaryBlock = UnaryModule | ((x: Tensor) => Tensor)

const isDifferentiable = (tensor: Tensor) => /^(b?float|complex)/.test(tensor.dtype)

/** What a computation depends on besides its arguments, as it was when it ran first. */
class Surroundings {
  readonly #random: ReadonlyMap<Device, Uint8Array>
  readonly #generators = new Map<Generator, Uint8Array>()
  readonly #autocast = (['cpu', 'cuda'] as const).map((type) => ({ type, ...autocastState(type) }))
  readonly #training: ReadonlyMap<Module, boolean>

  constructor(modules: readonly Module[], tensors: readonly Tensor[]) {
    const devices = new Set<Device>(['cpu', ...tensors.map(({ device }) => device).filter((device) => device.startsWith('cuda'))])
    this.#random = new Map([...devices].map((device) => [device, torch.getRngState(device)]))
    this.#training = new Map(modules.flatMap((module) => [...module.namedModules()].map(([, part]) => [part, part.training] as const)))
  }

  /** Runs the computation for the first time: without a graph, and with an eye on the generators that it draws from. */
  first<T>(run: () => T): T {
    const before = watchGenerators((generator) => {
      if (generator instanceof Generator && !this.#generators.has(generator)) this.#generators.set(generator, generator.getState())
    })
    try {
      // A cast of a weight that is cached here has no graph, and would be used where one is needed.
      return torch.noGrad(() => withoutAutocastCache(run) as never)
    } finally {
      watchGenerators(before)
    }
  }

  /** Runs it again as it ran then, with a graph, and leaves no trace. */
  again<T>(run: () => T): T {
    const random = [...this.#random.keys()].map((device) => [device, torch.getRngState(device)] as const)
    const generators = [...this.#generators.keys()].map((generator) => [generator, generator.getState()] as const)
    const training = [...this.#training.keys()].map((module) => [module, module.training] as const)
    try {
      for (const [device, state] of this.#random) torch.setRngState(state, device)
      for (const [generator, state] of this.#generators) generator.setState(state)
      for (const [module, mode] of this.#training) module.training = mode
      const inAutocast = this.#autocast.reduce<() => T>(
        (inner, { type, dtype, enabled }) => () => withAutocast(type, dtype, enabled, inner), () => torch.enableGrad(run as never)
      )
      return withFreshAutocastCache(inAutocast)
    } finally {
      for (const [device, state] of random) torch.setRngState(state, device)
      for (const [generator, state] of generators) generator.setState(state)
      for (const [module, mode] of training) module.training = mode
    }
  }
}

function runAll(blocks: readonly Block[], inputs: readonly unknown[]): unknown {
  const run = (block: Block, values: readonly unknown[]): unknown =>
    block instanceof Module ? block.call(...(values as never[])) : block(...(values as never[]))
  return blocks.reduce<readonly unknown[]>((values, block) => [run(block, values)], inputs)[0]
}

function requireOutputs(output: unknown): readonly Tensor[] {
  refusePromise(output, 'the checkpointed function')
  const outputs: unknown[] = Array.isArray(output) ? output : [output]
  if (outputs.length > 0 && outputs.every(torch.isTensor)) return outputs
  throw expected('a Tensor or an array of Tensors', 'the result of the checkpointed function', output)
}

function checkpointed(blocks: readonly Block[], inputs: readonly unknown[]): unknown {
  const modules = blocks.filter((block) => block instanceof Module)
  const guarded = [...new Set(modules.flatMap((module) => module.parameters()))]
  const tensors = inputs.filter(torch.isTensor)
  const learns = modules.length < blocks.length || [...guarded, ...tensors].some((tensor) => tensor.requiresGrad)
  if (!learns || !torch.isGradEnabled()) return torch.scope(() => runAll(blocks, inputs))
  return torch.scope(() => {
    const surroundings = new Surroundings(modules, [...tensors, ...guarded])
    const output = surroundings.first(() => runAll(blocks, inputs))
    const outputs = requireOutputs(output)
    const recompute = (again: unknown[]) => {
      const next = again[Symbol.iterator]()
      const values = inputs.map((input) => (torch.isTensor(input) ? next.next().value : input))
      return requireOutputs(surroundings.again(() => runAll(blocks, values))).filter(isDifferentiable)
    }
    const recorded = recordRegion(tensors, guarded, outputs.filter(isDifferentiable), recompute)
    const results = outputs.map((tensor) => (isDifferentiable(tensor) ? recorded.shift()! : tensor))
    return Array.isArray(output) ? results : results[0]
  })
}

function requireBlock(value: unknown, name: string): Block {
  if (value instanceof Module || typeof value === 'function') return value as Block
  throw expected('a Module or a function', name, value)
}

/**
 * Runs a part of a network without keeping what its backward needs: only its inputs stay, and a backward pass computes the part again
 * when it comes to it. The gradients are those without checkpointing, to the bit: random numbers, autocast and training mode are as they
 * were. `backward`, `grad`, `retainGraph`, `createGraph` and checkpoints inside `part` work as usual. PyTorch:
 * `torch.utils.checkpoint.checkpoint`.
 *
 * Tensors that require grad must be inputs, or parameters; `part` may use other tensors from outside if they outlive the backward pass.
 * It is run twice, so what else it does (counting, running statistics) happens twice.
 *
 * @param part - A module, or a synchronous function that gives a tensor or an array of tensors.
 * @param inputs - Its arguments. Those that are tensors are kept.
 * @throws InputError where the result is no tensor. From backward: TorchError if an input, or a parameter of the module, was changed in
 *   place since, and if the part is freed (a second pass without `retainGraph`).
 */
export function checkpoint<M extends Module>(part: M, ...inputs: Parameters<M['forward']>): ReturnType<M['forward']>
export function checkpoint<I extends readonly unknown[], O extends Outputs>(part: (...inputs: I) => O, ...inputs: I): O
export function checkpoint(part: Block, ...inputs: unknown[]): unknown {
  return checkpointed([requireBlock(part, 'the first argument of checkpoint()')], inputs)
}

/**
 * Runs blocks one after the other, cut into segments of equal length of which all but the last are checkpointed (backward would compute
 * that one again at once): see {@link checkpoint}. The memory of one segment's activations is needed at a time, beside one tensor for
 * each segment. PyTorch: `torch.utils.checkpoint.checkpoint_sequential`.
 *
 * @param blocks - Modules or functions of one tensor; a `Sequential` or `ModuleList` is its modules.
 * @param segments - From 1, which checkpoints nothing, to the number of blocks.
 * @throws InputError for other values.
 */
export function checkpointSequential(blocks: Module | Iterable<UnaryBlock>, segments: number, x: Tensor): Tensor {
  const isIterable = typeof (blocks as Iterable<UnaryBlock> | null)?.[Symbol.iterator] === 'function'
  if (!isIterable && !(blocks instanceof Module)) throw expected('an iterable of blocks', 'blocks', blocks)
  const all = isIterable ? [...(blocks as Iterable<UnaryBlock>)] : Array.from((blocks as Module).children(), ([, child]) => child)
  for (const [i, block] of all.entries()) requireBlock(block, `blocks[${i}]`)
  if (!torch.isTensor(x)) throw expected('a Tensor', 'x', x)
  if (!Number.isInteger(segments) || segments < 1 || segments > Math.max(all.length, 1)) {
    throw expected(`an integer from 1 to ${all.length}, the number of blocks`, 'segments', segments)
  }
  const length = Math.floor(all.length / segments)
  for (let i = 0; i < segments - 1; i++) x = checkpointed(all.slice(i * length, (i + 1) * length), [x]) as Tensor
  return torch.scope(() => runAll(all.slice((segments - 1) * length), [x])) as Tensor
}
