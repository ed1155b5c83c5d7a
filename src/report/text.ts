import { expected } from '../errors.js'

/** A text as charts can write it: control characters, which XML does not have, are blanks. @throws InputError for what is no text. */
export function requireText(value: unknown, name: string): string {
  if (typeof value !== 'string') throw expected('a text', name, value)
  return value.replace(/\p{Cc}/gu, ' ')
}

/** The text, or as much of its beginning as is at most so wide, and an ellipsis. */
export function cut(text: string, limit: number, width: (text: string) => number): string {
  if (width(text) <= limit) return text
  const characters = [...text]
  let [fits, tooMany] = [0, characters.length]
  while (tooMany - fits > 1) {
    const middle = (fits + tooMany) >> 1
    if (width(`${characters.slice(0, middle).join('')}…`) <= limit) fits = middle
    else tooMany = middle
  }
  return `${characters.slice(0, fits).join('').trimEnd()}…`
}

/** As {@link cut}, but the end stays, too: what tells names of one beginning from each other. */
export function cutMiddle(text: string, limit: number, width: (text: string) => number): string {
  const characters = [...text]
  for (let kept = characters.length; kept > 1; kept--) {
    const first = kept >> 1
    const short = kept === characters.length ? text : `${characters.slice(0, first).join('').trimEnd()}…${characters.slice(first - kept).join('').trimStart()}`
    if (width(short) <= limit) return short
  }
  return '…'
}

/** Names of at most such a width; where cutting their ends would make some alike, they are cut in their middle. */
export function cutNames(names: readonly string[], limit: number, width: (text: string) => number): string[] {
  const short = names.map((name) => cut(name, limit, width))
  const alike = new Set(short).size < new Set(names).size
  return alike ? names.map((name) => cutMiddle(name, limit, width)) : short
}

/** The text in lines of at most such a width, broken at blanks; a word that is wider is cut. */
export function wrap(text: string, limit: number, width: (text: string) => number): string[] {
  const lines: string[] = []
  for (const word of text.trim().split(/\s+/)) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word
    if (lines.length && width(longer) <= limit) lines[lines.length - 1] = longer
    else lines.push(cut(word, limit, width))
  }
  return lines
}
