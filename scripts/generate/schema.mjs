// Reads schema strings as the dispatcher prints them: `aten::argsort.stable(Tensor self, *, bool stable, int dim=-1) -> Tensor`.

/**
 * @typedef {object} Type
 * @property {string} base - `Tensor`, `SymInt`, `ScalarType`, ...
 * @property {number | null} list - null: not a list; 0: a list of any length; n: a list of n, which a single value fills.
 * @property {boolean} optional - `T?` or `T[]?`
 * @property {boolean} optionalElements - `T?[]`
 * @property {boolean} written - the operator writes into it: `Tensor(a!)`
 */

/** Splits at top-level commas: defaults hold lists and quoted strings, types hold alias sets. */
function split(text) {
  const parts = []
  let depth = 0
  let quoted = false
  let start = 0
  for (let i = 0; i < text.length; i++) {
    const char = text[i]
    if (quoted) {
      if (char === '\\') i++
      else if (char === '"') quoted = false
    } else if (char === '"') quoted = true
    else if (char === '(' || char === '[') depth++
    else if (char === ')' || char === ']') depth--
    else if (char === ',' && depth === 0) {
      parts.push(text.slice(start, i).trim())
      start = i + 1
    }
  }
  const last = text.slice(start).trim()
  return last === '' ? parts : [...parts, last]
}

/** @returns {Type} */
export function parseType(text) {
  const match = /^([\w.]+)(\([^()]*\))?((?:\?|\[\d*\])*)$/.exec(text)
  if (!match) throw new Error(`Expected a schema type, received '${text}'`)
  const [, base, alias = '', suffix] = match
  const list = /\[(\d*)\]/.exec(suffix)
  return {
    base,
    list: list ? Number(list[1]) : null,
    optional: list ? suffix.endsWith('?') : suffix === '?',
    optionalElements: list !== null && suffix.startsWith('?'),
    written: alias.includes('!')
  }
}

function parseArgument(text, keywordOnly) {
  const equals = text.indexOf('=')
  const declaration = equals < 0 ? text : text.slice(0, equals)
  const space = declaration.lastIndexOf(' ')
  return {
    name: declaration.slice(space + 1),
    type: parseType(declaration.slice(0, space)),
    keywordOnly,
    default: equals < 0 ? null : text.slice(equals + 1)
  }
}

function parseReturn(text) {
  const match = /^(.*[\])?\w]) (\w+)$/.exec(text)
  return match ? { type: parseType(match[1]), name: match[2] } : { type: parseType(text), name: null }
}

/** The end of the argument list: the first closing parenthesis at depth zero that ` -> ` follows. */
function splitSignature(text) {
  const open = text.indexOf('(')
  const arrow = text.lastIndexOf(') -> ')
  if (open < 0 || arrow < open) throw new Error(`Expected an operator schema, received '${text}'`)
  return [text.slice(0, open), text.slice(open + 1, arrow), text.slice(arrow + 5)]
}

export function parseSchema(text) {
  const [qualified, argumentText, returnText] = splitSignature(text)
  const [name, overload = ''] = qualified.split('.')
  const args = []
  let keywordOnly = false
  for (const part of split(argumentText)) {
    if (part === '*') keywordOnly = true
    else args.push(parseArgument(part, keywordOnly))
  }
  const tuple = returnText.startsWith('(')
  return { text, name, overload, args, returns: (tuple ? split(returnText.slice(1, -1)) : [returnText]).map(parseReturn) }
}
