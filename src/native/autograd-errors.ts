import { addon } from './addon.js'
import { TorchError } from './errors.js'

// The addon's functions that a backward pass consists of: what they report is said in this library's terms.
const passes = new Set(['backward', 'grad', 'beginPass', 'advancePass', 'expandPass', 'finishPass'])

const explanations: readonly (readonly [RegExp, string])[] = [
  [
    /Trying to backward through the graph a second time \(or directly[\s\S]*?(?=$|\. Arguments:)/,
    'Trying to backward through the graph a second time: the first pass freed what it saved. Give retainGraph: true to the first'
  ],
  [
    /Hint: (enable anomaly detection|the backtrace further above)[\s\S]*?(?=$|\. Arguments:)/,
    'The backward of that operator needs the values from before: clone() first, or use the operator that makes a new tensor. ' +
      'detectAnomaly() names the call whose gradient failed'
  ],
  [
    /appears to not have been used in the graph(\. Set [^.]*)?/,
    'appears to not have been used in the graph. Give allowUnused: true to get null'
  ]
]

/**
 * Runs a backward pass so that its errors speak of this library's options, and in anomaly mode of the forward call whose gradient failed:
 * `cause` has that call's stack.
 */
export function readable<T>(name: 'backward' | 'grad', pass: () => T): T {
  try {
    return pass()
  } catch (error) {
    if (!(error instanceof TorchError)) throw error
    const anomaly = addon.takeAnomaly()
    // A region that is recomputed on the way may fail for reasons of its own.
    if (!passes.has(error.operator)) throw error
    let message = error.message.replace(/^\w+: /, `${name}: `)
    for (const [pattern, better] of explanations) message = message.replace(pattern, better)
    if (anomaly) message += `. ${anomaly.node} is the backward of ${describeSite(anomaly.stack)}`
    const explained = new TorchError(message, name, error.detail)
    if (anomaly) explained.cause = forwardCall(anomaly.node, anomaly.stack)
    throw explained
  }
}

// The first line of a stack is the operator, the others are its callers.
function describeSite(stack: string): string {
  const [operator, ...frames] = stack.split('\n')
  const place = frames[0]?.trim().replace(/^at /, '')
  return place ? `${operator}, called at ${place}` : operator!
}

function forwardCall(node: string, stack: string): Error {
  const [operator, ...frames] = stack.split('\n')
  const error = new Error(`The forward call of ${node} was ${operator}`)
  error.stack = [`Error: ${error.message}`, ...frames].join('\n')
  return error
}
