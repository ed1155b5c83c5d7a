// Writes the TypeScript of the operator functions and of the methods of Tensor.
import { decide } from './overloads.mjs'
import { camelCase, handWritten, isReceiver, kinds, localName } from './rules.mjs'

const typeNames = [...new Set(kinds.values())].filter((name) => /^[A-Z]/.test(name))
const helpers = ['call', 'operator', 'withGrad', 'isTensor', 'isOptions', 'isTensorList', 'given', 'FactoryOptions', ...typeNames]
const factoryKeys = new Set(['dtype', 'layout', 'device', 'pinMemory'])

function argumentType({ type }) {
  const single = kinds.get(type.base)
  const element = type.optionalElements ? `(${single} | null)` : single
  const list = type.list === null ? single : `${type.list > 0 ? `${single} | ` : ''}readonly ${element}[]`
  return type.optional ? `${list} | null` : list
}

const returnedType = ({ type }) => `${kinds.get(type.base)}${type.list === null ? '' : '[]'}${type.optional ? ' | null' : ''}`

function resultType({ returns }) {
  if (returns.length === 0) return 'void'
  if (returns.length === 1) return returnedType(returns[0])
  const named = returns.every(({ name }) => name !== null)
  return `[${returns.map((result) => `${named ? `${camelCase(result.name)}: ` : ''}${returnedType(result)}`).join(', ')}]`
}

function optionsType({ options, factory }) {
  const own = options.filter(({ key }) => !factory || !factoryKeys.has(key))
  const fields = own.map((arg) => (arg.required ? `${arg.key}: ${argumentType(arg)}` : `${arg.key}?: ${argumentType(arg)} | undefined`))
  const object = `{ ${fields.join('; ')} }`
  if (!factory) return object
  return own.length > 0 ? `FactoryOptions & ${object}` : 'FactoryOptions'
}

/** The places of a call, in order: positional arguments, then the options object where there is one. */
function parameters(signature) {
  const positional = signature.positional.map((arg) => ({ name: localName(arg.key), type: argumentType(arg), optional: false, arg }))
  if (signature.options.length === 0) return positional
  return [...positional, { name: 'options', type: optionsType(signature), optional: !signature.optionsRequired, arg: null }]
}

const declare = (list) => list.map(({ name, type, optional }) => `${name}${optional ? '?' : ''}: ${type}`).join(', ')

/** Parameters of an implementation that serves several overloads: the name they agree on, else a letter. */
function sharedNames(lists) {
  const width = Math.max(...lists.map((list) => list.length))
  const letters = Array.from({ length: width }, (_, i) => String.fromCharCode(97 + i))
  const names = letters.map((letter, i) => {
    const given = new Set(lists.filter((list) => i < list.length).map((list) => list[i].name))
    return given.size === 1 ? [...given][0] : letter
  })
  return new Set(names).size === width ? names : letters
}

function untyped(lists, names) {
  const always = (i) => lists.every((list) => list[i] && !list[i].optional)
  return names.map((name, i) => `${name}${always(i) ? '' : '?'}: any`).join(', ')
}

/**
 * The call of the dispatcher. Without options nothing is passed for them: the schema's defaults are in the dispatcher. With them they are
 * looked at once, where the first is read.
 */
function callExpression(signature, names, optionsGiven = false) {
  const options = names[signature.positional.length]
  const positions = new Map(signature.positional.map((arg, i) => [arg, names[i]]))
  const write = (withOptions) => {
    let source = `given(${signature.operator}, ${options})`
    const read = ({ key }) => {
      const text = `${source}.${key}`
      source = options
      return text
    }
    const values = signature.args.map((arg) => positions.get(arg) ?? (withOptions ? read(arg) : 'undefined'))
    while (values.at(-1) === 'undefined') values.pop()
    return `call(${[signature.operator, ...values].join(', ')})`
  }
  if (signature.options.length === 0) return write(false)
  const full = signature.factory ? `withGrad(${write(true)}, ${options}.requiresGrad)` : write(true)
  if (optionsGiven || signature.optionsRequired) return full
  // What is made in the likeness of a tensor must not inherit its place in the graph.
  const like = signature.factory && signature.args.some(isReceiver)
  return `${options} === undefined ? ${like ? `withGrad(${write(false)}, false)` : write(false)} : ${full}`
}

/** The operator, with the names of the options that its calls may have. */
function operatorConstant({ operator, schema, options, factory }) {
  const names = [...options.map(({ key }) => key), ...(factory ? ['requiresGrad'] : [])]
  const list = names.length > 0 ? `, [${names.map((name) => `'${name}'`).join(', ')}]` : ''
  return `const ${operator} = operator('${schema.name}', '${schema.overload}'${list})`
}

const leaves = (tree) => (tree.leaf ? [tree.leaf] : [...leaves(tree.yes), ...leaves(tree.no)])

/** Where the options object is. Options are tested only between overloads that have them at the same place. */
const optionsPosition = (tree) => leaves(tree)[0].positional.length

/** Does this outcome of a test prove, for all overloads that are left, that the options object was given? */
function provesOptions({ place, test, yes, no }, outcome) {
  const inOptions = place.startsWith('.') || leaves(outcome ? yes : no).every(({ positional }) => positional.length === Number(place))
  return inOptions && test.of.includes('undefined') !== outcome
}

const negate = (text) => (text.includes(' ') ? text.replace(/ =(=+) /, ' !$1 ') : `!${text}`)

// What was given for options may be null.
function condition(tree, names) {
  const { place, test } = tree
  return test.write(place.startsWith('.') ? `${names[optionsPosition(tree)]}?${place}` : names[Number(place)])
}

/** The tree as lines: an early return for each leaf, and one `if` for tests in a row that lead to the same one. */
function treeLines(tree, names, indent, given = false) {
  if (tree.leaf) return [`${indent}return ${callExpression(tree.leaf, names, given)}`]
  const text = condition(tree, names)
  const givenIf = (outcome, node = tree) => given || provesOptions(node, outcome)
  if (!tree.yes.leaf) {
    if (tree.no.leaf) {
      const early = callExpression(tree.no.leaf, names, givenIf(false))
      return [`${indent}if (${negate(text)}) return ${early}`, ...treeLines(tree.yes, names, indent, givenIf(true))]
    }
    const inner = treeLines(tree.yes, names, `${indent}  `, givenIf(true))
    return [`${indent}if (${text}) {`, ...inner, `${indent}}`, ...treeLines(tree.no, names, indent, givenIf(false))]
  }
  const conditions = [text]
  let proven = givenIf(true)
  let rest = tree.no
  for (; !rest.leaf && rest.yes.leaf === tree.yes.leaf; rest = rest.no) {
    conditions.push(condition(rest, names))
    proven &&= givenIf(true, rest)
  }
  const call = callExpression(tree.yes.leaf, names, proven)
  const provenAfter = conditions.length === 1 && givenIf(false)
  return [`${indent}if (${conditions.join(' || ')}) return ${call}`, ...treeLines(rest, names, indent, provenAfter)]
}

const documentation = ({ schema }, indent = '') => `${indent}/** \`${schema.text}\` */`

function checkNames(list, family) {
  const clash = list.find(({ name, arg }) => helpers.includes(name) || (arg && name === 'options'))
  if (clash) throw new Error(`${family.aten}: the parameter ${clash.name} has a name that the generated code uses`)
}

function functionLines(family, signatures, tree) {
  const exported = family.local === family.name ? 'export ' : ''
  const alias = exported ? [] : [`export { ${family.local} as ${family.name} }`]
  const lists = signatures.map(parameters)
  lists.forEach((list) => checkNames(list, family))
  const constants = signatures.map(operatorConstant)
  const head = (i, body) => `${exported}function ${family.local}(${declare(lists[i])}): ${resultType(signatures[i].schema)}${body}`
  if (signatures.length === 1) {
    const body = callExpression(signatures[0], lists[0].map(({ name }) => name))
    return [...constants, '', documentation(signatures[0]), head(0, ' {'), `  return ${body}`, '}', ...alias]
  }
  const names = sharedNames(lists)
  const overloads = signatures.flatMap((signature, i) => [documentation(signature), head(i, '')])
  const implementation = `${exported}function ${family.local}(${untyped(lists, names)}): any {`
  return [...constants, '', ...overloads, implementation, ...treeLines(tree, names, '  '), '}', ...alias]
}

/** The overloads that an instance can be the `self` of, and where self stands in them; null if there is none. */
function receiver(family, signatures) {
  const position = ({ positional }) => positional.findIndex(isReceiver)
  const own = signatures.filter((signature) => position(signature) >= 0)
  if (own.length === 0 || handWritten.has(family.name)) return null
  const at = position(own[0])
  if (own.some((signature) => position(signature) !== at)) throw new Error(`${family.aten}: self is not at the same place in all overloads`)
  return { own, at }
}

/** The heads of a method: one for each overload, and another where a list may be given element by element. */
function methodHeads(family, signature, list) {
  const head = (parameters) => `  ${family.name}(${parameters}): ${resultType(signature.schema)}`
  return [head(declare(list)), ...(signature.oneByOne ? [head(`${list[0].name}: number, ...rest: number[]`)] : [])]
}

function methodLines(family, signatures) {
  const target = receiver(family, signatures)
  if (!target) return []
  const { own, at } = target
  const lists = own.map((signature) => parameters(signature).filter((_, i) => i !== at))
  const call = (args) => `ops.${family.name}(${args.toSpliced(at, 0, 'this as any').join(', ')})`
  const heads = own.flatMap((signature, i) => methodHeads(family, signature, lists[i]).map((head) => ({ signature, head })))
  if (heads.length === 1) {
    const body = `    return ${call(lists[0].map(({ name }) => name))}`
    return ['', documentation(own[0], '  '), `${heads[0].head} {`, body, '  }']
  }
  const names = sharedNames(lists)
  const overloads = heads.flatMap(({ signature, head }) => [documentation(signature, '  '), head])
  // The array is made only where it is needed: most calls have one.
  const guard = `    if (typeof ${names[0]} === 'number') return ${call(['[...arguments]'])}`
  const oneByOne = own.some((signature) => signature.oneByOne) ? [guard] : []
  return ['', ...overloads, `  ${family.name}(${untyped(lists, names)}): any {`, ...oneByOne, `    return ${call(names)}`, '  }']
}

function banner(version) {
  return [`// Generated by scripts/generate-ops.mjs from the schemas of libtorch ${version}. Do not edit: run npm run generate.`, '']
}

/** Comments do not count: they have the schemas, whose kinds are named as the types are. */
function usedIn(lines, names) {
  const code = lines.filter((line) => !line.trimStart().startsWith('/**')).join('\n')
  return names.filter((name) => new RegExp(`\\b${name}\\b`).test(code))
}

function functionsFile(members, version) {
  const body = members.flatMap(({ family, signatures, tree }) => ['', ...functionLines(family, signatures, tree)])
  const text = body.join('\n')
  const used = (names) => usedIn(body, names).join(', ')
  const imports = (names, from, type = '') => (used(names) ? [`import ${type}{ ${used(names)} } from '${from}'`] : [])
  return [
    ...banner(version),
    ...imports(['call', 'isTensor', 'operator', 'withGrad'], '../dispatch.js'),
    ...imports(['Tensor'], '../tensor.js', 'type '),
    ...imports(typeNames.filter((name) => name !== 'Tensor').sort(), '../types.js', 'type '),
    ...imports(['given', 'isOptions', 'isTensorList'], './arguments.js'),
    ...imports(['FactoryOptions'], './arguments.js', 'type '),
    text,
    ''
  ].join('\n')
}

function methodsFile(members, version) {
  const body = members.flatMap(({ family, signatures }) => methodLines(family, signatures)).slice(1)
  const types = usedIn(body, typeNames.filter((name) => name !== 'Tensor'))
  const factory = usedIn(body, ['FactoryOptions']).length > 0
  return [
    ...banner(version),
    "import { TensorHandle } from '../../native/tensor-handle.js'",
    "import type { Tensor } from '../tensor.js'",
    ...(types.length > 0 ? [`import type { ${types.sort().join(', ')} } from '../types.js'`] : []),
    ...(factory ? ["import type { FactoryOptions } from './arguments.js'"] : []),
    "import * as ops from './index.js'",
    '',
    '/** The operators that have an argument `self`, as methods: the receiver takes its place. */',
    'export abstract class TensorMethods extends TensorHandle {',
    ...body,
    '}',
    ''
  ].join('\n')
}

/** Functional operators and in-place ones are a file each, so that neither is too long to open. */
const functionFiles = [
  { name: 'functions.generated.ts', holds: ({ name }) => !name.endsWith('_') },
  { name: 'inplace.generated.ts', holds: ({ name }) => name.endsWith('_') }
]

/** @returns the text of each generated file by name, and what was decided about overloads that values cannot tell apart. */
export function emit(families, version) {
  const members = families.map((family) => {
    const decision = decide(family.signatures)
    const signatures = family.signatures.filter((signature) => !decision.unreachable.includes(signature))
    return { family, signatures, ...decision }
  })
  const files = new Map()
  for (const { name, holds } of functionFiles) files.set(name, functionsFile(members.filter(({ family }) => holds(family)), version))
  files.set('methods.generated.ts', methodsFile(members, version))
  return { files, members }
}
