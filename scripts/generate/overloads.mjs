// Tells the overloads of a family apart by the values that arrive. Each overload is described by what may stand at each position and in
// each option; a decision tree of the cheapest tests is grown from that.

/** Sorts of JavaScript value that a test can tell apart. An empty array counts as an array of numbers where an overload takes those. */
const valuesOf = {
  Tensor: ['tensor'], int: ['number'], SymInt: ['number'], float: ['number'], bool: ['boolean'],
  Scalar: ['number', 'bigint', 'boolean', 'complex'],
  str: ['string'], ScalarType: ['string'], Device: ['string'], Layout: ['string'], MemoryFormat: ['string'], Generator: ['generator']
}

/** Tests, cheapest first: what each is true of, and how it is written. */
const tests = [
  { of: ['undefined'], write: (v) => `${v} === undefined` },
  { of: ['number'], write: (v) => `typeof ${v} === 'number'` },
  { of: ['boolean'], write: (v) => `typeof ${v} === 'boolean'` },
  { of: ['string'], write: (v) => `typeof ${v} === 'string'` },
  { of: ['tensor'], write: (v) => `isTensor(${v})` },
  { of: ['numbers', 'tensors', 'booleans'], write: (v) => `Array.isArray(${v})` },
  { of: ['null'], write: (v) => `${v} === null` },
  { of: ['undefined', 'null'], write: (v) => `${v} == null` },
  { of: ['undefined', 'options'], write: (v) => `isOptions(${v})` },
  { of: ['tensors'], write: (v) => `isTensorList(${v})` }
]

/** The sorts of value that an argument accepts. */
export function accepts({ type }) {
  const single = valuesOf[type.base]
  const values = new Set()
  if (type.list === null) single.forEach((value) => values.add(value))
  else {
    values.add(type.base === 'Tensor' ? 'tensors' : type.base === 'bool' ? 'booleans' : 'numbers')
    if (type.list > 0) single.forEach((value) => values.add(value))
  }
  if (type.optional) values.add('null')
  return values
}

/** What may be at each place: `0`, `1`, ... for positions (one more than the longest overload has), `.key` for options. */
function describe(signature, width, keys) {
  const places = new Map()
  for (let i = 0; i < width; i++) {
    const arg = signature.positional[i]
    if (arg) places.set(String(i), accepts(arg))
    else if (i === signature.positional.length && signature.options.length > 0) {
      places.set(String(i), new Set(signature.optionsRequired ? ['options'] : ['undefined', 'options']))
    } else places.set(String(i), new Set(['undefined']))
  }
  for (const key of keys) {
    const arg = signature.options.find((option) => option.key === key)
    const values = arg ? accepts(arg) : new Set()
    if (!arg?.required) values.add('undefined')
    places.set(`.${key}`, values)
  }
  return { signature, places }
}

/** The candidates that remain when a test of a place is true (or false), each narrowed to the values that are left there. */
function narrow(candidates, place, test, outcome) {
  return candidates.flatMap(({ signature, places }) => {
    const left = new Set([...places.get(place)].filter((value) => test.of.includes(value) === outcome))
    return left.size === 0 ? [] : [{ signature, places: new Map(places).set(place, left) }]
  })
}

const breadth = (signature) => signature.args.reduce((sum, arg) => sum + accepts(arg).size, 0)

/** The rule for values that fit several overloads: most options, then widest kinds, then first in order. */
function mostGeneral(candidates) {
  return candidates.map(({ signature }) => signature).reduce((best, next) => {
    const more = next.options.length - best.options.length || breadth(next) - breadth(best)
    return more > 0 ? next : best
  })
}

/** Every test that rules a candidate out in one of its branches. */
function usefulTests(candidates) {
  const sameArity = candidates.every(({ signature }) => signature.positional.length === candidates[0].signature.positional.length)
  // The options object is at one place only if all candidates have it after the same number of arguments.
  const places = [...candidates[0].places.keys()].filter((place) => sameArity || !place.startsWith('.'))
  const found = []
  for (const place of places) {
    for (const test of tests) {
      const yes = narrow(candidates, place, test, true)
      const no = narrow(candidates, place, test, false)
      if (yes.length === 0 || no.length === 0 || yes.length + no.length === 2 * candidates.length) continue
      found.push({ place, test, yes, no, splits: yes.length + no.length === candidates.length })
    }
  }
  // A test that sends every candidate one way is final: no search is needed beyond it.
  const split = found.find(({ splits }) => splits)
  return split ? [split] : found
}

const size = (tree) => (tree.leaf ? 1 : size(tree.yes) + size(tree.no))
const identity = ({ signature, places }) => `${signature.operator} ${[...places].map(([place, values]) => `${place}:${[...values]}`)}`

/** The smallest tree. `known` holds the trees that were found for the same candidates on another path. */
function grow(candidates, known) {
  if (candidates.length === 1) return { leaf: candidates[0].signature }
  const key = candidates.map(identity).join('\n')
  if (known.has(key)) return known.get(key)
  let best = null
  for (const { place, test, yes, no } of usefulTests(candidates)) {
    const tree = join(place, test, grow(yes, known), grow(no, known))
    if (best === null || size(tree) < size(best)) best = tree
  }
  best ??= { leaf: mostGeneral(candidates), over: candidates.map(({ signature }) => signature) }
  known.set(key, best)
  return best
}

/** A test whose branches end in the same overload is none. */
function join(place, test, yes, no) {
  return yes.leaf && yes.leaf === no.leaf ? { leaf: yes.leaf, over: yes.over ?? no.over } : { place, test, yes, no }
}

const leaves = (tree) => (tree.leaf ? [tree] : [...leaves(tree.yes), ...leaves(tree.no)])

/**
 * @returns the tree (`{ leaf }` or `{ place, test, yes, no }`), the values that fit more than one overload (`overlaps`), and the overloads
 * that no value leads to because another one covers them (`unreachable`).
 */
export function decide(signatures) {
  const width = 1 + Math.max(...signatures.map(({ positional }) => positional.length))
  const keys = [...new Set(signatures.flatMap(({ options }) => options.map(({ key }) => key)))]
  const tree = grow(signatures.map((signature) => describe(signature, width, keys)), new Map())
  const reached = new Set(leaves(tree).map(({ leaf }) => leaf))
  const shared = leaves(tree).filter(({ over }) => over)
  const overlaps = shared.map(({ leaf, over }) => ({ chosen: leaf, others: over.filter((other) => other !== leaf) }))
  return { tree, overlaps, unreachable: signatures.filter((signature) => !reached.has(signature)) }
}
