// Loads the addon of GMML_ADDON where no GPU is seen, and calls whatever `cuda` offers: a clear error or an answer, never a crash.
// Ends with one line that says what was found; the part of npm run check:cuda that must be a process of its own.
import { readFileSync } from 'node:fs'
import * as torch from '../dist/torch/index.js'

/** @param {boolean} holds @param {string} what */
function require(holds, what) {
  if (!holds) throw new Error(what)
}

const mapped = readFileSync('/proc/self/maps', 'utf8')
for (const name of ['libtorch_cuda.so', 'libc10_cuda.so']) require(mapped.includes(name), `${name} is not mapped into the process`)
require(torch.buildInfo().cuda, 'buildInfo().cuda is false')
require(torch.cuda.isAvailable() === false, 'cuda.isAvailable() is not false')
require(torch.cuda.deviceCount() === 0, 'cuda.deviceCount() is not 0')

/** Errors that name what is wrong: the device, or the argument. */
const CLEAR = /cuda|gpu|driver|expected .+ received/i
/** @param {() => unknown} body */
function refusal(body) {
  try {
    body()
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
  return undefined
}

// What needs a device says so.
const needing = {
  zeros: () => torch.zeros([2], { device: 'cuda' }),
  to: () => torch.tensor([1, 2]).to('cuda:0'),
  synchronize: () => torch.cuda.synchronize(),
  getRngState: () => torch.getRngState('cuda')
}
for (const [name, body] of Object.entries(needing)) {
  const message = refusal(body)
  require(message !== undefined && CLEAR.test(message), `${name} on CUDA: expected an error that says what is missing, received ${message}`)
}

// Everything that `cuda` has, with no arguments, with likely ones and with absurd ones.
const calls = [[], ['cuda'], ['cuda:0'], [0], ['cuda:99'], [() => torch.tensor(1)], [{}], [NaN], [null], ['nonsense', -1, {}]]
const answers = []
for (const [name, entry] of Object.entries(torch.cuda)) {
  if (typeof entry !== 'function') continue
  const isClass = /^class\b/.test(Function.prototype.toString.call(entry))
  /** @type {Set<string>} */
  const messages = new Set()
  let returned = 0
  for (const args of calls) {
    const message = refusal(() => {
      const value = isClass ? Reflect.construct(entry, args) : Reflect.apply(entry, undefined, args)
      // What waits refuses later.
      if (value instanceof Promise) value.catch(() => {})
      returned++
    })
    if (message === undefined) continue
    require(CLEAR.test(message), `cuda.${name}(${args.map(String).join(', ')}): an error that does not say what is missing: ${message}`)
    messages.add(message.split('\n')[0] ?? '')
  }
  answers.push(`cuda.${name}: ${returned} of ${calls.length} calls answered${messages.size > 0 ? `; ${[...messages][0]}` : ''}`)
}
for (const line of answers) console.log(line)

// The CPU goes on.
require(torch.tensor([1, 2]).add(1).sum().item() === 5, 'the CPU no longer computes')
const reason = refusal(() => torch.zeros([2], { device: 'cuda' }))?.split('\n')[0]
console.log(`${answers.length} entries of cuda and ${Object.keys(needing).length} uses of a device refused clearly: ${reason}`)
